//! A uniformly random legal action, and the script's own player.

use super::lineup::{Answer, Fault, Opponent, Reply, View};
use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::script::State;
use crate::seed::Stream;

/// One of the legal actions, all equally likely; where the game takes free text, the scripted player's.
pub(super) struct Random;

/// The script's own player.
pub(super) struct Bot;

/// A person, who is asked elsewhere.
pub(super) struct Absent;

impl Opponent for Random {
    fn act(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Reply, Fault> {
        Ok(Reply::Answer(Answer::plain(random_action(view.game, view.state, view.seat, stream)?)))
    }
}

impl Opponent for Bot {
    fn act(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Reply, Fault> {
        Ok(Reply::Answer(Answer::plain(view.game.bot(view.state, view.seat, stream)?)))
    }
}

impl Opponent for Absent {
    fn act(&mut self, _: &View<'_>, _: &mut Stream) -> Result<Reply, Fault> {
        Err(Fault::Run(super::no_person()))
    }
}

pub(super) fn random_action(
    game: &GameDef,
    state: &State,
    seat: Seat,
    stream: &mut Stream,
) -> Result<String, Box<Diagnostic>> {
    match game.actions(state, seat)? {
        Some(actions) => Ok(actions[stream.index(actions.len())].clone()),
        None => game.bot(state, seat, stream),
    }
}
