//! The same cases in Lua and in Rhai: same values, same refusals, same limits. What one language alone can do wrong
//! stands at the end. Uses only the `script` room.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

#[test]
fn values_survive_the_journey() {
    let state = map(&[
        ("board", vec![1_i64, 0, -3].into()),
        ("name", "Zoë 🎲".into()),
        ("share", 0.25.into()),
        ("large", 9_007_199_254_740_992_i64.into()),
        ("done", false.into()),
        ("players", Value::List(vec![map(&[("mark", "X".into())]), map(&[("mark", "O".into())])])),
    ]);
    let (lua, rhai) = bodies("return state", "state");
    both_give(&lua, &rhai, &state, &state);
}

#[test]
fn whole_numbers_are_integers_and_infinities_stay() {
    bodies_give("return { 6 / 2, 7 % 4, 2 ^ 10 }", "[6 / 2, 7 % 4, 2 ** 10]", vec![3_i64, 3, 1024]);
    bodies_give("return math.huge", "1.0 / 0.0", f64::INFINITY);
    let nan = |result: Result<Value, CallError>| matches!(result, Ok(Value::Float(number)) if number.is_nan());
    assert!(nan(lua_run("return 0/0")) && nan(rhai_run("0.0 / 0.0")));
}

#[test]
fn the_state_that_the_script_gets_is_a_copy() {
    let state = map(&[("count", 1_i64.into())]);
    let (lua, rhai) = bodies("state.count = state.count + 1 return state", "state.count += 1; state");
    both_give(&lua, &rhai, &state, &map(&[("count", 2_i64.into())]));
    assert_eq!(state.get("count"), Some(&Value::Int(1)));
}

#[test]
fn fields_are_data_or_functions_or_missing() {
    let lua = "return { name = 'x', seats = 2, list = {1, 2}, run = function() end }";
    let rhai = "fn run() {}\n#{ name: \"x\", seats: 2, list: [1, 2], none: (), act: |s| s }";
    for (language, text) in [(Language::Lua, lua), (Language::Rhai, rhai)] {
        let script = compile(&modules(language, text, &[])).expect("a script");
        assert_eq!(script.field("name"), Ok(Field::Data("x".into())));
        assert_eq!(script.field("seats"), Ok(Field::Data(2_i64.into())));
        assert_eq!(script.field("list"), Ok(Field::Data(vec![1_i64, 2].into())));
        assert_eq!(script.field("run"), Ok(Field::Function));
        assert_eq!(script.field("none"), Ok(Field::Missing));
        assert!(!script.is_function());
        let missing = fault(script.call("none", &mut []));
        assert_eq!(missing.code, "script::runtime");
    }
}

#[test]
fn a_script_may_be_one_function() {
    for (language, text) in [
        (Language::Lua, "return function(episode) return episode.score * 2 end"),
        (Language::Rhai, "|episode| episode.score * 2"),
    ] {
        let script = compile(&modules(language, text, &[])).expect("a script");
        assert!(script.is_function());
        let episode = map(&[("score", 4_i64.into())]);
        assert_eq!(script.call("", &mut [Argument::Data(&episode)]).expect("a reward"), Value::Int(8));
    }
}

#[test]
fn a_script_without_a_result_is_told_so() {
    for (language, text) in [(Language::Lua, "local game = {}"), (Language::Rhai, "let game = #{};")] {
        let diagnostic = compile(&modules(language, text, &[])).err().expect("a diagnostic");
        assert_eq!(diagnostic.code, "script::result");
        assert_eq!(diagnostic.found.as_deref(), Some("nothing"));
    }
}

#[test]
fn too_many_arguments_are_dropped() {
    let (lua, rhai) = ("function game.run() return 1 end", "fn run() { 1 }");
    both_give(lua, rhai, &Value::Nil, &1_i64.into());
    both_give(
        "game.run = function(a, b, c) return c == nil end",
        "fn run(a, b, c) { c == () }",
        &Value::Nil,
        &true.into(),
    );
}

