//! One version of a game's script: its fields checked once, its functions called with checked results. Every fault of
//! the script becomes a [`Diagnostic`] that names the function, what the contract asks for and what came back.

use std::fmt;
use std::sync::Arc;

use crate::diag::{Diagnostic, SourceSpan};
use crate::script::{Answer, Answers, Argument, CallError, Script, Source, State, Texts, Value, with_script};
use crate::seed::Seed;

use super::ScriptHost;
use super::fields::{Fields, GAME_FIELDS, misspelt, read_fields};
use super::foresight::Foresight;

/// A seat at the table, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub u32);

impl Seat {
    pub(super) fn value(self) -> Value {
        Value::Int(i64::from(self.0))
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What follows an illegal or unreadable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IllegalRule {
    /// The seat is asked again with the reason.
    Retry,
    /// The episode ends as lost.
    End,
}

/// How an episode ended, by seat.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Score of each seat.
    pub scores: Vec<f64>,
    /// Whether each seat succeeded.
    pub success: Vec<bool>,
}

/// Why an action was not applied.
#[derive(Clone, Debug)]
pub enum ApplyError {
    /// The rules refuse it.
    Illegal(String),
    /// The script is at fault.
    Fault(Box<Diagnostic>),
}

/// The longest observation, in bytes.
const MAX_OBSERVATION: usize = 64 << 10;
/// The longest answer in a list of legal ones, in bytes.
const MAX_ACTION: usize = 1 << 10;

/// One version of a game. Shared by the episodes that play it; every thread compiles the script for itself.
#[derive(Clone, Debug)]
pub struct GameDef {
    /// The name that settings, nests and metrics use.
    pub name: String,
    /// Number of seats.
    pub seats: u32,
    /// Most turns that one seat may take.
    pub max_turns: u32,
    /// What follows an illegal answer.
    pub illegal: IllegalRule,
    /// The script.
    pub source: Source,
    options: Value,
    host: ScriptHost,
    optional: Vec<&'static str>,
}

impl GameDef {
    /// Compiles a script and checks the fields and functions that a game must have. `options` are handed to `game.init`.
    ///
    /// # Errors
    /// A [`Diagnostic`] with the place, what is missing or of the wrong kind, and the line to write.
    pub fn compile(source: &Source, options: Value, host: &ScriptHost) -> Result<Self, Box<Diagnostic>> {
        let read = |script: &dyn Script| read_fields(script, source);
        let fields = host.guarded(source, || with_script(source, &host.limits, &host.library, read))???;
        let Fields { name, seats, max_turns, illegal, optional } = fields;
        let (source, host) = (source.clone(), host.clone());
        Ok(Self { name, seats, max_turns, illegal, source, options, host, optional })
    }

    /// Whether the game has this optional function: `actions`, `brief`, `parse`, `bot`, `score`, `key`,
    /// `hide` or `episodes`.
    pub fn has(&self, function: &str) -> bool {
        self.optional.contains(&function)
    }

    /// The options that `game.init` is given.
    pub fn options(&self) -> &Value {
        &self.options
    }

    /// What the scripts of this game may use.
    pub fn host(&self) -> &ScriptHost {
        &self.host
    }

    /// Whether the script's top level runs again for each call on this thread, because its functions change what stands
    /// there.
    pub fn is_fresh_each_call(&self) -> bool {
        let Self { source, host, .. } = self;
        let ask = || with_script(source, &host.limits, &host.library, |script| script.is_fresh_each_call());
        host.guarded(source, ask).is_ok_and(Result::unwrap_or_default)
    }

    /// What to say of an episode whose thread was given up: a call of the script could not be stopped.
    pub fn stuck(&self) -> Box<Diagnostic> {
        self.host.stuck(&self.source)
    }

    fn call(&self, function: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        let run = |script: &dyn Script| script.call(function, arguments);
        with_script(&self.source, &self.host.limits, &self.host.library, run).map_err(CallError::Fault)?
    }

