//! The author's own stack in messages: file and line of each call, in both languages, through modules, and of the version
//! that ran although the file has changed since.

use std::collections::BTreeMap;
use std::sync::Arc;

use gift_host::game::{GameDef, ScriptHost, check_game};
use gift_host::reload::read_source;
use gift_host::script::Value;
use gift_host::seed::Seed;

use super::support::{Place, assert_output};

const LUA: &str = r#"local deep = require("deep")
local game = { name = "lua", seats = 1, max_turns = 1 }
local function helper(state)
  local found = deep.outer(state)
  return found
end
function game.init(rng, options) return { x = 1 } end
function game.to_act(state) return 1 end
game.observe = function(state, seat)
  local text = helper(state)
  return text
end
function game.apply(state, seat, action) return state end
function game.outcome(state) return { scores = { 1 }, success = { true } } end
return game
"#;

const LUA_MODULE: &str = r"local m = {}
local function inner(x)
  return x.missing.field
end
function m.outer(x)
  local found = inner(x)
  return found
end
return m
";

const RHAI: &str = r#"import "deep" as deep;
fn helper(state) {
    let found = deep::outer(state);
    found
}
fn init(rng, options) { #{ x: 1 } }
fn to_act(state) { 1 }
fn observe(state, seat) {
    let text = helper(state);
    text
}
fn apply(state, seat, action) { state }
fn outcome(state) { #{ scores: [1], success: [true] } }
#{ name: "rhai", seats: 1, max_turns: 1 }
"#;

const RHAI_MODULE: &str = r"fn inner(x) {
    x.missing.field.more
}
fn outer(x) {
    let found = inner(x);
    found
}
";

fn place() -> Place {
    let place = Place::new();
    place.write("games/a.lua", LUA);
    place.write("games/b.rhai", RHAI);
    place.write("scripts/lib/deep.lua", LUA_MODULE);
    place.write("scripts/lib/deep.rhai", RHAI_MODULE);
    place
}

#[test]
fn each_call_of_a_lua_script_is_shown() {
    assert_output!(place(), ["check", "games/a.lua"], @r"
    status: 1
    --- output
    error[script::runtime]: attempt to index nil with 'field'
      --> scripts/lib/deep.lua:3
       |
     3 |   return x.missing.field
       |   ^^^^^^^^^^^^^^^^^^^^^^
       |
      help:     what stands before the `.` or `[` is nil here: is the field misspelt, or not set in `init`?
      stack:    scripts/lib/deep.lua:3 in `inner`
                scripts/lib/deep.lua:6 in `outer`
                games/a.lua:4 in `helper`
                games/a.lua:10 in `observe`
    note: in the episode of seed 1571218202235825; `gift-host check games/a.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn each_call_of_a_rhai_script_is_shown() {
    assert_output!(place(), ["check", "games/b.rhai"], @r"
    status: 1
    --- output
    error[script::runtime]: unknown property 'field' - a getter is not registered for type '()'
      --> scripts/lib/deep.rhai:2:15
       |
     2 |     x.missing.field.more
       |               ^^^^^
       |
      help:     is the field misspelt, or not set in `init`? `state.field ?? 0` gives a default
      stack:    scripts/lib/deep.rhai:2:15 in `inner`
                scripts/lib/deep.rhai:5:17 in `outer`
                games/b.rhai:3:23 in `helper`
                games/b.rhai:9:16 in `observe`
    note: in the episode of seed 1571218202235825; `gift-host check games/b.rhai --seed 1571218202235825` plays it again
    ");
}

#[test]
fn an_error_inside_a_coroutine_keeps_the_calls_around_it() {
    let place = Place::new();
    let body = "  local run = coroutine.wrap(function()\n    local sum = nil + 1\n  end)\n  run()\n";
    let text = LUA.replace("local deep = require(\"deep\")\n", "").replace("  local text = helper(state)\n", body);
    place.write("games/a.lua", &text);
    assert_output!(place, ["check", "games/a.lua"], @r"
    status: 1
    --- output
    error[script::runtime]: attempt to perform arithmetic (add) on nil and number
      --> games/a.lua:10
        |
     10 |     local sum = nil + 1
        |     ^^^^^^^^^^^^^^^^^^^
        |
      help:     one of the values is nil: is a field misspelt, or not set in `init`? `tonumber` gives nil for what is no number
      stack:    games/a.lua:10
                games/a.lua:12 in `observe`
    note: in the episode of seed 1571218202235825; `gift-host check games/a.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn a_library_function_given_the_wrong_thing_blames_the_authors_line() {
    let place = Place::new();
    let text =
        LUA.replace("local deep = require(\"deep\")\n", "").replace("deep.outer(state)", "gift.math_equal({}, 1)");
    place.write("games/a.lua", &text);
    assert_output!(place, ["check", "games/a.lua"], @r"
    status: 1
    --- output
    error[script::runtime]: `gift.math_equal`: expected two strings or numbers; argument 1 is a list
      --> games/a.lua:3
       |
     3 |   local found = gift.math_equal({}, 1)
       |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
      help:     see `The library` in `games/README.md`
      stack:    games/a.lua:3 in `helper`
                games/a.lua:9 in `observe`
    note: in the episode of seed 1571218202235825; `gift-host check games/a.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn editors_get_the_stack_as_json() {
    let output = place().run(&["check", "games/a.lua", "games/b.rhai", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (index, extension) in ["lua", "rhai"].iter().enumerate() {
        let stack = json["games"][index]["problems"][0]["stack"].as_array().expect("a stack").clone();
        let functions: Vec<&str> = stack.iter().filter_map(|frame| frame["function"].as_str()).collect();
        assert_eq!(functions, ["inner", "outer", "helper", "observe"], "{extension}");
        let file = format!("scripts/lib/deep.{extension}");
        assert_eq!((&stack[0]["file"], &stack[1]["file"]), (&file.as_str().into(), &file.as_str().into()));
        assert!(stack.iter().all(|frame| frame["line"].as_u64().is_some_and(|line| line > 0)), "{stack:?}");
    }
}

/// A running episode stays on its version, so its lines are those of that version.
#[test]
fn lines_are_those_of_the_version_that_ran() {
    for (file, text, first_line) in [("games/a.lua", LUA, "-- one line more\n"), ("games/b.rhai", RHAI, "// one\n")] {
        let place = place();
        let path = place.path(file);
        let compile = || {
            let source = read_source(&path).expect("a source");
            Arc::new(GameDef::compile(&source, Value::Map(BTreeMap::new()), &ScriptHost::default()).expect("a game"))
        };
        let problem = |game: &Arc<GameDef>| check_game(game, 1, Seed::new(0)).remove(0);
        let old = compile();
        place.write(file, &format!("{first_line}{text}"));
        let new = compile();
        let (old, new) = (problem(&old), problem(&new));
        let lines = |problem: &gift_host::diag::Diagnostic| -> Vec<u32> {
            problem.stack.iter().filter(|frame| frame.place.file == path).map(|frame| frame.place.line).collect()
        };
        assert!(!lines(&old).is_empty(), "{old}");
        assert_eq!(lines(&old).iter().map(|line| line + 1).collect::<Vec<_>>(), lines(&new), "{old}\n{new}");
        // The line shown is the one that ran, in the module too, whatever the files hold by now.
        let module = if file.ends_with("lua") { "deep.lua" } else { "deep.rhai" };
        place.write(&format!("scripts/lib/{module}"), "\n");
        for problem in [&old, &new] {
            assert!(problem.snippet.as_ref().expect("a line").text.contains("missing"), "{problem}");
        }
    }
}
