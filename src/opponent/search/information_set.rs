//! Information-set Monte-Carlo tree search by re-determinization, for games that hide something from a seat.
//!
//! After MO-ISMCTS (Cowling, Powley and Whitehouse 2012, "Information Set Monte Carlo Tree Search", algorithm 3): each try
//! draws a state that the searcher may be in and follows UCB1 through one node for each information set, so that no seat
//! chooses by what it cannot see. Availability counts take the place of visits of the parent. One addition: in half of
//! the tries the drawn state is drawn again as the other seats may see it, and so on with falling probability, so that the
//! other seats do not play as if they knew what the searcher holds.
//!
//! It is no equilibrium solver: it plays the action that was tried most, so it can be read where mixing is needed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::monte_carlo::{Range, Tally, most_tried, random_game};
use super::{Budget, MAX_DEPTH, MAX_KEPT, Stop, child};
use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::script::State;
use crate::seed::Stream;

/// Probability that a drawn state is drawn once more, from another seat's point of view.
const REDRAWN: f64 = 0.5;
/// Most times that it is drawn again.
const MAX_REDRAWS: usize = 8;

/// What a seat knows: what it sees now, and what it saw and did since the root.
type InformationSet = u64;

#[derive(Default)]
struct Node {
    /// By action: its number below, and in how many tries it could be taken.
    actions: HashMap<String, (usize, u32)>,
    tallies: Vec<Tally>,
}

struct Search<'a> {
    game: &'a GameDef,
    nodes: HashMap<InformationSet, Node>,
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
    let mut search = Search { game, nodes: HashMap::new(), budget, range: Range::EMPTY };
    loop {
        match search.draw(state, seat, stream).and_then(|drawn| search.try_one(drawn, stream)) {
            Ok(()) => {}
            Err(Stop::Budget | Stop::Sum) => break,
            Err(Stop::Fault(problem)) => return Err(problem),
        }
    }
    let root = information_set(game, state, seat, 0)?;
    let tally = |action: &String| -> Tally {
        let node = search.nodes.get(&root);
        node.and_then(|node| Some(node.tallies[node.actions.get(action)?.0].clone())).unwrap_or_default()
    };
    let tallies: Vec<Tally> = actions.iter().map(tally).collect();
    Ok(most_tried(&tallies).unwrap_or_else(|| stream.index(actions.len())))
}

fn information_set(game: &GameDef, state: &State, seat: Seat, past: u64) -> Result<InformationSet, Box<Diagnostic>> {
    let mut hasher = DefaultHasher::new();
    (seat.0, past, game.observe(state, seat, false)?).hash(&mut hasher);
    // A later prompt may tell only what has changed; a brief has all that is needed to act.
    if game.has("brief") {
        game.observe(state, seat, true)?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

impl Search<'_> {
    /// A state that the searcher may be in, or one that others may think that it is in.
    fn draw(&mut self, state: &State, seat: Seat, stream: &mut Stream) -> Result<State, Stop> {
        // Drawing costs about as much as playing.
        self.budget.spend()?;
        let mut drawn = self.game.hide(state, seat, stream)?;
        let mut last = seat;
        for _ in 0..MAX_REDRAWS {
            if stream.float() >= REDRAWN || self.game.seats < 2 {
                break;
            }
            // Any seat but the last: its own view would change nothing that matters.
            let other = 1 + (last.0 + stream.index(self.game.seats as usize - 1) as u32) % self.game.seats;
            last = Seat(other);
            drawn = self.game.hide(&drawn, last, stream)?;
        }
        Ok(drawn)
    }

    fn try_one(&mut self, mut state: State, stream: &mut Stream) -> Result<(), Stop> {
        let mut path: Vec<(InformationSet, usize, Seat)> = Vec::new();
        let mut past = vec![0_u64; self.game.seats as usize];
        let mut depth = 0;
        let scores = loop {
            let Some(seat) = self.game.to_act(&state)? else { break self.game.outcome(&state)?.scores };
            let listed = if depth < MAX_DEPTH { self.game.actions(&state, seat)? } else { None };
            let Some(actions) = listed else { break random_game(self.game, state, &mut self.budget, stream)? };
            let place = seat.0 as usize - 1;
            let set = information_set(self.game, &state, seat, past[place])?;
            let is_new = !self.nodes.contains_key(&set);
            if is_new && self.nodes.len() >= MAX_KEPT {
                break random_game(self.game, state, &mut self.budget, stream)?;
            }
            let index = self.select(set, &actions, stream);
            let action = &actions[index];
            path.push((set, self.nodes[&set].actions[action].0, seat));
            let mut hasher = DefaultHasher::new();
            (set, action).hash(&mut hasher);
            past[place] = hasher.finish();
            self.budget.spend()?;
            state = child(self.game, &state, seat, action)?;
            depth += 1;
            if is_new {
                break random_game(self.game, state, &mut self.budget, stream)?;
            }
        };
        self.range.add(&scores);
        for (set, index, seat) in path {
            if let Some(node) = self.nodes.get_mut(&set) {
                node.tallies[index].add(scores.get(seat.0 as usize - 1).copied().unwrap_or(0.0));
            }
        }
        Ok(())
    }

    /// An action of the information set that can be taken in this state: one that was not tried yet, else the one with the
    /// highest UCB1 by availability.
    fn select(&mut self, set: InformationSet, actions: &[String], stream: &mut Stream) -> usize {
        let node = self.nodes.entry(set).or_default();
        for action in actions {
            if let Some((_, available)) = node.actions.get_mut(action) {
                *available += 1;
            } else {
                node.actions.insert(action.clone(), (node.tallies.len(), 1));
                node.tallies.push(Tally::default());
            }
        }
        let known: Vec<(usize, u32)> = actions.iter().map(|action| node.actions[action]).collect();
        let fresh: Vec<usize> = (0..known.len()).filter(|&index| node.tallies[known[index].0].visits == 0).collect();
        if !fresh.is_empty() {
            return fresh[stream.index(fresh.len())];
        }
        let promise = |index: usize| self.range.promise(&node.tallies[known[index].0], known[index].1);
        (0..known.len()).rev().max_by(|&a, &b| promise(a).total_cmp(&promise(b))).unwrap_or(0)
    }
}
