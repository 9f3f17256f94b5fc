//! Monte-Carlo tree search with UCB1 (Kocsis and Szepesvári 2006) for games that cannot be searched to their end.
//!
//! Every seat maximizes its own score, so any number of seats and any scores will do. A new position is valued by the
//! script's `score` where there is one, else by a random game to the end.

use super::{Budget, MAX_DEPTH, MAX_KEPT, Stop, child, estimate};
use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::script::State;
use crate::seed::Stream;

/// How much unvisited promise counts against known worth; the square root of 2 is UCB1's, for scores from 0 to 1.
pub(super) const EXPLORATION: f64 = std::f64::consts::SQRT_2;

/// Tries of one action, and the scores that they came to for the seat that chose it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) visits: u32,
    pub(super) total: f64,
}

impl Tally {
    pub(super) fn add(&mut self, score: f64) {
        self.visits += 1;
        self.total += score;
    }

    pub(super) fn mean(&self) -> f64 {
        self.total / f64::from(self.visits.max(1))
    }
}

/// The range of all scores seen, which UCB1 brings to 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    low: f64,
    high: f64,
}

impl Range {
    pub(super) const EMPTY: Self = Self { low: f64::INFINITY, high: f64::NEG_INFINITY };

    pub(super) fn add(&mut self, scores: &[f64]) {
        for &score in scores {
            self.low = self.low.min(score);
            self.high = self.high.max(score);
        }
    }

    fn share(self, score: f64) -> f64 {
        if self.high > self.low { (score - self.low) / (self.high - self.low) } else { 0.5 }
    }

    /// UCB1 of an action that could be taken in `available` tries.
    pub(super) fn promise(self, tally: &Tally, available: u32) -> f64 {
        let visits = f64::from(tally.visits.max(1));
        self.share(tally.mean()) + EXPLORATION * (f64::from(available.max(1)).ln() / visits).sqrt()
    }
}

/// The action that was tried most; among those the one that did best, then the first. `None` if nothing was tried.
pub(super) fn most_tried(tallies: &[Tally]) -> Option<usize> {
    let better = |a: usize, b: usize| {
        let (a, b) = (&tallies[a], &tallies[b]);
        a.visits.cmp(&b.visits).then(a.mean().total_cmp(&b.mean()))
    };
    // The first of equals: `max_by` takes the last.
    (0..tallies.len()).rev().max_by(|&a, &b| better(a, b)).filter(|&index| tallies[index].visits > 0)
}

struct Node {
    state: State,
    /// The seat to act with its actions; `None` at an end, or where nothing can be listed.
    turn: Option<(Seat, Vec<String>)>,
    /// Scores at an end.
    scores: Option<Vec<f64>>,
    tallies: Vec<Tally>,
    /// The node after each action, once it was tried.
    children: Vec<Option<usize>>,
    visits: u32,
}

struct Tree<'a> {
    game: &'a GameDef,
    nodes: Vec<Node>,
    budget: Budget,
    range: Range,
}

/// The number of the action that the budget finds best.
pub(super) fn choose(
    game: &GameDef,
    state: &State,
    seat: Seat,
    actions: &[String],
    budget: Budget,
    stream: &mut Stream,
) -> Result<usize, Box<Diagnostic>> {
    let mut tree = Tree { game, nodes: Vec::new(), budget, range: Range::EMPTY };
    tree.nodes.push(Node {
        state: state.clone(),
        turn: Some((seat, actions.to_vec())),
        scores: None,
        tallies: vec![Tally::default(); actions.len()],
        children: vec![None; actions.len()],
        visits: 0,
    });
    loop {
        match tree.try_one(stream) {
            Ok(()) => {}
            Err(Stop::Budget | Stop::Sum) => break,
            Err(Stop::Fault(problem)) => return Err(problem),
        }
    }
    Ok(most_tried(&tree.nodes[0].tallies).unwrap_or_else(|| stream.index(actions.len())))
}

