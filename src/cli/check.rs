//! `gift-host check`: the contract of games, tried on seeded random episodes, here and in another process; and what a game
//! is like to train on.

mod measure; // success of seats
mod signal; // what GRPO could learn from
mod twin; // the same episodes in another process

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::config::DEFAULT_OPPONENT;
use crate::diag::{Diagnostic, Severity};
use crate::game::{Figures, GameDef, Nest, RewardScript, ScriptHost, check_seeds, examine, try_nest, try_reward};
use crate::opponent::Opponents;
use crate::policy::DecoderConfig;
use crate::script::{Script, Value, with_script};
use crate::seed::Seed;

use super::ExitStatus;
use super::output::table;
use super::setup::{self, SharedArgs};
use measure::{Measures, measure};

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

/// Checks every game and prints what is wrong with each, and what it is like.
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
        let compiled = |file: &PathBuf| Some((file.clone(), compile(file, &options, &host).ok()?));
        let answer = rayon::scope(|_| {
            let games: Vec<_> = files.iter().filter_map(compiled).collect();
            twin::answer(&games, args, &seeds)
        });
        writeln!(out, "{answer}")?;
        return Ok(ExitStatus::Done);
    }
    let second = args.seed.is_none().then(|| twin::Twin::start(&files, args));
    let examined: Vec<(Report, Option<Arc<GameDef>>)> = files
        .par_iter()
        .map(|file| {
            let game = match kind(file, &host) {
                Ok(Kind::Game) => compile(file, &options, &host),
                // Tried below, on the games.
                Ok(kind) => return (Report::of(file, kind, Vec::new()), None),
                Err(problem) => Err(problem),
            };
            match game {
                Ok(game) => (examine_one(file, &game, args, &seeds, &opponents), Some(game)),
                Err(problem) => (Report::of(file, Kind::Game, vec![*problem]), None),
            }
        })
        .collect();
    let others = if examined.iter().any(|(report, _)| report.kind != Kind::Game) {
        games_to_try(&examined, &options, &host)
    } else {
        Vec::new()
    };
    let found = second.map(twin::Twin::finish).unwrap_or_default();
    let reports: Vec<Report> = examined
        .into_par_iter()
        .map(|(mut report, game)| {
            if let Some(game) = game.filter(|_| report.is_fine())
                && let Some(problem) = twin::compare(&report.file, &game, args, &seeds, &found)
            {
                report.problems.insert(0, problem);
            }
            if report.kind != Kind::Game {
                try_other(&mut report, &others, &host);
            }
            report
        })
        .collect();
    if args.json {
        let games: Vec<serde_json::Value> = reports.iter().map(json).collect();
        writeln!(out, "{:#}", serde_json::json!({ "games": games }))?;
    } else {
        for report in &reports {
            print(report, args, out)?;
        }
    }
    Ok(if reports.iter().all(Report::is_fine) { ExitStatus::Done } else { ExitStatus::Failed })
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
    examined: &[(Report, Option<Arc<GameDef>>)],
    options: &BTreeMap<String, Value>,
    host: &ScriptHost,
) -> Vec<Arc<GameDef>> {
    let given: Vec<Arc<GameDef>> =
        examined.iter().filter(|(report, _)| report.is_fine()).filter_map(|(_, game)| game.clone()).collect();
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

/// The contract, and if that is kept, what the game is like.
fn examine_one(file: &Path, game: &Arc<GameDef>, args: &CheckArgs, seeds: &[Seed], opponents: &Opponents) -> Report {
    let examination = examine(game, seeds);
    let mut report = Report { name: game.name.clone(), ..Report::of(file, Kind::Game, examination.problems) };
    if !report.is_fine() || args.seed.is_some() {
        return report;
    }
    report.problems.extend(too_long(game, &examination.figures));
    report.figures = Some(examination.figures);
    match opponents.check_unattended(game).and_then(|()| measure(game, opponents, args.episodes as usize)) {
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

fn print(report: &Report, args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    for problem in &report.problems {
        writeln!(out, "{problem}\n")?;
    }
    if !report.is_fine() {
        return Ok(());
    }
    let (file, name) = (report.file.display(), &report.name);
    let what = match report.kind {
        Kind::Game => "",
        Kind::Nest => "the nest",
        Kind::Reward => "the reward script",
    };
    if report.kind != Kind::Game {
        let games = match name.as_str() {
            "" => "there are no games to try it on".to_owned(),
            names => format!("tried on {names}"),
        };
        writeln!(out, "{file}: {what} is fine ({games})")?;
        return Ok(());
    }
    if let Some(seed) = args.seed {
        writeln!(out, "{file}: {name} is fine (the episode of seed {seed})")?;
        return Ok(());
    }
    let plural = if args.episodes == 1 { "" } else { "s" };
    writeln!(out, "{file}: {name} is fine ({} random episode{plural})", args.episodes)?;
    if let Some(figures) = &report.figures {
        let Figures { episodes, ended, turns, turns_of_a_seat, observe, brief, actions, .. } = figures;
        let share = 100.0 * *ended as f64 / (*episodes).max(1) as f64;
        writeln!(
            out,
            "  length   {:.1} turns; {} at most of one seat; {share:.0} % ended by the rules",
            turns.mean, turns_of_a_seat.largest
        )?;
        let lists = if figures.lists_actions { format!("; {:.1} legal answers", actions.mean) } else { String::new() };
        writeln!(
            out,
            "  prompts  observe {:.0} bytes ({} at most), brief {:.0} bytes ({} at most){lists}",
            observe.mean, observe.largest, brief.mean, brief.largest
        )?;
    }
    if let Some(measures) = &report.measures {
        print_measures(measures, out)?;
    }
    Ok(())
}

fn print_measures(measures: &Measures, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let seats = measures.success.iter().map(|success| success.rates.len()).max().unwrap_or(0);
    let mut head = vec!["  success".to_owned(), "by".to_owned(), "episodes".to_owned()];
    head.extend((1..=seats).map(|seat| format!("seat {seat}")));
    rows.push(head);
    for success in &measures.success {
        let player = match (success.player, measures.search) {
            ("search", "limited") => "search (limited)",
            (player, _) => player,
        };
        let mut row = vec![String::new(), player.to_owned(), success.episodes.to_string()];
        row.extend(success.rates.iter().map(|rate| format!("{:.0} %", rate * 100.0)));
        rows.push(row);
    }
    if !measures.success.is_empty() {
        write!(out, "{}", table(&rows))?;
    }
    if measures.search.starts_with("not") {
        writeln!(out, "  search   {}", measures.search)?;
    }
    if let Some(text) = fairness(measures) {
        writeln!(out, "  seats    {text}")?;
    }
    match &measures.signal {
        None => writeln!(out, "  signal   not measured: {}", measures.no_signal)?,
        Some(signal) => writeln!(
            out,
            "  signal   the scores of a group of {} by {} spread by {:.2}; {} of {} groups have no spread",
            signal.members,
            signal.play(),
            signal.spread,
            signal.without,
            signal.groups
        )?,
    }
    Ok(())
}

/// Whether random play favours a seat, in words; `None` for a game of one seat.
fn fairness(measures: &Measures) -> Option<String> {
    let random = measures.success.first().filter(|success| success.rates.len() > 1)?;
    let best = (0..random.rates.len()).max_by(|&a, &b| random.rates[a].total_cmp(&random.rates[b]))?;
    let worst = (0..random.rates.len()).min_by(|&a, &b| random.rates[a].total_cmp(&random.rates[b]))?;
    let against = &measures.opponent;
    Some(if random.intervals[worst][1] < random.intervals[best][0] {
        format!(
            "not alike: by {} play, against `{against}`, seat {} succeeds more often than seat {}",
            random.player,
            best + 1,
            worst + 1
        )
    } else {
        format!("alike, as far as {} episodes tell, against `{against}`", random.episodes)
    })
}

/// A file's report as editors read it.
fn json(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "file": report.file,
        "kind": report.kind,
        "game": (report.kind == Kind::Game).then_some(&report.name),
        "ok": report.is_fine(),
        "problems": report.problems.iter().map(problem_json).collect::<Vec<_>>(),
        "figures": report.figures,
        "play": report.measures,
    })
}

/// A problem with its place flattened: editors want `file`, `line` and `column`, which are null where they are not known.
fn problem_json(problem: &Diagnostic) -> serde_json::Value {
    let known = |number: u32| (number > 0).then_some(number);
    let place = problem.place.as_ref();
    let stack = problem.stack.iter().map(|frame| {
        serde_json::json!({
            "file": frame.place.file,
            "line": known(frame.place.line),
            "column": known(frame.place.column),
            "function": frame.function,
        })
    });
    serde_json::json!({
        "severity": problem.severity,
        "code": problem.code,
        "message": problem.message,
        "file": place.map(|place| &place.file),
        "line": place.and_then(|place| known(place.line)),
        "column": place.and_then(|place| known(place.column)),
        "expected": problem.expected,
        "found": problem.found,
        "help": problem.help,
        "stack": stack.collect::<Vec<_>>(),
        "notes": problem.notes,
    })
}
