//! `gift-host report`: one or several runs as a page.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::diag::{Diagnostic, SourceSpan};
use crate::report::{self, RunView};

use super::ExitStatus;
use super::logging::without_secrets;

/// Flags of `gift-host report`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Run directories; several are laid over each other
    #[arg(value_name = "RUN_DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Where to write the page; `report.html` in the first run directory if left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the page and prints where it is.
pub(crate) fn run(args: &ReportArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    for folder in &args.runs {
        check_run(folder, "cli::report", "gift-host report runs/NAME")?;
    }
    let runs: Vec<RunView> = args.runs.iter().map(|folder| RunView::read(folder)).collect();
    let path = args.out.clone().unwrap_or_else(|| args.runs[0].join("report.html"));
    let page = report::page(&runs, &names(&args.runs));
    // Settings and commands may name addresses with keys in them, and the page is made to be handed on.
    checkpoint::replace_text(&path, &without_secrets(&page))?;
    writeln!(out, "{}", path.display())?;
    Ok(ExitStatus::Done)
}

/// That a folder is a run directory, finished or not.
pub(crate) fn check_run(folder: &Path, code: &'static str, usage: &str) -> Result<(), Box<Diagnostic>> {
    if folder.join("config.toml").is_file() || folder.join("metrics.jsonl").is_file() {
        return Ok(());
    }
    Err(Box::new(
        Diagnostic::error(code, "there is no run in this folder")
            .at(SourceSpan::file(folder))
            .expected("a run directory, with `config.toml` and `metrics.jsonl` in it")
            .help(format!("`{usage}`")),
    ))
}

/// The folders' names, or the whole paths where names are the same.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let name = |folder: &PathBuf| {
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        whole.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let names: Vec<String> = folders.iter().map(name).collect();
    let is_shared = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
    let clear = |(folder, name): (&PathBuf, &String)| {
        if is_shared(name) { folder.display().to_string() } else { name.clone() }
    };
    folders.iter().zip(&names).map(clear).collect()
}
