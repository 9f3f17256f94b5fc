//! The Rhai engine of a script: its limits, its library and its modules.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ::rhai::{
    AST, Array, Dynamic, Engine, EvalAltResult, INT, ImmutableString, Map, Module, ModuleResolver, OptimizationLevel,
    Position, Scope, Shared,
};

use super::boards::Boards;
use super::border::{from_rhai, to_rhai};
use super::budget::Budget;
use super::errors::{Illegal, Stopped, module_name};
use super::objects::{self, Gift, Json, Rows};
use crate::script::border::reason as cut;
use crate::script::library::JSON;
use crate::script::watchdog::Timer;
use crate::script::{HostFunction, Library, Limits, Source};

/// Operations of one call; far more than any time budget allows, so that the clock decides.
const MAX_OPERATIONS: u64 = 100_000_000_000;
/// Operations between two looks at the budgets: a look takes as long as a simple operation.
const OPERATIONS_A_LOOK: u64 = 8;
/// Deepest nesting of calls; each takes some kilobytes of the thread's stack.
const MAX_CALLS: usize = 64;
/// Deepest nesting of expressions at the top level and in functions; the latter times the calls must fit the stack.
const MAX_EXPRESSIONS: (usize, usize) = (128, 64);
/// Most variables in scope.
const MAX_VARIABLES: usize = 1000;
/// Most functions of a script.
const MAX_FUNCTIONS: usize = 1000;
/// Most modules that a script loads.
const MAX_MODULES: usize = 64;
/// Most arguments of a library function.
const MAX_ARGUMENTS: usize = 4;

/// The top-level constants and variables of a script, once it has run.
#[derive(Clone, Default)]
pub(super) struct Globals(Arc<OnceLock<BTreeMap<String, Dynamic>>>);

impl Globals {
    /// Lets functions see what the top level left.
    pub(super) fn publish(&self, scope: &Scope<'_>) {
        // Set once a script; a second time would be a bug without consequences.
        let _ = self.0.set(scope.iter().map(|(name, _, value)| (name.to_owned(), value)).collect());
    }
}

/// Lets functions see the top level's variables as `global::NAME` and its modules by their names, although a call does
/// not run the top level again.
pub(super) fn make_global(engine: &mut Engine, scope: &Scope<'_>, source: &Source, modules: &Modules) {
    let mut global = Module::new();
    for (name, _, value) in scope.iter() {
        global.set_var(name, value);
    }
    engine.register_static_module("global", Shared::new(global));
    for (name, alias) in imports(&source.text) {
        if let Some(module) = modules.loaded(name) {
            engine.register_static_module(alias, module);
        }
    }
}

/// The module and the name of each `import "module" as name` in the text.
fn imports(text: &str) -> Vec<(&str, &str)> {
    let import = |(at, keyword): (usize, &str)| {
        let rest = text[at + keyword.len()..].trim_start().strip_prefix('"')?;
        let (module, rest) = rest.split_once('"')?;
        let rest = rest.trim_start().strip_prefix("as ")?.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some((module, &rest[..end]))
    };
    text.match_indices("import").filter_map(import).collect()
}

/// An engine for the source, and what its functions will see of the top level.
pub(super) fn engine(
    source: &Source,
    limits: &Limits,
    library: &Library,
    timer: &Arc<Timer>,
    budget: &Budget,
) -> (Engine, Globals, Modules) {
    let mut engine = Engine::new();
    let modules = Modules::new(source);
    engine
        .set_optimization_level(OptimizationLevel::Simple)
        .set_max_operations(MAX_OPERATIONS)
        .set_max_call_levels(MAX_CALLS)
        .set_max_expr_depths(MAX_EXPRESSIONS.0, MAX_EXPRESSIONS.1)
        .set_max_variables(MAX_VARIABLES)
        .set_max_functions(MAX_FUNCTIONS)
        .set_max_modules(MAX_MODULES)
        .set_max_string_size(limits.max_text_bytes)
        .set_max_array_size(limits.max_values)
        .set_max_map_size(limits.max_values)
        .disable_symbol("eval")
        .set_module_resolver(modules.clone());
    let (clock, memory) = (Arc::clone(timer), budget.clone());
    engine.on_progress(move |count| {
        let is_time = count % OPERATIONS_A_LOOK == 0;
        let is_over = is_time && (clock.expired() || memory.exceeded().is_some());
        (is_over && memory.is_patience_over()).then_some(Dynamic::UNIT)
    });
    // `sleep` is a function of Rhai's, which a pointer made from its name would reach even if the word were disabled.
    engine.register_fn("sleep", |_: i64| no_sleep()).register_fn("sleep", |_: f64| no_sleep());
    // With nothing to put in, Rhai's own does not end, and reaches no operation where it could be stopped.
    let longest = limits.max_text_bytes;
    engine.register_fn("pad", move |text: &mut ImmutableString, length: i64, padding: &str| {
        pad(text, length, padding, longest)
    });
    let (printed, debugged) = (Log::new(library, budget), Log::new(library, budget));
    engine.on_print(move |text| printed.write(text));
    engine.on_debug(move |text, _, _| debugged.write(text));

    objects::register(&mut engine);
    register_library(&mut engine, source, limits, library, timer, budget);
    let globals = Globals::default();
    resolve_variables(&mut engine, globals.clone(), budget.clone());
    (engine, globals, modules)
}

