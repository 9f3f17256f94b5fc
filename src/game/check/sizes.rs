//! What random play says about sizes and limits.

use super::Trial;
use crate::diag::Diagnostic;
use crate::game::GameDef;

/// From this size on, a prompt for a model that reads bytes gets a warning.
const LONG_BRIEF: usize = 200;

/// What random play says about sizes and limits.
pub(super) fn warn_of_sizes(game: &GameDef, trial: &mut Trial) {
    let figures = trial.figures.clone();
    let cut = figures.episodes - figures.ended;
    if cut * 2 > figures.episodes {
        let warning = Diagnostic::warning("game::truncated", "random play seldom ends within `max_turns`")
            .at(game.source.place_of_field("max_turns"))
            .expected("most episodes end by the rules")
            .found(format!("{cut} of {} were cut off after {} turns of a seat", figures.episodes, game.max_turns))
            .help("raise `max_turns`, or make the game end sooner: a truncated episode teaches nothing");
        trial.warnings.push(game.source.illustrate(warning));
    }
    if figures.brief.mean > LONG_BRIEF as f64 {
        let (function, found, help) = if game.has("brief") {
            let help = "shorten `brief`: the built-in model reads it byte by byte, so a long one is slow and hard to learn from";
            ("brief", format!("{:.0} bytes in the mean", figures.brief.mean), help)
        } else {
            let help =
                "add `brief(state, seat)`: the built-in model reads byte by byte, and without it all of `observe`";
            ("observe", format!("no `brief`, and `observe` of {:.0} bytes in the mean", figures.brief.mean), help)
        };
        let warning = Diagnostic::warning("game::long_brief", "the built-in model has much to read on each turn");
        let warning = game.blame(function, warning).expected(format!("a `brief` of less than {LONG_BRIEF} bytes"));
        trial.warnings.push(warning.found(found).help(help));
    }
}