#[test]
fn illegal_ends_the_call_with_its_reason() {
    let (lua, rhai) = bodies("gift.illegal('taken')", "gift.illegal(\"taken\")");
    for result in [run(Language::Lua, &lua, Value::Nil), run(Language::Rhai, &rhai, Value::Nil)] {
        assert!(matches!(&result, Err(CallError::Illegal(reason)) if reason == "taken"), "{result:?}");
    }
    // Also from within other functions, and when it is caught and thrown again.
    let nested = lua_run("local function check() gift.illegal('deep') end\nlocal ok, e = pcall(check)\nerror(e)");
    assert!(matches!(&nested, Err(CallError::Illegal(reason)) if reason == "deep"), "{nested:?}");
    let nested = lua_run("return coroutine.wrap(function() gift.illegal('deep') end)()");
    assert!(matches!(&nested, Err(CallError::Illegal(reason)) if reason == "deep"), "{nested:?}");
    let nested = rhai_run("let check = || gift.illegal(\"deep\"); check.call()");
    assert!(matches!(&nested, Err(CallError::Illegal(reason)) if reason == "deep"), "{nested:?}");
}

/// A script that catches its own refusal takes it back: it may try several readings of an answer.
#[test]
fn a_caught_refusal_is_taken_back() {
    bodies_give(
        "local ok = pcall(gift.illegal, 'x') return ok",
        "let ok = true; try { gift.illegal(\"x\") } catch { ok = false; } ok",
        false,
    );
    bodies_fail(
        "pcall(gift.illegal, 'x') error('other')",
        "try { gift.illegal(\"x\") } catch { } throw \"other\"",
        "script::runtime",
    );
}

#[test]
fn endless_scripts_are_stopped() {
    let start = Instant::now();
    bodies_fail("while true do end", "loop { }", "script::timeout");
    bodies_fail(
        "while true do pcall(function() while true do end end) end",
        "loop { try { loop { } } catch { } }",
        "script::timeout",
    );
    bodies_fail(
        "local function f() return pcall(f) end while true do f() end",
        "let f = |n| { throw n }; loop { try { f.call(1); } catch { } }",
        "script::timeout",
    );
    both_fail("while true do end", "loop { }", "script::timeout");
    // On a busy machine waiting is not charged, so this may take some times the budget.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn a_timeout_names_the_line_and_the_next_call_runs() {
    let body = "function game.run(state)\n  if state then return 1 end\n  while true do\n  end\nend";
    let script = compile(&source(Language::Lua, body)).expect("a script");
    let diagnostic = fault(call(&*script, &Value::Nil));
    let line = diagnostic.place.as_ref().map_or(0, |place| place.line);
    assert!((4..=5).contains(&line), "{diagnostic}");
    assert_eq!(call(&*script, &true.into()).expect("a value"), Value::Int(1));
    let script =
        compile(&source(Language::Rhai, "fn run(state) { if state == true { return 1; } loop {} }")).expect("a script");
    assert_eq!(fault(call(&*script, &Value::Nil)).code, "script::timeout");
    assert_eq!(call(&*script, &true.into()).expect("a value"), Value::Int(1));
}

