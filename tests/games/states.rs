//! States that go from call to call: however a machine keeps them at hand, a script sees what a fresh copy would show,
//! and what it does to a copy stays there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use gift_host::script::{
    Answer, Answers, Argument, CallError, Language, Library, Limits, Questions, Script, Source, State, Value, engine,
};
use gift_host::seed::Seed;

fn compile_with(language: Language, text: &str, library: &Library) -> Box<dyn Script> {
    let path = format!("games/case.{}", language.extension());
    let source = Source::new(Path::new(&path), language, text, BTreeMap::new());
    engine(language).compile(&source, &Limits::default(), library).unwrap_or_else(|problem| panic!("{problem}"))
}

fn compile(language: Language, text: &str) -> Box<dyn Script> {
    compile_with(language, text, &Library::default())
}

fn start() -> Value {
    Value::from([
        ("board", Value::List(vec!["".into(), "X".into(), "a text that is longer than most".into()])),
        ("deep", Value::from([("list", vec![1_i64, 2].into()), ("share", 0.5.into())])),
        ("history", Value::List(vec![])),
        ("pair", Value::List(vec![vec![1_i64, 2].into(), vec![3_i64, 4].into()])),
        ("turn", 1_i64.into()),
        ("won", false.into()),
    ])
}

/// A script that looks, one that changes, and one that tells the order in which it meets the fields.
const LUA: &str = r#"
local game = {}
function game.look(state) return state.turn .. #state.history .. state.board[1] end
function game.spoil(state)
  state.turn = 99
  state.board[1] = "spoilt"
  table.insert(state.history, "spoilt")
  return state.turn
end
function game.order(state)
  local keys = {}
  for key in pairs(state) do table.insert(keys, key) end
  for key in pairs(state.deep) do table.insert(keys, key) end
  return keys
end
function game.change(state, seat, how)
  state.turn += 1
  if how == "value" then
    state.board[2] = state.turn % 2 == 0 and "O" or "a longer text than fits into a cell"
    state.won = not state.won
    state.deep.share = -(state.deep.share or 1)
    state.deep.list[1] = -0.0
  elseif how == "grow" then
    table.insert(state.history, { turn = state.turn })
    state["field " .. state.turn] = state.turn
  elseif how == "shrink" then
    table.remove(state.history)
    state.deep.share = if state.deep.share then nil else 0.25
  elseif how == "kind" then
    state.won = if type(state.won) == "table" then false else { yes = true }
    state.board[1] = if state.board[1] == "" then 7 else ""
  elseif how == "detour" then
    for index = 1, 20 do state["extra" .. index] = index end
    for index = 1, 20 do state["extra" .. index] = nil end
  elseif how == "fresh" then
    return table.clone(state)
  elseif how == "alias" then
    state.board = state.deep.list
  elseif how == "swap" then
    state.pair[1], state.pair[2] = state.pair[2], state.pair[1]
  elseif how == "double" then
    state.pair[1] = state.pair[2]
  elseif how == "zero" then
    state.turn -= state.turn
    state.deep.share = -0.0
  elseif how == "numbered" then
    state[1] = "numbered"
    state.deep[1] = 5
    state[1], state.deep[1] = nil, nil
  elseif how == "mixed" then
    state[1] = "mixed"
  elseif how == "hole" then
    state.board[5] = "far"
  elseif how == "drop" then
    state.won = nil
  elseif how == "metatable" then
    setmetatable(state.deep, { __index = function() return 1 end })
  elseif how == "deceit" then
    state.pair = setmetatable({}, { __eq = function() return true end, __index = function() return 1 end })
  elseif how == "function" then
    state.won = function() end
  elseif how == "refuse" then
    state.board[1] = "refused"
    gift.illegal("no")
  end
  return state
end
return game
"#;

const WAYS: [&str; 11] =
    ["value", "grow", "shrink", "kind", "detour", "fresh", "alias", "swap", "double", "zero", "numbered"];
