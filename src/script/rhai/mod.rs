//! Rhai scripts: one engine a script and thread, with every limit set and the time budget asked for at each operation.
//!
//! A script's functions are closures in the map that it ends with, or top-level `fn`s of the same names. A top-level `fn`
//! sees no variables of the script in Rhai; here it sees the top-level constants and variables by name, read-only.

mod boards; // boards of the library, in Rhai's own values
mod border; // Rhai values to plain data and back
mod budget; // memory and nesting of a call
mod engine; // the engine: limits, the `gift` library, modules
mod errors; // Rhai's errors as diagnostics
mod hints; // how to mend what often goes wrong
mod isolation; // nothing lasts from one call to the next
mod objects; // what a script sees as `gift`, `rng` and as a data set

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FnPtr, Map, Scope};

use super::border::Refusal;
use super::loan::Loan;
use super::state::Shape;
use super::watchdog::Timer;
use super::{
    Answers, Argument, CallError, Field, Library, Limits, Questions, Script, ScriptEngine, Source, State, Value, memory,
};
use crate::diag::{Diagnostic, SourceSpan};
use budget::{Budget, Excess};
use errors::Sources;
use isolation::Captured;
use objects::Rng;

/// Most names of fields that are looked at, and the longest.
const MAX_NAMES: usize = 1000;
const MAX_NAME_BYTES: usize = 100;
/// Most states that are kept as the script sees them.
const MAX_STATES: usize = 8;

/// The engine for `.rhai` files.
pub(super) struct RhaiEngine;

/// The value of the script's last expression.
enum Root {
    Map(Map),
    Function(FnPtr),
}

/// A script and its engine.
struct RhaiScript {
    root: Root,
    /// Most parameters of the functions of each name.
    parameters: BTreeMap<String, usize>,
    /// The shape of the last state, with how many cells it has: the next one mostly shares it.
    shape: RefCell<Option<(Arc<Shape>, usize)>>,
    /// States that were handed to the script last, as it sees them.
    states: RefCell<Vec<(State, Dynamic)>>,
    ast: AST,
    engine: Engine,
    timer: Arc<Timer>,
    budget: Budget,
    captured: RefCell<Captured>,
    /// Bytes that calls have left behind: closures that hold themselves are never freed.
    left_behind: Cell<isize>,
    limits: Limits,
    sources: Arc<Sources>,
}

impl ScriptEngine for RhaiEngine {
    fn compile(&self, source: &Source, limits: &Limits, library: &Library) -> Result<Box<dyn Script>, Box<Diagnostic>> {
        let sources = Arc::new(Sources::new(source, library));
        sources.check_sizes()?;
        let timer = Timer::new(None).map_err(|cause| sources.engine_failure(&cause))?;
        let budget = Budget::new(limits);
        let (mut engine, globals, modules) = engine::engine(source, limits, library, &timer, &budget);
        // What is read while the time runs belongs to this thread, which may be given up meanwhile. The parser is within
        // the time as well: it takes as the square of the fields of a map, and of the cases of a switch.
        let text = Arc::clone(&source.text);
        let running = timer.start(limits.call);
        let parsed = engine.compile(text.trim_start_matches('\u{feff}'));
        let is_late = timer.expired();
        drop(running);
        if is_late {
            return Err(sources.timeout("", None, limits));
        }
        let mut ast = parsed.map_err(|error| sources.syntax(&error))?;
        ast.set_source(sources.script_name());

        let mut scope = Scope::new();
        let running = timer.start(limits.call);
        budget.start();
        let result = guarded(|| engine.eval_ast_with_scope::<Dynamic>(&mut scope, &ast));
        let (expired, excess) = (timer.expired(), budget.exceeded());
        drop(running);
        let root = match result {
            _ if expired => return Err(sources.timeout("", result.as_ref().err().map(AsRef::as_ref), limits)),
            _ if excess.is_some() => {
                return Err(sources.excess("", excess, result.as_ref().err().map(AsRef::as_ref), limits));
            }
            Err(error) => return Err(sources.fault("", &error, None, limits)),
            Ok(value) => value.flatten(),
        };
        let root = if root.is_map() {
            Root::Map(root.cast::<Map>())
        } else {
            let found = root.type_name();
            root.try_cast::<FnPtr>().map(Root::Function).ok_or_else(|| not_a_root(found, source))?
        };
        globals.publish(&scope);
        engine::make_global(&mut engine, &scope, source, &modules);
        let mut parameters = BTreeMap::new();
        for function in ast.iter_functions() {
            let most = parameters.entry(function.name.to_owned()).or_insert(0);
            *most = function.params.len().max(*most);
        }
        let variables: Vec<Dynamic> =
            scope.iter_raw().map(|(_, _, value)| value.clone()).chain(modules.variables()).collect();
        let captured = match &root {
            Root::Map(map) => Captured::by(variables.iter().chain(map.values())),
            Root::Function(pointer) => Captured::by(variables.iter().chain(pointer.curry())),
        };
        let (captured, left_behind) = (RefCell::new(captured), Cell::new(0));
        let (shape, states, limits) = (RefCell::default(), RefCell::default(), limits.clone());
        Ok(Box::new(RhaiScript {
            root,
            parameters,
            shape,
            states,
            ast,
            engine,
            timer,
            budget,
            captured,
            left_behind,
            limits,
            sources,
        }))
    }
}