/// Adds `padding` again and again until the text has `length` characters, the last time only as much as fits.
fn pad(text: &mut ImmutableString, length: i64, padding: &str, longest: usize) -> Result<(), Box<EvalAltResult>> {
    let missing = usize::try_from(length).unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return Ok(());
    }
    if padding.is_empty() {
        return Err("`pad` has nothing to put in: its last argument is an empty text".into());
    }
    let added: usize =
        if missing > longest { missing } else { padding.chars().cycle().take(missing).map(char::len_utf8).sum() };
    if text.len().saturating_add(added) > longest {
        return Err(EvalAltResult::ErrorDataTooLarge("Length of string".to_owned(), Position::NONE).into());
    }
    text.make_mut().extend(padding.chars().cycle().take(missing));
    Ok(())
}

fn no_sleep() -> Result<(), Box<EvalAltResult>> {
    Err("`sleep` is not available: scripts have no clock".into())
}

/// Resolves `gift` everywhere, and the top level's names inside functions. Also where the budget sees the variables.
#[expect(deprecated, reason = "Rhai marks the interface as volatile; there is no other way to make `gift` a name")]
fn resolve_variables(engine: &mut Engine, globals: Globals, budget: Budget) {
    engine.on_var(move |name, index, context| {
        if budget.look(context.scope()) {
            return Err(EvalAltResult::ErrorRuntime(Dynamic::from(Stopped), Position::NONE).into());
        }
        // An index says that the parser found the variable in the scope.
        if index > 0 {
            return Ok(None);
        }
        if name == "gift" {
            return Ok(Some(Dynamic::from(Gift)));
        }
        let global = globals.0.get().and_then(|globals| globals.get(name));
        Ok(global.filter(|_| !context.scope().contains(name)).cloned())
    });
}

/// Where texts of the script go; nowhere while a call is made again only to find a place.
struct Log(Library, Budget);

impl Log {
    fn new(library: &Library, budget: &Budget) -> Self {
        Self(library.clone(), budget.clone())
    }

    fn write(&self, text: &str) {
        if !self.1.is_counting() {
            self.0.log(text);
        }
    }
}

fn register_library(
    engine: &mut Engine,
    source: &Source,
    limits: &Limits,
    library: &Library,
    timer: &Arc<Timer>,
    budget: &Budget,
) {
    let limits = Arc::new(limits.clone());
    let boards = Rc::new(Boards::new());
    for function in library.functions() {
        let (boards, name) = (Rc::clone(&boards), function.name);
        let shortcut = move |arguments: &[&mut Dynamic]| boards.call(name, arguments);
        register::<Gift>(engine, "gift", *function, &limits, &usual_types(name), shortcut);
    }
    for function in JSON {
        register::<Json>(engine, "gift.json", function, &limits, &[], |_| None);
    }
    engine.register_fn("illegal", |_: &mut Gift, reason: &str| illegal(reason));
    engine.register_fn("illegal", |_: &mut Gift| illegal("illegal action"));
    let log = Log::new(library, budget);
    engine.register_fn("log", move |_: &mut Gift, text: Dynamic| log.write(&text.to_string()));
    let (files, timer, script) = (library.clone(), Arc::clone(timer), source.clone());
    engine.register_fn("dataset", move |_: &mut Gift, name: &str| {
        let rows = timer.uncharged(|| files.dataset(&script, name));
        rows.map(Rows).map_err(|message| Box::<EvalAltResult>::from(format!("`gift.dataset`: {message}")))
    });
}

fn illegal(reason: &str) -> Result<(), Box<EvalAltResult>> {
    Err(EvalAltResult::ErrorRuntime(Dynamic::from(Illegal(cut(reason))), Position::NONE).into())
}

