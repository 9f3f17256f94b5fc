//! The contract of `key`: positions of equal keys are the same to whoever goes on from them.

use std::collections::HashMap;

use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::script::State;

/// Most positions that are remembered.
const MAX_KEYS: usize = 20_000;

/// The turn and the answers, or the end with its scores, in words; by key.
pub(super) type Seen = HashMap<String, String>;

/// Asks for the key of a position and compares what follows from it with earlier positions of the same key.
pub(super) fn try_key(game: &GameDef, state: &State, seen: &mut Seen) -> Result<(), Box<Diagnostic>> {
    let key = game.key(state)?;
    let what = match game.to_act(state)? {
        Some(seat) => turn(game, state, seat)?,
        None => format!("the end, with the scores {:?}", game.outcome(state)?.scores),
    };
    match seen.get(&key) {
        Some(other) if *other != what => Err(Box::new(
            game.blame("key", Diagnostic::error("game::bad_key", "`key` is the same for positions that differ"))
                .expected(format!("under the key {key:?}, as in an earlier position, {other}"))
                .found(what)
                .help("put into the key all that turn, answers, rules and scores depend on from here on"),
        )),
        Some(_) => Ok(()),
        None => {
            if seen.len() < MAX_KEYS {
                seen.insert(key, what);
            }
            Ok(())
        }
    }
}

fn turn(game: &GameDef, state: &State, seat: Seat) -> Result<String, Box<Diagnostic>> {
    Ok(match game.actions(state, seat)? {
        Some(actions) => format!("the turn of seat {seat}, with the answers {actions:?}"),
        None => format!("the turn of seat {seat}, with free text"),
    })
}
