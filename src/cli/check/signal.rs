//! Whether GRPO can see a signal: the spread of rewards within groups of episodes that begin alike, as a rollout makes them
//! before the policy has learned anything.
//!
//! Listed answers are drawn at random. Free text cannot be, so there the script's own player is asked: half of the answers
//! are what `bot` says, half are what it said elsewhere, in other episodes, as a model that knows the form of an answer and
//! not the answer itself might write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::advantage::{MIN_STD, standard_deviation};
use crate::diag::Diagnostic;
use crate::game::{Action, Episode, GameDef, Seat, Status, for_each_abandonable, told_of_lost};
use crate::opponent::{Fault, Opponents, View};
use crate::seed::{Seed, Stream};

/// Groups, and episodes of each, that the spread of rewards is measured on; 16 is the paper's group size.
const GROUPS: u64 = 16;
const MEMBERS: u64 = 16;
/// Episodes of the bot that answers given elsewhere are taken from.
const ELSEWHERE_EPISODES: u64 = 16;
/// Most of these answers.
const MAX_ELSEWHERE: usize = 256;

/// The spread of rewards within groups of play.
#[derive(Debug, serde::Serialize)]
pub(super) struct Signal {
    /// Where the learner's answers came from: `random` or `bot`.
    pub(super) by: &'static str,
    pub(super) groups: u64,
    pub(super) members: u64,
    /// Groups whose rewards are all equal.
    pub(super) without: u64,
    /// Mean standard deviation of the rewards of a group.
    pub(super) spread: f64,
}

impl Signal {
    /// How the learner's answers were made, in words.
    pub(super) fn play(&self) -> &'static str {
        if self.by == "random" { "random play" } else { "answers of `bot` here and elsewhere" }
    }
}

/// The spread within groups of one random seat's play, or why it was not measured.
pub(super) fn signal(
    game: &Arc<GameDef>,
    opponents: &Opponents,
    lists: bool,
) -> Result<Result<Signal, &'static str>, Box<Diagnostic>> {
    if !lists && !game.has("bot") {
        return Ok(Err("answers are free text, and there is no `bot` to take any from"));
    }
    let elsewhere =
        if lists { Vec::new() } else { game.host().guarded(&game.source, || answers_elsewhere(game, opponents))?? };
    if !lists && elsewhere.iter().all(|answer| *answer == elsewhere[0]) {
        return Ok(Err("answers are free text, and `bot` gives the same one in all episodes"));
    }
    let learner = Learner { random: Opponents::parse("random")?, elsewhere };
    let mut groups: Vec<(u64, Option<Spread>)> = (0..GROUPS).map(|group| (group, None)).collect();
    // One fault says it all: others would cost their time as well.
    let has_failed = AtomicBool::new(false);
    for_each_abandonable(groups.iter_mut().collect(), |(group, spread)| {
        if !has_failed.load(Ordering::Relaxed) {
            let measured = spread_of(game, opponents, &learner, *group);
            has_failed.fetch_or(measured.is_err(), Ordering::Relaxed);
            *spread = Some(measured);
        }
    });
    let mut spreads = Vec::with_capacity(groups.len());
    for spread in groups.iter_mut().filter_map(|(_, spread)| spread.take()) {
        spreads.push(spread?);
    }
    if spreads.len() < groups.len() {
        // A group without a result was lost with its thread.
        return Err(game.stuck());
    }
    let without = spreads.iter().filter(|&&spread| spread < MIN_STD).count() as u64;
    let spread = spreads.iter().sum::<f64>() / spreads.len() as f64;
    let by = if lists { "random" } else { "bot" };
    Ok(Ok(Signal { by, groups: GROUPS, members: MEMBERS, without, spread }))
}

/// The standard deviation of a group's rewards, or the fault that ended one of its episodes.
type Spread = Result<f64, Box<Diagnostic>>;

/// Who answers for the seat that would learn.
struct Learner {
    random: Opponents,
    /// Answers of the bot in other episodes.
    elsewhere: Vec<String>,
}

impl Learner {
    fn answer(&self, episode: &Episode, seat: Seat, stream: &mut Stream) -> Result<String, Box<Diagnostic>> {
        let (game, state) = (episode.game(), episode.state());
        if self.elsewhere.is_empty() || game.actions(state, seat)?.is_some() {
            return self.random.act(game, state, seat, stream);
        }
        if stream.index(2) == 0 {
            return Ok(self.elsewhere[stream.index(self.elsewhere.len())].clone());
        }
        game.bot(state, seat, stream)
    }
}

/// What the bot answers where answers are free text, in episodes that are not measured.
fn answers_elsewhere(game: &Arc<GameDef>, opponents: &Opponents) -> Result<Vec<String>, Box<Diagnostic>> {
    let mut answers = Vec::new();
    for number in 0..ELSEWHERE_EPISODES {
        let seed = Seed::new(0).child("elsewhere", number);
        let mut stream = seed.child("player", 0).stream();
        let seat = drawn_seat(game, seed);
        let mut episode = Episode::start(game, seed.child("episode", 0))?;
        let mut lineup = opponents.sit(game, seed.child("lineup", 0));
        while let Status::Turn(turn) = *episode.status() {
            if answers.len() == MAX_ELSEWHERE {
                return Ok(answers);
            }
            let text = if turn == seat {
                let is_free = game.actions(episode.state(), turn)?.is_none();
                let text = game.bot(episode.state(), turn, &mut stream)?;
                answers.extend(is_free.then(|| text.clone()));
                text
            } else {
                let view = View { game, state: episode.state(), seat: turn, refusal: None };
                lineup.wait_for(&view, &mut stream).map_err(Fault::into_problem)?.action
            };
            episode.act(turn, &Action { text, well_formed: true })?;
        }
    }
    Ok(answers)
}

fn drawn_seat(game: &GameDef, seed: Seed) -> Seat {
    Seat(seed.child("seat", 0).stream().int(1, i64::from(game.seats)) as u32)
}

/// The standard deviation of the rewards of a group.
fn spread_of(
    game: &Arc<GameDef>,
    opponents: &Opponents,
    learner: &Learner,
    group: u64,
) -> Result<f64, Box<Diagnostic>> {
    let seed = Seed::new(0).child("group", group);
    let seat = drawn_seat(game, seed);
    let reward_of = |member: u64| -> Result<f64, Box<Diagnostic>> {
        let mut own = seed.child("player", member).stream();
        let mut others = seed.child("opponent", member).stream();
        let mut episode = Episode::start(game, seed.child("episode", 0))?;
        let mut lineup = opponents.sit(game, seed.child("lineup", member));
        let mut play = || {
            while let Status::Turn(turn) = *episode.status() {
                let text = if turn == seat {
                    learner.answer(&episode, turn, &mut own)?
                } else {
                    let view = View { game, state: episode.state(), seat: turn, refusal: None };
                    lineup.wait_for(&view, &mut others).map_err(Fault::into_problem)?.action
                };
                episode.act(turn, &Action { text, well_formed: true })?;
            }
            Ok(())
        };
        match play() {
            Ok(()) => Ok(episode.result(seat).0),
            Err(problem) => Err(told_of_lost(problem, game, (episode.seed(), None), episode.turns())),
        }
    };
    Ok(standard_deviation(&(0..MEMBERS).map(reward_of).collect::<Result<Vec<f64>, _>>()?))
}
