//! The same episodes in another process: a script whose answers depend on addresses, on what was called before or on
//! anything else outside its arguments gives itself away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::game::{Answer, GameDef, difference, fingerprint, transcript};
use crate::seed::Seed;

use super::CheckArgs;
use crate::cli::output::log;

/// Episodes of each game that are played in both processes.
const EPISODES: usize = 20;

/// The fingerprints of episodes, by file. An episode that fails has none: the check itself tells why.
type Fingerprints = BTreeMap<PathBuf, Vec<Option<String>>>;

/// The other process.
pub(super) struct Twin(Option<Child>);

/// The episodes that both processes play.
pub(super) fn shared(seeds: &[Seed]) -> &[Seed] {
    &seeds[..seeds.len().min(EPISODES)]
}

/// What the other process prints: fingerprints, or the whole transcript of one episode.
pub(super) fn answer(games: &[(PathBuf, Arc<GameDef>)], args: &CheckArgs, seeds: &[Seed]) -> serde_json::Value {
    if args.seed.is_some() {
        let answers = games.first().zip(seeds.first()).and_then(|((_, game), &seed)| transcript(game, seed).ok());
        return serde_json::json!(answers.unwrap_or_default());
    }
    let of = |(file, game): &(PathBuf, Arc<GameDef>)| (file.clone(), fingerprints(game, seeds, true));
    serde_json::json!(games.iter().map(of).collect::<Fingerprints>())
}

/// The fingerprint of each episode; played from the last to the first if `backwards`, so that what a script keeps between
/// episodes is not the same in both processes.
fn fingerprints(game: &Arc<GameDef>, seeds: &[Seed], backwards: bool) -> Vec<Option<String>> {
    let one = |&seed: &Seed| transcript(game, seed).ok().map(|answers| fingerprint(&answers));
    if backwards {
        let mut found: Vec<_> = shared(seeds).iter().rev().map(one).collect();
        found.reverse();
        return found;
    }
    shared(seeds).iter().map(one).collect()
}

/// The command that checks these files in another process.
fn command(files: &[&Path], args: &CheckArgs, seed: Option<Seed>) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("check").arg("--twin").args(["--episodes", &args.episodes.to_string()]);
    for pair in &args.pairs {
        command.args(["--set", pair]);
    }
    if let Some(seed) = seed {
        command.args(["--seed", &seed.value().to_string()]);
    }
    command.arg("--").args(files).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command)
}

impl Twin {
    /// Starts the other process.
    pub(super) fn start(files: &[PathBuf], args: &CheckArgs) -> Self {
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        Self(command(&files, args, None).and_then(|mut command| command.spawn()).ok())
    }

    /// Waits for what it found; nothing if there is no such process.
    pub(super) fn finish(self) -> Fingerprints {
        let output = self.0.and_then(|child| child.wait_with_output().ok());
        let found = output.and_then(|output| serde_json::from_slice(&output.stdout).ok());
        found.unwrap_or_else(|| {
            log("warning: no second process could be started, so episodes were not compared with one");
            Fingerprints::new()
        })
    }
}

/// The problem of a game whose episodes were others in the other process; `None` if they were the same.
pub(super) fn compare(
    file: &Path,
    game: &Arc<GameDef>,
    args: &CheckArgs,
    seeds: &[Seed],
    found: &Fingerprints,
) -> Option<Diagnostic> {
    let theirs = found.get(file)?;
    let own = fingerprints(game, seeds, false);
    let at = own.iter().zip(theirs).position(|(own, theirs)| own != theirs)?;
    let seed = seeds[at];
    // Fingerprints say that something differs; the transcripts say what.
    let here = transcript(game, seed).unwrap_or_default();
    let output = command(&[file], args, Some(seed)).and_then(|mut command| command.output()).ok()?;
    let there: Vec<Answer> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let problem = difference(game, &here, &there, "in another process").or_else(|| {
        Some(
            Diagnostic::error("game::not_deterministic", "the same seed gave another episode in another process")
                .at(crate::diag::SourceSpan::file(file))
                .expected("nothing kept between episodes")
                .found(format!("another episode of seed {}, when other episodes came before it", seed.value()))
                .help("look for variables outside the functions that change"),
        )
    });
    problem.map(|problem| problem.note(format!("in the episode of seed {}", seed.value())))
}
