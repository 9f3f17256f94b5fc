//! What an episode is about to ask its script, so that it can be asked along with the call that gives the state.

use crate::script::Questions;

use super::{GameDef, Seat};

/// What will be asked on a seat's turns. A wrong guess costs time and nothing else. Seats beyond the 63rd are not foreseen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foresight {
    /// The seats, a bit each.
    observe: u64,
    brief: u64,
    actions: u64,
}

/// Places of the answers to [`Foresight::questions`].
pub(super) const OBSERVE: usize = 0;
pub(super) const BRIEF: usize = 1;
pub(super) const ACTIONS: usize = 2;

impl Foresight {
    /// The seat will be shown its text, the brief one if there is one and it `is_brief`.
    #[must_use]
    pub fn text(mut self, seat: Seat, is_brief: bool) -> Self {
        let seats = if is_brief { &mut self.brief } else { &mut self.observe };
        *seats |= bit(seat);
        self
    }

    /// The seat's legal answers will be listed.
    #[must_use]
    pub fn actions(mut self, seat: Seat) -> Self {
        self.actions |= bit(seat);
        self
    }

    /// The same for a game that may lack some of the functions.
    pub(super) fn of(mut self, game: &GameDef) -> Self {
        if !game.has("brief") {
            self.observe |= std::mem::take(&mut self.brief);
        }
        if !game.has("actions") {
            self.actions = 0;
        }
        self
    }

    /// The questions about a new state.
    pub(super) fn questions(self) -> Questions {
        Questions {
            first: "to_act",
            at_nil: "outcome",
            then: [("observe", self.observe), ("brief", self.brief), ("actions", self.actions)],
        }
    }
}

/// The seat's bit.
fn bit(seat: Seat) -> u64 {
    1_u64.checked_shl(seat.0).unwrap_or(0)
}
