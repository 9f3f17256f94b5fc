//! Perfect play by looking at every position that can follow: exact for any number of seats and any scores.
//!
//! Max^n search (Luckhardt and Irani 1986) with a transposition table: every seat maximizes its own score, then a win
//! comes sooner and a loss later. A position solved is remembered for all episodes. A search looks into that memory only
//! for its own root's children, and a solved root's children fit the same budget, so what one thread has solved never
//! changes what another finds.

use std::collections::HashMap;

use super::{Budget, MAX_DEPTH, MAX_KEPT, Memory, Stop, children, lock, memory_key, remember};
use crate::diag::Diagnostic;
use crate::game::{ApplyError, GameDef, Seat};
use crate::script::State;

/// What a position is worth: a score for each seat, and how many moves away the end is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Worth {
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

/// The best actions for the seat, by their numbers; `None` if the budget does not reach every end.
pub(super) fn best(
    memory: &Memory,
    game: &GameDef,
    state: &State,
    seat: Seat,
    actions: &[String],
    budget: Budget,
) -> Result<Option<Vec<usize>>, Box<Diagnostic>> {
    let children = children(game, state, seat, actions)?;
    let worths = match known(memory, budget.nodes, game, &children)? {
        Some(worths) => Some(worths),
        None => solve(memory, budget, game, &children)?,
    };
    Ok(worths.map(|worths| best_of(&worths, seat)))
}

fn best_of(worths: &[Worth], seat: Seat) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::new();
    for (index, worth) in worths.iter().enumerate() {
        match best.first().map(|&first| &worths[first]) {
            Some(leader) if worth.beats(leader, seat) => best = vec![index],
            Some(leader) if leader.beats(worth, seat) => {}
            _ => best.push(index),
        }
    }
    best
}

/// The exact worth of all these positions, if it is remembered.
fn known(
    memory: &Memory,
    nodes: usize,
    game: &GameDef,
    children: &[State],
) -> Result<Option<Vec<Worth>>, Box<Diagnostic>> {
    // The script is asked before the memory is taken: it may take its time.
    let place = |child: &State| Ok(memory_key(game, nodes, &game.key(child)?));
    let places = children.iter().map(place).collect::<Result<Vec<String>, Box<Diagnostic>>>()?;
    let solved = lock(&memory.solved);
    Ok(places.iter().map(|place| solved.get(place).cloned()).collect())
}

/// The exact worth of all these positions, which is remembered; `None` if the budget does not reach.
fn solve(
    memory: &Memory,
    budget: Budget,
    game: &GameDef,
    children: &[State],
) -> Result<Option<Vec<Worth>>, Box<Diagnostic>> {
    let mut search = Search { game, table: HashMap::new(), budget };
    let worths: Result<Vec<Worth>, Stop> = children.iter().map(|state| search.value(state, 1)).collect();
    match worths {
        Ok(worths) => {
            let keyed = |(position, worth): (String, Worth)| (memory_key(game, budget.nodes, &position), worth);
            remember(&memory.solved, search.table.into_iter().map(keyed));
            Ok(Some(worths))
        }
        Err(Stop::Fault(problem)) => Err(problem),
        Err(Stop::Budget | Stop::Sum) => Ok(None),
    }
}

struct Search<'a> {
    game: &'a GameDef,
    table: HashMap<String, Worth>,
    budget: Budget,
}

impl Search<'_> {
    fn value(&mut self, state: &State, depth: usize) -> Result<Worth, Stop> {
        let position = self.game.key(state)?;
        if let Some(worth) = self.table.get(&position) {
            return Ok(worth.clone());
        }
        self.budget.spend()?;
        let worth = match self.game.to_act(state)? {
            None => Worth { scores: self.game.outcome(state)?.scores, distance: 0 },
            Some(_) if depth >= MAX_DEPTH => return Err(Stop::Budget),
            Some(seat) => self.best_child(state, seat, depth)?,
        };
        if self.table.len() < MAX_KEPT {
            self.table.insert(position, worth.clone());
        }
        Ok(worth)
    }

    fn best_child(&mut self, state: &State, seat: Seat, depth: usize) -> Result<Worth, Stop> {
        // Free text cannot be enumerated.
        let Some(actions) = self.game.actions(state, seat)? else { return Err(Stop::Budget) };
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
        best.ok_or(Stop::Budget)
    }
}