/// With time enough to get there on a busy machine. In Rhai the first is one value that is too large, the second many.
#[test]
fn memory_is_bounded() {
    let patient = Limits { call: Duration::from_secs(20), ..limits() };
    for (language, body) in [
        (Language::Lua, "local t = {} while true do t[#t + 1] = string.rep('x', 1000000 + #t) end"),
        (Language::Lua, "local s = 'x' while true do s = s .. s end"),
        (Language::Lua, "local t = {} while true do t = { t, t } end"),
        (
            Language::Lua,
            "local t = {} while true do pcall(function() t[#t + 1] = string.rep('x', 1000000 + #t) end) if #t > 60 then t[#t + 1] = string.rep('y', 60000000) end end",
        ),
        (Language::Rhai, "let s = \"x\"; loop { s += s; }"),
        (Language::Rhai, "let t = [0]; loop { t += t; }"),
        (Language::Rhai, "let f = || 0; loop { let g = f; f = || g.call(); }"),
        (Language::Rhai, "let t = 0; loop { t = [t]; }"),
        (
            Language::Rhai,
            "let f = || 0; let s = \"x\"; s.pad(900000, \"x\"); loop { let g = f; let u = s + \"y\"; f = || [g, u]; }",
        ),
    ] {
        let (lua, rhai) = bodies(body, body);
        let source = source(language, if language == Language::Lua { &lua } else { &rhai });
        let patient = patient.clone();
        let found = deep(move || {
            let script = engine(language).compile(&source, &patient, &Library::default()).expect("a script");
            fault(call(&*script, &Value::Nil))
        });
        assert_eq!(found.code, "script::memory", "{body}: {found}");
    }
}

#[test]
fn endless_recursion_is_an_error_of_the_script() {
    bodies_fail(
        "local function f(n) return 1 + f(n + 1) end return f(0)",
        "f(0)\n}\nfn f(n) { 1 + f(n + 1)",
        "script::runtime",
    );
    // Ways through the library, which use the thread's own stack.
    for body in [
        "local function f() return coroutine.wrap(f)() end f()",
        "local function f() return string.gsub('a', 'a', f) end f()",
        "local function f() table.sort({ 1, 2, 3 }, f) end f()",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k .. 'x'] end return t.a",
        "local t = setmetatable({}, {}) getmetatable(t).__tostring = tostring return tostring(t)",
        "local function f() error(pcall(f)) end f()",
        "local function f() local ok, e = xpcall(f, f) error(e) end f()",
    ] {
        let found = fault(lua_run(body));
        assert!(["script::runtime", "script::timeout", "script::memory"].contains(&found.code), "{body}: {found}");
    }
    for body in ["let f = |g| g.call(g); f.call(f)", "[1].map(|x| run(1, 2))", "let m = #{}; m.f = |x| x.f(x); m.f(m)"]
    {
        let found = fault(rhai_run(body));
        assert!(["script::runtime", "script::timeout"].contains(&found.code), "{body}: {found}");
    }
}

#[test]
fn what_is_not_data_does_not_cross() {
    bodies_fail("return { f = function() end }", "#{ f: |x| x }", "script::value");
    bodies_fail("return { rng = rng }", "#{ rng: rng }", "script::value");
    bodies_fail(
        "local t = {} for i = 1, 40 do t = { t } end return t",
        "let t = []; for i in 0..40 { t = [t]; } t",
        "script::value",
    );
    bodies_fail(
        "local t = {} for i = 1, 2000 do t[i] = {} for j = 1, 100 do t[i][j] = j end end return t",
        "let t = []; t.pad(100000, 1); t",
        "script::value",
    );
}

#[test]
fn a_refusal_says_where_in_the_value() {
    let found = fault(lua_run("return { players = { { name = 'a' }, { name = print, act = function() end } } }"));
    assert_eq!(found.message, "the result of `run`.players[2].act is a function");
    let found = fault(rhai_run("#{ players: [#{ name: \"a\" }, #{ act: |x| x }] }"));
    assert_eq!(found.message, "the result of `run`.players[1].act is a function");
}

