//! The contract of a game, tried on seeded random episodes: what `gift-host check` prints and what a reload must pass.

mod hide; // states that a seat may be in
mod key; // what tells positions from each other
mod transcript; // all that a script answers in an episode, to compare plays of it

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diag::{Diagnostic, SourceSpan};
use crate::seed::{Seed, Stream};

use super::{Action, ApplyError, Episode, GameDef, Seat, Status};

pub use transcript::{Answer, difference, fingerprint, transcript};

/// An answer that no game takes as legal.
const NONSENSE: &str = "@@ not an answer @@";
/// Episodes whose every turn is tried with wrong answers, and the bot's.
const THOROUGH_EPISODES: u64 = 20;
/// Episodes that are played twice and compared.
const COMPARED_EPISODES: u64 = 5;
/// Listed answers that are tried beside the one that is played, over all episodes.
const MAX_TRIED: usize = 5_000;
/// Answers of other positions that are remembered and tried where they are not listed.
const MAX_REMEMBERED: usize = 64;
/// Moves that a note shows.
const SHOWN_MOVES: usize = 12;
/// From this size on, a prompt for a model that reads bytes gets a warning.
const LONG_BRIEF: usize = 200;

/// A mean and the largest value of something counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Sizes {
    /// The mean.
    pub mean: f64,
    /// The largest value.
    pub largest: usize,
    #[serde(skip)]
    count: usize,
}

impl Sizes {
    fn add(&mut self, size: usize) {
        self.count += 1;
        self.mean += (size as f64 - self.mean) / self.count as f64;
        self.largest = self.largest.max(size);
    }
}

/// What random play was like.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Figures {
    /// Episodes that were played.
    pub episodes: u64,
    /// Episodes that the rules ended; a limit ended the others.
    pub ended: u64,
    /// Turns of all seats in an episode.
    pub turns: Sizes,
    /// Turns of the seat that had most, in an episode.
    pub turns_of_a_seat: Sizes,
    /// Bytes of the texts of `observe`.
    pub observe: Sizes,
    /// Bytes of the texts of `brief`; those of `observe` if there is none.
    pub brief: Sizes,
    /// Bytes of all briefs of one seat in an episode.
    pub briefs_of_a_seat: Sizes,
    /// Legal answers of a turn, where they are listed.
    pub actions: Sizes,
    /// Whether any turn had a list of legal answers.
    pub lists_actions: bool,
}

/// What came of the episodes.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// What breaks the contract (then it is the last, and play ended there), and what works but harms training.
    pub problems: Vec<Diagnostic>,
    /// What random play was like.
    pub figures: Figures,
}

/// What is carried from episode to episode.
#[derive(Default)]
struct Trial {
    /// When no further turn is played.
    end: Option<Instant>,
    warnings: Vec<Diagnostic>,
    figures: Figures,
    tried: usize,
    remembered: BTreeSet<String>,
    moves: Vec<(Seat, String)>,
    keys: key::Seen,
}

impl Trial {
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Adds a warning unless there is one of the kind already: a second would say the same of another turn.
    fn warn(&mut self, make: impl FnOnce() -> Diagnostic, code: &'static str) {
        if self.warnings.iter().all(|warning| warning.code != code) {
            self.warnings.push(make());
        }
    }
}

/// The seeds of the random episodes that a check plays.
pub fn check_seeds(episodes: u64, seed: Seed) -> Vec<Seed> {
    (0..episodes).map(|number| seed.child("check", number)).collect()
}

/// Plays `episodes` seeded random episodes and returns what breaks the contract: errors, and warnings for what works but
/// harms training. Stops at the first error, which then stands alone.
pub fn check_game(game: &Arc<GameDef>, episodes: u64, seed: Seed) -> Vec<Diagnostic> {
    examine(game, &check_seeds(episodes, seed)).problems
}

