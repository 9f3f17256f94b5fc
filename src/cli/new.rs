//! `gift-host new`: a small game that passes `check` and trains at once, with comments that teach the contract.

use std::io::Write;
use std::path::Path;

use crate::checkpoint;
use crate::diag::{Diagnostic, SourceSpan};
use crate::script::Language;

use super::ExitStatus;

const LUA: &str = include_str!("new/template.lua");
const RHAI: &str = include_str!("new/template.rhai");
/// The word in the templates that stands for the game's name.
const NAME: &str = "__NAME__";

/// Flags of `gift-host new`.
#[derive(Debug, clap::Args)]
pub(crate) struct NewArgs {
    /// The game's name: letters, digits, `_` and `-`
    name: String,
    /// The language of the script
    #[arg(long, default_value = "lua", value_parser = ["lua", "rhai"])]
    lang: String,
}

/// Writes `games/NAME.lua` (or `.rhai`) and says what to do next.
pub(crate) fn run(args: &NewArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let name = &args.name;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
        return Err(Box::new(
            Diagnostic::error("cli::name", format!("`{name}` is not a usable name of a game"))
                .expected("letters, digits, `_` and `-`, at most 64")
                .help("`gift-host new connect3`"),
        )
        .into());
    }
    let (language, template) = if args.lang == "rhai" { (Language::Rhai, RHAI) } else { (Language::Lua, LUA) };
    let folder = Path::new("games");
    let path = folder.join(format!("{name}.{}", language.extension()));
    if path.exists() {
        return Err(Box::new(
            Diagnostic::error("cli::file_exists", format!("`{}` is there already", path.display()))
                .at(SourceSpan::file(&path))
                .help("choose another name; nothing was written"),
        )
        .into());
    }
    checkpoint::create_folder(folder)?;
    checkpoint::write_text(&path, &template.replace(NAME, name))?;
    let path = path.display();
    writeln!(
        out,
        "wrote {path}\n\nnext:\n  gift-host check {path}\n  gift-host play {path}\n  gift-host train --games {path}"
    )?;
    Ok(ExitStatus::Done)
}
