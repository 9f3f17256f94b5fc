//! The contract of `hide`: a state that the seat may be in, as far as it knows.

use crate::diag::Diagnostic;
use crate::game::definition::shown;
use crate::game::{Episode, GameDef, Seat};
use crate::script::State;
use crate::seed::Stream;

/// Draws what each seat may be in. It must be the same seat's turn, and the seat that acts must see and be able to do the
/// same.
pub(super) fn try_hide(
    game: &GameDef,
    episode: &Episode,
    acting: Seat,
    stream: &mut Stream,
) -> Result<(), Box<Diagnostic>> {
    for seat in (1..=game.seats).map(Seat) {
        let state = episode.state();
        let hidden = game.hide(state, seat, stream)?;
        let differs = |what: &str, was: String, now: String| {
            let message = format!("`hide` gave seat {seat} a state that it knows it is not in");
            Err(Box::new(
                game.blame("hide", Diagnostic::error("game::bad_hide", message))
                    .expected(format!("{what} as before: {was}"))
                    .found(now)
                    .help("copy the state, and deal anew only what the seat cannot see, as it may have been dealt"),
            ))
        };
        let turn = game.to_act(&hidden)?;
        if turn != Some(acting) {
            let now = turn.map_or("nobody".to_owned(), |seat| format!("seat {seat}"));
            return differs("the turn", format!("seat {acting}"), now);
        }
        if seat != acting {
            // The others must still be able to go on.
            game.actions(&hidden, acting)?;
            continue;
        }
        for (what, brief) in [("the text of `observe`", false), ("the text of `brief`", true)] {
            let text = |state: &State| game.observe(state, seat, brief);
            let (was, now) = (text(state)?, text(&hidden)?);
            if was != now {
                return differs(what, shown(&was.into()), shown(&now.into()));
            }
        }
        let (was, now) = (game.actions(state, seat)?, game.actions(&hidden, seat)?);
        if was != now {
            let list = |actions: Option<Vec<String>>| actions.map_or("free text".to_owned(), |all| shown(&all.into()));
            return differs("the legal answers", list(was), list(now));
        }
    }
    Ok(())
}
