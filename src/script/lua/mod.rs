//! Luau scripts through mlua: one virtual machine a script and thread, without files, clock or network, with a memory
//! limit and a time budget that the script cannot catch.
//!
//! Set-up in [`sandbox`], values in [`border`], errors in [`errors`]; the ways around the limits that were tried are tests
//! in `tests/hostile/`.

mod border; // Lua values to plain data and back
mod bytecode; // which scripts assign variables of their top level
mod direct; // calls without detours
mod errors; // mlua's errors as diagnostics with the author's lines
mod hints; // how to mend what often goes wrong
mod interrupt; // stops a virtual machine from another thread
mod isolation; // nothing lasts from one call to the next
mod objects; // what a script sees as `rng` and as a data set
mod probe; // what a script writes where it is lost
mod root; // what the top level returned
mod sandbox; // the virtual machine and its globals
mod trace; // the calls at the end of the memory

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlua::{Function, Lua, MultiValue, Value as LuaValue};

use super::border::begins_at;
use super::loan::Loan;
use super::watchdog::Timer;
use super::{
    Answers, Argument, CallError, Field, Kept, Library, Limits, Questions, Script, ScriptEngine, Source, State, Value,
};
use crate::diag::{Diagnostic, SourceSpan};
use crate::seed::Stream;
use direct::{Direct, Then, Use, Want, Way};
use errors::Sources;
use objects::Rng;
use root::{Root, not_a_root};
use sandbox::RefusedWrite;

/// Most names of fields that are looked at, and the longest.
const MAX_NAMES: usize = 1000;
const MAX_NAME_BYTES: usize = 100;

/// The engine for `.lua` and `.luau` files.
pub(super) struct LuaEngine;

/// A script in its virtual machine. The root comes before the machine, so that it is dropped first.
struct LuaScript {
    root: Root,
    direct: Direct,
    /// The questions that were asked last, by their functions' numbers.
    then: Cell<Option<(Questions, Then)>>,
    /// The top level, to be run again for each call if `is_fresh`.
    main: Function,
    is_fresh: Cell<bool>,
    /// Where a call was first refused a write into a table of the top level.
    refused_at: RefCell<Option<SourceSpan>>,
    lua: Lua,
    /// Whether `gift.log` is dropped, because the call is made a second time.
    is_quiet: Arc<AtomicBool>,
    timer: Arc<Timer>,
    refused_write: RefusedWrite,
    limits: Limits,
    sources: Arc<Sources>,
}

impl ScriptEngine for LuaEngine {
    fn compile(&self, source: &Source, limits: &Limits, library: &Library) -> Result<Box<dyn Script>, Box<Diagnostic>> {
        let sources = Arc::new(Sources::new(source));
        sources.check_sizes()?;
        let engine_failure = |cause: mlua::Error| sources.engine_failure(&cause);
        let (lua, timer, refused_write) = sandbox::machine(limits).map_err(engine_failure)?;
        let is_quiet = Arc::new(AtomicBool::new(false));
        sandbox::install(&lua, source, limits, library, &timer, &is_quiet).map_err(engine_failure)?;
        let host = isolation::Library::of(&lua).map_err(engine_failure)?;

        // What is read while the time runs belongs to this thread, which may be given up meanwhile.
        let text = Arc::clone(&source.text);
        let running = timer.start(limits.call);
        let main = sandbox::chunk(&lua, &text, sources.script_name()).into_function();
        let result = main.map(|main| (main.call::<LuaValue>(()), main));
        let expired = timer.expired();
        drop(running);
        let (value, main) = match result {
            Ok((Ok(_), _)) if expired => return Err(sources.timeout(None, limits)),
            Ok((Ok(value), main)) => (value, main),
            Ok((Err(error), main)) => {
                let problem = sources.fault(&lua, &error, expired, limits);
                if !lacks_place(&problem) {
                    return Err(problem);
                }
                is_quiet.store(true, Ordering::Relaxed);
                let running = timer.start(limits.call);
                let levels = trace::calls_at_error(&lua, &main, Vec::new());
                drop(running);
                return Err(sources.traced(problem, &levels));
            }
            Err(error) => return Err(sources.fault(&lua, &error, expired, limits)),
        };
        let root = Root::of(value.clone()).ok_or_else(|| not_a_root(&value, source))?;
        if lua.used_memory() > limits.memory_bytes / 4 {
            // The garbage of the top level would count against what follows. It fails only where finalizers do.
            let _ = lua.gc_collect();
        }
        // What is left may still fill the memory, which is the script's fault.
        let set_up_failure = |cause: mlua::Error| match cause {
            mlua::Error::MemoryError(_) => sources.fault(&lua, &cause, false, limits),
            cause => sources.engine_failure(&cause),
        };
        // Globals that the top level sets are the script's own functions; later, a global would be a state that the host
        // neither sees nor resets between episodes.
        lua.globals().set_readonly(true);
        let seal = || {
            let modules = LuaValue::Table(sandbox::modules(&lua)?);
            host.seal(&lua, &[value, LuaValue::Table(lua.globals()), modules])
        };
        let is_sealed = !sandbox::assigns_top_level(source) && seal().map_err(set_up_failure)?;
        let texts = std::iter::once(&source.text).chain(source.modules.values()).map(AsRef::as_ref);
        let direct = Direct::new(&lua, limits, texts).map_err(set_up_failure)?;
        let (is_fresh, limits) = (Cell::new(!is_sealed), limits.clone());
        let then = Cell::default();
        Ok(Box::new(LuaScript {
            root,
            direct,
            then,
            main,
            is_fresh,
            refused_at: RefCell::default(),
            lua,
            is_quiet,
            timer,
            refused_write,
            limits,
            sources,
        }))
    }
}