/// The types of the arguments that this function of the library mostly gets. Rhai, which looks for a function anew in each
/// call, finds one for exactly these at once, and one for any types only after it has tried all others.
fn usual_types(name: &str) -> Vec<TypeId> {
    let (array, integer, text) = (TypeId::of::<Array>(), TypeId::of::<INT>(), TypeId::of::<ImmutableString>());
    match name {
        "free" => vec![array],
        "grid" => vec![array, integer],
        "line" => vec![array, integer, integer, integer],
        "template" => vec![text, TypeId::of::<Map>()],
        _ => Vec::new(),
    }
}

/// Registers a function of the library as a method of `Receiver`, for arguments of any types and those of the `usual` ones;
/// `shortcut` may give its result for some arguments.
fn register<Receiver: Clone + Send + Sync + 'static>(
    engine: &mut Engine,
    prefix: &'static str,
    function: HostFunction,
    limits: &Arc<Limits>,
    usual: &[TypeId],
    shortcut: impl Fn(&[&mut Dynamic]) -> Option<Dynamic> + Clone + 'static,
) {
    let HostFunction { name, call } = function;
    let any = |count| vec![TypeId::of::<Dynamic>(); count];
    let usual = (!usual.is_empty()).then(|| usual.to_vec());
    for mut types in (0..=MAX_ARGUMENTS).map(any).chain(usual) {
        let (limits, shortcut, count) = (Arc::clone(limits), shortcut.clone(), types.len());
        types.insert(0, TypeId::of::<Receiver>());
        engine.register_raw_fn(name, types, move |_, arguments| {
            if let Some(result) = arguments.get(1..).and_then(&shortcut) {
                return Ok(result);
            }
            let mut values = Vec::with_capacity(count);
            for (at, argument) in arguments.iter().skip(1).enumerate() {
                values.push(from_rhai(argument, &limits).map_err(|refusal| {
                    Box::<EvalAltResult>::from(refusal.message(&format!("`{prefix}.{name}`: argument {}", at + 1)))
                })?);
            }
            match call(&values) {
                Ok(value) => Ok(to_rhai(&value)),
                Err(message) => Err(format!("`{prefix}.{name}`: {message}").into()),
            }
        });
    }
}

/// The modules that a script may import: those of its source, each run once an engine.
#[derive(Clone)]
pub(super) struct Modules {
    texts: Arc<BTreeMap<String, Arc<str>>>,
    /// `None` for a module that is being loaded.
    loaded: Arc<Mutex<BTreeMap<String, Option<Shared<Module>>>>>,
}

impl Modules {
    fn new(source: &Source) -> Self {
        Self { texts: Arc::new(source.modules.clone()), loaded: Arc::default() }
    }

    /// The module, if the script has loaded it.
    fn loaded(&self, name: &str) -> Option<Shared<Module>> {
        self.lock().get(name).cloned().flatten()
    }

    /// The variables of all modules that the script has loaded.
    pub(super) fn variables(&self) -> Vec<Dynamic> {
        fn of(module: &Module, depth: usize, list: &mut Vec<Dynamic>) {
            list.extend(module.iter_var().map(|(_, value)| value.clone()));
            if depth < MAX_MODULES {
                module.iter_sub_modules().for_each(|(_, module)| of(module, depth + 1, list));
            }
        }
        let mut list = Vec::new();
        self.lock().values().flatten().for_each(|module| of(module, 0, &mut list));
        list
    }

    /// Not to be held while a module runs, since it may import others.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Shared<Module>>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, engine: &Engine, name: &str, position: Position) -> Result<Module, Box<EvalAltResult>> {
        let Some(text) = self.texts.get(name) else {
            return Err(EvalAltResult::ErrorModuleNotFound(name.to_owned(), position).into());
        };
        let in_module = |error| Box::new(EvalAltResult::ErrorInModule(module_name(name), error, position));
        let mut ast: AST = engine.compile(&**text).map_err(|error| in_module(error.into()))?;
        ast.set_source(module_name(name));
        Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(in_module)
    }
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        name: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        match self.lock().get(name) {
            Some(Some(module)) => return Ok(Shared::clone(module)),
            Some(None) => return Err(format!("`import \"{name}\"`: the module loads itself").into()),
            None => {}
        }
        self.lock().insert(name.to_owned(), None);
        let module = self.load(engine, name, position).map(Shared::new);
        match &module {
            Ok(module) => self.lock().insert(name.to_owned(), Some(Shared::clone(module))),
            Err(_) => self.lock().remove(name),
        };
        module
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_found_with_their_names() {
        let text = "import \"a\" as b;\nimport  \"c\"  as  d ;\nimport \"e\";\nlet important = 1;";
        assert_eq!(imports(text), [("a", "b"), ("c", "d")]);
    }
}
