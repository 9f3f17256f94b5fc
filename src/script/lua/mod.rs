//! Luau scripts through mlua: one virtual machine a script and thread, without files, clock or network, with a memory
//! limit and a time budget that the script cannot catch.
//!
//! Set-up in [`sandbox`], values in [`border`], errors in [`errors`]; the ways around the limits that were tried are tests
//! in `tests/games/conformance.rs`.

mod border; // Lua values to plain data and back
mod direct; // calls without detours
mod errors; // mlua's errors as diagnostics with the author's lines
mod interrupt; // stops a virtual machine from another thread
mod objects; // what a script sees as `rng` and as a data set
mod sandbox; // the virtual machine and its globals

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlua::{Function, Lua, MultiValue, Table, Value as LuaValue};

use super::loan::Loan;
use super::watchdog::Timer;
use super::{Argument, CallError, Field, Library, Limits, Script, ScriptEngine, Source, State, Value};
use crate::diag::{Diagnostic, SourceSpan};
use direct::{Direct, Use, Want, Way};
use errors::Sources;
use objects::Rng;

/// Most names of fields that are looked at.
const MAX_NAMES: usize = 1000;

/// The engine for `.lua` and `.luau` files.
pub(super) struct LuaEngine;

/// What the script's top level returned.
enum Root {
    Table(Table),
    Function(Function),
}

/// A script in its virtual machine. The root comes before the machine, so that it is dropped first.
struct LuaScript {
    root: Root,
    direct: Direct,
    lua: Lua,
    /// Whether `gift.log` is dropped, because the call is made a second time.
    is_quiet: Arc<AtomicBool>,
    timer: Arc<Timer>,
    limits: Limits,
    sources: Arc<Sources>,
}

impl ScriptEngine for LuaEngine {
    fn compile(&self, source: &Source, limits: &Limits, library: &Library) -> Result<Box<dyn Script>, Box<Diagnostic>> {
        let sources = Arc::new(Sources::new(source));
        sources.check_sizes()?;
        let (lua, timer) = sandbox::machine(limits).map_err(|cause| sources.engine_failure(&cause))?;
        let is_quiet = Arc::new(AtomicBool::new(false));
        sandbox::install(&lua, source, limits, library, &timer, &is_quiet)
            .map_err(|cause| sources.engine_failure(&cause))?;

        let running = timer.start(limits.call);
        let result = sandbox::chunk(&lua, &source.text, sources.script_name())
            .into_function()
            .and_then(|main| main.call::<LuaValue>(()));
        let expired = timer.expired();
        drop(running);
        let root = match result {
            Ok(_) if expired => return Err(sources.timeout(None, limits)),
            Ok(LuaValue::Table(table)) => Root::Table(table),
            Ok(LuaValue::Function(function)) => Root::Function(function),
            Ok(other) => return Err(not_a_root(&other, source)),
            Err(error) => return Err(sources.fault(&lua, &error, expired, limits)),
        };
        // Globals that the top level sets are the script's own functions; later, a global would be a state that the host
        // neither sees nor resets between episodes.
        lua.globals().set_readonly(true);
        let texts = std::iter::once(&source.text).chain(source.modules.values()).map(AsRef::as_ref);
        let direct = Direct::new(&lua, limits, texts).map_err(|cause| sources.engine_failure(&cause))?;
        Ok(Box::new(LuaScript { root, direct, lua, is_quiet, timer, limits: limits.clone(), sources }))
    }
}

fn not_a_root(found: &LuaValue, source: &Source) -> Box<Diagnostic> {
    let found = if found.is_nil() { "nothing".to_owned() } else { border::kind(found) };
    let message = "the script returns neither a table nor a function";
    let diagnostic = Diagnostic::error("script::result", message)
        .at(SourceSpan::file(&source.path))
        .expected("`return game` (a table), or `return function(episode) … end` in a reward script")
        .found(found)
        .help("end the script with `return` and the table");
    Box::new(diagnostic)
}

impl LuaScript {
    /// The field's value, looked up without running code of the script.
    fn lookup(&self, name: &str) -> mlua::Result<LuaValue> {
        let Root::Table(table) = &self.root else { return Ok(LuaValue::Nil) };
        let mut table = table.clone();
        // A script may inherit fields from another table; a longer chain is a loop.
        for _ in 0..8 {
            let value: LuaValue = table.raw_get(name)?;
            if !value.is_nil() {
                return Ok(value);
            }
            let Some(metatable) = table.metatable() else { break };
            let LuaValue::Table(parent) = metatable.raw_get("__index")? else { break };
            table = parent;
        }
        Ok(LuaValue::Nil)
    }

    fn function(&self, name: &str) -> Result<Function, Box<Diagnostic>> {
        let found = match &self.root {
            Root::Function(function) if name.is_empty() => return Ok(function.clone()),
            _ => self.lookup(name).map_err(|error| self.sources.fault(&self.lua, &error, false, &self.limits))?,
        };
        match found {
            LuaValue::Function(function) => Ok(function),
            other => Err(self.sources.not_a_function(name, &border::kind(&other))),
        }
    }
}

