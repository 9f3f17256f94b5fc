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
    /// The episode: `id` in the episodes file, `iteration-group-member`; without it, some that are stored are named
    #[arg(long, value_name = "ID")]
    episode: Option<String>,
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
    let Some(id) = &args.episode else { return Err(no_episode(args)?.into()) };
    let line = find_line(args, id)?;
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

/// The problem of a command without an id: where ids stand, and some of them.
fn no_episode(args: &ReplayArgs) -> anyhow::Result<Box<Diagnostic>> {
    let run = args.run.display();
    let steps = stored_steps(&args.run);
    let problem = Diagnostic::error("cli::replay", "no episode was named")
        .at(SourceSpan::file(args.run.join("episodes")))
        .expected("`--episode ID`, an `id` of an episodes file: iteration, group, member");
    let Some(step) = args.step.or(steps.last().copied()).filter(|step| steps.contains(step)) else {
        let found = format!("stored are episodes of the iterations {}", in_words(&steps));
        return Ok(Box::new(problem.found(found).help("`episodes_every` says which iterations are stored")));
    };
    let mut episodes: Vec<(String, f64)> = Vec::new();
    for line in lines(&step_file(&args.run, step))? {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        let reward = line.get("reward").and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
        episodes.push((id_of(&line).to_owned(), reward));
    }
    let count = episodes.len();
    let by_reward = |a: &&(String, f64), b: &&(String, f64)| a.1.total_cmp(&b.1);
    let extremes = [episodes.first(), episodes.iter().max_by(by_reward), episodes.iter().min_by(by_reward)];
    let mut named: Vec<String> = Vec::new();
    for ((id, reward), what) in extremes.into_iter().flatten().zip(["first", "best", "worst"]) {
        if named.iter().all(|name| !name.contains(&format!("`{id}`"))) {
            named.push(format!("`{id}` ({what}, reward {reward:.2})"));
        }
    }
    let (all, named) = (in_words(&steps), named.join(", "));
    let found = format!("stored iterations: {all}; iteration {step} has {count} episodes, such as {named}");
    let first = episodes.first().map_or_else(|| format!("{step}-0-0"), |(id, _)| id.clone());
    Ok(Box::new(problem.found(found).help(format!(
        "`gift-host replay {run} --episode {first}`; `zstd -dc {}` shows all, `gift-host report {run}` a sample",
        step_file(&args.run, step).display()
    ))))
}

fn id_of(line: &serde_json::Value) -> &str {
    line.get("id").and_then(serde_json::Value::as_str).unwrap_or_default()
}

fn step_file(run: &Path, step: u64) -> PathBuf {
    run.join("episodes").join(format!("step-{step:06}.jsonl.zst"))
}

/// The lines of an episodes file.
fn lines(path: &Path) -> std::io::Result<impl Iterator<Item = std::io::Result<String>>> {
    Ok(BufReader::new(zstd::Decoder::new(std::fs::File::open(path)?)?).lines())
}

fn find_line(args: &ReplayArgs, episode: &str) -> anyhow::Result<serde_json::Value> {
    let problem = |found: String, help: &str| {
        Box::new(
            Diagnostic::error("cli::replay", format!("no episode `{episode}` is stored"))
                .at(SourceSpan::file(args.run.join("episodes")))
                .expected("an `id` of an episodes file, such as `10-0-0`: iteration, group, member")
                .found(found)
                .help(help),
        )
    };
    let first = episode.split('-').next().and_then(|number| number.parse().ok());
    let Some(step) = args.step.or(first) else {
        return Err(problem("an id without an iteration".to_owned(), "give the id as the file has it").into());
    };
    let path = step_file(&args.run, step);
    if !path.is_file() {
        let found = format!("no episodes of iteration {step}; stored: {}", in_words(&stored_steps(&args.run)));
        return Err(problem(found, "`episodes_every` says which iterations are stored").into());
    }
    let (mut count, mut last) = (0, String::new());
    for line in lines(&path)? {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        let id = id_of(&line);
        if id == episode {
            return Ok(line);
        }
        count += 1;
        id.clone_into(&mut last);
    }
    let found = format!("{count} episodes of iteration {step}, up to `{last}`");
    Err(problem(found, "episodes that a script's fault voided are not stored").into())
}

/// The iterations whose episodes are stored, in order.
fn stored_steps(run: &Path) -> Vec<u64> {
    let Ok(entries) = run.join("episodes").read_dir() else { return Vec::new() };
    let number = |name: String| name.strip_prefix("step-")?.split('.').next()?.parse::<u64>().ok();
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut steps: Vec<u64> = names.filter_map(number).collect();
    steps.sort_unstable();
    steps
}

fn in_words(steps: &[u64]) -> String {
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    if steps.is_empty() { "none".to_owned() } else { steps.join(", ") }
}
