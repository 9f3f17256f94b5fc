//! `gift-host check`: the contract of games, tried on seeded random episodes, here and in another process; and what a game
//! is like to train on.

mod measure; // success of seats
mod print; // what was found, for people and editors
mod progress; // what is going on, on a terminal
mod signal; // what GRPO could learn from
mod twin; // the same episodes in another process

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use rayon::prelude::*;

use crate::config::DEFAULT_OPPONENT;
use crate::diag::{Diagnostic, Severity};
use crate::game::{Figures, GameDef, Nest, RewardScript, ScriptHost, check_seeds, examine, try_nest, try_reward};
use crate::opponent::Opponents;
use crate::policy::DecoderConfig;
use crate::script::{Script, Value, with_script};
use crate::seed::Seed;

use super::ExitStatus;
use super::setup::{self, SharedArgs};
use measure::{Measures, measure};
use print::{json, print};
use progress::Progress;
use twin::Twin;

/// Flags of `gift-host check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Scripts of games, nests or rewards, folders of them, or patterns
    #[arg(required = true, value_name = "GLOB")]
    games: Vec<String>,
    /// Random episodes of each game
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    episodes: u64,
    /// One setting, such as `games.math.level=2`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    /// Play only the episode of this seed, which a message named
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print JSON for editors
    #[arg(long)]
    json: bool,
    /// Print what another process compares itself with
    #[arg(long, hide = true)]
    twin: bool,
}

/// What a script is, told by what it returns.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A table with functions.
    Game,
    /// A table with `stages`.
    Nest,
    /// One function.
    Reward,
}

/// What is told of one file.
struct Report {
    file: PathBuf,
    kind: Kind,
    name: String,
    problems: Vec<Diagnostic>,
    figures: Option<Figures>,
    measures: Option<Measures>,
}

impl Report {
    fn of(file: &Path, kind: Kind, problems: Vec<Diagnostic>) -> Self {
        let name = file.display().to_string();
        Self { file: file.to_owned(), kind, name, problems, figures: None, measures: None }
    }

    fn is_fine(&self) -> bool {
        self.problems.iter().all(|problem| problem.severity != Severity::Error)
    }
}

/// Checks every game and prints what is wrong with each, and what it is like, as soon as that is known.
pub(crate) fn run(args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let shared = SharedArgs { games: args.games.clone(), pairs: args.pairs.clone(), ..SharedArgs::default() };
    let config = setup::configuration(&shared, None)?;
    let files = setup::game_files(&args.games)?;
    super::train::use_threads(config.threads);
    let (options, host) = setup::script_settings(&config);
    let mut opponents = Opponents::parse(&config.opponent)?;
    if !opponents.is_scripted() {
        // A check plays thousands of episodes, which models are not for.
        opponents = Opponents::parse(DEFAULT_OPPONENT)?;
    }
    let seeds = match args.seed {
        Some(seed) => vec![Seed::new(seed)],
        None => check_seeds(args.episodes, Seed::new(0)),
    };
    if args.twin {
        for file in &files {
            let game = compile(file, &options, &host).ok();
            writeln!(out, "{}", twin::answer(file, game.as_ref(), args, &seeds))?;
            out.flush()?;
        }
        return Ok(ExitStatus::Done);
    }
    let check = Check { args, files: &files, options: &options, host: &host, opponents: &opponents, seeds: &seeds };
    let progress = Progress::new(files.len());
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| check.examine_all(&progress, sender));
        // In the order of the files, each as soon as it is known.
        let mut found: BTreeMap<usize, Report> = BTreeMap::new();
        let mut shown = 0;
        loop {
            match receiver.recv_timeout(Progress::TICK) {
                Ok((index, report)) => _ = found.insert(index, report),
                Err(RecvTimeoutError::Timeout) => progress.show(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Some(report) = found.get(&shown).filter(|_| !args.json) {
                progress.clear();
                print(report, args, out)?;
                out.flush()?;
                shown += 1;
            }
        }
        progress.clear();
        let reports: Vec<Report> = found.into_values().collect();
        if args.json {
            let games: Vec<serde_json::Value> = reports.iter().map(json).collect();
            writeln!(out, "{:#}", serde_json::json!({ "games": games }))?;
        }
        Ok(if reports.iter().all(Report::is_fine) { ExitStatus::Done } else { ExitStatus::Failed })
    })
}

/// What all files are checked with.
struct Check<'a> {
    args: &'a CheckArgs,
    files: &'a [PathBuf],
    options: &'a BTreeMap<String, Value>,
    host: &'a ScriptHost,
    opponents: &'a Opponents,
    seeds: &'a [Seed],
}

