//! The legal answers of a turn, as `actions` lists them, checked.

use std::sync::Arc;

use super::definition::shown;
use super::{GameDef, Seat};
use crate::diag::Diagnostic;
use crate::script::{Answer, Argument, State, Texts, Value};

/// The longest answer in a list of legal ones, in bytes.
const MAX_ACTION: usize = 1 << 10;

impl GameDef {
    /// The legal answers, or `None` for free text.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails or returns anything but a list of different strings (numbers are taken as
    /// their text) that is not empty.
    pub fn actions(&self, state: &State, seat: Seat) -> Result<Option<Vec<String>>, Box<Diagnostic>> {
        if !self.has("actions") {
            return Ok(None);
        }
        let seat_value = seat.value();
        let value = self.ask("actions", &mut [Argument::State(state), Argument::Data(&seat_value)])?;
        self.actions_in(value)
    }

    /// The legal answers that `actions` returned.
    fn actions_in(&self, mut value: Value) -> Result<Option<Vec<String>>, Box<Diagnostic>> {
        if value == Value::Nil {
            return Ok(None);
        }
        if let Some(actions) = take_actions(&mut value) {
            return Ok(Some(actions));
        }
        let help = "return a list of strings such as { \"1\", \"2\" }, or nil for free text";
        let Some(items) = value.as_list() else {
            return Err(self.bad_result("actions", "a list of different strings, not empty, or nil", &value, help));
        };
        let wrong = |message: String, expected: &str, found: String, help: &str| {
            let problem = self.problem("actions", "game::bad_result", message);
            Box::new(problem.expected(expected).found(found).help(help))
        };
        let mut actions = Vec::with_capacity(items.len());
        for item in items {
            let text = match item {
                Value::Text(text) => text.clone(),
                Value::Int(number) => number.to_string(),
                other => {
                    let message = format!("`actions` listed {}, which is no answer", other.kind());
                    return Err(wrong(message, "a list of strings", shown(&value), help));
                }
            };
            if text.is_empty() {
                let help = "name the answer, such as \"pass\": a model has to write it";
                return Err(wrong("`actions` listed an empty answer".to_owned(), "a text", shown(&value), help));
            }
            if text.len() > MAX_ACTION {
                let expected = format!("at most {MAX_ACTION} bytes each");
                let help = "list short names of the answers, and tell what they mean in `observe`";
                let message = "`actions` listed an answer that is too long".to_owned();
                return Err(wrong(message, &expected, format!("{} bytes", text.len()), help));
            }
            actions.push(text);
        }
        if actions.is_empty() {
            let expected = "at least one answer for the seat whose turn it is, or nil for free text";
            let help = "let `to_act` return nil where the episode is over, or list an answer such as \"pass\"";
            return Err(wrong("`actions` listed no answer".to_owned(), expected, "an empty list".to_owned(), help));
        }
        let mut sorted: Vec<&String> = actions.iter().collect();
        sorted.sort_unstable();
        let twice = sorted.iter().zip(sorted.iter().skip(1)).find(|(one, next)| one == next);
        if let Some((twice, _)) = twice {
            let message = format!("`actions` listed the answer `{twice}` twice");
            let help = "list each answer once (a number counts as its text): one that stands twice would be drawn twice as often";
            return Err(wrong(message, "different answers", shown(&value), help));
        }
        Ok(Some(actions))
    }

    /// As [`GameDef::actions_in`], for an answer that came along with a state.
    pub(super) fn actions_answered(&self, answer: Answer) -> Result<Option<Arc<Texts>>, Box<Diagnostic>> {
        match answer {
            Answer::Texts(texts) if texts.are_sorted() && texts.get(0) != Some("") && texts.longest() <= MAX_ACTION => {
                Ok(Some(texts))
            }
            other => Ok(self.actions_in(other.into_value())?.map(|actions| Arc::new(actions.into_iter().collect()))),
        }
    }

    /// Whether `actions` lists numbers here, which the host turns into text.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails.
    pub(super) fn lists_numbers(&self, state: &Value, seat: Seat) -> Result<bool, Box<Diagnostic>> {
        let seat_value = seat.value();
        let value = self.ask("actions", &mut [Argument::Data(state), Argument::Data(&seat_value)])?;
        Ok(value.as_list().is_some_and(|items| items.iter().any(|item| matches!(item, Value::Int(_)))))
    }
}

/// The items of a list of texts in ascending order, as `actions` should give it; `None` for anything else, which is left as
/// it is.
fn take_actions(value: &mut Value) -> Option<Vec<String>> {
    let Value::List(items) = value else { return None };
    let mut last = "";
    for item in &*items {
        let text = item.as_text().filter(|text| *text > last && text.len() <= MAX_ACTION)?;
        last = text;
    }
    let take = |item| if let Value::Text(text) = item { text } else { String::new() };
    (!items.is_empty()).then(|| std::mem::take(items).into_iter().map(take).collect())
}