/// Whether the memory was used up and nobody knows where.
fn lacks_place(problem: &Diagnostic) -> bool {
    problem.code == "script::memory" && problem.place.as_ref().is_none_or(|place| place.line == 0)
}

impl LuaScript {
    /// One run of a call. `None` if it tried to write to what is read-only between calls.
    fn attempt(&self, name: &'static str, arguments: &mut [Argument<'_>]) -> Option<Result<Value, CallError>> {
        let is_fresh = self.is_fresh.get();
        let fault = |error: &mlua::Error| CallError::Fault(self.sources.fault(&self.lua, error, false, &self.limits));
        let mut values = Vec::with_capacity(arguments.len());
        let mut loans = Vec::new();
        for argument in arguments.iter_mut() {
            let value = match argument {
                Argument::Data(value) => border::to_lua(&self.lua, value),
                Argument::Text(text) => self.lua.create_string(text).map(LuaValue::String),
                Argument::State(state) => border::to_lua(&self.lua, state.value()),
                Argument::Rng(stream) => {
                    let loan = Loan::new(stream);
                    loans.push((loan.clone(), stream));
                    self.lua.create_userdata(Rng(loan)).map(LuaValue::UserData)
                }
            };
            match value {
                Ok(value) => values.push(value),
                Err(error) => return Some(Err(fault(&error))),
            }
        }
        self.refused_write.store(false, Ordering::Relaxed);
        let running = self.timer.start(self.limits.call);
        let function = if is_fresh {
            let root = sandbox::run_again(&self.lua, &self.main).map(Root::of);
            root.and_then(|root| root.map_or(Ok(Err(LuaValue::Nil)), |root| root.function(name)))
        } else {
            self.root.function(name)
        };
        let result = function
            .map(|found| found.map(|function| (function.call::<LuaValue>(MultiValue::from_vec(values)), function)));
        let expired = self.timer.expired();
        drop(running);
        let (result, function) = match result {
            Ok(Ok(called)) => called,
            Ok(Err(other)) => {
                return Some(Err(CallError::Fault(self.sources.not_a_function(name, &border::kind(&other)))));
            }
            Err(error) => {
                return Some(Err(CallError::Fault(self.sources.fault(&self.lua, &error, expired, &self.limits))));
            }
        };
        let has_refused = || {
            self.refused_write.load(Ordering::Relaxed)
                || result.as_ref().is_err_and(|error| isolation::is_refused_write(&error.to_string()))
        };
        if !is_fresh && has_refused() {
            let place = |error| self.sources.fault(&self.lua, error, false, &self.limits).place;
            *self.refused_at.borrow_mut() = result.as_ref().err().and_then(place);
            // Ends the loans; the streams are as they were.
            for (loan, stream) in loans {
                loan.give_back(&mut stream.clone());
            }
            return None;
        }
        for (loan, stream) in loans {
            loan.give_back(stream);
        }
        Some(match result {
            Ok(_) if expired => Err(CallError::Fault(self.sources.timeout(None, &self.limits))),
            Ok(value) => border::from_lua(&value, &self.limits).map_err(|refusal| {
                let what = if name.is_empty() { "the result".to_owned() } else { format!("the result of `{name}`") };
                let place = self.sources.defined_at(&function.info());
                let problem = refusal.diagnostic(&what, place.clone());
                CallError::Fault(Box::new(begins_at(*problem, name, place.clone(), self.sources.text_at(&place))))
            }),
            Err(error) => match errors::illegal(&error) {
                Some(reason) if !expired => Err(CallError::Illegal(reason)),
                _ => {
                    let problem = self.sources.fault(&self.lua, &error, expired, &self.limits);
                    Err(CallError::Fault(self.sources.in_call(problem, name, &function.info())))
                }
            },
        })
    }
}