/// Runs code of the script. Rhai has a few checks of its own that end in a panic; such a script must not end the host.
fn guarded<R>(run: impl FnOnce() -> Result<R, Box<EvalAltResult>>) -> Result<R, Box<EvalAltResult>> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("the Rhai engine gave up on this script".into()))
}

fn not_a_root(found: &str, source: &Source) -> Box<Diagnostic> {
    let found = if found == "()" { "nothing".to_owned() } else { format!("a value of type {found}") };
    let diagnostic = Diagnostic::error("script::result", "the script ends with neither an object map nor a closure")
        .at(SourceSpan::file(&source.path))
        .expected("`#{ name: \"…\", seats: 2 }` as the last expression, or `|episode| …` in a reward script")
        .found(found)
        .help("end the script with the object map, without a semicolon");
    Box::new(diagnostic)
}

impl RhaiScript {
    /// The state as the script sees it; a copy of its own, since Rhai copies what is written to.
    fn state(&self, state: &State) -> Dynamic {
        let states = self.states.borrow();
        if let Some((_, known)) = states.iter().rev().find(|(known, _)| known.identity() == state.identity()) {
            return known.clone();
        }
        drop(states);
        let fresh = border::to_rhai(state.value());
        self.keep(state, fresh.clone());
        fresh
    }

    /// Keeps the state as the script sees it.
    fn keep(&self, state: &State, seen: Dynamic) {
        let mut states = self.states.borrow_mut();
        if states.len() >= MAX_STATES {
            drop(states.remove(0));
        }
        states.push((state.clone(), seen));
    }

    fn entry(&self, name: &str) -> Option<&Dynamic> {
        let Root::Map(map) = &self.root else { return None };
        map.get(name).filter(|value| !value.is_unit())
    }

    /// How many parameters the script's function of this name has.
    fn parameters(&self, name: &str) -> Option<usize> {
        self.parameters.get(name).copied()
    }

    /// Calls with as many arguments as the function takes, as Lua does: more are dropped, missing ones are `()`.
    fn run(&self, name: &str, mut arguments: Vec<Dynamic>) -> Result<Dynamic, Box<EvalAltResult>> {
        let pointer = match &self.root {
            Root::Function(pointer) if name.is_empty() => Some(pointer.clone()),
            _ => self.entry(name).and_then(|value| value.clone().flatten().try_cast::<FnPtr>()),
        };
        let fitted = |taken: usize, arguments: &mut Vec<Dynamic>| arguments.resize(taken, Dynamic::UNIT);
        if let Some(pointer) = pointer {
            if let Some(parameters) = self.parameters(pointer.fn_name()) {
                fitted(parameters.saturating_sub(pointer.curry().len()), &mut arguments);
            }
            return pointer.call(&self.engine, &self.ast, arguments);
        }
        if let Some(parameters) = self.parameters(name) {
            fitted(parameters, &mut arguments);
        }
        let options = CallFnOptions::new().eval_ast(false);
        self.engine.call_fn_with_options(options, &mut Scope::new(), &self.ast, name, arguments)
    }
}

