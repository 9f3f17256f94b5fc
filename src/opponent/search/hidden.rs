//! Whether a game hides something from its seats, found by play: two positions that look the same to the seat whose first
//! turn it is, and then go on differently under the same actions.
//!
//! The two are the first turns of two episodes; or one of those, and the same with a part of its state as in another
//! episode, for games whose views seldom repeat (a hand of many cards). Such a mixture of two states may be one that the
//! game never reaches, so a game that only counts something twice can be taken for one that hides it; the user can say
//! `sees=all`. What is hidden only from later turns is not found.

use std::collections::BTreeMap;

use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::script::{State, Value};
use crate::seed::{Seed, Stream};

/// Episodes whose first turns are compared: so many that views repeat where a few hundred words or hands are dealt.
const EPISODES: u64 = 600;
/// Ways in which two positions that look alike are played on.
const CONTINUATIONS: u64 = 4;
/// Most turns of such play.
const MAX_TURNS: usize = 40;
/// Most comparisons.
const MAX_COMPARED: usize = 200;
/// Most mixtures of two states that are looked at.
const MAX_MIXED: usize = 400;

/// Whether two such positions are found. A script that fails here is told of elsewhere.
pub(super) fn hides_something(game: &GameDef) -> bool {
    find(game).unwrap_or(false)
}

fn find(game: &GameDef) -> Result<bool, Box<Diagnostic>> {
    let mut alike: BTreeMap<(u32, String), (String, State)> = BTreeMap::new();
    let mut firsts: BTreeMap<(u32, String), (String, State)> = BTreeMap::new();
    let (mut compared, mut mixed) = (0, 0);
    for number in 0..EPISODES {
        let mut state = game.init(Seed::new(0).child("hidden", number))?;
        // The same draws in every episode, so that the same actions lead to the first turns of later seats.
        let mut stream = Seed::new(0).child("opening", number % CONTINUATIONS).stream();
        let mut past = (number % CONTINUATIONS).to_string();
        let mut seen = vec![false; game.seats as usize];
        while seen.contains(&false) {
            let Some(seat) = game.to_act(&state)? else { break };
            let Some(actions) = game.actions(&state, seat)? else { break };
            let first = !std::mem::replace(&mut seen[seat.0 as usize - 1], true);
            if first && compared < MAX_COMPARED {
                let view = (seat.0, format!("{past}|{}", view(game, &state, seat, &actions)?));
                let position = state.canonical();
                let place = (seat.0, past.clone());
                if let Some((seen, other)) = firsts.get(&place) {
                    for mixture in mixtures(other, &state) {
                        if mixed == MAX_MIXED {
                            break;
                        }
                        mixed += 1;
                        // A mixture that the script cannot do anything with says nothing.
                        if looks_alike(game, &mixture, seat, seen).unwrap_or(false)
                            && goes_on_differently(game, other, &mixture, seat).unwrap_or(false)
                        {
                            return Ok(true);
                        }
                    }
                } else {
                    firsts.insert(place, (self::view(game, &state, seat, &actions)?, state.clone()));
                }
                match alike.get(&view) {
                    None => _ = alike.insert(view, (position, state.clone())),
                    Some((same, _)) if *same == position => {}
                    Some((_, other)) => {
                        compared += 1;
                        if goes_on_differently(game, other, &state, seat)? {
                            return Ok(true);
                        }
                    }
                }
            }
            let Some((action, next)) = step(game, &state, seat, &actions, &mut stream) else { break };
            past = format!("{past}|{seat}:{action}");
            state = next;
        }
    }
    Ok(false)
}

/// All that the seat sees on its turn.
fn view(game: &GameDef, state: &State, seat: Seat, actions: &[String]) -> Result<String, Box<Diagnostic>> {
    let (full, brief) = (game.observe(state, seat, false)?, game.observe(state, seat, true)?);
    Ok(format!("{full}|{brief}|{}", actions.join("|")))
}

/// The first state with one part as in the second: a field, or an item of a field that is a list.
fn mixtures(first: &State, second: &State) -> Vec<State> {
    let (Value::Map(own), Value::Map(others)) = (first.value(), second.value()) else { return Vec::new() };
    let mut states = Vec::new();
    for (name, value) in own {
        let Some(other) = others.get(name).filter(|other| *other != value) else { continue };
        let mut with = |value: Value| {
            let mut fields = own.clone();
            fields.insert(name.clone(), value);
            states.push(State::from(Value::Map(fields)));
        };
        with(other.clone());
        let (Value::List(items), Value::List(other_items)) = (value, other) else { continue };
        if items.len() == other_items.len() {
            for index in (0..items.len()).filter(|&index| items[index] != other_items[index]) {
                let mut items = items.clone();
                items[index] = other_items[index].clone();
                with(Value::List(items));
            }
        }
    }
    states
}

/// Whether it is the seat's turn in this state, and the seat sees this.
fn looks_alike(game: &GameDef, state: &State, seat: Seat, seen: &str) -> Result<bool, Box<Diagnostic>> {
    if game.to_act(state)? != Some(seat) {
        return Ok(false);
    }
    let Some(actions) = game.actions(state, seat)? else { return Ok(false) };
    Ok(view(game, state, seat, &actions)? == seen)
}

/// A drawn action and the position after it; nothing if the script fails or refuses it.
fn step(game: &GameDef, state: &State, seat: Seat, actions: &[String], stream: &mut Stream) -> Option<(String, State)> {
    let action = actions.get(stream.index(actions.len()))?.clone();
    let next = game.apply(state, seat, &action).ok()?;
    Some((action, next))
}

/// Whether some play shows a difference: in who acts, what can be done, what the seat sees, or its score.
fn goes_on_differently(game: &GameDef, first: &State, second: &State, seat: Seat) -> Result<bool, Box<Diagnostic>> {
    for number in 0..CONTINUATIONS {
        let mut stream = Seed::new(0).child("continuation", number).stream();
        let mut pair = [first.clone(), second.clone()];
        for _ in 0..MAX_TURNS {
            let turn = game.to_act(&pair[0])?;
            if turn != game.to_act(&pair[1])? {
                return Ok(true);
            }
            let Some(turn) = turn else {
                let own = |state: &State| Ok::<_, Box<Diagnostic>>(game.outcome(state)?.scores[seat.0 as usize - 1]);
                if own(&pair[0])? != own(&pair[1])? {
                    return Ok(true);
                }
                break;
            };
            let (Some(actions), Some(others)) = (game.actions(&pair[0], turn)?, game.actions(&pair[1], turn)?) else {
                break;
            };
            if actions != others {
                return Ok(true);
            }
            if turn == seat && view(game, &pair[0], seat, &actions)? != view(game, &pair[1], seat, &others)? {
                return Ok(true);
            }
            let index = stream.index(actions.len());
            match (game.apply(&pair[0], turn, &actions[index]), game.apply(&pair[1], turn, &actions[index])) {
                (Ok(one), Ok(other)) => pair = [one, other],
                _ => break,
            }
        }
    }
    Ok(false)
}
