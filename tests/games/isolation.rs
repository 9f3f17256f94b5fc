//! Nothing lasts from one call to the next but the state that the host hands in: whatever a script tries to keep, every
//! call finds its top level as it was just loaded, on every thread and in any order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gift_host::game::{Action, Episode, GameDef, ScriptHost, Status};
use gift_host::script::{Argument, CallError, Language, Library, Script, Source, Value, engine};
use gift_host::seed::Seed;
use rayon::prelude::*;

use super::support::{deep, patient};

/// What a module keeps, in either language.
const COUNTER: [(Language, &str); 2] = [
    (
        Language::Lua,
        "local n = 0 local log = {} return { next = function() n += 1 log[#log + 1] = n return n + #log end }",
    ),
    (Language::Rhai, "let n = 0; export const counter = || { n += 1; n };"),
];

fn source(language: Language, text: &str) -> Source {
    let path = format!("games/kept.{}", language.extension());
    let module = COUNTER.iter().find(|(of, _)| *of == language).map_or("", |(_, text)| text);
    let mut modules = BTreeMap::new();
    if text.contains("counter") {
        modules.insert("counter".to_owned(), Arc::from(module));
    }
    Source::new(Path::new(&path), language, text, modules)
}

fn compile(language: Language, text: &str) -> Box<dyn Script> {
    let source = source(language, text);
    engine(language)
        .compile(&source, &patient(), &Library::default())
        .unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

/// Calls `run(rng, argument)` on a stream of its own.
fn run(script: &dyn Script, argument: i64) -> Result<Value, CallError> {
    let mut stream = Seed::new(7).child("call", argument as u64).stream();
    script.call("run", &mut [Argument::Rng(&mut stream), Argument::Data(&Value::Int(argument))])
}

fn value(script: &dyn Script, argument: i64) -> Value {
    run(script, argument).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Ways to keep something between calls. Each `run` gives a number that grows if it does.
const LUA: [&str; 16] = [
    "local n = 0 return { run = function() n += 1 return n end }",
    "local memo = {} return { run = function(rng, x) memo[#memo + 1] = x return #memo end }",
    "local n = 0 local function add() n = n + 1 return n end return { run = function() return add() end }",
    "local c = require('counter') return { run = function() return c.next() end }",
    "return { run = function() return require('counter').next() end }",
    "local t = { n = 0 } return { run = function() pcall(function() t.n += 1 end) return t.n end }",
    "local t = { n = 0 } return { run = function() local ok = xpcall(function() t.n += 1 end, function() end) return t.n end }",
    "local t = { n = 0 } return { run = function() coroutine.resume(coroutine.create(function() t.n += 1 end)) return t.n end }",
    "local co = coroutine.wrap(function() local n = 0 while true do n += 1 coroutine.yield(n) end end) return { run = function() return co() end }",
    "local co = coroutine.create(function() local n = 0 while true do n += 1 coroutine.yield(n) end end) return { run = function() local _, n = coroutine.resume(co) return n end }",
    "local words = string.gmatch('1 2 3 4 5 6 7 8 9', '%d') return { run = function() return tonumber(words()) end }",
    "local mt = { n = 0 } mt.__index = function(t, k) mt.n += 1 return mt.n end local t = setmetatable({}, mt) return { run = function() return t.x end }",
    "local t = setmetatable({}, { __newindex = function(t, k, v) rawset(t, k, v) end, __call = function(t) t[#t + 1] = 1 return #t end }) return { run = function() return t() end }",
    "cache = { 0 } return { run = function() cache[1] += 1 return cache[1] end }",
    "local game = { n = 0 } function game.run() game.n += 1 return game.n end return game",
    "local list = { 3, 1, 2 } return { run = function() table.sort(list) list[#list + 1] = 0 return #list end }",
];

const RHAI: [&str; 7] = [
    "let n = 0; #{ run: |rng, x| { n += 1; n } }",
    "let memo = []; #{ run: |rng, x| { memo.push(x); memo.len() } }",
    "let n = 0; let add = || { n += 1; n }; #{ run: |rng, x| add.call() }",
    "let t = #{ n: 0 }; let o = #{ add: || { t.n += 1; t.n } }; #{ run: |rng, x| { try { o.add.call(); throw 1; } catch { } t.n } }",
    "import \"counter\" as c; #{ run: |rng, x| c::counter.call() }",
    "let memo = [0]; fn run(rng, x) { global::memo[0] += 1; global::memo[0] } #{}",
    "let memo = [0]; fn run(rng, x) { memo[0] += 1; memo[0] } #{}",
];

#[test]
fn every_call_finds_the_script_as_it_was_loaded() {
    deep(|| {
        for (language, text) in
            LUA.iter().map(|text| (Language::Lua, text)).chain(RHAI.iter().map(|text| (Language::Rhai, text)))
        {
            let script = compile(language, text);
            // An error is as good, so long as it does not change.
            let said = |result: Result<Value, CallError>| match result {
                Ok(value) => format!("{value:?}"),
                Err(CallError::Fault(problem)) => problem.to_string(),
                Err(CallError::Illegal(reason)) => reason,
            };
            let first = said(run(&*script, 1));
            for _ in 0..5 {
                assert_eq!(said(run(&*script, 1)), first, "{text}");
            }
            assert_eq!(said(run(&*compile(language, text), 1)), first, "{text}");
        }
    });
}

/// The usual way to save work: it does not save any from one call to the next, and the results are right.
#[test]
fn a_table_of_results_works_within_a_call() {
    let text = "local memo = {}\n\
        local function fib(n) if n < 2 then return n end if not memo[n] then memo[n] = fib(n - 1) + fib(n - 2) end return memo[n] end\n\
        return { run = function(rng, x) return fib(x) + rng:int(0, 0) end }";
    deep(|| {
        let script = compile(Language::Lua, text);
        assert!(!script.is_fresh_each_call(), "nothing was written yet");
        assert_eq!(value(&*script, 60), Value::Int(1_548_008_755_920));
        assert!(script.is_fresh_each_call());
        assert_eq!(value(&*script, 50), Value::Int(12_586_269_025));
    });
}

/// A script that keeps nothing pays nothing.
#[test]
fn scripts_that_keep_nothing_are_loaded_once() {
    deep(|| {
        for path in super::support::scripts_in("games") {
            let source = gift_host::reload::read_source(&path).unwrap_or_else(|problem| panic!("{problem}"));
            let host = ScriptHost::new(patient(), Vec::new());
            let game = Arc::new(
                GameDef::compile(&source, Value::Map(BTreeMap::new()), &host)
                    .unwrap_or_else(|problem| panic!("{problem}")),
            );
            let problems = gift_host::game::check_game(&game, 5, Seed::new(1));
            assert!(problems.is_empty());
            let fresh = gift_host::script::with_script(&source, &host.limits, &host.library, |script| {
                script.is_fresh_each_call()
            });
            assert_eq!(fresh, Ok(false), "{}", path.display());
        }
    });
}

/// The call that is run again draws the same numbers, and the stream goes on as after one run.
#[test]
fn a_call_that_is_run_again_draws_the_same() {
    let text = "local memo = {} return { run = function(rng) local a = rng:int(1, 1000000) memo[1] = a return a end }";
    deep(|| {
        let script = compile(Language::Lua, text);
        let (mut stream, mut host) = (Seed::new(3).stream(), Seed::new(3).stream());
        for _ in 0..3 {
            let drawn = script.call("run", &mut [Argument::Rng(&mut stream)]).expect("a number");
            assert_eq!(drawn, Value::Int(host.int(1, 1_000_000)));
        }
    });
}

/// What a script sees of its tables is the same before and after the first write.
#[test]
fn a_script_cannot_tell_how_it_is_run() {
    let text = "local t, f = { 1 }, table.freeze({ 1 })\n\
        local function tried(g) return (pcall(g)) end\n\
        return { run = function(rng, x)\n\
          if x == 1 then t[1] = 2 end\n\
          return { table.isfrozen(t), table.isfrozen(f), tried(function() t[2] = 2 end), tried(function() f[1] = 2 end),\n\
            tried(function() table.freeze(t) end), tried(function() rng:shuffle(t) end), tried(function() string.x = 1 end), t[1] }\n\
        end }";
    deep(|| {
        let untouched = value(&*compile(Language::Lua, text), 0);
        let script = compile(Language::Lua, text);
        value(&*script, 1);
        assert_eq!(value(&*script, 0), untouched);
        let list = untouched.as_list().expect("a list").to_vec();
        assert_eq!(list[..4], [false.into(), true.into(), true.into(), false.into()]);
    });
}

/// Globals are the script's functions and tables; once it is loaded they stay.
#[test]
fn globals_cannot_be_set_in_either_way() {
    let text = "local n = 0 function helper() n += 1 return n end return { run = function(rng, x) if x == 1 then other = 1 end return helper() end }";
    deep(|| {
        let script = compile(Language::Lua, text);
        assert!(script.is_fresh_each_call(), "`helper` assigns a variable of the top level");
        for _ in 0..3 {
            assert!(run(&*script, 1).is_err());
            assert_eq!(value(&*script, 0), Value::Int(1));
        }
    });
}

/// Keeps all it can, and puts what it finds into the state.
const LEAKY: &str = "local n, seen, log = 0, {}, {}\n\
    local words = string.gmatch(string.rep('x ', 1000), '%a')\n\
    local function note(s) n += 1 log[#log + 1] = s seen[s] = (seen[s] or 0) + 1 return n + #log + seen[s] end\n\
    local game = { name = 'leaky', seats = 1, max_turns = 8 }\n\
    function game.init(rng) return { n = note('init'), x = rng:int(1, 9), turns = 0 } end\n\
    function game.to_act(s) if s.turns == 8 then return nil end return 1 end\n\
    function game.observe(s) return 'turn ' .. note('observe') .. tostring(words()) end\n\
    function game.apply(s, seat, action) s.turns += 1 s.n += note(action) return s end\n\
    function game.outcome(s) return { scores = { s.n * 10 + note('end') + s.x }, success = { true } } end\n\
    return game";

/// Thirty-two episodes give the same whichever threads play them, and whatever those played before.
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let source = Source::new(Path::new("games/leaky.lua"), Language::Lua, LEAKY, BTreeMap::new());
    let played = |threads: usize| -> Vec<(String, f64)> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(gift_host::script::STACK_BYTES)
            .build()
            .expect("a pool");
        pool.install(|| {
            let host = ScriptHost::new(patient(), Vec::new());
            let game = Arc::new(
                GameDef::compile(&source, Value::Map(BTreeMap::new()), &host)
                    .unwrap_or_else(|problem| panic!("{problem}")),
            );
            let play = |number: u64| {
                let mut episode =
                    Episode::start(&game, Seed::new(number)).unwrap_or_else(|problem| panic!("{problem}"));
                let mut seen = String::new();
                while let Status::Turn(seat) = *episode.status() {
                    seen += &episode.observation(seat, false).unwrap_or_else(|problem| panic!("{problem}"));
                    let action = Action { text: format!("a{}", number % 3), well_formed: true };
                    episode.act(seat, &action).unwrap_or_else(|problem| panic!("{problem}"));
                }
                (seen, episode.result(gift_host::game::Seat(1)).0)
            };
            (0..32).into_par_iter().map(play).collect()
        })
    };
    let alone = played(1);
    assert_eq!(played(4), alone);
    assert_eq!(alone[0].0, "turn 3x".repeat(8));
}

/// Closures that hold themselves are never freed; what they leave behind is bounded.
#[test]
fn what_calls_leave_behind_is_bounded() {
    let text = "#{ run: |rng, x| { let big = []; big.pad(50000, 1); let f = || 0; f = || [big, f]; x } }";
    deep(|| {
        let limits = gift_host::script::Limits { memory_bytes: 32 << 20, ..patient() };
        let script = engine(Language::Rhai)
            .compile(&source(Language::Rhai, text), &limits, &Library::default())
            .expect("a script");
        let last = (0..200).map(|_| run(&*script, 1)).find_map(Result::err);
        let Some(CallError::Fault(problem)) = last else { panic!("{last:?}") };
        assert!(problem.message.contains("left more than"), "{problem}");
    });
}
