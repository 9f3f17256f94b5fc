//! Lua and Rhai behind one interface: compile, sandbox, call, values. Sits under [`crate::game`], which knows what the
//! functions of a script mean; this room only knows that a script returns a table of data and functions (or one function).
//!
//! No value of a virtual machine leaves the room: arguments and results are [`Value`]s. A compiled [`Script`] stays on
//! its thread; other threads compile the [`Source`] for themselves, cached by version ([`with_script`]).

mod border; // limits and refusals of values that cross
mod cache; // one compiled script a version and thread
mod data; // the data files that a script has opened
mod library; // the `gift` library: what the host offers to every script
mod loan; // a random stream for one call
mod lua; // Luau through mlua
mod memory; // how much memory a thread holds
mod modules; // where modules are looked for
mod rhai; // Rhai
mod source; // a script's text with all it loads, and its version
mod state; // a value that goes from call to call
mod texts; // a list of texts
mod value; // plain data that crosses the border
mod watchdog; // the time budget of calls
mod workers; // threads that run scripts and may be given up

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::diag::{Diagnostic, SourceSpan};
use crate::seed::Stream;

pub use cache::with_script;
pub use data::DataFile;
pub use library::{HostFunction, Library};
pub use memory::CountingAllocator;
pub use source::{Language, Source, Version, data_hash};
pub use state::State;
pub use texts::Texts;
pub use value::Value;
pub use workers::{abandonable, for_each_abandonable};

/// Stack of a thread that runs scripts, so that no script can overflow it: 4 MiB do when optimised, debug builds need the
/// rest. Only what is touched costs memory.
pub const STACK_BYTES: usize = 16 << 20;

/// What one script may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Time of one call; also of loading the script. On Linux the thread's processor time, as long as ten times as much
    /// has not passed on the clock: waiting for a busy machine is not charged. Elsewhere the clock's.
    pub call: Duration,
    /// Memory of one virtual machine, in bytes; of one call in Rhai, and there only with [`CountingAllocator`].
    pub memory_bytes: usize,
    /// Deepest nesting of a table that crosses the border.
    pub max_depth: usize,
    /// Most values in one table that crosses the border, nested ones included.
    pub max_values: usize,
    /// Longest string that crosses the border, in bytes.
    pub max_text_bytes: usize,
    /// All strings of one value that crosses the border, in bytes.
    pub max_total_text_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(1),
            memory_bytes: 256 << 20,
            max_depth: 32,
            max_values: 100_000,
            max_text_bytes: 1 << 20,
            max_total_text_bytes: 4 << 20,
        }
    }
}

/// A field of the table that a script returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// There is no such field (or it is nil).
    Missing,
    /// Plain data.
    Data(Value),
    /// A function, to be called by its name with [`Script::call`].
    Function,
}

