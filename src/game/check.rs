//! The contract of a game, tried on seeded random episodes: what `gift-host check` prints and what a reload must pass.

mod answers; // what may be answered beside what is played
mod hide; // states that a seat may be in
mod kept; // what a script writes where it is lost
mod key; // what tells positions from each other
mod sizes; // what random play says about sizes and limits
mod transcript; // all that a script answers in an episode, to compare plays of it

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diag::{Diagnostic, Severity};
use crate::seed::{Seed, Stream};

use super::lost::shown_moves;
use super::{Action, Episode, GameDef, Seat, Status};

pub use transcript::{Answer, difference, fingerprint, transcript};

/// Episodes whose every turn is tried with wrong answers, and the bot's.
const THOROUGH_EPISODES: u64 = 20;
/// Episodes that are played twice and compared, whose functions are watched for writes into states, and in which anything is
/// answered.
const COMPARED_EPISODES: u64 = 5;
/// The same where a run waits for a version to come into service.
const COMPARED_WHILE_WAITING: u64 = 2;

/// Warnings that may tell why a game fails, and are told beside the error.
const CAUSES: [&str; 3] = ["game::number_actions", "game::colon", "game::unknown_field"];

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
    /// Whether nobody asks for warnings, so that what only they need is left out.
    errors_only: bool,
    warnings: Vec<Diagnostic>,
    figures: Figures,
    tried: usize,
    remembered: BTreeSet<String>,
    moves: Vec<(Seat, String)>,
    keys: key::Seen,
    /// Functions that were seen to write into states that they should only look at.
    writing: BTreeSet<&'static str>,
    /// What the script changes outside its functions, once it was seen to.
    keeping: Option<kept::Keeping>,
}

impl Trial {
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn compared_episodes(&self) -> u64 {
        if self.errors_only { COMPARED_WHILE_WAITING } else { COMPARED_EPISODES }
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
/// harms training. Stops at the first error, which then comes last, after what may be its reason.
pub fn check_game(game: &Arc<GameDef>, episodes: u64, seed: Seed) -> Vec<Diagnostic> {
    examine(game, &check_seeds(episodes, seed), &|_| ()).problems
}

/// The error of [`check_game`] with seed 0, after what may be its reason, where no further turn is played after `limit`: slow
/// calls within their budgets must not keep a reload waiting for ever.
pub fn check_game_within(game: &Arc<GameDef>, episodes: u64, limit: Duration) -> Vec<Diagnostic> {
    let trial = Trial { end: Instant::now().checked_add(limit), errors_only: true, ..Trial::default() };
    let mut problems = examine_with(game, &check_seeds(episodes, Seed::new(0)), trial, &|_| ()).problems;
    if problems.iter().all(|problem| problem.severity != Severity::Error) {
        problems.clear();
    }
    problems
}

/// Plays the random episodes of these seeds; see [`check_game`]. `tell` is told how many have been played.
pub fn examine(game: &Arc<GameDef>, seeds: &[Seed], tell: &dyn Fn(usize)) -> Examination {
    examine_with(game, seeds, Trial::default(), tell)
}

fn examine_with(game: &Arc<GameDef>, seeds: &[Seed], mut trial: Trial, tell: &dyn Fn(usize)) -> Examination {
    match game.misspelt_fields() {
        Ok(warnings) => trial.warnings = warnings,
        Err(problem) => return Examination { problems: vec![*problem], figures: Figures::default() },
    }
    if let Err(problem) = game.episode_count() {
        return Examination { problems: vec![*problem], figures: Figures::default() };
    }
    for (number, &seed) in seeds.iter().enumerate() {
        tell(number);
        let number = number as u64;
        trial.moves.clear();
        let mut play = || {
            check_episode(game, seed, number, &mut trial)?;
            if trial.keeping.is_none() && !trial.errors_only {
                trial.keeping = kept::Keeping::of(game, seed);
            }
            if number < trial.compared_episodes() && !trial.is_over() { compare(game, seed) } else { Ok(()) }
        };
        let played = game.host().guarded(&game.source, &mut play).and_then(|played| played);
        if let Err(problem) = played {
            let mut problem = *problem;
            if !trial.moves.is_empty() && problem.code != "game::not_deterministic" {
                let moves: Vec<(Seat, &str)> = trial.moves.iter().map(|(seat, text)| (*seat, text.as_str())).collect();
                problem = problem.note(format!("after the moves {}", shown_moves(&moves)));
            }
            problem = problem.note(replay_note(game, seed));
            // What may be the reason comes first.
            let mut problems = trial.warnings;
            problems.retain(|warning| CAUSES.contains(&warning.code));
            problems.push(problem);
            return Examination { problems, figures: trial.figures };
        }
        if trial.is_over() {
            break;
        }
    }
    if let Some(keeping) = &trial.keeping {
        trial.warnings.push(keeping.warning(game));
    }
    sizes::warn_of_sizes(game, &mut trial);
    Examination { problems: trial.warnings, figures: trial.figures }
}

/// How the author plays the episode of the seed again.
fn replay_note(game: &GameDef, seed: Seed) -> String {
    let (seed, file) = (seed.value(), game.source.path.display());
    format!("in the episode of seed {seed}; `gift-host check {file} --seed {seed}` plays it again")
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
fn check_episode(game: &Arc<GameDef>, seed: Seed, number: u64, trial: &mut Trial) -> Result<(), Box<Diagnostic>> {
    let thorough = number < THOROUGH_EPISODES;
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
            answers::try_listed(&episode, seat, actions, trial)?;
            if thorough {
                answers::try_unlisted(&episode, seat, actions, trial)?;
            }
        }
        if number < trial.compared_episodes() {
            answers::try_written(&episode, seat, trial)?;
        }
        if thorough && game.has("bot") {
            answers::try_bot(&episode, seat, &mut stream.clone(), trial)?;
        }
        if thorough && game.has("hide") {
            hide::try_hide(game, &episode, seat, &mut stream.clone())?;
        }
        if game.has("key") {
            key::try_key(game, episode.state(), &mut trial.keys)?;
        }
        if number < COMPARED_EPISODES && !trial.errors_only {
            kept::try_state_writes(game, &episode, seat, &stream, trial);
        }
        let action = choose(game, &episode, seat, &mut stream)?;
        if let Err(problem) = episode.act(seat, &Action { text: action.clone(), well_formed: true }) {
            trial.moves.push((seat, action));
            return Err(problem);
        }
        let refusal = episode.turns().last().and_then(|turn| turn.refusal.clone());
        if let Some(refusal) = refusal.filter(|_| actions.is_some()) {
            return Err(answers::legal_refused(game, seat, &action, &refusal));
        }
        trial.moves.push((seat, action));
    }
    if matches!(episode.status(), Status::Terminated(_)) {
        if game.has("key") {
            key::try_key(game, episode.state(), &mut trial.keys)?;
        }
        if number < COMPARED_EPISODES && !trial.errors_only {
            kept::try_outcome_writes(game, &episode, &stream, trial);
        }
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
            let examination = examine_with(&Arc::new(game.clone()), &check_seeds(3, Seed::new(0)), trial, &|_| ());
            (examination.figures.observe.count, examination.figures.episodes, examination.problems.len())
        };
        assert_eq!(played(Duration::ZERO), (0, 0, 0));
        let start = Instant::now();
        let (turns, episodes, problems) = played(Duration::from_millis(200));
        assert!(turns > 0 && (episodes, problems) == (0, 0), "{turns} turns, {episodes} episodes, {problems} problems");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