impl Check<'_> {
    /// Sends the report of every file, by its place in the list, as soon as it is known.
    fn examine_all(&self, progress: &Progress, reports: Sender<(usize, Report)>) {
        let twin = self.args.seed.is_none().then(|| Twin::start(self.files, self.args));
        let examined: Vec<(Kind, Option<Arc<GameDef>>)> = self
            .files
            .par_iter()
            .enumerate()
            .map_with(reports.clone(), |reports, (index, file)| {
                let game = match kind(file, self.host) {
                    Ok(Kind::Game) => compile(file, self.options, self.host),
                    // Tried below, on the games.
                    Ok(kind) => return (kind, None),
                    Err(problem) => Err(problem),
                };
                let (report, game) = match game {
                    Ok(game) => (self.examine_one(file, &game, progress), Some(game)),
                    Err(problem) => (Report::of(file, Kind::Game, vec![*problem]), None),
                };
                let (report, game) = self.compare(report, game, twin.as_ref());
                progress.finish_one();
                // Nobody may be left to read it.
                _ = reports.send((index, report));
                (Kind::Game, game)
            })
            .collect();
        if examined.iter().all(|(kind, _)| *kind == Kind::Game) {
            return;
        }
        let games = games_to_try(&examined, self.options, self.host);
        examined.par_iter().enumerate().for_each_with(reports, |reports, (index, (kind, _))| {
            if *kind != Kind::Game {
                let mut report = Report::of(&self.files[index], *kind, Vec::new());
                try_other(&mut report, &games, self.host);
                progress.finish_one();
                _ = reports.send((index, report));
            }
        });
    }

    /// Adds what differs in another process; the game is kept if it is fine.
    fn compare(
        &self,
        mut report: Report,
        game: Option<Arc<GameDef>>,
        twin: Option<&Twin>,
    ) -> (Report, Option<Arc<GameDef>>) {
        let Some(game) = game.filter(|_| report.is_fine()) else { return (report, None) };
        if let Some(twin) = twin
            && let Some(problem) = twin.compare(&report.file, &game, self.args, self.seeds)
        {
            report.problems.insert(0, problem);
        }
        let game = report.is_fine().then_some(game);
        (report, game)
    }

    /// The contract, and if that is kept, what the game is like.
    fn examine_one(&self, file: &Path, game: &Arc<GameDef>, progress: &Progress) -> Report {
        let tell = |played: usize| {
            progress.tell(format!("{}: {played} of {} random episodes", file.display(), self.seeds.len()));
        };
        let examination = examine(game, self.seeds, &tell);
        let mut report = Report { name: game.name.clone(), ..Report::of(file, Kind::Game, examination.problems) };
        if !report.is_fine() || self.args.seed.is_some() {
            return report;
        }
        report.problems.extend(too_long(game, &examination.figures));
        report.figures = Some(examination.figures);
        let episodes = self.args.episodes as usize;
        let tell = |what: &str| progress.tell(format!("{}: {what}", file.display()));
        let measured = self.opponents.check_unattended(game);
        match measured.and_then(|()| measure(game, self.opponents, episodes, &tell)) {
            Ok((measures, warnings)) => {
                report.problems.extend(warnings);
                report.measures = Some(measures);
            }
            // A game that lacks what the usual opponent needs can be trained against another.
            Err(problem) if problem.code.starts_with("opponent::") => {
                report.problems.push(Diagnostic { severity: Severity::Warning, ..*problem });
            }
            Err(problem) => report.problems.push(*problem),
        }
        report
    }
}

fn compile(file: &Path, options: &BTreeMap<String, Value>, host: &ScriptHost) -> Result<Arc<GameDef>, Box<Diagnostic>> {
    let source = crate::reload::read_source(file)?;
    let bare = GameDef::compile(&source, Value::default(), host)?;
    let options = options.get(&bare.name).cloned().unwrap_or_else(|| Value::Map(BTreeMap::new()));
    Ok(Arc::new(GameDef::compile(&source, options, host)?))
}

/// What the file is.
fn kind(file: &Path, host: &ScriptHost) -> Result<Kind, Box<Diagnostic>> {
    let source = crate::reload::read_source(file)?;
    let ask = |script: &dyn Script| {
        let names = script.field_names();
        let has = |name: &str| names.iter().any(|other| other == name);
        match script.is_function() {
            true => Kind::Reward,
            false if has("stages") && !has("init") => Kind::Nest,
            false => Kind::Game,
        }
    };
    host.guarded(&source, || with_script(&source, &host.limits, &host.library, ask))?
}

/// The games that nests and reward scripts are tried on: those that were given beside them, or else those in `games/`.
fn games_to_try(
    examined: &[(Kind, Option<Arc<GameDef>>)],
    options: &BTreeMap<String, Value>,
    host: &ScriptHost,
) -> Vec<Arc<GameDef>> {
    let given: Vec<Arc<GameDef>> = examined.iter().filter_map(|(_, game)| game.clone()).collect();
    if !given.is_empty() {
        return given;
    }
    let files = setup::game_files(&["games/*".to_owned()]).unwrap_or_default();
    files.iter().filter_map(|file| compile(file, options, host).ok()).collect()
}

/// Tries a nest or a reward script as a run does before it uses one.
fn try_other(report: &mut Report, games: &[Arc<GameDef>], host: &ScriptHost) {
    let names: Vec<String> = games.iter().map(|game| game.name.clone()).collect();
    let seed = Seed::new(0);
    let tried = crate::reload::read_source(&report.file).and_then(|source| match report.kind {
        Kind::Nest => {
            let nest = Nest::compile(&source, &names, host)?;
            report.problems.extend(nest.misspelt_fields()?);
            host.guarded(&source, || try_nest(&nest, &names, seed))?
        }
        _ => RewardScript::compile(source, host).and_then(|reward| try_reward(&reward, games, seed)),
    });
    report.name = names.join(", ");
    if let Err(problem) = tried {
        report.problems.push(*problem);
    }
}

/// A warning if the built-in model's context cannot hold an episode.
fn too_long(game: &GameDef, figures: &Figures) -> Option<Diagnostic> {
    let context = DecoderConfig::tiny(crate::policy::Tokenizer::Bytes.vocabulary_size()).max_positions;
    let longest = figures.briefs_of_a_seat.largest;
    if longest < context {
        return None;
    }
    let function = if game.has("brief") { "brief" } else { "observe" };
    let warning = Diagnostic::warning("game::long_episode", "an episode does not fit the built-in model's context");
    Some(
        game.blame(function, warning)
            .expected(format!("prompts of less than {context} bytes for all turns of a seat together"))
            .found(format!("{longest} bytes in the longest episode"))
            .help("shorten `brief`, or the game: an episode that the context cuts off scores 0 and teaches nothing"),
    )
}