impl Script for LuaScript {
    fn field(&self, name: &str) -> Result<Field, Box<Diagnostic>> {
        let value =
            self.root.lookup(name).map_err(|error| self.sources.fault(&self.lua, &error, false, &self.limits))?;
        match value {
            LuaValue::Nil => Ok(Field::Missing),
            LuaValue::Function(_) => Ok(Field::Function),
            other => match border::from_lua(&other, &self.limits) {
                Ok(value) => Ok(Field::Data(value)),
                Err(refusal) => Err(refusal.diagnostic(&format!("the field `{name}`"), self.sources.whole())),
            },
        }
    }

    fn field_names(&self) -> Vec<String> {
        let Root::Table(table) = &self.root else { return Vec::new() };
        let keys = table.pairs::<LuaValue, LuaValue>().filter_map(Result::ok).map(|(key, _)| key);
        let names =
            keys.filter_map(|key| key.as_string().and_then(|name| name.to_str().ok().map(|name| name.to_owned())));
        let mut names: Vec<String> = names.filter(|name| name.len() <= MAX_NAME_BYTES).take(MAX_NAMES).collect();
        names.sort_unstable();
        names
    }

    fn place_of(&self, name: &str) -> SourceSpan {
        match self.root.lookup(name) {
            Ok(LuaValue::Function(function)) => self.sources.defined_at(&function.info()),
            _ => self.sources.whole(),
        }
    }

    fn is_function(&self) -> bool {
        matches!(self.root, Root::Function(_))
    }

    fn is_fresh_each_call(&self) -> bool {
        self.is_fresh.get()
    }

    fn kept(&self) -> Vec<Kept> {
        self.find_kept()
    }

    fn state_write(&self, name: &'static str, arguments: &mut [Argument<'_>]) -> Option<Box<Diagnostic>> {
        self.call_with_frozen_states(name, arguments)
    }

    fn call(&self, name: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        match self.call_directly(name, arguments, Use::Look, Want::Value, &mut Answers::default()) {
            Way::Value(value) => Ok(value),
            Way::State(state) => Ok(state.value().clone()),
            Way::Around | Way::Unanswered => self.call_again(name, arguments),
            Way::Expired(error) => Err(CallError::Fault(self.sources.timeout(error.as_ref(), &self.limits))),
        }
    }

    fn call_state_and_ask(
        &self,
        name: &'static str,
        arguments: &mut [Argument<'_>],
        replaces: bool,
        questions: Option<&Questions>,
    ) -> Result<(State, Answers), CallError> {
        let then = questions.filter(|_| self.direct.answers()).and_then(|questions| self.then(questions));
        let mut answers = Answers::default();
        let mut way = self.call_directly(name, arguments, Use::Change, Want::State { replaces, then }, &mut answers);
        if matches!(way, Way::Unanswered) {
            // The questions are left to calls of their own, which tell what is wrong.
            let want = Want::State { replaces, then: None };
            way = self.call_directly(name, arguments, Use::Change, want, &mut answers);
        }
        match way {
            Way::State(state) => Ok((state, answers)),
            Way::Value(value) => Ok((value.into(), Answers::default())),
            Way::Around | Way::Unanswered => {
                self.call_again(name, arguments).map(|value| (value.into(), Answers::default()))
            }
            Way::Expired(error) => Err(CallError::Fault(self.sources.timeout(error.as_ref(), &self.limits))),
        }
    }
}

impl LuaScript {
    /// The number of a function for [`direct`].
    fn number(&self, name: &'static str) -> Option<c_int> {
        self.direct.function(&self.lua, name, || self.root.function(name).ok()?.ok())
    }

    /// The questions by their functions' numbers.
    fn then(&self, questions: &Questions) -> Option<Then> {
        if let Some((known, then)) = self.then.get()
            && known.are(questions)
        {
            return Some(then);
        }
        let then = self.find(questions)?;
        self.then.set(Some((*questions, then)));
        Some(then)
    }