/// An argument of a call.
#[derive(Debug)]
pub enum Argument<'a> {
    /// Plain data, copied into the virtual machine.
    Data(&'a Value),
    /// The same for a text.
    Text(&'a str),
    /// A state. The script sees a copy, as with plain data; the machine that it came from has it at hand.
    State(&'a State),
    /// The generator that the script draws from during this call; using it after the call is an error in the script.
    Rng(&'a mut Stream),
}

/// What is asked about a new state in the same breath, because the caller is about to ask it anyhow.
#[derive(Clone, Copy, Debug)]
pub struct Questions {
    /// The function that is asked first, about the state alone.
    pub first: &'static str,
    /// The function that is asked about the state alone if the first answer is nil.
    pub at_nil: &'static str,
    /// Functions that are asked about the state and the first answer, each with the answers (0 to 63, a bit each) after
    /// which it is.
    pub then: [(&'static str, u64); 3],
}

impl Questions {
    /// Whether they are the same, which may be missed.
    fn are(&self, other: &Self) -> bool {
        let names = |questions: &Self| questions.then.map(|(name, _)| name.as_ptr());
        let after = |questions: &Self| questions.then.map(|(_, after)| after);
        std::ptr::eq(self.first, other.first)
            && std::ptr::eq(self.at_nil, other.at_nil)
            && after(self) == after(other)
            && names(self) == names(other)
    }
}

/// What was answered to [`Questions`]. What is missing was not asked, or not answered in an ordinary way: a call of its own
/// tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// The first answer.
    pub first: Option<Value>,
    /// What was asked after a nil.
    pub at_nil: Option<Arc<Value>>,
    /// What was asked after a number.
    pub then: [Option<Answer>; 3],
}

/// One of [`Answers`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A list of one text or more.
    Texts(Arc<Texts>),
    /// Anything else.
    Value(Value),
}

impl Answer {
    /// The answer as a call of its own gives it.
    pub fn into_value(self) -> Value {
        match self {
            Self::Texts(texts) => Value::List(texts.iter().map(Value::from).collect()),
            Self::Value(value) => value,
        }
    }
}

/// A place where a function changes what stands outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The line.
    pub place: SourceSpan,
    /// The variable, if one is assigned; `None` for a write into a table.
    pub variable: Option<String>,
}

/// Why a call gave no value.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The script refused an action with `gift.illegal(reason)`: the player's mistake, not the script's. A script that
    /// catches the error (`pcall`, `try`) takes the refusal back.
    Illegal(String),
    /// The script is at fault: an error, a limit, or a value that may not cross the border.
    Fault(Box<Diagnostic>),
}

/// A compiled script in a virtual machine of its own.
pub trait Script {
    /// The field `name` of the returned table.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the field is data that may not cross the border.
    fn field(&self, name: &str) -> Result<Field, Box<Diagnostic>>;

    /// The names of all fields that the script itself wrote into the table, sorted.
    fn field_names(&self) -> Vec<String>;

    /// Where the function field `name` begins; the script as a whole if that is not known.
    fn place_of(&self, name: &str) -> SourceSpan;

    /// Whether the script returned one function instead of a table (a reward script); it is called by the name `""`.
    fn is_function(&self) -> bool;

    /// Whether the script's top level runs again for each call, because a function of the script changes what stands there:
    /// nothing lasts from one call to the next, and what was kept is computed again.
    fn is_fresh_each_call(&self) -> bool;

    /// What the script's functions change outside of them, as far as that is known: why [`Script::is_fresh_each_call`].
    fn kept(&self) -> Vec<Kept> {
        Vec::new()
    }

    /// What the function is told when it writes into a state among its arguments and that cannot be changed, with the line
    /// that writes. `None` if it writes into none, catches the error, or sees copies anyhow (Rhai). To be asked after a call
    /// with the same arguments.
    fn state_write(&self, _function: &'static str, _arguments: &mut [Argument<'_>]) -> Option<Box<Diagnostic>> {
        None
    }

    /// Calls the function field `function` with the arguments, under the limits. The name is read while the call runs, and
    /// a thread that is given up must own what it reads ([`for_each_abandonable`]), so it lives for ever.
    ///
    /// # Errors
    /// [`CallError::Illegal`] if the script called `gift.illegal`; [`CallError::Fault`] for everything else.
    fn call(&self, function: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError>;

    /// As [`Script::call`], for a function that returns a state. With `replaces`, the state among the arguments is needed
    /// no more, which spares the machine a copy; it stays valid.
    ///
    /// # Errors
    /// As [`Script::call`].
    fn call_state(
        &self,
        function: &'static str,
        arguments: &mut [Argument<'_>],
        replaces: bool,
    ) -> Result<State, CallError> {
        self.call_state_and_ask(function, arguments, replaces, None).map(|(state, _)| state)
    }

    /// As [`Script::call_state`]; what can be asked about the state on the way is. Each function has the limits of a call.
    ///
    /// # Errors
    /// As [`Script::call`], for the function itself; [`CallError::Fault`] also if a question takes too long.
    fn call_state_and_ask(
        &self,
        function: &'static str,
        arguments: &mut [Argument<'_>],
        replaces: bool,
        questions: Option<&Questions>,
    ) -> Result<(State, Answers), CallError>;
}

/// A script language.
pub trait ScriptEngine: Sync {
    /// Compiles and runs the script's top level under the limits.
    ///
    /// # Errors
    /// A [`Diagnostic`] with file, line and fix for a syntax error, an error at the top level, or a result that is
    /// neither a table nor a function.
    fn compile(&self, source: &Source, limits: &Limits, library: &Library) -> Result<Box<dyn Script>, Box<Diagnostic>>;
}

/// The engine of a language.
pub fn engine(language: Language) -> &'static dyn ScriptEngine {
    match language {
        Language::Lua => &lua::LuaEngine,
        Language::Rhai => &rhai::RhaiEngine,
    }
}

/// The room's failures that no author can mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A script or a module of it cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}