/// Ways to change a state into what is none, and to refuse.
const BAD: [&str; 7] = ["mixed", "hole", "drop", "metatable", "deceit", "function", "refuse"];

fn ask(script: &dyn Script, function: &'static str, state: &State) -> Value {
    script.call(function, &mut [Argument::State(state)]).expect("a value")
}

fn change(script: &dyn Script, state: &State, how: &str, replaces: bool) -> Result<State, CallError> {
    let (seat, how) = (Value::Int(1), Value::from(how));
    script.call_state("change", &mut [Argument::State(state), Argument::Data(&seat), Argument::Data(&how)], replaces)
}

/// The script with a top level that runs anew for each call, so that nothing is kept in its machine.
fn without_memory(text: &str) -> String {
    text.replace("local game = {}", "local game, calls = {}, 0 function game.count() calls += 1 end")
}

/// Whatever a script does to a state, the result is that of a machine which never saw the state before, and the state
/// that was handed in stays as it was.
#[test]
fn a_state_at_hand_is_as_good_as_a_fresh_copy() {
    let kept = compile(Language::Lua, LUA);
    // Sees every state for the first time.
    let fresh = compile(Language::Lua, LUA);
    for first in WAYS {
        for second in WAYS {
            for replaces in [true, false] {
                let mut state = State::from(start());
                for how in ["value", first, "value", second, "value", first] {
                    let before = state.value().clone();
                    let copy = State::from(before.clone());
                    let expected = change(&*fresh, &copy, how, false).expect("a state");
                    let found = change(&*kept, &state, how, replaces).expect("a state");
                    assert_eq!(found, expected, "{first}, {second}: {how}");
                    assert_eq!(state.value(), &before, "{first}, {second}: {how}");
                    assert_eq!(ask(&*kept, "look", &found), ask(&*fresh, "look", &expected));
                    let brought = State::from(found.value().clone());
                    let order = ask(&*fresh, "order", &brought);
                    assert_eq!(ask(&*kept, "order", &found), order, "{first}, {second}: {how}");
                    state = found;
                }
            }
        }
    }
}

/// The same over long episodes, in which a machine makes the most of what it has learnt of the states, with changes that
/// leave no state behind in between.
#[test]
fn long_episodes_are_the_same_whether_states_are_kept_or_not() {
    let kept = compile(Language::Lua, LUA);
    let fresh = compile(Language::Lua, &without_memory(LUA));
    for seed in 0..40 {
        let mut stream = Seed::new(seed).stream();
        let mut state = State::from(start());
        for step in 0..60 {
            let how = match stream.index(8) {
                0 => WAYS[stream.index(WAYS.len())],
                1 => BAD[stream.index(BAD.len())],
                _ => ["value", "zero", "swap", "double"][stream.index(4)],
            };
            let before = state.value().clone();
            let expected = change(&*fresh, &State::from(before.clone()), how, false);
            let found = change(&*kept, &state, how, stream.index(8) > 0);
            assert_eq!(state.value(), &before, "seed {seed}, step {step}: {how}");
            let (expected, found) = match (expected, found) {
                (Ok(expected), Ok(found)) => (expected, found),
                (Err(expected), Err(found)) => {
                    assert_eq!(format!("{found:?}"), format!("{expected:?}"), "seed {seed}, step {step}: {how}");
                    continue;
                }
                (expected, found) => panic!("seed {seed}, step {step}: {how}: {expected:?} and {found:?}"),
            };
            assert_eq!(found, expected, "seed {seed}, step {step}: {how}");
            assert_eq!(
                ask(&*kept, "order", &found),
                ask(&*fresh, "order", &expected),
                "seed {seed}, step {step}: {how}"
            );
            state = found;
        }
    }
}