/// As [`check_game`] with seed 0, but no further turn is played after `limit`: slow calls within their budgets must not keep
/// a reload waiting for ever.
pub fn check_game_within(game: &Arc<GameDef>, episodes: u64, limit: Duration) -> Vec<Diagnostic> {
    let trial = Trial { end: Instant::now().checked_add(limit), ..Trial::default() };
    examine_with(game, &check_seeds(episodes, Seed::new(0)), trial).problems
}

/// Plays the random episodes of these seeds; see [`check_game`].
pub fn examine(game: &Arc<GameDef>, seeds: &[Seed]) -> Examination {
    examine_with(game, seeds, Trial::default())
}

fn examine_with(game: &Arc<GameDef>, seeds: &[Seed], mut trial: Trial) -> Examination {
    match game.misspelt_fields() {
        Ok(warnings) => trial.warnings = warnings,
        Err(problem) => return Examination { problems: vec![*problem], figures: Figures::default() },
    }
    if let Err(problem) = game.episode_count() {
        return Examination { problems: vec![*problem], figures: Figures::default() };
    }
    for (number, &seed) in seeds.iter().enumerate() {
        let number = number as u64;
        trial.moves.clear();
        let mut play = || {
            check_episode(game, seed, number < THOROUGH_EPISODES, &mut trial)?;
            if number < COMPARED_EPISODES && !trial.is_over() { compare(game, seed) } else { Ok(()) }
        };
        let played = game.host().guarded(&game.source, &mut play).and_then(|played| played);
        if let Err(problem) = played {
            let mut problem = *problem;
            if !trial.moves.is_empty() && problem.code != "game::not_deterministic" {
                problem = problem.note(format!("after the moves {}", shown_moves(&trial.moves)));
            }
            problem = problem.note(replay_note(game, seed));
            return Examination { problems: vec![problem], figures: trial.figures };
        }
        if trial.is_over() {
            break;
        }
    }
    if game.is_fresh_each_call() {
        let warning = Diagnostic::warning("game::kept", "functions change what stands outside them")
            .at(SourceSpan::file(&game.source.path))
            .expected("all that lasts is in the state, and tables are built while the script loads")
            .found("writes to variables or tables of the top level, which are gone after each call")
            .help("keep it in the state; as it is, the top level runs again for every call, which takes time");
        trial.warnings.push(warning);
    }
    warn_of_sizes(game, &mut trial);
    Examination { problems: trial.warnings, figures: trial.figures }
}

/// How the author plays the episode of the seed again.
fn replay_note(game: &GameDef, seed: Seed) -> String {
    let (seed, file) = (seed.value(), game.source.path.display());
    format!("in the episode of seed {seed}; `gift-host check {file} --seed {seed}` plays it again")
}

fn shown_moves(moves: &[(Seat, String)]) -> String {
    let skipped = moves.len().saturating_sub(SHOWN_MOVES);
    let shown = moves[skipped..].iter().map(|(seat, action)| {
        let short: String = action.chars().take(40).collect();
        format!("{seat}: `{short}`")
    });
    let dots = if skipped > 0 { "… " } else { "" };
    format!("{dots}{}", shown.collect::<Vec<_>>().join(", "))
}

/// What random play says about sizes and limits.
fn warn_of_sizes(game: &GameDef, trial: &mut Trial) {
    let figures = trial.figures.clone();
    let cut = figures.episodes - figures.ended;
    if cut * 2 > figures.episodes {
        let warning = Diagnostic::warning("game::truncated", "random play seldom ends within `max_turns`")
            .at(game.source.place_of_field("max_turns"))
            .expected("most episodes end by the rules")
            .found(format!("{cut} of {} were cut off after {} turns of a seat", figures.episodes, game.max_turns))
            .help("raise `max_turns`, or make the game end sooner: a truncated episode teaches nothing");
        trial.warnings.push(game.source.illustrate(warning));
    }
    if figures.brief.mean > LONG_BRIEF as f64 {
        let (function, found, help) = if game.has("brief") {
            let help = "shorten `brief`: the built-in model reads it byte by byte, so a long one is slow and hard to learn from";
            ("brief", format!("{:.0} bytes in the mean", figures.brief.mean), help)
        } else {
            let help =
                "add `brief(state, seat)`: the built-in model reads byte by byte, and without it all of `observe`";
            ("observe", format!("no `brief`, and `observe` of {:.0} bytes in the mean", figures.brief.mean), help)
        };
        let warning = Diagnostic::warning("game::long_brief", "the built-in model has much to read on each turn");
        let warning = game.blame(function, warning).expected(format!("a `brief` of less than {LONG_BRIEF} bytes"));
        trial.warnings.push(warning.found(found).help(help));
    }
}

