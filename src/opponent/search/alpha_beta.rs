//! Alpha-beta search (Knuth and Moore 1975) with a transposition table, for two seats whose scores have a constant sum.
//!
//! Seat 1 maximizes the difference of the scores, seat 2 minimizes it; among equal results a win comes sooner and a loss
//! later. Actions of the root are searched with an open window, so that all that are equally good are known.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{Budget, MAX_DEPTH, MAX_KEPT, Stop, children, estimate};
use crate::diag::Diagnostic;
use crate::game::{ApplyError, GameDef, Seat};
use crate::script::State;

/// Sums of scores that differ by less are the same.
const TOLERANCE: f64 = 1e-9;

/// What a position is worth: seat 1's score less seat 2's, and the moves until then.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Value {
    margin: f64,
    distance: i32,
}

impl Value {
    const LOWEST: Self = Self { margin: f64::NEG_INFINITY, distance: 0 };
    const HIGHEST: Self = Self { margin: f64::INFINITY, distance: 0 };

    /// The order in which seat 1 prefers values.
    fn order(self, other: Self) -> Ordering {
        // Adding 0 makes -0 equal to 0.
        (self.margin + 0.0).total_cmp(&(other.margin + 0.0)).then_with(|| match self.margin.partial_cmp(&0.0) {
            Some(Ordering::Greater) => other.distance.cmp(&self.distance),
            Some(Ordering::Less) => self.distance.cmp(&other.distance),
            _ => Ordering::Equal,
        })
    }

    /// The same result, this many moves later. It keeps the order of any two values, so windows move along.
    fn later(self, moves: i32) -> Self {
        let moves = if self.margin.is_finite() && self.margin != 0.0 { moves } else { 0 };
        Self { distance: self.distance + moves, ..self }
    }
}

/// What is known of a position that was searched.
#[derive(Clone, Copy)]
enum Bound {
    Exact(Value),
    AtLeast(Value),
    AtMost(Value),
}

struct Search<'a> {
    game: &'a GameDef,
    /// By position, and the moves that were left to look ahead.
    table: HashMap<(String, usize), Bound>,
    budget: Budget,
    /// The sum of the scores of every end.
    sum: Option<f64>,
    /// Whether positions at the horizon are estimated; otherwise a line that reaches it ends the search.
    estimates: bool,
}

/// The best actions by perfect play.
///
/// # Errors
/// [`Stop::Budget`] if some end is out of reach, [`Stop::Sum`] if the scores have no constant sum.
pub(super) fn to_the_end(
    game: &GameDef,
    state: &State,
    seat: Seat,
    actions: &[String],
    budget: Budget,
) -> Result<Vec<usize>, Stop> {
    let children = children(game, state, seat, actions)?;
    let mut search = Search { game, table: HashMap::new(), budget, sum: None, estimates: false };
    search.best(&children, seat, MAX_DEPTH)
}

/// The best actions by looking `depth` moves ahead, or less far if that takes more positions than `max_nodes`. For games that
/// are not for two, or without a constant sum, the difference of a seat's score and the mean of the others' is what counts
/// for it at the horizon: they are searched for one move only.
pub(super) fn to_depth(
    game: &GameDef,
    state: &State,
    seat: Seat,
    actions: &[String],
    depth: usize,
    max_nodes: usize,
) -> Result<Vec<usize>, Box<Diagnostic>> {
    let children = children(game, state, seat, actions)?;
    let mut best = one_move(game, &children, seat)?;
    if game.seats != 2 {
        return Ok(best);
    }
    let mut budget = Budget::nodes(max_nodes);
    for moves in 1..=depth {
        let mut search = Search { game, table: HashMap::new(), budget, sum: None, estimates: true };
        match search.best(&children, seat, moves - 1) {
            Ok(found) => best = found,
            Err(Stop::Budget | Stop::Sum) => break,
            Err(Stop::Fault(problem)) => return Err(problem),
        }
        budget = search.budget;
    }
    Ok(best)
}

/// The actions after which the seat's own score, or its estimate, is highest.
fn one_move(game: &GameDef, children: &[State], seat: Seat) -> Result<Vec<usize>, Box<Diagnostic>> {
    let own = |child: &State| -> Result<f64, Box<Diagnostic>> {
        let scores = if game.to_act(child)?.is_none() { game.outcome(child)?.scores } else { estimate(game, child)? };
        Ok(scores.get(seat.0 as usize - 1).copied().unwrap_or(0.0))
    };
    let scores = children.iter().map(own).collect::<Result<Vec<f64>, _>>()?;
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Ok((0..scores.len()).filter(|&index| scores[index] == highest).collect())
}