/// What is asked along with a change is what is answered to a call of its own.
#[test]
fn questions_along_with_a_change_are_answered_as_by_calls() {
    let text = LUA.replace("return game\n", "")
        + r#"
function game.next(state) return if state.turn > 3 then nil else state.turn end
function game.fault(state, seat) error("not today") end
function game.odd(state, seat) return game end
function game.sum(state, seat) return { state.turn + seat, state.board[2] } end
return game
"#;
    // In Rhai nothing is gained by it, and every question is a call of its own.
    questions_are_answered(&*compile(Language::Lua, &text));
}

fn questions_are_answered(script: &dyn Script) {
    let two = Value::Int(2);
    for (then, answers) in [
        ([("sum", 0b100), ("look", 0), ("sum", 0b100)], true),
        ([("odd", 0b100), ("sum", 0b110), ("look", 0)], true),
        ([("sum", 0b100), ("fault", 0b100), ("look", 0)], false),
    ] {
        let questions = Questions { first: "next", at_nil: "look", then };
        let mut state = State::from(start());
        for turn in 2..=4_i64 {
            let (seat, how) = (Value::Int(1), Value::from("value"));
            let mut arguments = [Argument::State(&state), Argument::Data(&seat), Argument::Data(&how)];
            let changed = script.call_state_and_ask("change", &mut arguments, true, Some(&questions));
            let (changed, found) = changed.expect("a state");
            assert_eq!(changed.get("turn"), Some(&Value::Int(turn)));
            state = changed;
            let next = ask(script, "next", &state);
            match turn {
                // An error of one question takes the others with it; nothing is known then, and nothing is lost.
                2 if !answers => assert_eq!(found, Answers::default()),
                2 => {
                    assert_eq!(found.first, Some(next));
                    for ((function, asked), answer) in then.into_iter().zip(found.then) {
                        let told = script.call(function, &mut [Argument::State(&state), Argument::Data(&two)]);
                        let expected = if asked == 0 || function == "odd" { None } else { Some(told.expect(function)) };
                        assert_eq!(answer.map(Answer::into_value), expected, "{function}");
                    }
                }
                3 => {
                    assert_eq!(found, Answers { first: Some(next), ..Answers::default() });
                }
                _ => {
                    let at_nil = Some(Arc::new(ask(script, "look", &state)));
                    assert_eq!(found, Answers { first: Some(Value::Nil), at_nil, ..Answers::default() });
                }
            }
        }
    }
}

#[test]
fn a_refused_change_leaves_the_state_alone() {
    let script = compile(Language::Lua, LUA);
    let state = change(&*script, &State::from(start()), "value", true).expect("a state");
    let look = ask(&*script, "look", &state);
    for _ in 0..3 {
        let refused = change(&*script, &state, "refuse", true);
        assert!(matches!(&refused, Err(CallError::Illegal(reason)) if reason == "no"), "{refused:?}");
        assert_eq!(ask(&*script, "look", &state), look);
    }
}

/// As it was with a copy for each call: a script that writes into what it is shown harms nobody.
#[test]
fn what_a_script_writes_where_it_should_look_is_lost() {
    let rhai = "fn look(state) { state.turn.to_string() + state.history.len() + state.board[0] }\n\
                fn spoil(state) { state.turn = 99; state.board[0] = \"spoilt\"; state.history.push(1); state.turn }\n#{}";
    for (language, text) in [(Language::Lua, LUA), (Language::Rhai, rhai)] {
        let script = compile(language, text);
        let state = State::from(start());
        for _ in 0..3 {
            assert_eq!(ask(&*script, "look", &state), "10".into(), "{language:?}");
            assert_eq!(ask(&*script, "spoil", &state), Value::Int(99), "{language:?}");
        }
        assert_eq!(state.value(), &start());
    }
}

/// A machine that kept its states from one that can catch errors would show it that they are kept.
#[test]
fn a_script_that_catches_errors_may_write_as_well() {
    let text = "return { look = function(state) return pcall(function() state.turn = 5 end) and state.turn end }";
    let script = compile(Language::Lua, text);
    let state = State::from(start());
    assert_eq!(ask(&*script, "look", &state), Value::Int(5));
    assert_eq!(ask(&*script, "look", &state), Value::Int(5));
}