/// Plays the episode twice and compares all that the script answers.
fn compare(game: &Arc<GameDef>, seed: Seed) -> Result<(), Box<Diagnostic>> {
    let (first, second) = (transcript(game, seed)?, transcript(game, seed)?);
    match difference(game, &first, &second, "when it was played again") {
        Some(problem) => Err(Box::new(problem)),
        None => Ok(()),
    }
}

/// Plays one episode, and tries what could be answered beside.
fn check_episode(game: &Arc<GameDef>, seed: Seed, thorough: bool, trial: &mut Trial) -> Result<(), Box<Diagnostic>> {
    let mut stream = seed.child("random play", 0).stream();
    let mut episode = Episode::start(game, seed)?;
    let again = Episode::start(game, seed)?;
    if episode.state() != again.state() {
        let problem = Diagnostic::error("game::not_deterministic", "the same seed gave two different starts");
        return Err(Box::new(
            game.blame("init", problem)
                .expected("`init` draws only from its `rng`")
                .found("two states that differ")
                .help("look for the address of a table or a function in the state, as `tostring` gives it"),
        ));
    }
    let mut briefs = vec![0; game.seats as usize];
    while let Status::Turn(seat) = *episode.status() {
        if trial.is_over() {
            return Ok(());
        }
        briefs[seat.0 as usize - 1] += observe(game, &episode, seat, trial)?;
        game.score(episode.state(), seat)?;
        let actions = game.actions(episode.state(), seat)?;
        if let Some(actions) = &actions {
            trial.figures.actions.add(actions.len());
            trial.figures.lists_actions = true;
            try_listed(game, &episode, seat, actions, trial)?;
            if thorough {
                try_unlisted(game, &episode, seat, actions, trial)?;
            }
        }
        if thorough && game.has("bot") {
            try_bot(game, &episode, seat, &mut stream.clone(), trial)?;
        }
        if thorough && game.has("hide") {
            hide::try_hide(game, &episode, seat, &mut stream.clone())?;
        }
        if game.has("key") {
            key::try_key(game, episode.state(), &mut trial.keys)?;
        }
        let action = choose(game, &episode, seat, &mut stream)?;
        episode.act(seat, &Action { text: action.clone(), well_formed: true })?;
        let refusal = episode.turns().last().and_then(|turn| turn.refusal.clone());
        if let Some(refusal) = refusal.filter(|_| actions.is_some()) {
            return Err(legal_refused(game, seat, &action, &refusal));
        }
        trial.moves.push((seat, action));
    }
    if game.has("key") && matches!(episode.status(), Status::Terminated(_)) {
        key::try_key(game, episode.state(), &mut trial.keys)?;
    }
    let figures = &mut trial.figures;
    figures.episodes += 1;
    figures.ended += u64::from(matches!(episode.status(), Status::Terminated(_)));
    figures.turns.add(episode.turns().len());
    let of_a_seat = |seat| episode.turns().iter().filter(|turn| turn.seat.0 == seat).count();
    figures.turns_of_a_seat.add((1..=game.seats).map(of_a_seat).max().unwrap_or(0));
    figures.briefs_of_a_seat.add(briefs.into_iter().max().unwrap_or(0));
    Ok(())
}