#[test]
fn generators_draw_the_same_in_both_languages() {
    let draws = "local t = {}\nfor i = 1, 20 do t[i] = rng:int(1, 6) end\nt[21] = rng:float()\nt[22] = rng:pick({ 'a', 'b', 'c' })\n\
                 for _, x in ipairs(rng:shuffle({ 1, 2, 3, 4, 5, 6, 7 })) do t[#t + 1] = x end\nreturn t";
    let rhai = "let t = [];\nfor i in 0..20 { t.push(rng.int(1, 6)); }\nt.push(rng.float());\nt.push(rng.pick([\"a\", \"b\", \"c\"]));\n\
                t += rng.shuffle([1, 2, 3, 4, 5, 6, 7]);\nt";
    let (Ok(first), Ok(second)) = (lua_run(draws), rhai_run(rhai)) else { panic!("both draw") };
    assert_eq!(first, second);
    // And the same as the host draws.
    let mut stream = Seed::new(7).stream();
    let host: Vec<Value> = (0..20).map(|_| stream.int(1, 6).into()).collect();
    assert_eq!(first.as_list().and_then(|list| list.get(..20)), Some(&*host));
}

#[test]
fn the_host_continues_where_the_script_stopped() {
    for (language, body) in [
        (Language::Lua, "function game.run(rng) return rng:int(1, 1000000) end"),
        (Language::Rhai, "fn run(rng) { rng.int(1, 1000000) }"),
    ] {
        let script = compile(&source(language, body)).expect("a script");
        let (mut stream, mut host) = (Seed::new(3).stream(), Seed::new(3).stream());
        for _ in 0..3 {
            let drawn = script.call("run", &mut [Argument::Rng(&mut stream)]).expect("a number");
            assert_eq!(drawn, Value::Int(host.int(1, 1_000_000)));
        }
        assert_eq!(stream.int(1, 1000), host.int(1, 1000));
    }
}

#[test]
fn wrong_draws_are_errors_with_a_line() {
    bodies_fail("return rng:int(3, 1)", "rng.int(3, 1)", "script::runtime");
    bodies_fail("return rng:pick({})", "rng.pick([])", "script::runtime");
    let found = fault(lua_run("return rng:int(1, 2.5)"));
    assert_eq!(found.place.as_ref().map(|place| place.line), Some(3), "{found}");
}

/// Neither as a variable nor inside a coroutine does a generator outlive its call: the next one has its own.
#[test]
fn a_generator_ends_with_its_call() {
    for body in [
        "local kept\nfunction game.run(state, rng) kept = kept or rng return kept:int(1, 1000000) end",
        "local kept = {}\nfunction game.run(state, rng) kept[1] = kept[1] or rng return kept[1]:int(1, 1000000) end",
    ] {
        let script = compile(&source(Language::Lua, body)).expect("a script");
        let (mut stream, mut host) = (Seed::new(3).stream(), Seed::new(3).stream());
        for _ in 0..3 {
            let drawn = script.call("run", &mut [Argument::Data(&Value::Nil), Argument::Rng(&mut stream)]);
            assert_eq!(drawn.expect("a number"), Value::Int(host.int(1, 1_000_000)));
        }
    }
}

#[test]
fn the_library_gives_the_same_in_both_languages() {
    bodies_give(
        "return gift.template('{who} has {n} of {x}', { who = 'Ann', n = 3, x = 0.5 })",
        "gift.template(\"{who} has {n} of {x}\", #{ who: \"Ann\", n: 3, x: 0.5 })",
        "Ann has 3 of 0.5",
    );
    bodies_give(
        "return gift.json.encode({ b = { 1, 2 }, a = true })",
        "gift.json.encode(#{ b: [1, 2], a: true })",
        "{\"a\":true,\"b\":[1,2]}",
    );
    bodies_give(
        "return gift.json.decode('[1, {\"a\": 2.5}]')",
        "gift.json.decode(\"[1, {\\\"a\\\": 2.5}]\")",
        Value::List(vec![1_i64.into(), map(&[("a", 2.5.into())])]),
    );
    bodies_give("return gift.mean({ 1, 2, 6.5 })", "gift.mean([1, 2, 6.5])", 9.5 / 3.0);
    bodies_give("return gift.min({ 1.5, 2 })", "gift.min([1.5, 2])", 1.5);
    bodies_give("return gift.product({ 0.5, 0.5 })", "gift.product([0.5, 0.5])", 0.25);
    bodies_give("return gift.all({ true, 1, true })", "gift.all([true, 1, true])", 1_i64);
    bodies_give("return gift.all({ true, 0.5 })", "gift.all([true, 0.5])", 0_i64);
    bodies_give(
        "local a = { x = { 1 } } local b = gift.clone(a) b.x[1] = 2 return a.x[1]",
        "let a = #{ x: [1] }; let b = gift.clone(a); b.x[0] = 2; a.x[0]",
        1_i64,
    );
    bodies_fail("return gift.template('{gone}', {})", "gift.template(\"{gone}\", #{})", "script::runtime");
    bodies_fail("return gift.mean({})", "gift.mean([])", "script::runtime");
    bodies_fail("return gift.json.decode('{')", "gift.json.decode(\"{\")", "script::runtime");
}

