//! `gift-host replay`: a stored episode of a run, played again and compared.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::diag::{Diagnostic, SourceSpan};
use crate::run::replay;

use super::ExitStatus;
use super::output::log;
use super::setup::{self, SharedArgs};

/// Flags of `gift-host replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The run's directory
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// The episode: `id` in the episodes file, `iteration-group-member`
    #[arg(long, value_name = "ID")]
    episode: String,
    /// The iteration whose file holds it; the first number of the id if left out
    #[arg(long, value_name = "N")]
    step: Option<u64>,
}

/// Prints the episode, then `identical` or the first difference.
pub(crate) fn run(args: &ReplayArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let config_path = args.run.join("config.toml");
    if !config_path.is_file() {
        return Err(Box::new(
            Diagnostic::error("cli::replay", "there is no run in this folder")
                .at(SourceSpan::file(&args.run))
                .expected("a run directory, with `config.toml` in it")
                .help("`gift-host replay runs/NAME --episode 10-0-0`"),
        )
        .into());
    }
    let line = find_line(args)?;
    let shared = SharedArgs { config: Some(config_path), ..SharedArgs::default() };
    let (_, host) = setup::script_settings(&setup::configuration(&shared, None)?);
    let load = |version: &crate::script::Version| {
        let script = checkpoint::load_script(&args.run, &checkpoint::find_script(&args.run, version)?)?;
        for file in &script.changed_data {
            let file = file.display();
            log(&format!(
                "warning: `{file}` has changed since and was too large to be stored: its present rows are used"
            ));
        }
        Ok(script.source)
    };
    let replay = replay(&line, &load, &host)?;
    write!(out, "{}", replay.transcript)?;
    match replay.difference {
        None => {
            writeln!(out, "identical: turns, observations, scores, rewards and success are as they were stored")?;
            Ok(ExitStatus::Done)
        }
        Some(difference) => {
            writeln!(out, "different: {difference}")?;
            Ok(ExitStatus::Failed)
        }
    }
}

fn find_line(args: &ReplayArgs) -> anyhow::Result<serde_json::Value> {
    let problem = |found: String, help: &str| {
        Box::new(
            Diagnostic::error("cli::replay", format!("no episode `{}` is stored", args.episode))
                .at(SourceSpan::file(args.run.join("episodes")))
                .expected("an `id` of an episodes file, such as `10-0-0`: iteration, group, member")
                .found(found)
                .help(help),
        )
    };
    let first = args.episode.split('-').next().and_then(|number| number.parse().ok());
    let Some(step) = args.step.or(first) else {
        return Err(problem("an id without an iteration".to_owned(), "give the id as the file has it").into());
    };
    let path = args.run.join("episodes").join(format!("step-{step:06}.jsonl.zst"));
    if !path.is_file() {
        let found = format!("no episodes of iteration {step}; stored: {}", stored_steps(&args.run));
        return Err(problem(found, "`episodes_every` says which iterations are stored").into());
    }
    let lines = BufReader::new(zstd::Decoder::new(std::fs::File::open(&path)?)?).lines();
    let (mut count, mut last) = (0, String::new());
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        let id = line.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
        if id == args.episode {
            return Ok(line);
        }
        count += 1;
        id.clone_into(&mut last);
    }
    let found = format!("{count} episodes of iteration {step}, up to `{last}`");
    Err(problem(found, "episodes that a script's fault voided are not stored").into())
}

fn stored_steps(run: &Path) -> String {
    let Ok(entries) = run.join("episodes").read_dir() else { return "none".to_owned() };
    let number = |name: String| name.strip_prefix("step-")?.split('.').next()?.parse::<u64>().ok();
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut steps: Vec<u64> = names.filter_map(number).collect();
    steps.sort_unstable();
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    if steps.is_empty() { "none".to_owned() } else { steps.join(", ") }
}