impl Script for RhaiScript {
    fn field(&self, name: &str) -> Result<Field, Box<Diagnostic>> {
        match self.entry(name) {
            Some(value) if value.is_fnptr() => Ok(Field::Function),
            Some(value) => match border::from_rhai(value, &self.limits) {
                Ok(value) => Ok(Field::Data(value)),
                Err(refusal) => Err(refusal.diagnostic(&format!("the field `{name}`"), self.sources.whole())),
            },
            None if !self.is_function() && self.parameters(name).is_some() => Ok(Field::Function),
            None => Ok(Field::Missing),
        }
    }

    fn field_names(&self) -> Vec<String> {
        let Root::Map(map) = &self.root else { return Vec::new() };
        let functions = self.ast.iter_functions().map(|function| function.name.to_owned());
        let names = map.keys().map(ToString::to_string).chain(functions);
        let mut names: Vec<String> = names.filter(|name| name.len() <= MAX_NAME_BYTES).take(MAX_NAMES).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn place_of(&self, name: &str) -> SourceSpan {
        self.sources.defined_at(name)
    }

    fn is_function(&self) -> bool {
        matches!(self.root, Root::Function(_))
    }

    fn is_fresh_each_call(&self) -> bool {
        // What closures captured is restored instead.
        false
    }

    fn call(&self, name: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, CallError> {
        let read = |value: &Dynamic| border::from_rhai(value, &self.limits);
        self.call_and_use(name, arguments, read, |_| ()).map(|(value, ())| value)
    }

    fn call_state_and_ask(
        &self,
        name: &'static str,
        arguments: &mut [Argument<'_>],
        _replaces: bool,
        _questions: Option<&Questions>,
    ) -> Result<(State, Answers), CallError> {
        // What the script made serves the questions that follow.
        let kept = |value: Dynamic| border::is_plain(&value).then_some(value);
        let (state, kept) = self.call_and_use(name, arguments, |value| self.read_state(value), kept)?;
        if let Some(kept) = kept {
            self.keep(&state, kept);
        }
        Ok((state, Answers::default()))
    }
}

impl RhaiScript {
    /// The state that this value is.
    fn read_state(&self, value: &Dynamic) -> Result<State, Refusal> {
        if let Some((shape, count)) = &*self.shape.borrow() {
            let mut cells = Vec::with_capacity(*count);
            if let Some(text_bytes) = border::cells_of(value, shape, &self.limits, &mut cells) {
                return Ok(State::from_cells(Arc::clone(shape), cells.into(), text_bytes));
            }
        }
        let value = border::from_rhai(value, &self.limits)?;
        if matches!(value, Value::List(_) | Value::Map(_)) {
            let mut cells = Vec::new();
            let shape = Shape::of(&value, &mut cells);
            self.shape.replace(Some((Arc::new(shape), cells.len())));
        }
        Ok(value.into())
    }

    /// Calls the function and reads its result; one that may cross the border is also handed to `with` as the script made it.
    fn call_and_use<R, T>(
        &self,
        name: &'static str,
        arguments: &mut [Argument<'_>],
        read: impl FnOnce(&Dynamic) -> Result<R, Refusal>,
        with: impl FnOnce(Dynamic) -> T,
    ) -> Result<(R, T), CallError> {
        if !(self.is_function() && name.is_empty()) {
            match self.field(name).map_err(CallError::Fault)? {
                Field::Function => {}
                Field::Missing => return Err(CallError::Fault(self.sources.not_a_function(name, "nothing"))),
                Field::Data(value) => return Err(CallError::Fault(self.sources.not_a_function(name, value.kind()))),
            }
        }
        let limit = isize::try_from(self.limits.memory_bytes).unwrap_or(isize::MAX);
        if self.left_behind.get() > limit {
            return Err(CallError::Fault(self.sources.excess(name, Some(Excess::LeftBehind), None, &self.limits)));
        }
        let held = memory::held();
        let mut values = Vec::with_capacity(arguments.len());
        let mut loans = Vec::new();
        for (at, argument) in arguments.iter().enumerate() {
            values.push(match argument {
                Argument::Data(value) => border::to_rhai(value),
                Argument::Text(text) => (*text).into(),
                Argument::State(state) => self.state(state),
                Argument::Rng(stream) => {
                    let loan = Loan::new(stream);
                    loans.push((loan.clone(), at));
                    Dynamic::from(Rng(loan))
                }
            });
        }
        let running = self.timer.start(self.limits.call);
        self.budget.start();
        let result = guarded(|| self.run(name, values));
        let (expired, excess) = (self.timer.expired(), self.budget.exceeded());
        drop(running);
        let before = memory::held();
        let failed = result.as_ref().err().map(AsRef::as_ref);
        let answer = match &result {
            _ if expired => Err(CallError::Fault(self.sources.timeout(name, failed, &self.limits))),
            _ if excess.is_some() => Err(CallError::Fault(self.sources.excess(name, excess, failed, &self.limits))),
            Ok(value) => read(value).map_err(|refusal| {
                let what = if name.is_empty() { "the result".to_owned() } else { format!("the result of `{name}`") };
                let problem = refusal.diagnostic(&what, self.sources.whole());
                CallError::Fault(Box::new(self.sources.begins(*problem, name)))
            }),
            Err(error) => Err(if let Some(reason) = errors::illegal(error) {
                CallError::Illegal(reason)
            } else {
                let place = errors::lacks_place(error).then(|| self.locate(name, arguments)).flatten();
                CallError::Fault(self.sources.fault(name, error, place.as_deref(), &self.limits))
            }),
        };
        // Only now, so that a call that is made again to find its place draws the same.
        for (loan, at) in loans {
            if let Some(Argument::Rng(stream)) = arguments.get_mut(at) {
                loan.give_back(stream);
            }
        }
        let handed_out = memory::held().wrapping_sub(before);
        let answer = match (answer, result) {
            (Ok(value), Ok(made)) => Ok((value, with(made))),
            (answer, _) => answer.map(|value| (value, with(Dynamic::UNIT))),
        };
        self.captured.borrow_mut().restore();
        let left = memory::held().wrapping_sub(held).wrapping_sub(handed_out);
        self.left_behind.set(self.left_behind.get().saturating_add(left));
        answer
    }

    /// The error that tells where a call failed with an error that does not: it is made again to count the variables that
    /// it reads, and once more to be stopped at the last one.
    fn locate(&self, name: &str, arguments: &[Argument<'_>]) -> Option<Box<EvalAltResult>> {
        self.budget.count();
        let mut result = self.run_again(name, arguments);
        self.budget.stop_at_last();
        if result.is_err() {
            result = self.run_again(name, arguments);
        }
        self.budget.count_no_more();
        result.err().filter(|error| errors::is_stop(error))
    }

    /// Runs the call with copies of its arguments.
    fn run_again(&self, name: &str, arguments: &[Argument<'_>]) -> Result<Dynamic, Box<EvalAltResult>> {
        self.captured.borrow_mut().restore();
        let value = |argument: &Argument<'_>| match argument {
            Argument::Data(value) => border::to_rhai(value),
            Argument::Text(text) => (*text).into(),
            Argument::State(state) => self.state(state),
            Argument::Rng(stream) => Dynamic::from(Rng(Loan::new(stream))),
        };
        let values = arguments.iter().map(value).collect();
        let running = self.timer.start(self.limits.call);
        self.budget.start();
        let result = guarded(|| self.run(name, values));
        drop(running);
        result
    }
}
