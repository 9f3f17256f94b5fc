//! `gift-host check`: the contract of games, tried on seeded random episodes.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::diag::{Diagnostic, Severity};
use crate::game::{GameDef, check_game};
use crate::script::Value;
use crate::seed::Seed;

use super::ExitStatus;
use super::setup::{self, SharedArgs};

/// Flags of `gift-host check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Game scripts, folders of them, or patterns
    #[arg(required = true, value_name = "GLOB")]
    games: Vec<String>,
    /// Random episodes of each game
    #[arg(long, default_value_t = 100, value_name = "N")]
    episodes: u64,
    /// One setting, such as `games.math.level=2`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    /// Seed of the episodes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON for editors
    #[arg(long)]
    json: bool,
}

/// Checks every game and prints what is wrong with each.
pub(crate) fn run(args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let shared = SharedArgs { games: args.games.clone(), pairs: args.pairs.clone(), ..SharedArgs::default() };
    let config = setup::configuration(&shared, None)?;
    let files = setup::game_files(&args.games)?;
    super::train::use_threads(config.threads);
    let (options, host) = setup::script_settings(&config);
    let mut failed = false;
    let mut reports = Vec::new();
    for file in &files {
        let (name, problems) = match compile(file, &options, &host) {
            Ok(game) => (game.name.clone(), check_game(&game, args.episodes, Seed::new(args.seed))),
            Err(problem) => (file.display().to_string(), vec![*problem]),
        };
        let is_bad = problems.iter().any(|problem| problem.severity == Severity::Error);
        failed |= is_bad;
        if args.json {
            reports.push(serde_json::json!({ "file": file, "game": name, "ok": !is_bad, "problems": problems }));
            continue;
        }
        for problem in &problems {
            writeln!(out, "{problem}\n")?;
        }
        if !is_bad {
            writeln!(out, "{}: {name} is fine ({} random episodes)", file.display(), args.episodes)?;
        }
    }
    if args.json {
        writeln!(out, "{:#}", serde_json::json!({ "games": reports }))?;
    }
    Ok(if failed { ExitStatus::Failed } else { ExitStatus::Done })
}

fn compile(
    file: &Path,
    options: &std::collections::BTreeMap<String, Value>,
    host: &crate::game::ScriptHost,
) -> Result<Arc<GameDef>, Box<Diagnostic>> {
    let source = crate::reload::read_source(file)?;
    let bare = GameDef::compile(&source, Value::default(), host)?;
    let options = options.get(&bare.name).cloned().unwrap_or_else(|| Value::Map(std::collections::BTreeMap::new()));
    Ok(Arc::new(GameDef::compile(&source, options, host)?))
}
