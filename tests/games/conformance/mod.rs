//! The same cases in Lua and in Rhai: same values, same refusals, same limits. What a script may do wrong on purpose is in
//! `tests/hostile/`. Uses only the `script` room.

mod calls; // arguments, refusals, generators, limits
mod errors; // places and messages
mod library; // the library, modules, data sets
mod values; // what crosses

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gift_host::diag::Diagnostic;
use gift_host::script::{
    Argument, CallError, CountingAllocator, Field, HostFunction, Language, Library, Limits, STACK_BYTES, Script,
    Source, Value, engine, with_script,
};
use gift_host::seed::Seed;

/// Rhai's memory is bounded only where allocations are counted.
#[global_allocator]
static ALLOCATOR: CountingAllocator<std::alloc::System> = CountingAllocator(std::alloc::System);

/// Short limits, so that the cases that run into them are quick.
fn limits() -> Limits {
    Limits { call: Duration::from_millis(300), memory_bytes: 64 << 20, ..Limits::default() }
}

/// The script's text is wrapped so that `run(state, rng)` is its function.
fn source(language: Language, body: &str) -> Source {
    let text = match language {
        Language::Lua => format!("local game = {{}}\n{body}\nreturn game"),
        Language::Rhai => format!("{body}\n\n#{{}}"),
    };
    modules(language, &text, &[])
}

fn modules(language: Language, text: &str, modules: &[(&str, &str)]) -> Source {
    let path = format!("games/case.{}", language.extension());
    let modules = modules.iter().map(|(name, text)| ((*name).to_owned(), Arc::from(*text))).collect();
    Source::new(Path::new(&path), language, text, modules)
}

fn compile(source: &Source) -> Result<Box<dyn Script>, Box<Diagnostic>> {
    engine(source.language).compile(source, &limits(), &Library::default())
}

/// Calls `run` with an argument and a generator of seed 7.
fn call(script: &dyn Script, state: &Value) -> Result<Value, CallError> {
    let mut stream = Seed::new(7).stream();
    script.call("run", &mut [Argument::Data(state), Argument::Rng(&mut stream)])
}

/// Calls as [`call`], in a thread with the stack that the room asks for.
fn run(language: Language, body: &str, state: Value) -> Result<Value, CallError> {
    let source = source(language, body);
    deep(move || match compile(&source) {
        Ok(script) => call(&*script, &state),
        Err(diagnostic) => Err(CallError::Fault(diagnostic)),
    })
}

fn deep<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("a thread");
    thread.join().expect("the thread ends well")
}

/// Both languages give this value.
fn both_give(lua: &str, rhai: &str, state: &Value, expected: &Value) {
    for (language, body) in [(Language::Lua, lua), (Language::Rhai, rhai)] {
        match run(language, body, state.clone()) {
            Ok(value) => assert_eq!(&value, expected, "{language:?}: {body}"),
            Err(error) => panic!("{language:?}: {error:?}\n{body}"),
        }
    }
}

fn fault(result: Result<Value, CallError>) -> Box<Diagnostic> {
    match result {
        Err(CallError::Fault(diagnostic)) => diagnostic,
        other => panic!("expected a fault, found {other:?}"),
    }
}

/// Both languages fail with this code.
fn both_fail(lua: &str, rhai: &str, code: &str) {
    for (language, body) in [(Language::Lua, lua), (Language::Rhai, rhai)] {
        let diagnostic = fault(run(language, body, Value::Nil));
        assert_eq!(diagnostic.code, code, "{language:?}: {body}\n{diagnostic}");
    }
}

fn lua_run(body: &str) -> Result<Value, CallError> {
    run(Language::Lua, &format!("function game.run(state, rng)\n{body}\nend"), Value::Nil)
}

fn rhai_run(body: &str) -> Result<Value, CallError> {
    run(Language::Rhai, &format!("fn run(state, rng) {{\n{body}\n}}"), Value::Nil)
}

/// A body for `run` in both languages.
fn bodies(lua: &str, rhai: &str) -> (String, String) {
    (format!("function game.run(state, rng)\n{lua}\nend"), format!("fn run(state, rng) {{\n{rhai}\n}}"))
}

fn bodies_give(lua: &str, rhai: &str, expected: impl Into<Value>) {
    let (lua, rhai) = bodies(lua, rhai);
    both_give(&lua, &rhai, &Value::Nil, &expected.into());
}

fn bodies_fail(lua: &str, rhai: &str, code: &str) {
    let (lua, rhai) = bodies(lua, rhai);
    both_fail(&lua, &rhai, code);
}

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}