    fn find(&self, questions: &Questions) -> Option<Then> {
        let ask =
            |(name, after): (&'static str, u64)| (after != 0).then(|| Some((self.number(name)?, after))).flatten();
        Some(Then {
            first: self.number(questions.first)?,
            at_nil: self.number(questions.at_nil),
            asks: questions.then.map(ask),
        })
    }

    /// Calls by [`direct`]. An `rng` has been drawn from only if the call gave a result.
    fn call_directly(
        &self,
        name: &'static str,
        arguments: &mut [Argument<'_>],
        usage: Use,
        want: Want,
        answers: &mut Answers,
    ) -> Way {
        if self.is_fresh.get() {
            return Way::Around;
        }
        let Some(function) = self.number(name) else { return Way::Around };
        let loan = arguments.iter().find_map(|argument| match argument {
            Argument::Rng(stream) if !self.direct.lends() => Some(Loan::new(stream)),
            _ => None,
        });
        let rng = match &loan {
            None => None,
            Some(loan) => match self.lua.create_userdata(Rng(loan.clone())) {
                Ok(rng) => Some(rng),
                Err(_) => return Way::Around,
            },
        };
        self.direct.ripen(&self.lua);
        self.refused_write.store(false, Ordering::Relaxed);
        let running = self.timer.start(self.limits.call);
        let (mut way, drawn) =
            self.direct.call(&self.lua, function, arguments, rng, (usage, want), (&running, answers));
        drop(running);
        if self.refused_write.load(Ordering::Relaxed) && matches!(way, Way::Value(_) | Way::State(_)) {
            // It has caught the error.
            way = Way::Around;
        }
        let is_done = matches!(way, Way::Value(_) | Way::State(_));
        let stream = arguments.iter_mut().find_map(|argument| match argument {
            Argument::Rng(stream) => Some(stream),
            _ => None,
        });
        if let Some(stream) = stream {
            // Giving back also ends the loan of a call that is made again.
            match (loan, drawn) {
                (Some(loan), _) if is_done => loan.give_back(stream),
                (Some(loan), _) => loan.give_back(&mut stream.clone()),
                (None, Some(drawn)) if is_done => **stream = drawn,
                (None, _) => {}
            }
        }
        way
    }

    /// Makes the call for every value and every error. What it logs has been logged, if it can log at all.
    fn call_again(&self, name: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        // A script whose top level runs for each call has not been called yet.
        self.is_quiet.store(!self.is_fresh.get(), Ordering::Relaxed);
        let result = self.call_in_full(name, arguments);
        self.is_quiet.store(false, Ordering::Relaxed);
        if result.is_ok() && self.direct.shares() && arguments.iter().any(|it| matches!(it, Argument::State(_))) {
            // With a copy it works: the script writes into what it is shown, or builds values in unusual ways.
            self.direct.stop_sharing();
        }
        result
    }

    /// Makes the call, with a fresh top level if it tries to write to what is read-only between calls.
    fn call_in_full(&self, name: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        let rng = |argument: &Argument<'_>| match argument {
            Argument::Rng(stream) => Some(Stream::clone(stream)),
            _ => None,
        };
        let stream = arguments.iter().find_map(rng);
        let result = self.attempt(name, arguments).or_else(|| {
            self.is_fresh.set(true);
            self.attempt(name, arguments)
        });
        match result {
            None => Err(CallError::Fault(self.sources.timeout(None, &self.limits))),
            Some(Err(CallError::Fault(problem))) if lacks_place(&problem) => {
                Err(CallError::Fault(self.with_place(problem, name, arguments, stream.as_ref())))
            }
            Some(result) => result,
        }
    }

    /// The problem of a call that has used up the memory, with the calls that lead there, for which it is made once more;
    /// `stream` is the one that it drew from, as it was before.
    fn with_place(
        &self,
        problem: Box<Diagnostic>,
        name: &str,
        arguments: &[Argument<'_>],
        stream: Option<&Stream>,
    ) -> Box<Diagnostic> {
        self.is_quiet.store(true, Ordering::Relaxed);
        let value = |argument: &Argument<'_>| match argument {
            Argument::Data(value) => border::to_lua(&self.lua, value),
            Argument::Text(text) => self.lua.create_string(text).map(LuaValue::String),
            Argument::State(state) => border::to_lua(&self.lua, state.value()),
            Argument::Rng(after) => {
                let loan = Loan::new(stream.unwrap_or(after));
                self.lua.create_userdata(Rng(loan)).map(LuaValue::UserData)
            }
        };
        let values = arguments.iter().map(value).collect::<mlua::Result<Vec<_>>>();
        let (Ok(values), Ok(Ok(function))) = (values, self.root.function(name)) else { return problem };
        let running = self.timer.start(self.limits.call);
        let levels = trace::calls_at_error(&self.lua, &function, values);
        drop(running);
        // What it has left would count against the next call. It fails only where finalizers do.
        let _ = self.lua.gc_collect();
        self.sources.in_call(self.sources.traced(problem, &levels), name, &function.info())
    }
}
