//! The contract of a game, tried on seeded random episodes: what `gift-host check` prints and what a reload must pass.

use std::sync::Arc;

use crate::diag::{Diagnostic, SourceSpan};
use crate::seed::{Seed, Stream};

use super::{Action, ApplyError, Episode, GameDef, Seat, Status};

/// An answer that no game takes as legal.
const NONSENSE: &str = "@@ not an answer @@";

/// Plays `episodes` seeded random episodes and returns what breaks the contract: errors, and warnings for what works but
/// harms training. Stops at the first error.
pub fn check_game(game: &Arc<GameDef>, episodes: u64, seed: Seed) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let mut truncated = 0;
    for number in 0..episodes {
        let episode_seed = seed.child("check", number);
        match check_episode(game, episode_seed, number == 0, &mut warnings) {
            Ok(ended) => truncated += u64::from(!ended),
            Err(problem) => {
                return vec![(*problem).note(format!("in the episode of seed {}", episode_seed.value()))];
            }
        }
    }
    if game.is_fresh_each_call() {
        warnings.push(
            at(game, Diagnostic::warning("game::kept", "functions change what stands outside them"))
                .expected("all that lasts is in the state, and tables are built while the script loads")
                .found("writes to variables or tables of the top level, which are gone after each call")
                .help("keep it in the state; as it is, the top level runs again for every call, which takes time"),
        );
    }
    if truncated * 2 > episodes {
        warnings.push(
            at(game, Diagnostic::warning("game::truncated", "random play seldom ends within `max_turns`"))
                .expected("most episodes end by the rules")
                .found(format!("{truncated} of {episodes} were cut off after {} turns of a seat", game.max_turns))
                .help("raise `max_turns`, or make the game end sooner: a truncated episode teaches nothing"),
        );
    }
    warnings
}

fn at(game: &GameDef, diagnostic: Diagnostic) -> Diagnostic {
    diagnostic.at(SourceSpan::file(&game.source.path))
}

/// Plays one episode; true if the rules ended it.
fn check_episode(
    game: &Arc<GameDef>,
    seed: Seed,
    thorough: bool,
    warnings: &mut Vec<Diagnostic>,
) -> Result<bool, Box<Diagnostic>> {
    let mut stream = seed.child("random play", 0).stream();
    let mut episode = Episode::start(game, seed)?;
    let again = Episode::start(game, seed)?;
    if episode.state() != again.state() {
        return Err(Box::new(
            at(game, Diagnostic::error("game::not_deterministic", "the same seed gave two different starts"))
                .expected("`init` draws only from its `rng`")
                .found("two states that differ")
                .help("look for the address of a table or a function in the state, as `tostring` gives it"),
        ));
    }
    while let Status::Turn(seat) = *episode.status() {
        // Both texts are asked for, so that a fault in either is found before training.
        let full = episode.observation(seat, false)?;
        let brief = episode.observation(seat, true)?;
        if (full.is_empty() || brief.is_empty()) && warnings.is_empty() {
            warnings.push(
                at(game, Diagnostic::warning("game::empty_observation", "a seat sees nothing on its turn"))
                    .expected("a text that asks the seat to act")
                    .found(format!("an empty text for seat {seat}"))
                    .help("return what the seat must know to act"),
            );
        }
        game.score(episode.state(), seat)?;
        let action = choose(game, &episode, seat, &mut stream)?;
        if thorough && game.has("actions") {
            refuses_nonsense(game, &episode, seat, warnings)?;
        }
        episode.act(seat, &Action { text: action.clone(), well_formed: true })?;
        let turn = episode.turns().last();
        if let Some(refusal) = turn.and_then(|turn| turn.refusal.as_deref())
            && game.has("actions")
        {
            return Err(Box::new(
                at(game, Diagnostic::error("game::legal_refused", "`apply` refused an answer that `actions` lists"))
                    .expected(format!("`apply` takes `{action}` from seat {seat}"))
                    .found(format!("gift.illegal({refusal:?})"))
                    .help("make `actions` and `apply` agree on what is legal"),
            ));
        }
    }
    Ok(matches!(episode.status(), Status::Terminated(_)))
}

/// A random legal action; for free text the scripted player's, or a word.
fn choose(game: &GameDef, episode: &Episode, seat: Seat, stream: &mut Stream) -> Result<String, Box<Diagnostic>> {
    let bot = || game.bot(episode.state(), seat, &mut stream.clone());
    Ok(match game.actions(episode.state(), seat)? {
        Some(actions) => {
            if game.has("bot") {
                bot()?;
            }
            actions[stream.index(actions.len())].clone()
        }
        None if game.has("bot") => bot()?,
        None => "test".to_owned(),
    })
}

fn refuses_nonsense(
    game: &GameDef,
    episode: &Episode,
    seat: Seat,
    warnings: &mut Vec<Diagnostic>,
) -> Result<(), Box<Diagnostic>> {
    if game.actions(episode.state(), seat)?.is_none() {
        return Ok(());
    }
    match game.apply(episode.state(), seat, NONSENSE) {
        Err(ApplyError::Illegal(reason)) if !reason.trim().is_empty() => {}
        Err(ApplyError::Illegal(_)) => warnings.push(
            at(game, Diagnostic::warning("game::no_reason", "`gift.illegal` was called without a reason"))
                .expected("a reason that the model can learn from")
                .help("write `gift.illegal(\"the cell is taken\")`"),
        ),
        Ok(_) => {
            return Err(Box::new(
                at(game, Diagnostic::error("game::illegal_taken", "`apply` took an answer that is not legal"))
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
    Ok(())
}
