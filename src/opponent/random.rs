//! A uniformly random legal action.

use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::script::State;
use crate::seed::Stream;

/// One of the legal actions, all equally likely; where the game takes free text, the scripted player's.
pub(super) fn act(game: &GameDef, state: &State, seat: Seat, stream: &mut Stream) -> Result<String, Box<Diagnostic>> {
    match game.actions(state, seat)? {
        Some(actions) => Ok(actions[stream.index(actions.len())].clone()),
        None => game.bot(state, seat, stream),
    }
}