    pub(super) fn call_state(
        &self,
        function: &'static str,
        arguments: &mut [Argument<'_>],
        replaces: bool,
        foresight: Option<Foresight>,
    ) -> Result<(State, Answers), CallError> {
        let questions = foresight.map(Foresight::questions);
        let run = |script: &dyn Script| script.call_state_and_ask(function, arguments, replaces, questions.as_ref());
        with_script(&self.source, &self.host.limits, &self.host.library, run).map_err(CallError::Fault)?
    }

    /// A call in which `gift.illegal` has no meaning.
    pub(super) fn ask(&self, function: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, Box<Diagnostic>> {
        self.call(function, arguments).map_err(|error| self.no_refusal(function, error))
    }

    pub(super) fn no_refusal(&self, function: &str, error: CallError) -> Box<Diagnostic> {
        match error {
            CallError::Fault(diagnostic) => diagnostic,
            CallError::Illegal(reason) => Box::new(
                self.problem(function, "game::misplaced_illegal", format!("`{function}` called `gift.illegal`"))
                    .expected("`gift.illegal` only in `apply`, to refuse an action")
                    .found(format!("`gift.illegal({reason:?})`"))
                    .help(format!("use `error(…)` in `{function}` for what should never happen")),
            ),
        }
    }

    /// An error of the function, with the line where that begins.
    pub(super) fn problem(&self, function: &str, code: &'static str, message: String) -> Diagnostic {
        self.blame(function, Diagnostic::error(code, message))
    }

    /// The diagnostic with the line where the function begins.
    pub fn blame(&self, function: &str, diagnostic: Diagnostic) -> Diagnostic {
        let find = |script: &dyn Script| script.place_of(function);
        let find = || with_script(&self.source, &self.host.limits, &self.host.library, find);
        let place = self.host.guarded(&self.source, find).and_then(|place| place);
        let mut place = place.unwrap_or_else(|_| SourceSpan::file(&self.source.path));
        let line = (place.line as usize).checked_sub(1).and_then(|index| self.source.text.lines().nth(index));
        if let Some((before, _)) = line.and_then(|line| line.split_once(function)) {
            place.column = before.chars().count() as u32 + 1;
        }
        self.source.illustrate(diagnostic.at(place)).label(format!("`{function}` begins here"))
    }

    /// Warnings for fields that the host does not read and that look like misspelt names of those that it does. Other
    /// fields are the script's own business.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script cannot be loaded.
    pub fn misspelt_fields(&self) -> Result<Vec<Diagnostic>, Box<Diagnostic>> {
        let Self { source, host, .. } = self;
        let read = || with_script(source, &host.limits, &host.library, |script| script.field_names());
        Ok(misspelt(source, "game", &host.guarded(source, read)??, &GAME_FIELDS))
    }

    pub(super) fn bad_result(&self, function: &str, expected: &str, found: &Value, help: &str) -> Box<Diagnostic> {
        Box::new(
            self.problem(function, "game::bad_result", format!("`{function}` returned the wrong kind of value"))
                .expected(expected)
                .found(shown(found))
                .help(help),
        )
    }

    /// The state at the start of the episode of this seed.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails or returns no table.
    pub fn init(&self, seed: Seed) -> Result<State, Box<Diagnostic>> {
        self.begin(seed, None, None).map(|(state, _)| state)
    }

    /// As [`GameDef::init`], with what is asked about the state next. A number, from 1, is handed to the script as
    /// `options.episode`: evaluations count their episodes so, which lets a game that reads a data set ask every row once.
    pub(super) fn begin(
        &self,
        seed: Seed,
        number: Option<u64>,
        foresight: Option<Foresight>,
    ) -> Result<(State, Answers), Box<Diagnostic>> {
        let mut stream = seed.stream();
        let options = match (&self.options, number) {
            (Value::Map(options), Some(number)) => {
                let mut options = options.clone();
                options.insert("episode".to_owned(), Value::Int(number as i64));
                std::borrow::Cow::Owned(Value::Map(options))
            }
            (options, _) => std::borrow::Cow::Borrowed(options),
        };
        let mut arguments = [Argument::Rng(&mut stream), Argument::Data(&options)];
        let begun = self.call_state("init", &mut arguments, false, foresight);
        let (state, answers) = begun.map_err(|error| self.no_refusal("init", error))?;
        if state.is_table() {
            Ok((state, answers))
        } else {
            Err(self.bad_result("init", "a table, the state", &state, "end `init` with `return state`"))
        }
    }

    /// How many different episodes the game has, if it says so (`game.episodes`): an evaluation plays each at most once.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails or gives no whole number of at least 1.
    pub fn episode_count(&self) -> Result<Option<u64>, Box<Diagnostic>> {
        if !self.has("episodes") {
            return Ok(None);
        }
        let value = self.ask("episodes", &mut [Argument::Data(&self.options)])?;
        let count = value.as_int().filter(|count| *count >= 1);
        count.map(|count| Some(count as u64)).ok_or_else(|| {
            self.bad_result(
                "episodes",
                "a whole number of at least 1",
                &value,
                "return the number of different episodes",
            )
        })
    }

    /// The seat that acts next, or `None` if the episode is over.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails or names no seat.
    pub fn to_act(&self, state: &State) -> Result<Option<Seat>, Box<Diagnostic>> {
        let value = self.ask("to_act", &mut [Argument::State(state)])?;
        self.seat_in(&value)
    }

    /// The seat that `to_act` returned.
    pub(super) fn seat_in(&self, value: &Value) -> Result<Option<Seat>, Box<Diagnostic>> {
        if *value == Value::Nil {
            return Ok(None);
        }
        let seat = value.as_int().filter(|seat| (1..=i64::from(self.seats)).contains(seat));
        seat.map(|seat| Some(Seat(seat as u32))).ok_or_else(|| {
            let expected = format!("a seat from 1 to {}, or nil when the episode is over", self.seats);
            Box::new(
                self.problem("to_act", "game::illegal_seat", "`to_act` named a seat that is not there".to_owned())
                    .expected(expected)
                    .found(shown(value))
                    .help("seats count from 1; set `seats` to the number of players"),
            )
        })
    }

    /// What the seat sees on its turn: `brief` if it is wanted and there, else `observe`.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails, returns no text, or a text that is too long.
    pub fn observe(&self, state: &State, seat: Seat, brief: bool) -> Result<String, Box<Diagnostic>> {
        let function = if brief && self.has("brief") { "brief" } else { "observe" };
        let seat_value = seat.value();
        let value = self.ask(function, &mut [Argument::State(state), Argument::Data(&seat_value)])?;
        self.text_in(value, function)
    }

    /// The text that `observe` or `brief` returned.
    pub(super) fn text_in(&self, value: Value, function: &str) -> Result<String, Box<Diagnostic>> {
        match value {
            Value::Text(text) if text.len() <= MAX_OBSERVATION => Ok(text),
            Value::Text(text) => Err(Box::new(
                self.problem(function, "game::long_observation", format!("the text of `{function}` is too long"))
                    .expected(format!("at most {MAX_OBSERVATION} bytes"))
                    .found(format!("{} bytes", text.len()))
                    .help("show what changed since the seat's last turn instead of the whole history"),
            )),
            other => Err(self.bad_result(function, "a string", &other, "return the text that the seat sees")),
        }
    }

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
        let wrong = || self.bad_result("actions", "a list of different strings, not empty, or nil", &value, help);
        let items = value.as_list().ok_or_else(wrong)?;
        let mut actions = Vec::with_capacity(items.len());
        for item in items {
            let text = match item {
                Value::Text(text) => text.clone(),
                Value::Int(number) => number.to_string(),
                _ => return Err(wrong()),
            };
            if text.is_empty() || text.len() > MAX_ACTION {
                return Err(wrong());
            }
            actions.push(text);
        }
        let mut sorted: Vec<&String> = actions.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        if actions.is_empty() || sorted.len() != actions.len() {
            return Err(wrong());
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

    /// The state after the seat's action.
    ///
    /// # Errors
    /// [`ApplyError::Illegal`] if the rules refuse it, [`ApplyError::Fault`] if the script fails or returns no table.
    pub fn apply(&self, state: &State, seat: Seat, action: &str) -> Result<State, ApplyError> {
        self.apply_to(state, seat, action, None).map(|(state, _)| state)
    }

    /// As [`GameDef::apply`], where nobody asks about the earlier state again if the action is taken; with what is asked
    /// about the new one next.
    pub(super) fn advance(
        &self,
        state: &State,
        seat: Seat,
        action: &str,
        foresight: Foresight,
    ) -> Result<(State, Answers), ApplyError> {
        self.apply_to(state, seat, action, Some(foresight))
    }

    fn apply_to(
        &self,
        state: &State,
        seat: Seat,
        action: &str,
        foresight: Option<Foresight>,
    ) -> Result<(State, Answers), ApplyError> {
        let seat_value = seat.value();
        let mut arguments = [Argument::State(state), Argument::Data(&seat_value), Argument::Text(action)];
        match self.call_state("apply", &mut arguments, foresight.is_some(), foresight) {
            Ok((state, answers)) if state.is_table() => Ok((state, answers)),
            Ok((other, _)) => {
                let help = "end `apply` with `return state`, or refuse with `gift.illegal(\"why\")`";
                Err(ApplyError::Fault(self.bad_result("apply", "a table, the new state", &other, help)))
            }
            Err(CallError::Illegal(reason)) => Err(ApplyError::Illegal(reason)),
            Err(CallError::Fault(diagnostic)) => Err(ApplyError::Fault(diagnostic)),
        }
    }

    /// How the episode ended.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails, or a seat has no finite score or no success.
    pub fn outcome(&self, state: &State) -> Result<Outcome, Box<Diagnostic>> {
        let value = self.ask("outcome", &mut [Argument::State(state)])?;
        self.outcome_in(&value)
    }

    /// The outcome that `outcome` returned.
    pub(super) fn outcome_in(&self, value: &Value) -> Result<Outcome, Box<Diagnostic>> {
        let seats = self.seats as usize;
        let scores: Option<Vec<f64>> =
            value.get("scores").and_then(Value::as_list).and_then(|list| list.iter().map(Value::as_number).collect());
        let scores = scores.filter(|scores| scores.len() == seats && scores.iter().all(|score| score.is_finite()));
        let success: Option<Vec<bool>> =
            value.get("success").and_then(Value::as_list).and_then(|list| list.iter().map(Value::as_bool).collect());
        let success = success.filter(|success| success.len() == seats);
        match (scores, success) {
            (Some(scores), Some(success)) => Ok(Outcome { scores, success }),
            (scores, _) => {
                let (field, kind) = if scores.is_none() { ("scores", "finite number") } else { ("success", "boolean") };
                let found = value.get(field).map_or_else(|| "nothing".to_owned(), shown);
                Err(Box::new(
                    self.problem("outcome", "game::bad_outcome", format!("`outcome` gave no usable `{field}`"))
                        .expected(format!("a list with a {kind} for each of the {seats} seats"))
                        .found(found)
                        .help("return { scores = {…}, success = {…} } with one entry a seat"),
                ))
            }
        }
    }
}

/// A game shared by the episodes that play it.
pub(crate) type SharedGame = Arc<GameDef>;

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

/// A value as messages show it, cut to one short line.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Nil => return "nil".to_owned(),
        // JSON has no word for it.
        Value::Float(number) if !number.is_finite() => return number.to_string(),
        other => other.to_json().to_string(),
    };
    if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() }
}
