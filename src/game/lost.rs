//! What is told of an episode that a fault of its script ended: its seed, the moves that led there, and the command that plays
//! them again. Costs nothing until an episode is lost.

use crate::diag::Diagnostic;
use crate::script::{Limits, Value};
use crate::seed::Seed;

use super::{GameDef, Seat, Turn};

/// Moves that a note shows.
const SHOWN_MOVES: usize = 12;
/// Characters of a move that a note shows.
const SHOWN_CHARACTERS: usize = 40;
/// The longest command that is worth copying, in bytes.
const MAX_COMMAND: usize = 2_000;

/// The problem with notes that lead the author to it: the episode's seed, the turns up to the fault and the command for
/// them. `number` is the episode's number in an evaluation.
pub fn told_of_lost(
    problem: Box<Diagnostic>,
    game: &GameDef,
    (seed, number): (Seed, Option<u64>),
    turns: &[Turn],
) -> Box<Diagnostic> {
    let answers: Vec<&str> = taken(turns).chain(failing(turns)).map(|turn| turn.action.as_str()).collect();
    let play = play_command(game, seed, number);
    let leads = match piped(&answers) {
        _ if answers.is_empty() => format!("`{play}` leads there"),
        Some(answers) if answers.len() + play.len() <= MAX_COMMAND => format!("`{answers} | {play}` leads there"),
        _ => format!("`{play}` leads there, with these answers"),
    };
    Box::new((*problem).note(lost_in_words(seed, turns)).note(leads))
}

/// The episode's seed, and the turns that it had when it was lost.
pub fn lost_in_words(seed: Seed, turns: &[Turn]) -> String {
    let mut text = format!("in the episode of seed {}", seed.value());
    let moves: Vec<(Seat, &str)> = taken(turns).map(|turn| (turn.seat, turn.action.as_str())).collect();
    if !moves.is_empty() {
        text = format!("{text}, after the moves {}", shown_moves(&moves));
    }
    if let Some(turn) = failing(turns) {
        text = format!("{text}, when seat {} answers `{}`", turn.seat, cut(&turn.action));
    }
    text
}

/// The turns that changed the state: what was refused did not.
fn taken(turns: &[Turn]) -> impl Iterator<Item = &Turn> {
    turns.iter().filter(|turn| turn.legal)
}

/// The turn at which `apply` failed.
fn failing(turns: &[Turn]) -> Option<&Turn> {
    turns.last().filter(|turn| !turn.legal && turn.refusal.is_none())
}

/// The last moves of a list, in one line.
pub(super) fn shown_moves(moves: &[(Seat, &str)]) -> String {
    let skipped = moves.len().saturating_sub(SHOWN_MOVES);
    let shown = moves[skipped..].iter().map(|(seat, action)| format!("{seat}: `{}`", cut(action)));
    let dots = if skipped > 0 { "… " } else { "" };
    format!("{dots}{}", shown.collect::<Vec<_>>().join(", "))
}

fn cut(action: &str) -> String {
    action.chars().take(SHOWN_CHARACTERS).collect()
}

/// `gift-host play` with all that the script's answers depend on; a person answers for every seat.
fn play_command(game: &GameDef, seed: Seed, number: Option<u64>) -> String {
    let file = game.source.path.display().to_string();
    let mut command = format!("gift-host play {} --seed {}", quoted(&file), seed.value());
    if game.seats > 1 {
        command.push_str(" --opponent human");
    }
    let mut set = |key: &str, value: &str| {
        command.push_str(" --set ");
        command.push_str(&quoted(&format!("{key}={value}")));
    };
    if let Value::Map(options) = game.options() {
        for (key, value) in options {
            set(&format!("games.{}.{key}", game.name), &toml_of(value));
        }
    }
    if let Some(number) = number.filter(|_| game.has("episodes")) {
        set(&format!("games.{}.episode", game.name), &number.to_string());
    }
    let (limits, usual) = (&game.host().limits, Limits::default());
    if limits.call != usual.call {
        set("scripts.call_ms", &limits.call.as_millis().to_string());
    }
    if limits.memory_bytes != usual.memory_bytes {
        set("scripts.memory_mib", &(limits.memory_bytes >> 20).to_string());
    }
    command
}

/// A command that prints an answer a line; `None` if one has several.
fn piped(answers: &[&str]) -> Option<String> {
    if answers.iter().any(|answer| answer.chars().any(char::is_control)) {
        return None;
    }
    let answers: Vec<String> = answers.iter().map(|answer| quoted(answer)).collect();
    Some(format!("printf '%s\\n' {}", answers.join(" ")))
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A value as `--set` reads it.
fn toml_of(value: &Value) -> String {
    match value {
        Value::List(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Map(fields) => {
            let field = |(key, value): (&String, &Value)| {
                format!("{} = {}", Value::from(key.as_str()).to_json(), toml_of(value))
            };
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Value::Float(number) if !number.is_finite() => number.to_string().to_lowercase(),
        // TOML writes other numbers, texts and truth values as JSON does.
        other => other.to_json().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell_and_values_the_settings() {
        assert_eq!(quoted("games/a.lua"), "games/a.lua");
        assert_eq!(quoted("it's a $HOME"), r"'it'\''s a $HOME'");
        assert_eq!(quoted(""), "''");
        assert_eq!(piped(&["1", "a b"]).as_deref(), Some(r"printf '%s\n' 1 'a b'"));
        assert_eq!(piped(&["1\n2"]), None);
        let value = Value::from([("a b", Value::List(vec![Value::Int(1), "x".into()])), ("c", true.into())]);
        assert_eq!(toml_of(&value), r#"{ "a b" = [1, "x"], "c" = true }"#);
        assert_eq!([f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(|it| toml_of(&it.into())), ["inf", "-inf", "nan"]);
    }

    #[test]
    fn long_plays_show_their_last_moves() {
        let moves: Vec<(Seat, &str)> = (0..20).map(|number| (Seat(1 + number % 2), "x")).collect();
        let shown = shown_moves(&moves);
        assert!(shown.starts_with("… 1: `x`, 2: `x`") && shown.matches('`').count() == 2 * SHOWN_MOVES, "{shown}");
    }
}