#[test]
fn the_host_adds_functions_and_hears_the_log() {
    fn double(arguments: &[Value]) -> Result<Value, String> {
        match arguments {
            [Value::Int(number)] => Ok(Value::Int(number * 2)),
            _ => Err("expected a whole number".to_owned()),
        }
    }
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    let library = Library::new(vec![HostFunction { name: "double", call: double }])
        .with_log(move |text| sink.lock().expect("the sink").push(text.to_owned()));
    let (lua, rhai) =
        bodies("gift.log('one\\ntwo') return gift.double(21)", "gift.log(\"one\\ntwo\"); gift.double(21)");
    for (language, body) in [(Language::Lua, lua), (Language::Rhai, rhai)] {
        let source = source(language, &body);
        let result = with_script(&source, &limits(), &library, |script| call(script, &Value::Nil));
        assert_eq!(result.expect("a script").expect("a value"), Value::Int(42));
    }
    assert_eq!(*heard.lock().expect("the sink"), ["one two", "one two"]);
}

#[test]
fn data_sets_are_read_below_the_script() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    std::fs::write(folder.path().join("data/rows.jsonl"), "{\"q\":\"a\",\"n\":1}\n{\"q\":\"b\",\"n\":2}\n")
        .expect("a file");
    let lua = "local rows = gift.dataset('data/rows.jsonl')\nlocal total = 0\nfor i, row in rows do total = total + row.n * i end\n\
               return { run = function() return { #rows, rows[2].q, rows[1].n, rows[3] == nil, total } end }";
    let rhai = "const rows = gift.dataset(\"data/rows.jsonl\");\nlet total = 0; let i = 0;\nfor row in rows { i += 1; total += row.n * i; }\n\
                fn run() { [rows.len(), rows[1].q, rows[0].n, true, total] }\n#{}";
    let expected = Value::List(vec![2_i64.into(), "b".into(), 1_i64.into(), true.into(), 5_i64.into()]);
    for (language, text) in [(Language::Lua, lua), (Language::Rhai, rhai)] {
        let path = folder.path().join(format!("game.{}", language.extension()));
        let script = compile(&Source::new(&path, language, text, BTreeMap::new()));
        let script = script.unwrap_or_else(|diagnostic| panic!("{diagnostic}"));
        assert_eq!(script.call("run", &mut []).expect("a value"), expected, "{language:?}");
    }
    bodies_fail(
        "return #gift.dataset('../../etc/passwd')",
        "gift.dataset(\"../../etc/passwd\").len()",
        "script::runtime",
    );
    bodies_fail("return #gift.dataset('/etc/passwd')", "gift.dataset(\"/etc/passwd\").len()", "script::runtime");
}

