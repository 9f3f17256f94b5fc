//! A model from the Hugging Face Hub: progress while it is fetched, and what to do where it cannot be.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::log;
use crate::diag::Diagnostic;
use crate::policy::{HubError, HubEvent, HubName, fetch_model};

/// Files below this size, in bytes, come without a word.
const SMALL: u64 = 1 << 20;

/// The folder with a model of the Hub.
///
/// # Errors
/// A [`Diagnostic`] that says what is missing and what to do.
pub(super) fn fetch(name: &HubName) -> Result<PathBuf, Box<Diagnostic>> {
    let mut bar = ProgressBar::hidden();
    let folder = fetch_model(name, &mut |event| match event {
        HubEvent::Begin { file, size, kept } => {
            bar = bar_of(file, size, kept);
            if size >= SMALL && bar.is_hidden() {
                let megabytes = |bytes: u64| bytes as f64 / 1e6;
                let resumed =
                    if kept > 0 { format!(", {:.1} MB of which are there", megabytes(kept)) } else { String::new() };
                log(&format!("fetching {file} of {name}, {:.1} MB{resumed}", megabytes(size)));
            }
        }
        HubEvent::More(bytes) => bar.inc(bytes),
        HubEvent::End => bar.finish_and_clear(),
        HubEvent::Note(text) => log(&format!("note: {text}")),
    });
    folder.map_err(|error| problem(name, &error))
}

fn bar_of(file: &str, size: u64, kept: u64) -> ProgressBar {
    if size < SMALL || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(size).with_position(kept).with_message(file.to_owned());
    let style = ProgressStyle::with_template("{bar:20} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn problem(name: &HubName, error: &HubError) -> Box<Diagnostic> {
    let folder = "or give `--model` a folder or a GGUF file";
    let (code, help) = match error {
        HubError::Offline { .. } => ("hub::offline", format!("unset `HF_HUB_OFFLINE` once to fetch it, {folder}")),
        HubError::NotFound { .. } => (
            "hub::not_found",
            format!("check the spelling; for a private model set `HF_TOKEN`; if `{name}` is a folder, it is not there"),
        ),
        HubError::Refused { .. } => (
            "hub::refused",
            "set `HF_TOKEN` to a token that may read it; for a gated model, accept its terms on its page first"
                .to_owned(),
        ),
        HubError::Network { .. } => ("hub::network", format!("try again, which goes on where it stopped, {folder}")),
        HubError::NoWeights { .. } => ("hub::no_weights", "take a repository with safetensors".to_owned()),
        HubError::Io { .. } => ("hub::cache", "check `HF_HOME`, and that the disk has room".to_owned()),
    };
    let mut problem = Diagnostic::error(code, error.to_string()).help(help);
    if let Some(cause) = std::error::Error::source(error) {
        problem = problem.found(cause.to_string());
    }
    Box::new(problem)
}
