//! `gift-host bench reload`: how long a saved game takes until it is active, with a watcher as a run has it, on a copy of the
//! scripts in a temporary folder.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use crate::checkpoint::{create_folder, read_text, remove_folder, write_text};
use crate::diag::Diagnostic;
use crate::reload::{Also, Watcher};

use super::ExitStatus;
use super::setup::{self, SharedArgs};

/// A save that takes longer than this is not seen at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Flags of `gift-host bench reload`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReloadArgs {
    /// Game scripts, folders of them, or patterns; `games/*` if left out
    #[arg(long, num_args = 1.., value_name = "GLOB")]
    games: Vec<String>,
    /// Saves of each game, half of them in place and half renamed into place
    #[arg(long, default_value_t = 20, value_name = "N")]
    saves: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Saves each game again and again, and asks for what is ready as a run at a rollout boundary does.
pub(crate) fn run(args: &ReloadArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let folder = std::env::temp_dir().join(format!("gift-host-bench-reload-{}", std::process::id()));
    let result = measure(args, &folder);
    remove_folder(&folder)?;
    let results = result?;
    if args.json {
        let games: Vec<_> = results
            .iter()
            .map(|(game, times)| json!({"game": game, "saves": times.len(), "median_ms": middle(times), "max_ms": times.last()}))
            .collect();
        writeln!(out, "{:#}", json!({ "games": games }))?;
        return Ok(ExitStatus::Done);
    }
    writeln!(out, "game        saves  median ms  longest ms")?;
    for (game, times) in &results {
        let longest = times.last().copied().unwrap_or(0.0);
        writeln!(out, "{game:<10}  {:>5}  {:>9.1}  {longest:>10.1}", times.len(), middle(times))?;
    }
    Ok(ExitStatus::Done)
}

/// Times in milliseconds by game, ascending.
fn measure(args: &ReloadArgs, folder: &Path) -> anyhow::Result<Vec<(String, Vec<f64>)>> {
    let shared = SharedArgs { games: args.games.clone(), ..SharedArgs::default() };
    let mut config = setup::configuration(&shared, None)?;
    let files = setup::game_files(&config.games.files)?;
    let mut copies = Vec::new();
    for file in &files {
        copies.push(copy_with_what_it_needs(file, folder)?);
    }
    config.games.files = copies.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let mut catalog = setup::catalog(&config)?;
    let watcher = Watcher::start_with(&catalog, Also::default(), Box::new(|_| {}))?;
    let mut results = Vec::new();
    for path in copies {
        let game = catalog.games.iter().find(|game| game.source.path == path).context("a game of the catalog")?;
        let (name, text, language) = (game.name.clone(), game.source.text.to_string(), game.source.language);
        let comment = if language == crate::script::Language::Lua { "--" } else { "//" };
        let mut times = Vec::new();
        for save in 0..args.saves {
            let saved = format!("{text}\n{comment} save {save}\n");
            let started = Instant::now();
            if save % 2 == 0 {
                std::fs::write(&path, &saved)?;
            } else {
                let beside = path.with_extension("tmp");
                std::fs::write(&beside, &saved)?;
                std::fs::rename(&beside, &path)?;
            }
            while watcher.take(&mut catalog).versions.is_empty() {
                if started.elapsed() > PATIENCE {
                    let problem = Diagnostic::error("bench::reload", format!("a save of `{name}` never became active"));
                    return Err(Box::new(problem.help("`gift-host check` says what is wrong with it")).into());
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            times.push(started.elapsed().as_secs_f64() * 1000.0);
            // As many debounces as a person leaves between two saves.
            std::thread::sleep(Duration::from_millis(100));
        }
        times.sort_by(f64::total_cmp);
        results.push((name, times));
    }
    Ok(results)
}

/// Copies a script below `folder/games`, with the modules and the data that lie beside it.
fn copy_with_what_it_needs(file: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let (games, library) = (folder.join("games"), folder.join("scripts").join("lib"));
    create_folder(&library)?;
    create_folder(&games.join("data"))?;
    let source = crate::reload::read_source(file)?;
    for (name, text) in &source.modules {
        write_text(&library.join(format!("{name}.{}", source.language.extension())), text)?;
    }
    let data = file.with_file_name("data");
    for entry in data.read_dir().into_iter().flatten().filter_map(Result::ok) {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), games.join("data").join(entry.file_name()))?;
        }
    }
    let copy = games.join(file.file_name().context("a file's name")?);
    write_text(&copy, &read_text(file)?)?;
    Ok(copy)
}

fn middle(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len() / 2).copied().unwrap_or(0.0)
}
