//! What is reloaded while the run goes on, and how it is told.

use std::path::PathBuf;

use crate::reload::{Also, Event, SettingsFile, Watcher};

use super::super::output::log;
use super::super::setup::{self, SharedArgs};
use super::TrainArgs;
use super::begin::settings;
use super::session::Session;

pub(super) fn start_watcher(args: &TrainArgs, session: &Session) -> anyhow::Result<Option<Watcher>> {
    let config = &session.run.config;
    if !config.scripts.reload {
        return Ok(None);
    }
    let progress = session.progress.clone();
    let report = move |event: &Event| {
        let text = match event {
            Event::Ready { name, version } => {
                format!("{name}: version {} is ready for the next rollout", version.short())
            }
            Event::Offered { name, version } => {
                format!("{name}: version {} is checked; the game joins when a nest names it", version.short())
            }
            Event::Settings { changes } => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                format!("settings for the next rollout: {}", changes.join(", "))
            }
            Event::Rejected { problem } | Event::Warned { problem } => problem.to_string(),
        };
        progress.suspend(|| log(&text));
    };
    // A folder that was named as a whole may get further games; a pattern names those that are there.
    let open_folders = config.games.files.iter().map(PathBuf::from).filter(|path| path.is_dir()).collect();
    let also = Also { open_folders, settings: Some(settings_file(args, session)) };
    Ok(Some(Watcher::start_with(&session.run.catalog, also, Box::new(report))?))
}

/// The file of settings that is watched: the one that `--config` named, else the run's own `config.toml`. Flags and `--set`
/// stand above the first and are part of the second.
fn settings_file(args: &TrainArgs, session: &Session) -> SettingsFile {
    let config = session.run.config.clone();
    if let Some(path) = args.shared.config.clone() {
        let args = args.clone();
        return SettingsFile { path, config, read: Box::new(move || settings(&args)) };
    }
    let path = session.folder.join("config.toml");
    let shared = SharedArgs { config: Some(path.clone()), ..SharedArgs::default() };
    SettingsFile { path, config, read: Box::new(move || setup::configuration(&shared, None)) }
}
