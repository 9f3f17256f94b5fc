//! One version of a game's script: its fields checked once, its functions called with checked results. Every fault of
//! the script becomes a [`Diagnostic`] that names the function, what the contract asks for and what came back.

use std::fmt;
use std::sync::Arc;

use crate::diag::{Diagnostic, SourceSpan};
use crate::script::{Answers, Argument, CallError, Kept, Script, Source, State, Value, with_script};
use crate::seed::{Seed, Stream};

use super::ScriptHost;
use super::fields::{Fields, GAME_FIELDS, colons, misspelt, read_fields};
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

    /// What the script's functions change outside of them, as far as this thread knows.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let Self { source, host, .. } = self;
        with_script(source, &host.limits, &host.library, |script| script.kept()).unwrap_or_default()
    }

    /// What the function is told when it writes into the state, if it should only look at it and does write. To be asked
    /// on a thread that has called the function with these arguments.
    pub(super) fn state_write(
        &self,
        function: &'static str,
        state: &State,
        seat: Seat,
        stream: &mut Stream,
    ) -> Option<Box<Diagnostic>> {
        let seat_value = seat.value();
        let mut arguments = [Argument::State(state), Argument::Data(&seat_value), Argument::Rng(stream)];
        let count = match function {
            "to_act" | "outcome" | "key" => 1,
            "bot" => 3,
            _ => 2,
        };
        let ask = |script: &dyn Script| script.state_write(function, &mut arguments[..count]);
        with_script(&self.source, &self.host.limits, &self.host.library, ask).ok().flatten()
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
        // A function may lie in a module, whose text is another.
        let index = (place.line as usize).checked_sub(1).filter(|_| place.file == self.source.path);
        let line = index.and_then(|index| self.source.text.lines().nth(index));
        if let Some((before, _)) = line.and_then(|line| line.split_once(function)) {
            place.column = before.chars().count() as u32 + 1;
        }
        self.source.illustrate(diagnostic.at(place)).label(format!("`{function}` begins here"))
    }

    /// Warnings for fields that the host does not read and that look like misspelt names of those that it does, and for
    /// functions that are defined with a colon. Other fields are the script's own business.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script cannot be loaded.
    pub fn misspelt_fields(&self) -> Result<Vec<Diagnostic>, Box<Diagnostic>> {
        let Self { source, host, .. } = self;
        let read = || with_script(source, &host.limits, &host.library, |script| script.field_names());
        let mut warnings = misspelt(source, "game", &host.guarded(source, read)??, &GAME_FIELDS);
        warnings.extend(colons(source));
        Ok(warnings)
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

/// A value as messages show it, cut to one short line.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.shown();
    if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() }
}
