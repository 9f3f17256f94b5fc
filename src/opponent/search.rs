//! Perfect play for any game with listed actions whose every position follows from state and action alone.
//!
//! Max^n search (Luckhardt and Irani 1986) with a transposition table: every seat maximizes its own score, then a win
//! comes sooner and a loss later. Exact for games that the budget reaches to the end; beyond it, positions are valued by
//! the script's `score`, or 0. The searcher sees the whole state, so it must not be trusted in games with hidden
//! information.
//!
//! A position solved exactly is remembered for all episodes. A search looks into that memory only for its own root's
//! children, and a solved root's children fit the same budget, so what one thread has solved never changes what another
//! finds.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;

use crate::diag::Diagnostic;
use crate::game::{ApplyError, GameDef, Seat};
use crate::script::{State, Value};
use crate::seed::Stream;

/// Positions that one move may visit by default.
pub const DEFAULT_NODES: usize = 100_000;
/// Most positions that are remembered; then the memory starts anew.
const MAX_REMEMBERED: usize = 1_000_000;
/// Deepest line that is followed: the recursion must fit the thread's stack.
const MAX_DEPTH: usize = 400;
/// The depths that are tried in turn where a position cannot be searched to its end.
const SHALLOW_DEPTHS: [usize; 5] = [1, 2, 3, 4, 6];

/// Solved positions of all games of a run, by version and position.
#[derive(Debug, Default)]
pub(super) struct Solved(Mutex<HashMap<String, Worth>>);

/// What a position is worth: a score for each seat, and how many moves away the end is.
#[derive(Clone, Debug, PartialEq)]
struct Worth {
    scores: Vec<f64>,
    distance: u32,
}

impl Worth {
    /// Whether the seat would rather have this than the other.
    fn beats(&self, other: &Self, seat: Seat) -> bool {
        let index = seat.0 as usize - 1;
        let (mine, theirs) = (self.scores[index], other.scores[index]);
        if mine.total_cmp(&theirs).is_ne() {
            return mine > theirs;
        }
        // Above the mean of all seats is a win, to be had soon; below it a loss, to be put off.
        let mean = self.scores.iter().sum::<f64>() / self.scores.len() as f64;
        if mine > mean {
            self.distance < other.distance
        } else if mine < mean {
            self.distance > other.distance
        } else {
            false
        }
    }
}

/// Why a search has no value.
enum Stop {
    Budget,
    Fault(Box<Diagnostic>),
}

struct Search<'a> {
    game: &'a GameDef,
    table: HashMap<String, Worth>,
    nodes_left: usize,
    max_depth: usize,
    is_exact: bool,
}

/// The best action for the seat; among equals, one is drawn.
pub(super) fn act(
    solved: &Solved,
    nodes: usize,
    game: &GameDef,
    state: &State,
    seat: Seat,
    stream: &mut Stream,
) -> Result<String, Box<Diagnostic>> {
    let Some(actions) = game.actions(state, seat)? else { return game.bot(state, seat, stream) };
    let worths = value_children(solved, nodes, game, state, seat, &actions)?;
    let mut best: Vec<usize> = Vec::new();
    for (index, worth) in worths.iter().enumerate() {
        match best.first().map(|&first| &worths[first]) {
            Some(leader) if worth.beats(leader, seat) => best = vec![index],
            Some(leader) if leader.beats(worth, seat) => {}
            _ => best.push(index),
        }
    }
    Ok(actions[best[stream.index(best.len())]].clone())
}

/// Whether the budget reaches every end of the game from this position, so that the play is perfect. What was solved for
/// the answer is remembered for the play.
pub(super) fn solves(
    solved: &Solved,
    nodes: usize,
    game: &GameDef,
    state: &State,
    seat: Seat,
) -> Result<bool, Box<Diagnostic>> {
    let Some(actions) = game.actions(state, seat)? else { return Ok(false) };
    let children = children(game, state, seat, &actions)?;
    Ok(known(solved, nodes, game, &children).is_some() || solve(solved, nodes, game, &children)?.is_some())
}

/// The worth of the position after each action: exact if the budget reaches, else by ever deeper shallow searches.
fn value_children(
    solved: &Solved,
    nodes: usize,
    game: &GameDef,
    state: &State,
    seat: Seat,
    actions: &[String],
) -> Result<Vec<Worth>, Box<Diagnostic>> {
    let children = children(game, state, seat, actions)?;
    if let Some(worths) = known(solved, nodes, game, &children) {
        return Ok(worths);
    }
    if let Some(worths) = solve(solved, nodes, game, &children)? {
        return Ok(worths);
    }
    // Too large to solve: the deepest of the shallow searches that the same budget finishes.
    let mut worths = vec![Worth { scores: vec![0.0; game.seats as usize], distance: 0 }; children.len()];
    let mut nodes_left = nodes;
    for max_depth in SHALLOW_DEPTHS {
        let mut search = Search { game, table: HashMap::new(), nodes_left, max_depth, is_exact: true };
        match search.all(&children) {
            Ok(found) => worths = found,
            Err(Stop::Budget) => break,
            Err(Stop::Fault(problem)) => return Err(problem),
        }
        nodes_left = search.nodes_left;
    }
    Ok(worths)
}