impl Tree<'_> {
    /// Follows the most promising line to a new position, values it, and tells every action on the way.
    fn try_one(&mut self, stream: &mut Stream) -> Result<(), Stop> {
        let mut path: Vec<(usize, usize)> = Vec::new();
        let mut place = 0;
        let scores = loop {
            let node = &self.nodes[place];
            if let Some(scores) = &node.scores {
                // Ends cost a position as well: a solved tree must not be walked for ever.
                self.budget.spend()?;
                break scores.clone();
            }
            let Some((seat, actions)) = node.turn.as_ref().filter(|_| path.len() < MAX_DEPTH) else {
                self.budget.spend()?;
                break estimate(self.game, &node.state)?;
            };
            let index = self.select(node, stream);
            path.push((place, index));
            if let Some(next) = node.children[index] {
                place = next;
                continue;
            }
            self.budget.spend()?;
            let state = child(self.game, &node.state, *seat, &actions[index])?;
            if self.nodes.len() >= MAX_KEPT {
                break random_game(self.game, state, &mut self.budget, stream)?;
            }
            let next = self.nodes.len();
            let node = self.node(state)?;
            self.nodes.push(node);
            self.nodes[place].children[index] = Some(next);
            break self.value(next, stream)?;
        };
        self.range.add(&scores);
        for (place, index) in path {
            let node = &mut self.nodes[place];
            let seat = node.turn.as_ref().map_or(1, |(seat, _)| seat.0);
            node.visits += 1;
            node.tallies[index].add(scores.get(seat as usize - 1).copied().unwrap_or(0.0));
        }
        Ok(())
    }

    /// An action that was not tried yet, else the one with the highest UCB1.
    fn select(&self, node: &Node, stream: &mut Stream) -> usize {
        let fresh: Vec<usize> = (0..node.children.len()).filter(|&index| node.tallies[index].visits == 0).collect();
        if !fresh.is_empty() {
            return fresh[stream.index(fresh.len())];
        }
        let promise = |index: usize| self.range.promise(&node.tallies[index], node.visits);
        (0..node.children.len()).rev().max_by(|&a, &b| promise(a).total_cmp(&promise(b))).unwrap_or(0)
    }

    fn node(&self, state: State) -> Result<Node, Stop> {
        let (turn, scores) = match self.game.to_act(&state)? {
            None => (None, Some(self.game.outcome(&state)?.scores)),
            Some(seat) => (self.game.actions(&state, seat)?.map(|actions| (seat, actions)), None),
        };
        let count = turn.as_ref().map_or(0, |(_, actions)| actions.len());
        Ok(Node { state, turn, scores, tallies: vec![Tally::default(); count], children: vec![None; count], visits: 0 })
    }

    /// The scores that a new position is worth.
    fn value(&mut self, place: usize, stream: &mut Stream) -> Result<Vec<f64>, Stop> {
        let node = &self.nodes[place];
        match &node.scores {
            Some(scores) => Ok(scores.clone()),
            None if self.game.has("score") => Ok(estimate(self.game, &node.state)?),
            None => random_game(self.game, node.state.clone(), &mut self.budget, stream),
        }
    }
}

/// The scores of a game that is played at random to its end; estimated where the end is too far, or free text is asked for.
pub(super) fn random_game(
    game: &GameDef,
    mut state: State,
    budget: &mut Budget,
    stream: &mut Stream,
) -> Result<Vec<f64>, Stop> {
    for _ in 0..MAX_DEPTH {
        let Some(seat) = game.to_act(&state)? else { return Ok(game.outcome(&state)?.scores) };
        let action = match game.actions(&state, seat)? {
            Some(actions) => actions[stream.index(actions.len())].clone(),
            None if game.has("bot") => game.bot(&state, seat, stream)?,
            None => break,
        };
        budget.spend()?;
        state = child(game, &state, seat, &action)?;
    }
    Ok(estimate(game, &state)?)
}