/// Asks for both texts, so that a fault in either is found before training; returns the size of the short one.
fn observe(game: &GameDef, episode: &Episode, seat: Seat, trial: &mut Trial) -> Result<usize, Box<Diagnostic>> {
    let full = episode.observation(seat, false)?;
    let brief = episode.observation(seat, true)?;
    trial.figures.observe.add(full.len());
    trial.figures.brief.add(brief.len());
    if full.is_empty() || brief.is_empty() {
        let function = if full.is_empty() { "observe" } else { "brief" };
        let make = || {
            let warning = Diagnostic::warning("game::empty_observation", "a seat sees nothing on its turn");
            game.blame(function, warning)
                .expected("a text that asks the seat to act")
                .found(format!("an empty text for seat {seat}"))
                .help(
                    "return what the seat must know to act: a model that sees nothing can only learn one fixed answer",
                )
        };
        trial.warn(make, "game::empty_observation");
    }
    Ok(brief.len())
}

/// A random legal action; for free text the scripted player's, or a word.
pub(super) fn choose(
    game: &GameDef,
    episode: &Episode,
    seat: Seat,
    stream: &mut Stream,
) -> Result<String, Box<Diagnostic>> {
    Ok(match game.actions(episode.state(), seat)? {
        Some(actions) => actions[stream.index(actions.len())].clone(),
        None if game.has("bot") => game.bot(episode.state(), seat, &mut stream.clone())?,
        None => "test".to_owned(),
    })
}

fn legal_refused(game: &GameDef, seat: Seat, action: &str, refusal: &str) -> Box<Diagnostic> {
    let problem = Diagnostic::error("game::legal_refused", "`apply` refused an answer that `actions` lists");
    Box::new(
        game.blame("apply", problem)
            .expected(format!("`apply` takes `{action}` from seat {seat}"))
            .found(format!("gift.illegal({refusal:?})"))
            .help("make `actions` and `apply` agree on what is legal"),
    )
}

/// Every listed answer must be taken.
fn try_listed(
    game: &GameDef,
    episode: &Episode,
    seat: Seat,
    actions: &[String],
    trial: &mut Trial,
) -> Result<(), Box<Diagnostic>> {
    for action in actions {
        if trial.tried == MAX_TRIED {
            return Ok(());
        }
        trial.tried += 1;
        match game.apply(episode.state(), seat, action) {
            Ok(_) => {}
            Err(ApplyError::Illegal(refusal)) => return Err(legal_refused(game, seat, action, &refusal)),
            Err(ApplyError::Fault(problem)) => {
                return Err(Box::new((*problem).note(format!("when seat {seat} answers `{action}`"))));
            }
        }
    }
    if game.lists_numbers(episode.state(), seat)? {
        let make = || {
            let warning = Diagnostic::warning("game::number_actions", "`actions` lists numbers");
            game.blame("actions", warning)
                .expected("strings, such as { \"1\", \"2\" }")
                .found("numbers, which are made into text: `apply` is given \"1\", not 1")
                .help("write `tostring(number)` in `actions`, and `tonumber(action)` in `apply`: \"1\" == 1 is false")
        };
        trial.warn(make, "game::number_actions");
    }
    Ok(())
}

