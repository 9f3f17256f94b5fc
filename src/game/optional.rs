//! What only some games answer: how they read a text, their own player, and what search asks.

use super::Seat;
use super::definition::GameDef;
use super::format::{Action, parse_answer};
use crate::config::AnswerFormat;
use crate::diag::Diagnostic;
use crate::script::{Argument, State, Value};
use crate::seed::Stream;

impl GameDef {
    /// The scripted player's action for a seat.
    ///
    /// # Errors
    /// A [`Diagnostic`] if there is no `bot`, it fails, or returns no text.
    pub fn bot(&self, state: &State, seat: Seat, stream: &mut Stream) -> Result<String, Box<Diagnostic>> {
        if !self.has("bot") {
            return Err(Box::new(
                self.problem("bot", "game::no_bot", format!("`{}` has no scripted player", self.name))
                    .expected("`function game.bot(state, seat, rng) … return action end`")
                    .help("add `bot`, or choose another opponent with `--opponent`"),
            ));
        }
        let seat_value = seat.value();
        let mut arguments = [Argument::State(state), Argument::Data(&seat_value), Argument::Rng(stream)];
        match self.ask("bot", &mut arguments)? {
            Value::Text(action) => Ok(action),
            Value::Int(number) => Ok(number.to_string()),
            other => Err(self.bad_result("bot", "a string, the action", &other, "return one of the legal actions")),
        }
    }

    /// What the game makes of an answer's text: with [`AnswerFormat::Script`] what `parse` returns, `nil` being malformed.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the form is `Script` and there is no `parse`, it fails, or returns neither text nor `nil`.
    pub fn read_answer(
        &self,
        state: &State,
        seat: Seat,
        text: &str,
        form: AnswerFormat,
    ) -> Result<Action, Box<Diagnostic>> {
        if form != AnswerFormat::Script {
            return Ok(parse_answer(text, form));
        }
        self.check_form(form)?;
        let (seat_value, text) = (seat.value(), Value::from(text));
        let mut arguments = [Argument::State(state), Argument::Data(&seat_value), Argument::Data(&text)];
        match self.ask("parse", &mut arguments)? {
            Value::Text(action) => {
                Ok(Action { text: action.trim().to_owned(), well_formed: !action.trim().is_empty() })
            }
            Value::Int(number) => Ok(Action { text: number.to_string(), well_formed: true }),
            Value::Nil => Ok(Action { text: String::new(), well_formed: false }),
            other => {
                let help = "return the action that the text means, or nil if it means none";
                Err(self.bad_result("parse", "a string, or nil", &other, help))
            }
        }
    }

    /// Whether answers of this form can be read.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the form is `Script` and the game has no `parse`.
    pub fn check_form(&self, form: AnswerFormat) -> Result<(), Box<Diagnostic>> {
        if form != AnswerFormat::Script || self.has("parse") {
            return Ok(());
        }
        let message = format!("`{}` has no `parse`, which `decode.format = \"script\"` asks", self.name);
        Err(Box::new(
            self.problem("parse", "game::no_parse", message)
                .expected("`function game.parse(state, seat, text) … return action end`")
                .help("add `parse`, or choose another `decode.format`"),
        ))
    }

    /// The script's own estimate of a state's worth to a seat, for search.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails or returns no finite number; `Ok(None)` if the game has no `score`.
    pub fn score(&self, state: &State, seat: Seat) -> Result<Option<f64>, Box<Diagnostic>> {
        if !self.has("score") {
            return Ok(None);
        }
        let seat_value = seat.value();
        let value = self.ask("score", &mut [Argument::State(state), Argument::Data(&seat_value)])?;
        match value.as_number().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.bad_result("score", "a finite number", &value, "return an estimate of the seat's score")),
        }
    }

    /// What tells the position from others, for search: what `key` returns, or the whole state in its canonical form. Equal
    /// keys mean the same seat's turn, the same list of answers, and play that goes on in the same way.
    ///
    /// # Errors
    /// A [`Diagnostic`] if `key` fails or returns no text.
    pub fn key(&self, state: &State) -> Result<String, Box<Diagnostic>> {
        if !self.has("key") {
            return Ok(state.canonical());
        }
        match self.ask("key", &mut [Argument::State(state)])? {
            Value::Text(key) => Ok(key),
            other => Err(self.bad_result("key", "a string", &other, "join what the rest of the play depends on")),
        }
    }

    /// A state that the seat may be in as far as it knows, drawn anew: what it cannot see is dealt again. For search.
    ///
    /// # Errors
    /// A [`Diagnostic`] if there is no `hide`, it fails, or returns no table.
    pub fn hide(&self, state: &State, seat: Seat, stream: &mut Stream) -> Result<State, Box<Diagnostic>> {
        if !self.has("hide") {
            return Err(Box::new(
                self.problem("hide", "game::bad_hide", format!("`{}` has no `hide`", self.name))
                    .expected("`function game.hide(state, seat, rng) … return state end`"),
            ));
        }
        let seat_value = seat.value();
        let mut arguments = [Argument::State(state), Argument::Data(&seat_value), Argument::Rng(stream)];
        let (hidden, _) =
            self.call_state("hide", &mut arguments, false, None).map_err(|error| self.no_refusal("hide", error))?;
        if hidden.is_table() {
            Ok(hidden)
        } else {
            Err(self.bad_result("hide", "a table, a state", &hidden, "end `hide` with `return state`"))
        }
    }
}
