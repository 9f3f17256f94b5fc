//! All that a script answers in one seeded random episode, so that two plays of it can be compared: on another virtual
//! machine, in another process.

use std::cell::Cell;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::diag::Diagnostic;
use crate::game::definition::shown;
use crate::game::{Action, Episode, GameDef, Status};
use crate::script::Value;
use crate::seed::Seed;

/// Most turns that are compared; what differs does so early.
const MAX_TURNS: usize = 200;
/// Bytes of answers after which no further turn is compared: large states are held twice.
const MAX_BYTES: usize = 16 << 20;

/// What a function of the script returned, in the order of the calls.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    /// The function.
    pub function: String,
    /// Its result, as JSON or as the text that it returned.
    pub result: String,
}

/// Every answer of the script in the episode of the seed, played by random legal answers.
///
/// # Errors
/// A [`Diagnostic`] if the script fails.
pub fn transcript(game: &Arc<GameDef>, seed: Seed) -> Result<Vec<Answer>, Box<Diagnostic>> {
    game.host().guarded(&game.source, || play(game, seed))?
}

fn play(game: &Arc<GameDef>, seed: Seed) -> Result<Vec<Answer>, Box<Diagnostic>> {
    let (mut answers, bytes) = (Vec::new(), Cell::new(0));
    let mut note = |function: &str, result: String| {
        bytes.set(bytes.get() + result.len());
        answers.push(Answer { function: function.to_owned(), result });
    };
    let mut stream = seed.child("random play", 0).stream();
    let mut episode = Episode::start(game, seed)?;
    note("init", episode.state().to_json().to_string());
    while let Status::Turn(seat) = *episode.status() {
        if episode.turns().len() == MAX_TURNS || bytes.get() > MAX_BYTES {
            return Ok(answers);
        }
        note("observe", episode.observation(seat, false)?);
        if game.has("brief") {
            note("brief", episode.observation(seat, true)?);
        }
        if let Some(score) = game.score(episode.state(), seat)? {
            note("score", score.to_string());
        }
        if game.has("key") {
            note("key", game.key(episode.state())?);
        }
        if game.has("bot") {
            note("bot", game.bot(episode.state(), seat, &mut stream.clone())?);
        }
        if game.has("hide") {
            note("hide", game.hide(episode.state(), seat, &mut stream.clone())?.to_json().to_string());
        }
        if let Some(actions) = game.actions(episode.state(), seat)? {
            note("actions", shown_whole(&actions.into()));
        }
        let text = super::choose(game, &episode, seat, &mut stream)?;
        episode.act(seat, &Action { text, well_formed: true })?;
        note("apply", episode.state().to_json().to_string());
    }
    if let Status::Terminated(outcome) = episode.status() {
        note("outcome", shown_whole(&outcome.scores.clone().into()));
        note("outcome", shown_whole(&outcome.success.clone().into()));
    }
    Ok(answers)
}

fn shown_whole(value: &Value) -> String {
    value.to_json().to_string()
}

/// The first 16 hexadecimal digits of the SHA-256 of a transcript.
pub fn fingerprint(answers: &[Answer]) -> String {
    let mut hash = Sha256::new();
    for Answer { function, result } in answers {
        hash.update((function.len() as u64).to_le_bytes());
        hash.update(function.as_bytes());
        hash.update((result.len() as u64).to_le_bytes());
        hash.update(result.as_bytes());
    }
    let first = hash.finalize().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{first:016x}")
}

/// The problem of two plays of the same episode whose transcripts differ; `None` if they do not.
pub fn difference(game: &GameDef, first: &[Answer], second: &[Answer], place: &str) -> Option<Diagnostic> {
    let at = (0..first.len().max(second.len())).find(|&at| first.get(at) != second.get(at))?;
    let function = first.get(at).or(second.get(at)).map_or("init", |answer| &answer.function).to_owned();
    let (a, b) = (from_change(first.get(at), second.get(at)), from_change(second.get(at), first.get(at)));
    let problem = Diagnostic::error("game::not_deterministic", format!("the same seed gave another episode {place}"));
    Some(
        game.blame(&function, problem)
            .expected("randomness only from `rng`; nothing kept between calls; no order or text that depends on addresses")
            .found(format!("`{function}` gave {a}, then {b}"))
            .help(
                "look for variables outside the functions that change, for `pairs` over tables whose keys are tables, and \
                 for tables or functions made into text",
            )
            .note("the members of a group would play different episodes, and their rewards could not be compared"),
    )
}

/// The answer from a little before the place where it differs from the other.
fn from_change(answer: Option<&Answer>, other: Option<&Answer>) -> String {
    let Some(answer) = answer else { return "nothing".to_owned() };
    let other = other.map_or("", |other| &other.result);
    let same = answer.result.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let skipped = same.saturating_sub(30);
    let rest: String = answer.result.chars().skip(skipped).take(60).collect();
    let dots = if skipped > 0 { "…" } else { "" };
    shown(&Value::Text(format!("{dots}{rest}")))
}