#[test]
fn modules_come_from_the_source_only() {
    let lua = "local tools = require('tools')\nreturn { run = function(x) return tools.twice(x) + require('tools').base end }";
    let lua_tools = "local deep = require('deep')\nreturn { base = deep.base, twice = function(x) return 2 * x end }";
    let rhai =
        "import \"tools\" as tools;\nfn run(x) { tools::twice(x) + tools::base() }\n#{ closed: |x| tools::twice(x) }";
    let rhai_tools = "import \"deep\" as deep;\nfn base() { deep::BASE }\nfn twice(x) { 2 * x }";
    for (language, text, list) in [
        (Language::Lua, lua, [("tools", lua_tools), ("deep", "return { base = 100 }")]),
        (Language::Rhai, rhai, [("tools", rhai_tools), ("deep", "export const BASE = 100;")]),
    ] {
        let script = compile(&modules(language, text, &list)).unwrap_or_else(|diagnostic| panic!("{diagnostic}"));
        let result = script.call("run", &mut [Argument::Data(&Value::Int(5))]);
        assert_eq!(result.expect("a value"), Value::Int(110), "{language:?}");
        if language == Language::Rhai {
            let result = script.call("closed", &mut [Argument::Data(&Value::Int(5))]);
            assert_eq!(result.expect("a value"), Value::Int(10));
        }
    }
    both_fail("require('gone')", "import \"gone\" as gone;", "script::runtime");
    both_fail("require('../game')", "import \"../game\" as game;", "script::runtime");
}

#[test]
fn modules_that_load_each_other_are_an_error() {
    for (language, text, a, b) in [
        (Language::Lua, "require('a') return {}", "require('b')", "require('a')"),
        (Language::Rhai, "import \"a\" as a; #{}", "import \"b\" as b;", "import \"a\" as a;"),
    ] {
        let diagnostic = compile(&modules(language, text, &[("a", a), ("b", b)])).err().expect("a diagnostic");
        assert_eq!(diagnostic.code, "script::runtime");
        assert!(diagnostic.message.contains("loads itself"), "{diagnostic}");
    }
}

#[test]
fn errors_have_the_authors_file_and_line() {
    let at =
        |diagnostic: &Diagnostic| diagnostic.place.as_ref().map(|place| (place.file.display().to_string(), place.line));
    for (language, text, line) in [
        (Language::Lua, "local game = {}\nfunction game.run(\nreturn game", 3),
        (Language::Rhai, "fn run(state) {\n  let = 3;\n}\n#{}", 2),
    ] {
        let diagnostic = compile(&modules(language, text, &[])).err().expect("a diagnostic");
        assert_eq!(diagnostic.code, "script::syntax", "{diagnostic}");
        assert_eq!(at(&diagnostic), Some((format!("games/case.{}", language.extension()), line)), "{diagnostic}");
    }
    for (language, text, line) in [
        (
            Language::Lua,
            "local game = {}\nlocal function f(s, ...)\n  return s.a.b\nend\nfunction game.run(s)\n  local x = f(s)\n  return x\nend\nreturn game",
            3,
        ),
        (Language::Rhai, "fn f(s) {\n  s.a.b.c\n}\nfn run(s) {\n  let x = f(s);\n  x\n}\n#{}", 2),
    ] {
        let script = compile(&modules(language, text, &[])).expect("a script");
        let diagnostic = fault(script.call("run", &mut [Argument::Data(&map(&[("b", 1_i64.into())]))]));
        assert_eq!(diagnostic.code, "script::runtime");
        assert_eq!(at(&diagnostic), Some((format!("games/case.{}", language.extension()), line)), "{diagnostic}");
        assert_eq!(diagnostic.stack.len(), 2, "{diagnostic}");
    }
    for (language, text, module) in [
        (
            Language::Lua,
            "local m = require('m')\nreturn { run = function(s) return m.f(s) end }",
            "return {\n  f = function(s)\n    error('bad')\n  end }",
        ),
        (Language::Rhai, "import \"m\" as m;\nfn run(s) { m::f(s) }\n#{}", "fn f(s) {\n\n  throw \"bad\";\n}"),
    ] {
        let script = compile(&modules(language, text, &[("m", module)])).expect("a script");
        let diagnostic = fault(script.call("run", &mut [Argument::Data(&Value::Nil)]));
        assert_eq!(at(&diagnostic), Some((format!("scripts/lib/m.{}", language.extension()), 3)), "{diagnostic}");
        assert_eq!(diagnostic.message, "bad");
    }
}

