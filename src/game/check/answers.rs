//! What may be answered beside what is played: every listed answer, which the rules must take, and others, which they must
//! refuse.

use super::Trial;
use crate::diag::Diagnostic;
use crate::game::definition::shown;
use crate::game::{ApplyError, Episode, GameDef, Seat};
use crate::script::Language;
use crate::seed::Stream;

/// An answer that no game takes as legal.
const NONSENSE: &str = "@@ not an answer @@";
/// What a model may write where it may write anything.
const WRITTEN: [&str; 6] = [NONSENSE, "-1", "0", "1.5", "1000000", "é"];
/// Listed answers that are tried beside the one that is played, over all episodes.
const MAX_TRIED: usize = 5_000;
/// Answers of other positions that are remembered and tried where they are not listed.
const MAX_REMEMBERED: usize = 64;

pub(super) fn legal_refused(game: &GameDef, seat: Seat, action: &str, refusal: &str) -> Box<Diagnostic> {
    let problem = Diagnostic::error("game::legal_refused", "`apply` refused an answer that `actions` lists");
    Box::new(
        game.blame("apply", problem)
            .expected(format!("`apply` takes `{action}` from seat {seat}"))
            .found(format!("gift.illegal({refusal:?})"))
            .help("make `actions` and `apply` agree on what is legal"),
    )
}

/// Every listed answer must be taken.
pub(super) fn try_listed(
    episode: &Episode,
    seat: Seat,
    actions: &[String],
    trial: &mut Trial,
) -> Result<(), Box<Diagnostic>> {
    let game = episode.game();
    if trial.tried < MAX_TRIED && game.lists_numbers(episode.state(), seat)? {
        let make = || {
            let warning = Diagnostic::warning("game::number_actions", "`actions` lists numbers");
            let (list, text, number) = match game.source.language {
                Language::Lua => ("{ \"1\", \"2\" }", "tostring(number)", "tonumber(action)"),
                Language::Rhai => ("[\"1\", \"2\"]", "number.to_string()", "parse_int(action)"),
            };
            game.blame("actions", warning)
                .expected(format!("strings, such as {list}"))
                .found("numbers, which are made into text: `apply` is given \"1\", not 1")
                .help(format!("write `{text}` in `actions`, and `{number}` in `apply`: \"1\" == 1 is false"))
        };
        trial.warn(make, "game::number_actions");
    }
    for action in actions {
        if trial.tried == MAX_TRIED {
            return Ok(());
        }
        trial.tried += 1;
        match game.apply(episode.state(), seat, action) {
            Ok(_) => {}
            Err(ApplyError::Illegal(refusal)) => return Err(legal_refused(game, seat, action, &refusal)),
            Err(ApplyError::Fault(problem)) => {
                return Err(Box::new((*problem).note(format!("when seat {seat} answers `{action}`"))));
            }
        }
    }
    Ok(())
}

/// What is not listed must be refused, and the reason said.
pub(super) fn try_unlisted(
    episode: &Episode,
    seat: Seat,
    actions: &[String],
    trial: &mut Trial,
) -> Result<(), Box<Diagnostic>> {
    let game = episode.game();
    match game.apply(episode.state(), seat, NONSENSE) {
        Err(ApplyError::Illegal(reason)) => warn_of_no_reason(game, &reason, trial),
        Ok(_) => {
            let problem = Diagnostic::error("game::illegal_taken", "`apply` took an answer that is not legal");
            return Err(Box::new(
                game.blame("apply", problem)
                    .expected("`gift.illegal(\"why\")` for an answer that `actions` does not list")
                    .found(format!("a new state after `{NONSENSE}`"))
                    .help("check the action at the start of `apply`"),
            ));
        }
        Err(ApplyError::Fault(problem)) => {
            return Err(Box::new(
                (*problem).note("`apply` must refuse an unknown answer with `gift.illegal`, not fail"),
            ));
        }
    }
    for other in trial.remembered.clone() {
        if actions.contains(&other) {
            continue;
        }
        match game.apply(episode.state(), seat, &other) {
            Ok(_) => {
                let make = || {
                    let text = "`apply` takes an answer here that `actions` lists elsewhere, but not here";
                    let warning = Diagnostic::warning("game::unlisted_taken", text);
                    let list = shown(&actions.to_vec().into());
                    game.blame("apply", warning)
                        .expected(format!("seat {seat} has only these: {list}"))
                        .found(format!("a new state after `{other}`"))
                        .help("list it, or refuse it: a model that writes freely learns moves that random play and search never see")
                };
                trial.warn(make, "game::unlisted_taken");
            }
            Err(ApplyError::Illegal(_)) => {}
            Err(ApplyError::Fault(problem)) => {
                return Err(Box::new((*problem).note(format!(
                    "`apply` must refuse `{other}` here with `gift.illegal`, not fail: `actions` does not list it"
                ))));
            }
        }
    }
    let room = MAX_REMEMBERED.saturating_sub(trial.remembered.len());
    trial.remembered.extend(actions.iter().take(room).cloned());
    Ok(())
}

/// Whatever is written must be taken or refused: a script that fails at it loses the episode in which a model writes it.
pub(super) fn try_written(episode: &Episode, seat: Seat, trial: &mut Trial) -> Result<(), Box<Diagnostic>> {
    let game = episode.game();
    for text in WRITTEN {
        match game.apply(episode.state(), seat, text) {
            Ok(_) => {}
            Err(ApplyError::Illegal(reason)) => warn_of_no_reason(game, &reason, trial),
            Err(ApplyError::Fault(problem)) => {
                let note = format!(
                    "when seat {seat} answers `{text}`: a model may write anything, and `apply` must refuse with \
                     `gift.illegal` what it cannot take, not fail"
                );
                return Err(Box::new((*problem).note(note)));
            }
        }
    }
    Ok(())
}

/// Warns of a refusal whose reason is empty.
fn warn_of_no_reason(game: &GameDef, reason: &str, trial: &mut Trial) {
    if !reason.trim().is_empty() {
        return;
    }
    let make = || {
        let warning = Diagnostic::warning("game::no_reason", "`gift.illegal` was called without a reason");
        game.blame("apply", warning)
            .expected("a reason that the model can learn from")
            .found("an empty one")
            .help("write `gift.illegal(\"the cell is taken\")`")
    };
    trial.warn(make, "game::no_reason");
}

/// The scripted player's answer should be one that the rules take.
pub(super) fn try_bot(
    episode: &Episode,
    seat: Seat,
    stream: &mut Stream,
    trial: &mut Trial,
) -> Result<(), Box<Diagnostic>> {
    let game = episode.game();
    let action = game.bot(episode.state(), seat, stream)?;
    if let Err(ApplyError::Illegal(reason)) = game.apply(episode.state(), seat, &action) {
        let make = || {
            let warning = Diagnostic::warning("game::bot_refused", "`apply` refused the answer of `bot`");
            game.blame("bot", warning)
                .expected(format!("a legal answer of seat {seat}"))
                .found(format!("`{action}`, and gift.illegal({reason:?})"))
                .help("take the answer from `actions`: an episode in which the opponent's answers are refused is lost")
        };
        trial.warn(make, "game::bot_refused");
    }
    Ok(())
}
