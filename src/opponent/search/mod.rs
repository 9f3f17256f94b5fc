//! Search for any game with listed actions whose every position follows from state and action alone.
//!
//! A move is looked for in this order, by what the budget allows:
//!
//! 1. Every position that can follow is enumerated and solved, which is remembered for all episodes ([`enumerate`]).
//! 2. Games for two whose scores have a constant sum: alpha-beta with a transposition table ([`alpha_beta`]).
//! 3. Monte-Carlo tree search ([`monte_carlo`]).
//!
//! The first two are perfect play, and equal to each other. Where the game offers `hide`, the search does not look at what
//! its seat cannot see: it samples states that the seat may be in ([`information_set`]). Where it does not, and seats see
//! only a part, [`hidden`] finds out.
//!
//! With a budget of positions or moves, an answer depends on game, position and stream alone: what other threads have
//! solved changes how fast it comes, never what it is.

mod alpha_beta; // two seats, constant sum
mod enumerate; // all positions that can follow
mod hidden; // whether a seat sees less than the state
mod information_set; // sampling the states that a seat may be in
mod monte_carlo; // positions sampled by promise

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lineup::{Answer, Fault, Opponent, Reply, View};
use super::scripted::random_action;
use super::spec::{DEFAULT_NODES, SearchLimit, Strength};
use crate::diag::Diagnostic;
use crate::game::{ApplyError, GameDef, Seat};
use crate::script::State;
use crate::seed::Stream;

/// Positions up to which a game is enumerated before alpha-beta is tried: solved once, it serves all episodes.
const ENUMERATED: usize = 20_000;
/// Most entries that each memory keeps; then it starts anew.
const MAX_REMEMBERED: usize = 1_000_000;
/// Most positions that one search keeps; past that it goes on without keeping more.
const MAX_KEPT: usize = 1_000_000;
/// Deepest line that is followed: the recursion must fit the thread's stack.
const MAX_DEPTH: usize = 400;
/// Positions that a search to a depth may visit: past that, the deepest search that ended answers.
const DEPTH_NODES: usize = 10 * DEFAULT_NODES;
/// How long a thread waits for another that solves the same position.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The part of a budget of time in which a perfect answer is looked for.
const EXACT_SHARE: u32 = 2;

/// What searches of all episodes share: results that depend on game, budget and position alone.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Solved positions.
    solved: Mutex<HashMap<String, enumerate::Worth>>,
    /// The best actions of positions that alpha-beta was asked about; none where the budget did not reach.
    best: Mutex<HashMap<String, Option<Vec<usize>>>>,
    /// Whether a version of a game hides something from a seat.
    hides: Mutex<HashMap<String, bool>>,
    /// Positions that some thread solves at the moment: the members of a group all begin with the same one.
    busy: Mutex<HashSet<String>>,
    is_free: Condvar,
}

impl Memory {
    /// Whether seats of this game see less than its state, as far as a few seeded episodes tell.
    pub(super) fn hides_something(&self, game: &GameDef) -> bool {
        let version = game.source.version.0.clone();
        if let Some(&known) = lock(&self.hides).get(&version) {
            return known;
        }
        let found = hidden::hides_something(game);
        lock(&self.hides).insert(version, found);
        found
    }
}

/// A position that one thread solves while others wait for what it finds.
struct Claim<'a> {
    memory: &'a Memory,
    place: String,
}