#[test]
fn an_error_at_the_top_level_is_told_with_its_line() {
    for (language, text) in
        [(Language::Lua, "local x = 1\nerror('stop')"), (Language::Rhai, "let x = 1;\nthrow \"stop\";")]
    {
        let diagnostic = compile(&modules(language, text, &[])).err().expect("a diagnostic");
        assert_eq!((diagnostic.code, diagnostic.message.as_str()), ("script::runtime", "stop"));
        assert_eq!(diagnostic.place.map(|place| place.line), Some(2));
    }
}

#[test]
fn nothing_leads_out_of_the_script() {
    for name in [
        "os",
        "io",
        "debug",
        "package",
        "loadstring",
        "load",
        "dofile",
        "getfenv",
        "setfenv",
        "collectgarbage",
        "newproxy",
        "print",
    ] {
        let value = lua_run(&format!("return {name} == nil")).expect("a value");
        assert_eq!(value, Value::Bool(true), "{name}");
    }
    for call in [
        "eval(\"1\")",
        "sleep(1)",
        "sleep(0.5)",
        "timestamp()",
        "Fn(\"sleep\").call(1)",
        "Fn(\"eval\").call(\"1\")",
        "import \"x\" as x",
    ] {
        let start = Instant::now();
        let found = fault(rhai_run(&format!("{call};")));
        assert!(["script::runtime", "script::syntax"].contains(&found.code), "{call}: {found}");
        assert!(start.elapsed() < Duration::from_millis(250), "{call}");
    }
}

#[test]
fn what_the_host_gives_cannot_be_changed() {
    for body in [
        "string.rep = nil",
        "gift.illegal = function() end",
        "gift.json.encode = nil",
        "gift = nil return gift.mean({ 1 })",
        "getmetatable('').__index = nil",
        "rawset(math, 'pi', 3)",
        "setmetatable(_G, { __index = function() return 1 end })",
        "getmetatable(rng).__index = nil",
    ] {
        let result = lua_run(body);
        assert!(result.is_err(), "{body}: {result:?}");
    }
    assert!(rhai_run("gift = 1; gift.mean([1])").is_err());
}

#[test]
fn globals_are_sealed_once_the_script_is_loaded() {
    let body = "function helper() return 4 end\nfunction game.run(set) if set then count = 1 end return helper() end";
    let script = compile(&source(Language::Lua, body)).expect("a script");
    assert_eq!(call(&*script, &Value::Nil).expect("a value"), Value::Int(4));
    let found = fault(call(&*script, &true.into()));
    assert!(found.help.as_ref().is_some_and(|help| help.contains("local")), "{found}");
}

#[test]
fn math_random_says_what_to_use_instead() {
    let found = fault(lua_run("return math.random(6)"));
    assert!(found.message.contains("rng:int"), "{found}");
    assert_eq!(found.place.map(|place| place.line), Some(3));
}

