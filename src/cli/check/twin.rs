//! The same episodes in another process: a script whose answers depend on addresses, on what was called before or on
//! anything else outside its arguments gives itself away.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::diag::Diagnostic;
use crate::game::{Answer, GameDef, difference, fingerprint, transcript};
use crate::seed::Seed;

use super::CheckArgs;
use crate::cli::output::log;

/// Episodes of each game that are played in both processes.
const EPISODES: usize = 20;

/// Failing episodes of a game after which no further one is played: the check itself tells why, and each may take as long as
/// a call may.
const MAX_FAILED: usize = 2;

/// The fingerprints of a game's episodes, by number. An episode that fails has none; one that is missing was not played.
type Fingerprints = BTreeMap<usize, Option<String>>;

/// What the other process prints of a file, in a line.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct FileLine {
    /// As it is shown: JSON has no other paths.
    file: String,
    found: Fingerprints,
}

/// The other process.
pub(super) struct Twin(Mutex<Running>);

/// What was read of it.
struct Running {
    /// None if it could not be started.
    child: Option<(Child, BufReader<ChildStdout>)>,
    found: BTreeMap<String, Fingerprints>,
}

/// The episodes that both processes play.
pub(super) fn shared(seeds: &[Seed]) -> &[Seed] {
    &seeds[..seeds.len().min(EPISODES)]
}

/// What the other process prints of a file: fingerprints, or the whole transcript of one episode.
pub(super) fn answer(file: &Path, game: Option<&Arc<GameDef>>, args: &CheckArgs, seeds: &[Seed]) -> serde_json::Value {
    if args.seed.is_some() {
        let answers = game.zip(seeds.first()).and_then(|(game, &seed)| transcript(game, seed).ok());
        return serde_json::json!(answers.unwrap_or_default());
    }
    let found = game.map(|game| fingerprints(game, seeds, true)).unwrap_or_default();
    serde_json::json!(FileLine { file: file.display().to_string(), found })
}

/// The fingerprint of each episode; played from the last to the first if `backwards`, so that what a script keeps between
/// episodes is not the same in both processes.
fn fingerprints(game: &Arc<GameDef>, seeds: &[Seed], backwards: bool) -> Fingerprints {
    let seeds = shared(seeds);
    let order: Vec<usize> = if backwards { (0..seeds.len()).rev().collect() } else { (0..seeds.len()).collect() };
    let (mut found, mut failed) = (Fingerprints::new(), 0);
    for at in order {
        let fingerprint = transcript(game, seeds[at]).ok().map(|answers| fingerprint(&answers));
        failed += usize::from(fingerprint.is_none());
        found.insert(at, fingerprint);
        if failed == MAX_FAILED {
            break;
        }
    }
    found
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

impl Running {
    /// Ends the process, if it has not ended by itself.
    fn end(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Twin {
    /// Starts the other process.
    pub(super) fn start(files: &[PathBuf], args: &CheckArgs) -> Self {
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let child = command(&files, args, None).and_then(|mut command| command.spawn());
        let child = child.ok().and_then(|mut child| child.stdout.take().map(|out| (child, BufReader::new(out))));
        if child.is_none() {
            log("warning: no second process could be started, so episodes are not compared with one");
        }
        Self(Mutex::new(Running { child, found: BTreeMap::new() }))
    }

    /// What the other process found in this file; waits until it tells. None if it ended before.
    fn found(&self, file: &Path) -> Option<Fingerprints> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = file.display().to_string();
        loop {
            if let Some(found) = running.found.remove(&name) {
                return Some(found);
            }
            let mut line = String::new();
            let (_, out) = running.child.as_mut()?;
            let is_read = out.read_line(&mut line).is_ok();
            match serde_json::from_str(&line) {
                Ok(FileLine { file, found }) if is_read => _ = running.found.insert(file, found),
                _ => {
                    log("warning: the second process ended early, so not all episodes are compared with it");
                    running.end();
                }
            }
        }
    }

    /// The problem of a game whose episodes were others in the other process; `None` if they were the same.
    pub(super) fn compare(
        &self,
        file: &Path,
        game: &Arc<GameDef>,
        args: &CheckArgs,
        seeds: &[Seed],
    ) -> Option<Diagnostic> {
        let theirs = self.found(file)?;
        let own = fingerprints(game, seeds, false);
        let differs = |(at, own): (&usize, &Option<String>)| theirs.get(at).is_some_and(|theirs| theirs != own);
        let at = own.iter().find(|&(at, own)| differs((at, own))).map(|(at, _)| *at)?;
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
}

impl Drop for Twin {
    /// What nobody waits for any more is not played to its end.
    fn drop(&mut self) {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).end();
    }
}