impl<'a> Claim<'a> {
    /// Waits while another thread solves the position, but not for ever: that thread may have been given up in the middle of
    /// a script. What is found is the same either way.
    fn take(memory: &'a Memory, place: &str) -> Self {
        let busy = lock(&memory.busy);
        let (mut busy, _) = memory
            .is_free
            .wait_timeout_while(busy, MAX_WAIT, |busy| busy.contains(place))
            .unwrap_or_else(PoisonError::into_inner);
        busy.insert(place.to_owned());
        Self { memory, place: place.to_owned() }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.memory.busy).remove(&self.place);
        self.memory.is_free.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a map of finished entries half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds entries to a memory, which starts anew when it is full.
fn remember<T>(memory: &Mutex<HashMap<String, T>>, entries: impl ExactSizeIterator<Item = (String, T)>) {
    let mut memory = lock(memory);
    if memory.len() + entries.len() > MAX_REMEMBERED {
        memory.clear();
    }
    memory.extend(entries);
}

/// Why a search has no value.
enum Stop {
    Budget,
    /// Alpha-beta only: the scores of two ends have different sums.
    Sum,
    Fault(Box<Diagnostic>),
}

impl From<Box<Diagnostic>> for Stop {
    fn from(problem: Box<Diagnostic>) -> Self {
        Self::Fault(problem)
    }
}

/// What a search may still do.
#[derive(Clone, Copy, Debug)]
struct Budget {
    nodes: usize,
    until: Option<Instant>,
}

impl Budget {
    fn nodes(nodes: usize) -> Self {
        Self { nodes, until: None }
    }

    fn time(time: Duration) -> Self {
        Self { nodes: usize::MAX, until: Instant::now().checked_add(time) }
    }

    /// Takes one position out of it.
    fn spend(&mut self) -> Result<(), Stop> {
        self.nodes = self.nodes.checked_sub(1).ok_or(Stop::Budget)?;
        if self.until.is_some_and(|until| Instant::now() >= until) { Err(Stop::Budget) } else { Ok(()) }
    }
}

/// A player that searches.
pub(super) struct Searcher {
    strength: Strength,
    memory: Arc<Memory>,
}

impl Searcher {
    pub(super) fn new(strength: Strength, memory: Arc<Memory>) -> Self {
        Self { strength, memory }
    }

