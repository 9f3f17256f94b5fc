//! `gift-host new`: a small game that passes `check` and trains at once, with comments that teach the contract.

use std::io::Write;
use std::path::Path;

use crate::checkpoint;
use crate::diag::{Diagnostic, SourceSpan};
use crate::game::{NAME_FORM, check_name};
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
    if let Err(why) = check_name(name) {
        return Err(Box::new(
            Diagnostic::error("cli::name", format!("`{name}` is not a usable name of a game"))
                .expected(NAME_FORM)
                .found(why)
                .help("choose another, as in `gift-host new connect3`; nothing was written"),
        )
        .into());
    }
    let (language, template) = if args.lang == "rhai" { (Language::Rhai, RHAI) } else { (Language::Lua, LUA) };
    let folder = Path::new("games");
    let path = folder.join(format!("{name}.{}", language.extension()));
    // Two games of one name cannot be in one run, whatever they are written in.
    let files = ["lua", "luau", "rhai"].map(|extension| folder.join(format!("{name}.{extension}")));
    if let Some(file) = files.iter().find(|file| file.exists()) {
        return Err(Box::new(
            Diagnostic::error("cli::file_exists", format!("`{}` is there already", file.display()))
                .at(SourceSpan::file(file))
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