/// What is not listed must be refused, and the reason said.
fn try_unlisted(
    game: &GameDef,
    episode: &Episode,
    seat: Seat,
    actions: &[String],
    trial: &mut Trial,
) -> Result<(), Box<Diagnostic>> {
    match game.apply(episode.state(), seat, NONSENSE) {
        Err(ApplyError::Illegal(reason)) if !reason.trim().is_empty() => {}
        Err(ApplyError::Illegal(_)) => {
            let make = || {
                let warning = Diagnostic::warning("game::no_reason", "`gift.illegal` was called without a reason");
                game.blame("apply", warning)
                    .expected("a reason that the model can learn from")
                    .found("an empty one")
                    .help("write `gift.illegal(\"the cell is taken\")`")
            };
            trial.warn(make, "game::no_reason");
        }
        Ok(_) => {
            let problem = Diagnostic::error("game::illegal_taken", "`apply` took an answer that is not legal");
            return Err(Box::new(
                game.blame("apply", problem)
                    .expected("`gift.illegal(\"why\")` for an answer that `actions` does not list")
                    .found(format!("a new state after `{NONSENSE}`"))
                    .help("check the action at the start of `apply`"),
            ));
        }
        Err(ApplyError::Fault(problem)) => {
            return Err(Box::new(
                (*problem).note("`apply` must refuse an unknown answer with `gift.illegal`, not fail"),
            ));
        }
    }
    for other in trial.remembered.clone() {
        if actions.contains(&other) {
            continue;
        }
        match game.apply(episode.state(), seat, &other) {
            Ok(_) => {
                let make = || {
                    let text = "`apply` takes an answer here that `actions` lists elsewhere, but not here";
                    let warning = Diagnostic::warning("game::unlisted_taken", text);
                    let list = super::definition::shown(&actions.to_vec().into());
                    game.blame("apply", warning)
                        .expected(format!("seat {seat} has only these: {list}"))
                        .found(format!("a new state after `{other}`"))
                        .help("list it, or refuse it: a model that writes freely learns moves that random play and search never see")
                };
                trial.warn(make, "game::unlisted_taken");
            }
            Err(ApplyError::Illegal(_)) => {}
            Err(ApplyError::Fault(problem)) => {
                return Err(Box::new((*problem).note(format!(
                    "`apply` must refuse `{other}` here with `gift.illegal`, not fail: `actions` does not list it"
                ))));
            }
        }
    }
    let room = MAX_REMEMBERED.saturating_sub(trial.remembered.len());
    trial.remembered.extend(actions.iter().take(room).cloned());
    Ok(())
}

/// The scripted player's answer should be one that the rules take.
fn try_bot(
    game: &GameDef,
    episode: &Episode,
    seat: Seat,
    stream: &mut Stream,
    trial: &mut Trial,
) -> Result<(), Box<Diagnostic>> {
    let action = game.bot(episode.state(), seat, stream)?;
    if let Err(ApplyError::Illegal(reason)) = game.apply(episode.state(), seat, &action) {
        let make = || {
            let warning = Diagnostic::warning("game::bot_refused", "`apply` refused the answer of `bot`");
            game.blame("bot", warning)
                .expected(format!("a legal answer of seat {seat}"))
                .found(format!("`{action}`, and gift.illegal({reason:?})"))
                .help("take the answer from `actions`: an episode in which the opponent's answers are refused is lost")
        };
        trial.warn(make, "game::bot_refused");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::game::ScriptHost;
    use crate::script::{Language, Source, Value};

    /// A reload must not wait for a game of a hundred thousand slow turns.
    #[test]
    fn no_turn_is_played_after_the_time() {
        let text = "return { name = 'g', seats = 1, max_turns = 100000, init = function() return { n = 0 } end, \
                    to_act = function(s) return 1 end, observe = function() return 'o' end, \
                    actions = function() return { 'a' } end, \
                    apply = function(s, _, a) if a ~= 'a' then gift.illegal('no') end s.n = s.n + 1 return s end, \
                    outcome = function() return { scores = { 1 }, success = { true } } end }";
        let source = Source::new(Path::new("g.lua"), Language::Lua, text, BTreeMap::new());
        let game = GameDef::compile(&source, Value::Map(BTreeMap::new()), &ScriptHost::default()).unwrap();
        let played = |limit: Duration| {
            let trial = Trial { end: Instant::now().checked_add(limit), ..Trial::default() };
            let examination = examine_with(&Arc::new(game.clone()), &check_seeds(3, Seed::new(0)), trial);
            (examination.figures.observe.count, examination.figures.episodes, examination.problems.len())
        };
        assert_eq!(played(Duration::ZERO), (0, 0, 0));
        let start = Instant::now();
        let (turns, episodes, problems) = played(Duration::from_millis(200));
        assert!(turns > 0 && (episodes, problems) == (0, 0), "{turns} turns, {episodes} episodes, {problems} problems");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