/// The position after each action.
fn children(game: &GameDef, state: &State, seat: Seat, actions: &[String]) -> Result<Vec<State>, Box<Diagnostic>> {
    let child = |action: &String| match game.apply(state, seat, action) {
        Ok(child) => Ok(child),
        Err(ApplyError::Fault(problem)) => Err(problem),
        Err(ApplyError::Illegal(reason)) => Err(Box::new(
            Diagnostic::error("game::legal_refused", "`apply` refused an answer that `actions` lists")
                .expected(format!("`apply` takes `{action}` from seat {seat}"))
                .found(format!("gift.illegal({reason:?})")),
        )),
    };
    actions.iter().map(child).collect()
}

fn memory_key(game: &GameDef, nodes: usize, position: &str) -> String {
    format!("{}|{nodes}|{position}", game.source.version)
}

/// The exact worth of all these positions, if it is remembered.
fn known(solved: &Solved, nodes: usize, game: &GameDef, children: &[State]) -> Option<Vec<Worth>> {
    let memory = lock(solved);
    children.iter().map(|child| memory.get(&memory_key(game, nodes, &key(child))).cloned()).collect()
}

/// The exact worth of all these positions, which is remembered; `None` if the budget does not reach.
fn solve(
    solved: &Solved,
    nodes: usize,
    game: &GameDef,
    children: &[State],
) -> Result<Option<Vec<Worth>>, Box<Diagnostic>> {
    let mut search = Search { game, table: HashMap::new(), nodes_left: nodes, max_depth: MAX_DEPTH, is_exact: true };
    let worths = match search.all(children) {
        Ok(worths) if search.is_exact => worths,
        Ok(_) | Err(Stop::Budget) => return Ok(None),
        Err(Stop::Fault(problem)) => return Err(problem),
    };
    let mut memory = lock(solved);
    if memory.len() + search.table.len() > MAX_REMEMBERED {
        memory.clear();
    }
    for (position, worth) in search.table {
        memory.insert(memory_key(game, nodes, &position), worth);
    }
    Ok(Some(worths))
}

fn lock(solved: &Solved) -> std::sync::MutexGuard<'_, HashMap<String, Worth>> {
    // A panic elsewhere cannot leave a map of finished entries half-written.
    solved.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Search<'_> {
    fn all(&mut self, states: &[State]) -> Result<Vec<Worth>, Stop> {
        states.iter().map(|state| self.value(state, 1)).collect()
    }

    fn value(&mut self, state: &State, depth: usize) -> Result<Worth, Stop> {
        let position = key(state);
        if let Some(worth) = self.table.get(&position) {
            return Ok(worth.clone());
        }
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or(Stop::Budget)?;
        let worth = match self.game.to_act(state).map_err(Stop::Fault)? {
            None => Worth { scores: self.game.outcome(state).map_err(Stop::Fault)?.scores, distance: 0 },
            Some(_) if depth >= self.max_depth => {
                self.is_exact = false;
                self.estimate(state)?
            }
            Some(seat) => self.best_child(state, seat, depth)?,
        };
        // Below the horizon a position's worth depends on how deep it was met: only whole searches share it.
        if self.is_exact {
            self.table.insert(position, worth.clone());
        }
        Ok(worth)
    }

    fn best_child(&mut self, state: &State, seat: Seat, depth: usize) -> Result<Worth, Stop> {
        let Some(actions) = self.game.actions(state, seat).map_err(Stop::Fault)? else {
            self.is_exact = false;
            return self.estimate(state);
        };
        let mut best: Option<Worth> = None;
        for action in &actions {
            let child = match self.game.apply(state, seat, action) {
                Ok(child) => child,
                Err(ApplyError::Illegal(_)) => continue,
                Err(ApplyError::Fault(problem)) => return Err(Stop::Fault(problem)),
            };
            let mut worth = self.value(&child, depth + 1)?;
            worth.distance += 1;
            if best.as_ref().is_none_or(|best| worth.beats(best, seat)) {
                best = Some(worth);
            }
        }
        best.map_or_else(|| self.estimate(state), Ok)
    }

    fn estimate(&self, state: &State) -> Result<Worth, Stop> {
        let scores = (1..=self.game.seats)
            .map(|seat| Ok(self.game.score(state, Seat(seat)).map_err(Stop::Fault)?.unwrap_or(0.0)))
            .collect::<Result<_, Stop>>()?;
        Ok(Worth { scores, distance: 0 })
    }
}

/// A position in a canonical form: maps are sorted, whole floats are written like integers.
fn key(value: &Value) -> String {
    let mut out = String::new();
    write_key(value, &mut out);
    out
}

fn write_key(value: &Value, out: &mut String) {
    // Writing to a string cannot fail.
    match value {
        Value::Nil => out.push('n'),
        Value::Bool(truth) => out.push(if *truth { 't' } else { 'f' }),
        Value::Int(number) => _ = write!(out, "{number},"),
        Value::Float(number) => _ = write!(out, "{number},"),
        Value::Text(text) => _ = write!(out, "{}:{text}", text.len()),
        Value::List(items) => {
            out.push('[');
            for item in items {
                write_key(item, out);
            }
            out.push(']');
        }
        Value::Map(map) if map.is_empty() => out.push_str("[]"),
        Value::Map(map) => {
            out.push('{');
            for (name, item) in map {
                _ = write!(out, "{}:{name}", name.len());
                write_key(item, out);
            }
            out.push('}');
        }
    }
}