impl Script for LuaScript {
    fn field(&self, name: &str) -> Result<Field, Box<Diagnostic>> {
        let value = self.lookup(name).map_err(|error| self.sources.fault(&self.lua, &error, false, &self.limits))?;
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
        let mut names: Vec<String> = names.take(MAX_NAMES).collect();
        names.sort_unstable();
        names
    }

    fn place_of(&self, name: &str) -> SourceSpan {
        match self.lookup(name) {
            Ok(LuaValue::Function(function)) => self.sources.defined_at(&function.info()),
            _ => self.sources.whole(),
        }
    }

    fn is_function(&self) -> bool {
        matches!(self.root, Root::Function(_))
    }

    fn call(&self, name: &str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        match self.call_directly(name, arguments, Use::Look, Want::Value) {
            Way::Value(value) => Ok(value),
            Way::State(state) => Ok(state.value().clone()),
            Way::Around => self.call_again(name, arguments),
            Way::Expired(error) => Err(CallError::Fault(self.sources.timeout(error.as_ref(), &self.limits))),
        }
    }

    fn call_state(&self, name: &str, arguments: &mut [Argument<'_>], replaces: bool) -> Result<State, CallError> {
        match self.call_directly(name, arguments, Use::Change, Want::State { replaces }) {
            Way::State(state) => Ok(state),
            Way::Value(value) => Ok(value.into()),
            Way::Around => self.call_again(name, arguments).map(State::from),
            Way::Expired(error) => Err(CallError::Fault(self.sources.timeout(error.as_ref(), &self.limits))),
        }
    }
}

impl LuaScript {
    /// Calls by [`direct`]. An `rng` has been drawn from only if the call gave a result.
    fn call_directly(&self, name: &str, arguments: &mut [Argument<'_>], usage: Use, want: Want) -> Way {
        let Some(function) = self.direct.function(&self.lua, name, || self.function(name).ok()) else {
            return Way::Around;
        };
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
        let running = self.timer.start(self.limits.call);
        let way = self.direct.call(&self.lua, function, arguments, rng, (usage, want), || self.timer.expired());
        drop(running);
        if let Some(loan) = loan {
            let is_done = matches!(way, Way::Value(_) | Way::State(_));
            let stream = arguments.iter_mut().find_map(|argument| match argument {
                Argument::Rng(stream) => Some(stream),
                _ => None,
            });
            // Also ends the loan of a call that is made again.
            match stream {
                Some(stream) if is_done => loan.give_back(stream),
                Some(stream) => loan.give_back(&mut stream.clone()),
                None => {}
            }
        }
        way
    }

    /// Makes the call for every value and every error. What it logs has been logged, if it can log at all.
    fn call_again(&self, name: &str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        self.is_quiet.store(true, Ordering::Relaxed);
        let result = self.call_in_full(name, arguments);
        self.is_quiet.store(false, Ordering::Relaxed);
        if result.is_ok() && self.direct.shares() && arguments.iter().any(|it| matches!(it, Argument::State(_))) {
            // With a copy it works: the script writes into what it is shown, or builds values in unusual ways.
            self.direct.stop_sharing();
        }
        result
    }

    fn call_in_full(&self, name: &str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        let function = self.function(name).map_err(CallError::Fault)?;
        let fault = |error: &mlua::Error| CallError::Fault(self.sources.fault(&self.lua, error, false, &self.limits));
        let mut values = Vec::with_capacity(arguments.len());
        let mut loans = Vec::new();
        for argument in arguments.iter_mut() {
            values.push(match argument {
                Argument::Data(value) => border::to_lua(&self.lua, value).map_err(|error| fault(&error))?,
                Argument::State(state) => border::to_lua(&self.lua, state.value()).map_err(|error| fault(&error))?,
                Argument::Rng(stream) => {
                    let loan = Loan::new(stream);
                    loans.push((loan.clone(), stream));
                    LuaValue::UserData(self.lua.create_userdata(Rng(loan)).map_err(|error| fault(&error))?)
                }
            });
        }
        let running = self.timer.start(self.limits.call);
        let result = function.call::<LuaValue>(MultiValue::from_vec(values));
        let expired = self.timer.expired();
        drop(running);
        for (loan, stream) in loans {
            loan.give_back(stream);
        }
        match result {
            Ok(_) if expired => Err(CallError::Fault(self.sources.timeout(None, &self.limits))),
            Ok(value) => border::from_lua(&value, &self.limits).map_err(|refusal| {
                let what = if name.is_empty() { "the result".to_owned() } else { format!("the result of `{name}`") };
                let info = function.info();
                CallError::Fault(refusal.diagnostic(&what, self.sources.defined_at(&info)))
            }),
            Err(error) => match errors::illegal(&error) {
                Some(reason) if !expired => Err(CallError::Illegal(reason)),
                _ => {
                    let problem = self.sources.fault(&self.lua, &error, expired, &self.limits);
                    Err(CallError::Fault(errors::called_as(problem, name)))
                }
            },
        }
    }
}