    fn choose(&self, view: &View<'_>, stream: &mut Stream) -> Result<String, Box<Diagnostic>> {
        let View { game, state, seat, .. } = *view;
        let Some(actions) = game.actions(state, seat)? else { return game.bot(state, seat, stream) };
        if self.strength.epsilon > 0.0 && stream.float() < self.strength.epsilon {
            return random_action(game, state, seat, stream);
        }
        let is_hidden = game.has("hide") && !self.strength.sees_all;
        let index = match self.strength.limit {
            _ if actions.len() == 1 => 0,
            SearchLimit::Nodes(nodes) if is_hidden => {
                information_set::choose(game, state, seat, &actions, Budget::nodes(nodes), stream)?
            }
            SearchLimit::Time(time) if is_hidden => {
                information_set::choose(game, state, seat, &actions, Budget::time(time), stream)?
            }
            SearchLimit::Depth(depth) => {
                let best = seen_to_depth(&self.memory, game, state, seat, &actions, depth.min(MAX_DEPTH))?;
                best[stream.index(best.len())]
            }
            SearchLimit::Nodes(nodes) => {
                match solved(&self.memory, game, state, seat, &actions, Budget::nodes(nodes))? {
                    Some(best) => best[stream.index(best.len())],
                    None => monte_carlo::choose(game, state, seat, &actions, Budget::nodes(nodes), stream)?,
                }
            }
            SearchLimit::Time(time) => {
                let started = Instant::now();
                let exact = Budget::time(time / EXACT_SHARE);
                if let Some(best) = solved(&self.memory, game, state, seat, &actions, exact)? {
                    best[stream.index(best.len())]
                } else {
                    let left = Budget::time(time.saturating_sub(started.elapsed()));
                    monte_carlo::choose(game, state, seat, &actions, left, stream)?
                }
            }
        };
        Ok(actions[index].clone())
    }
}

impl Opponent for Searcher {
    fn act(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Reply, Fault> {
        Ok(Reply::Answer(Answer::plain(self.choose(view, stream)?)))
    }
}

/// Whether the budget reaches every end of the game from this position, so that the play is perfect. What was solved for
/// the answer is remembered for the play.
pub(super) fn solves(
    memory: &Memory,
    strength: Strength,
    game: &GameDef,
    state: &State,
    seat: Seat,
) -> Result<bool, Box<Diagnostic>> {
    let SearchLimit::Nodes(nodes) = strength.limit else { return Ok(false) };
    let Some(actions) = game.actions(state, seat)? else { return Ok(false) };
    Ok(solved(memory, game, state, seat, &actions, Budget::nodes(nodes))?.is_some())
}

/// The actions that look best so many moves ahead, by their numbers. The same in every episode, so remembered.
fn seen_to_depth(
    memory: &Memory,
    game: &GameDef,
    state: &State,
    seat: Seat,
    actions: &[String],
    depth: usize,
) -> Result<Vec<usize>, Box<Diagnostic>> {
    let place = memory_key(game, DEPTH_NODES, &format!("depth {depth}|{seat}|{}", game.key(state)?));
    if let Some(Some(known)) = lock(&memory.best).get(&place) {
        return Ok(known.clone());
    }
    let best = alpha_beta::to_depth(game, state, seat, actions, depth, DEPTH_NODES)?;
    remember(&memory.best, std::iter::once((place, Some(best.clone()))));
    Ok(best)
}

/// The actions that perfect play chooses among, by their numbers; `None` if the budget does not reach.
fn solved(
    memory: &Memory,
    game: &GameDef,
    state: &State,
    seat: Seat,
    actions: &[String],
    budget: Budget,
) -> Result<Option<Vec<usize>>, Box<Diagnostic>> {
    let is_for_two = game.seats == 2;
    let place = memory_key(game, budget.nodes, &format!("{seat}|{}", game.key(state)?));
    if let Some(known) = lock(&memory.best).get(&place) {
        return Ok(known.clone());
    }
    let _claim = budget.until.is_none().then(|| Claim::take(memory, &place));
    if let Some(known) = lock(&memory.best).get(&place) {
        return Ok(known.clone());
    }
    let small = Budget { nodes: if is_for_two { budget.nodes.min(ENUMERATED) } else { budget.nodes }, ..budget };
    if let Some(best) = enumerate::best(memory, game, state, seat, actions, small)? {
        remember(&memory.best, std::iter::once((place, Some(best.clone()))));
        return Ok(Some(best));
    }
    let exact = if is_for_two { alpha_beta::to_the_end(game, state, seat, actions, budget) } else { Err(Stop::Budget) };
    let found = match exact {
        Ok(best) => Some(best),
        Err(Stop::Budget) => None,
        // Scores that do not add up to a constant: everything has to be looked at.
        Err(Stop::Sum) => enumerate::best(memory, game, state, seat, actions, budget)?,
        Err(Stop::Fault(problem)) => return Err(problem),
    };
    // What a clock has cut short another try may find.
    if found.is_some() || budget.until.is_none() {
        remember(&memory.best, std::iter::once((place, found.clone())));
    }
    Ok(found)
}

/// The position after each action.
fn children(game: &GameDef, state: &State, seat: Seat, actions: &[String]) -> Result<Vec<State>, Box<Diagnostic>> {
    actions.iter().map(|action| child(game, state, seat, action)).collect()
}

/// The position after a listed action, which `apply` must take.
fn child(game: &GameDef, state: &State, seat: Seat, action: &str) -> Result<State, Box<Diagnostic>> {
    match game.apply(state, seat, action) {
        Ok(child) => Ok(child),
        Err(ApplyError::Fault(problem)) => Err(problem),
        Err(ApplyError::Illegal(reason)) => Err(Box::new(
            Diagnostic::error("game::legal_refused", "`apply` refused an answer that `actions` lists")
                .expected(format!("`apply` takes `{action}` from seat {seat}"))
                .found(format!("gift.illegal({reason:?})")),
        )),
    }
}

/// The script's estimate of a position for every seat; 0 where it has none.
fn estimate(game: &GameDef, state: &State) -> Result<Vec<f64>, Box<Diagnostic>> {
    (1..=game.seats).map(|seat| Ok(game.score(state, Seat(seat))?.unwrap_or(0.0))).collect()
}

fn memory_key(game: &GameDef, nodes: usize, position: &str) -> String {
    format!("{}|{nodes}|{position}", game.source.version)
}

#[cfg(test)]
mod tests;