/// Library functions of Luau that work for long without a safepoint.
#[test]
fn long_library_calls_are_bounded() {
    let start = Instant::now();
    for body in [
        "local s = string.rep('a', 5000000) return string.find(s, string.rep('a', 2000000) .. 'b', 1, true)",
        "local s = string.rep('a', 5000000) return #string.split(s, string.rep('a', 2000000) .. 'b')",
        "return table.move({}, 1, 2000000000, 1, {})",
        "local t = table.create(3000000, 1) for i = 1, #t do t[i] = (i * 7919) % 1000003 end while true do table.sort(t) end",
        "local s = string.rep('a', 300000) while true do string.match(s, '.-.-.-b') end",
        "while true do coroutine.wrap(function() while true do end end)() end",
        "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) while true do pcall(function() return t[1] end) end",
        "xpcall(function() while true do end end, function() while true do end end) while true do end",
        "return string.rep('x', 2000000000)",
        "return table.create(2000000000)",
        "local t = {} while true do t = { t, t } end",
    ] {
        let found = fault(lua_run(body));
        assert!(["script::timeout", "script::runtime", "script::memory"].contains(&found.code), "{body}: {found}");
    }
    assert!(start.elapsed() < Duration::from_secs(90), "{:?}", start.elapsed());
}

#[test]
fn lua_tables_that_are_no_data_are_refused() {
    for (body, said) in [
        ("local t = {} t.t = t return t", "contains itself"),
        ("return { 1, nil, 3 }", "hole"),
        ("return { 1, 2, name = 'x' }", "both numbers and strings"),
        ("return { [0] = 1 }", "key 0"),
        ("return { [1.5] = 1 }", "key that is"),
        ("return { [true] = 1 }", "key that is a boolean"),
        ("return setmetatable({}, {})", "metatable"),
        ("return '\\255'", "not UTF-8"),
        ("return { coroutine.create(function() end) }", "coroutine"),
        ("return string.rep('x', 2000000)", "string of 2000000 bytes"),
    ] {
        let found = fault(lua_run(body));
        assert_eq!(found.code, "script::value", "{body}: {found}");
        assert!(found.message.contains(said), "{body}: {found}");
    }
    // The same table twice is no cycle.
    assert!(lua_run("local t = { 1 } return { t, t }").is_ok());
}

#[test]
fn functions_in_rhai_see_the_top_level() {
    let text = "const SIZE = 3;\nlet names = [\"a\", \"b\"];\nfn area() { SIZE * SIZE }\nfn run(state) { area() + names.len() + global::SIZE }\n#{}";
    let script = compile(&modules(Language::Rhai, text, &[])).unwrap_or_else(|diagnostic| panic!("{diagnostic}"));
    assert_eq!(call(&*script, &Value::Nil).expect("a value"), Value::Int(14));
}

#[test]
fn scripts_may_be_nested_and_versions_do_not_mix() {
    let library = Library::default();
    let version = |number: i64| {
        let text = format!("return {{ run = function() return {number} end }}");
        Source::new(Path::new("games/x.lua"), Language::Lua, &text, BTreeMap::new())
    };
    let (old, new) = (version(1), version(2));
    let value = |script: &dyn Script| script.call("run", &mut []).expect("a value");
    let both = with_script(&old, &limits(), &library, |first| {
        let inner = with_script(&new, &limits(), &library, |second| (value(first), value(second))).expect("the new");
        let again = with_script(&old, &limits(), &library, |same| value(same)).expect("the old");
        (inner, again)
    });
    assert_eq!(both.expect("the old"), ((Value::Int(1), Value::Int(2)), Value::Int(1)));
    // More scripts than a thread keeps.
    for number in 0..80 {
        let source = version(number);
        let result = with_script(&source, &limits(), &library, |script| value(script));
        assert_eq!(result.expect("a script"), Value::Int(number));
    }
}

#[test]
fn many_threads_stop_their_own_scripts_only() {
    let threads: Vec<_> = (0..8)
        .map(|thread: i64| {
            std::thread::spawn(move || {
                let body = "function game.run(state)\n  while state == 0 do end\n  return state\nend";
                let script = compile(&source(Language::Lua, body)).expect("a script");
                let result = call(&*script, &Value::Int(thread % 2));
                if thread % 2 == 0 {
                    assert_eq!(fault(result).code, "script::timeout");
                } else {
                    assert_eq!(result.expect("a value"), Value::Int(1));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ends well");
    }
}