#[test]
fn a_call_that_fails_logs_once() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let library = Library::default().with_log(move |line| sink.lock().expect("the lines").push(line.to_owned()));
    let text = "return { look = function(state) gift.log('looked') error('no') end }";
    let script = compile_with(Language::Lua, text, &library);
    let state = State::from(start());
    for _ in 0..2 {
        assert!(script.call("look", &mut [Argument::State(&state)]).is_err());
    }
    assert_eq!(*lines.lock().expect("the lines"), ["looked", "looked"]);
}

#[test]
fn many_states_take_turns_in_one_machine() {
    let script = compile(Language::Lua, LUA);
    let mut states: Vec<State> = (0..400).map(|_| State::from(start())).collect();
    for round in 1..4 {
        for (at, state) in states.iter_mut().enumerate() {
            let how = if at % 3 == 0 { "grow" } else { "value" };
            *state = change(&*script, state, how, true).expect("a state");
            assert_eq!(state.get("turn"), Some(&Value::Int(1 + round)), "{at}");
        }
    }
}

/// Boards are drawn alike in both languages, by whichever code does it.
#[test]
fn boards_are_drawn_alike_in_both_languages() {
    let lua = compile(
        Language::Lua,
        "return { draw = function(s)
            local lines = {}
            for cell = 1, #s.cells do lines[cell] = gift.line(s.cells, s.columns, 2, cell) end
            return { gift.grid(s.cells, s.columns), gift.free(s.cells), lines }
        end }",
    );
    let rhai = compile(
        Language::Rhai,
        "fn draw(s) {
            let lines = [];
            for cell in 1..=s.cells.len() { lines.push(gift.line(s.cells, s.columns, 2, cell)); }
            [gift.grid(s.cells, s.columns), gift.free(s.cells), lines]
        }
        #{}",
    );
    for count in [1_usize, 2, 6, 9, 10, 16] {
        for columns in 1..=5_i64 {
            let cells: Vec<&str> =
                (0..count).map(|at| ["X", "", "O", "", "é", "long"][(at * columns as usize) % 6]).collect();
            let plain: Vec<&str> = cells.iter().map(|cell| if cell.len() > 1 { "X" } else { cell }).collect();
            for cells in [cells, plain] {
                let state = State::from(Value::from([("cells", cells.into()), ("columns", columns.into())]));
                assert_eq!(ask(&*lua, "draw", &state), ask(&*rhai, "draw", &state), "{state:?}");
            }
        }
    }
}

/// Templates are filled alike in both languages, by whichever code does it.
#[test]
fn templates_are_filled_alike_in_both_languages() {
    let lua = compile(Language::Lua, "return { fill = function(s) return gift.template(s.text, s) end }");
    let rhai = compile(Language::Rhai, "fn fill(s) { gift.template(s.text, s) }\n#{}");
    for text in [
        "",
        "{a}",
        "{a}{b}{a}",
        "{{a}}",
        "{{a}",
        "{a}}",
        "{{{a}}}",
        "{1}{a b}{ a }",
        "ä{a}ö{{",
        "{b}{c}{d}{e}",
        "{\n{a}",
    ] {
        let fields = [
            ("text", text.into()),
            ("a", "x{b}".into()),
            ("b", 3_i64.into()),
            ("c", 2.5.into()),
            ("d", true.into()),
            ("e", 0_i64.into()),
        ];
        let state = State::from(Value::from(fields));
        assert_eq!(ask(&*lua, "fill", &state), ask(&*rhai, "fill", &state), "{text}");
        assert_eq!(ask(&*lua, "fill", &state), ask(&*rhai, "fill", &state), "{text}, a second time");
    }
    for text in ["{missing}", "{list}"] {
        let state = State::from(Value::from([("text", text.into()), ("list", Value::List(vec![]))]));
        for script in [&lua, &rhai] {
            assert!(script.call("fill", &mut [Argument::State(&state)]).is_err(), "{text}");
        }
    }
}