impl Search<'_> {
    /// The numbers of the best positions for the seat that chose among them.
    fn best(&mut self, children: &[State], seat: Seat, left: usize) -> Result<Vec<usize>, Stop> {
        let mut best: Vec<usize> = Vec::new();
        let mut highest = Value::LOWEST;
        for (index, child) in children.iter().enumerate() {
            let value = self.value(child, left, Value::LOWEST, Value::HIGHEST)?;
            let order = if best.is_empty() { Ordering::Greater } else { value.order(highest) };
            match if seat.0 == 1 || best.is_empty() { order } else { order.reverse() } {
                Ordering::Greater => (best, highest) = (vec![index], value),
                Ordering::Equal => best.push(index),
                Ordering::Less => {}
            }
        }
        Ok(best)
    }

    /// The value of a position: exact between the bounds, else a bound itself (fail-soft).
    fn value(&mut self, state: &State, left: usize, low: Value, high: Value) -> Result<Value, Stop> {
        // To the end of the game a position is worth the same however it was reached.
        let place = (self.game.key(state)?, if self.estimates { left } else { 0 });
        match self.table.get(&place) {
            Some(&Bound::Exact(value)) => return Ok(value),
            Some(&Bound::AtLeast(value)) if value.order(high).is_ge() => return Ok(value),
            Some(&Bound::AtMost(value)) if value.order(low).is_le() => return Ok(value),
            _ => {}
        }
        self.budget.spend()?;
        let bound = match self.game.to_act(state)? {
            None => Bound::Exact(self.end(state)?),
            Some(_) if left == 0 && self.estimates => Bound::Exact(margin(&estimate(self.game, state)?)),
            Some(_) if left == 0 => return Err(Stop::Budget),
            Some(seat) => self.best_child(state, seat, left, low, high)?,
        };
        if self.table.len() < MAX_KEPT {
            self.table.insert(place, bound);
        }
        let (Bound::Exact(value) | Bound::AtLeast(value) | Bound::AtMost(value)) = bound;
        Ok(value)
    }

    fn best_child(&mut self, state: &State, seat: Seat, left: usize, low: Value, high: Value) -> Result<Bound, Stop> {
        let Some(actions) = self.game.actions(state, seat)? else {
            // Free text cannot be searched.
            return if self.estimates {
                Ok(Bound::Exact(margin(&estimate(self.game, state)?)))
            } else {
                Err(Stop::Budget)
            };
        };
        let maximizes = seat.0 == 1;
        let mut best: Option<Value> = None;
        let (mut window_low, mut window_high) = (low, high);
        for action in &actions {
            let child = match self.game.apply(state, seat, action) {
                Ok(child) => child,
                Err(ApplyError::Illegal(_)) => continue,
                Err(ApplyError::Fault(problem)) => return Err(Stop::Fault(problem)),
            };
            let value = self.value(&child, left - 1, window_low.later(-1), window_high.later(-1))?.later(1);
            let is_better =
                |best: Value| (value.order(best) == Ordering::Greater) == maximizes && value.order(best).is_ne();
            if best.is_none_or(is_better) {
                best = Some(value);
            }
            if maximizes && value.order(window_low).is_gt() {
                window_low = value;
            } else if !maximizes && value.order(window_high).is_lt() {
                window_high = value;
            }
            if window_low.order(window_high).is_ge() {
                break;
            }
        }
        let best = best.ok_or(Stop::Budget)?;
        Ok(if best.order(low).is_le() {
            Bound::AtMost(best)
        } else if best.order(high).is_ge() {
            Bound::AtLeast(best)
        } else {
            Bound::Exact(best)
        })
    }

    fn end(&mut self, state: &State) -> Result<Value, Stop> {
        let scores = self.game.outcome(state)?.scores;
        let sum: f64 = scores.iter().sum();
        if (sum - *self.sum.get_or_insert(sum)).abs() > TOLERANCE {
            return Err(Stop::Sum);
        }
        Ok(margin(&scores))
    }
}

/// The difference of two seats' scores.
fn margin(scores: &[f64]) -> Value {
    Value { margin: scores.first().unwrap_or(&0.0) - scores.get(1).unwrap_or(&0.0), distance: 0 }
}
