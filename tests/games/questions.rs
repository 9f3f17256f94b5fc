//! Questions that are asked in one go with the call that gives a state, once a script has been called so often that functions
//! are written for its states: they are answered as by calls of their own, whatever a script does in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gift_host::script::{
    Answer, Answers, Argument, CallError, Language, Library, Limits, Questions, Script, Source, State, Value, engine,
};
use gift_host::seed::Seed;

fn compile(text: &str) -> Box<dyn Script> {
    let source = Source::new(Path::new("games/case.lua"), Language::Lua, text, BTreeMap::new());
    engine(Language::Lua)
        .compile(&source, &Limits::default(), &Library::default())
        .unwrap_or_else(|problem| panic!("{problem}"))
}

/// More steps than it takes until functions are written for a shape.
const STEPS: i64 = 120;

const LUA: &str = r#"
local CHOICES = { [0] = { "a", "b" }, { "b", "a" }, { "c" } }
local FIXED = table.freeze({ "x", "y" })
local ENDS = { [0] = { scores = { 0.5 }, success = { false } }, { scores = { 1 }, deep = { a = { b = true } } }, { "é" } }
local game = {}
function game.begin(rng, options)
  local state = { turn = 1, board = { "", "", "" }, own = { "p", "q" }, deep = { share = 0.5 } }
  if options == "odd" then state.extra = 1 end
  if options == "minus" then state.turn = -0.0 end
  if options == "table" then state.deep.share = { 1 } end
  if options == "none" then state.board = nil end
  state.board[1] = rng:pick({ "X", "O" })
  return state
end
function game.change(state, seat, how)
  state.turn += 1
  state.board[1 + state.turn % 3] = how
  state.own[1] = "p" .. state.turn % 2
  if how == "add" then state.added = true state.added = nil end
  if how == "grow" then state.own[3] = "r" end
  if how == "replace" then state.deep = { share = state.turn } end
  if how == "other" then return { turn = state.turn, board = {}, own = {}, deep = {} } end
  if how == "no" then gift.illegal("no") end
  return state
end
function game.next(state) return if state.turn % 7 == 0 then nil else 1 + state.turn % 3 end
function game.over(state) return { scores = { state.turn }, success = { state.turn > 9 } } end
function game.ended(state) return ENDS[state.turn // 7 % 3] end
function game.sealed_over(state) return table.freeze({ scores = { state.turn } }) end
function game.own_over(state) return state.own end
function game.own_inside(state) return table.freeze({ own = state.own, turn = state.turn, ends = ENDS[0] }) end
function game.constant(state, seat) return CHOICES[state.turn % 3] end
function game.fixed(state, seat) return FIXED end
function game.own(state, seat) return state.own end
function game.made(state, seat) return { "1", "é" .. state.turn, tostring(seat) } end
function game.text(state, seat) return "turn " .. state.turn .. " of " .. seat .. state.board[1] .. "ü" end
function game.mixed(state, seat) return { "1", 2 } end
function game.nothing(state, seat) return if state.turn % 2 == 0 then nil else {} end
function game.odd(state, seat) return game end
function game.fault(state, seat) if state.turn % 5 == 0 then error("not today") end return "fine" end
function game.spoil(state, seat) state.turn = 99 return state.turn end
return game
"#;

/// What each function says by calls of its own, where that can cross.
fn expected(script: &dyn Script, questions: &Questions, state: &State) -> Answers {
    let ask = |name, seat: Option<&Value>| {
        let mut arguments = vec![Argument::State(state)];
        arguments.extend(seat.map(Argument::Data));
        script.call(name, &mut arguments).ok()
    };
    let first = ask(questions.first, None);
    let mut answers = Answers { first: first.clone(), ..Answers::default() };
    match first {
        Some(Value::Nil) => answers.at_nil = ask(questions.at_nil, None).map(Arc::new),
        Some(seat @ Value::Int(number)) => {
            for ((name, after), answer) in questions.then.into_iter().zip(&mut answers.then) {
                if after >> number & 1 == 1 {
                    *answer = ask(name, Some(&seat)).map(Answer::Value);
                }
            }
        }
        _ => {}
    }
    answers
}

fn plain(answers: Answers) -> Answers {
    Answers { then: answers.then.map(|answer| answer.map(|it| Answer::Value(it.into_value()))), ..answers }
}

fn change(
    script: &dyn Script,
    state: &State,
    how: &str,
    ask: Option<&Questions>,
) -> Result<(State, Answers), CallError> {
    let mut arguments = [Argument::State(state), Argument::Data(&Value::Int(1)), Argument::Text(how)];
    script.call_state_and_ask("change", &mut arguments, true, ask)
}

fn begin(script: &dyn Script, seed: u64, how: &str, ask: Option<&Questions>) -> Result<(State, Answers), CallError> {
    let mut stream = Seed::new(seed).stream();
    let mut arguments = [Argument::Rng(&mut stream), Argument::Data(&how.into())];
    script.call_state_and_ask("begin", &mut arguments, false, ask)
}

#[test]
fn they_are_answered_as_by_calls_of_their_own() {
    let fresh = compile(LUA);
    for (at_nil, then) in [
        ("over", [("text", 0b1110), ("constant", 0b0110), ("own", 0b1110)]),
        ("ended", [("fixed", 0b1110), ("made", 0b1110), ("constant", 0b1110)]),
        ("sealed_over", [("own", 0b1110), ("mixed", 0b1110), ("nothing", 0b1110)]),
        ("own_over", [("text", 0), ("odd", 0b1110), ("text", 0b1000)]),
        ("own_inside", [("own", 0b1110), ("fixed", 0b1110), ("made", 0)]),
    ] {
        let questions = Questions { first: "next", at_nil, then };
        let kept = compile(LUA);
        let (mut state, _) = begin(&*kept, 0, "", Some(&questions)).expect("a state");
        for step in 0..STEPS {
            // Now and then something that the functions of a shape leave to others.
            let how = match step % 20 {
                19 => ["add", "grow", "replace", "other"][(step / 20 % 4) as usize],
                18 => "no",
                _ => ["X", "O"][(step % 2) as usize],
            };
            if how == "no" {
                let refused = change(&*kept, &state, how, Some(&questions));
                assert!(matches!(&refused, Err(CallError::Illegal(reason)) if reason == "no"), "{refused:?}");
                continue;
            }
            let (by_itself, _) = change(&*fresh, &State::from(state.value().clone()), how, None).expect("a state");
            let (found, answers) = change(&*kept, &state, how, Some(&questions)).expect("a state");
            assert_eq!(found, by_itself, "{then:?}, step {step}: {how}");
            if answers == Answers::default() {
                let is_odd = ["add", "grow", "replace", "other"].contains(&how);
                assert!(is_odd, "{then:?}, step {step}: nothing was answered");
            } else {
                let by_itself = State::from(by_itself.value().clone());
                assert_eq!(plain(answers), expected(&*fresh, &questions, &by_itself), "{then:?}, step {step}: {how}");
            }
            state =
                if how == "grow" || how == "other" { begin(&*kept, 1, "", None).expect("a state").0 } else { found };
            // A state that is begun, also of another shape than is guessed by now.
            let how = ["", "", "odd", "minus", "table"][(step % 5) as usize];
            let (begun, answers) = begin(&*kept, step as u64, how, Some(&questions)).expect("a state");
            let (by_itself, _) = begin(&*fresh, step as u64, how, None).expect("a state");
            assert_eq!(begun, by_itself, "{then:?}, step {step}: begins {how}");
            if answers != Answers::default() {
                let by_itself = State::from(by_itself.value().clone());
                assert_eq!(plain(answers), expected(&*fresh, &questions, &by_itself), "{then:?}, step {step}: begins");
            }
            assert!(begin(&*kept, 0, "none", Some(&questions)).is_err());
        }
    }
}

/// A question that fails takes the other answers with it, but not the state; and it may fail as often as it likes.
#[test]
fn a_question_that_fails_is_left_to_a_call_of_its_own() {
    let questions =
        Questions { first: "next", at_nil: "over", then: [("text", 0b1110), ("fault", 0b1110), ("own", 0)] };
    let (kept, fresh) = (compile(LUA), compile(LUA));
    let (mut state, _) = begin(&*kept, 0, "", None).expect("a state");
    for step in 0..STEPS {
        let (by_itself, _) = change(&*fresh, &State::from(state.value().clone()), "X", None).expect("a state");
        let (found, answers) = change(&*kept, &state, "X", Some(&questions)).expect("a state");
        assert_eq!(found, by_itself, "step {step}");
        if answers != Answers::default() {
            assert_eq!(plain(answers), expected(&*fresh, &questions, &found), "step {step}");
        }
        state = found;
    }
}

/// A question that writes into the state, which it should only look at, changes nothing.
#[test]
fn what_a_question_writes_is_lost() {
    let questions = Questions { first: "next", at_nil: "over", then: [("text", 0), ("spoil", 0b1110), ("own", 0)] };
    let quiet = Questions { then: [("text", 0), ("made", 0b1110), ("own", 0)], ..questions };
    let (kept, fresh) = (compile(LUA), compile(LUA));
    let (mut state, _) = begin(&*kept, 0, "", None).expect("a state");
    for step in 0..STEPS {
        let asked = if step < 60 { &quiet } else { &questions };
        let (by_itself, _) = change(&*fresh, &State::from(state.value().clone()), "X", None).expect("a state");
        state = change(&*kept, &state, "X", Some(asked)).expect("a state").0;
        assert_eq!(state, by_itself, "step {step}");
    }
}

/// Each function has the budget of a call, though they are called in one go.
#[test]
fn questions_do_not_share_a_budget() {
    let text = r"
local game = {}
function game.begin(rng, options) return { turn = 0, rounds = options } end
function game.change(state, seat, how) state.turn += 1 return state end
local function spin(state) local n = 0 for _ = 1, state.rounds do n = (n + 1) % 7 end return n end
function game.next(state) return 1 end
function game.slow(state, seat) return if state.turn > 50 then spin(state) else 0 end
return game
";
    let script = compile(text);
    let start = |rounds: i64| {
        let mut stream = Seed::new(0).stream();
        let mut arguments = [Argument::Rng(&mut stream), Argument::Data(&Value::Int(rounds))];
        script.call_state_and_ask("begin", &mut arguments, false, None).expect("a state").0
    };
    // As many rounds as take four tenths of a budget.
    let rounds = 2_000_000;
    let mut probe = start(rounds);
    for _ in 0..51 {
        probe = change(&*script, &probe, "", None).expect("a state").0;
    }
    let clock = Instant::now();
    script.call("slow", &mut [Argument::State(&probe), Argument::Data(&Value::Int(1))]).expect("an answer");
    let share =
        0.4 * Limits::default().call.as_secs_f64() / clock.elapsed().max(Duration::from_micros(1)).as_secs_f64();
    let mut state = start((rounds as f64 * share.min(1000.0)) as i64);
    let questions = Questions { first: "next", at_nil: "next", then: [("slow", 2), ("slow", 2), ("slow", 2)] };
    for step in 0..52 {
        let changed = change(&*script, &state, "", Some(&questions));
        state = changed.unwrap_or_else(|error| panic!("step {step}: {error:?}")).0;
    }
    assert_eq!(state.get("turn"), Some(&Value::Int(52)));
}

/// What the host keeps of read-only tables takes no room from a script that makes a large new one in every call.
#[test]
fn new_read_only_tables_leave_a_script_its_memory() {
    const LARGE: &str = r#"
local game = {}
function game.begin(rng, options) return { turn = 0 } end
function game.change(state, seat, how) state.turn += 1 return state end
function game.next(state) return nil end
function game.over(state) return table.freeze({ text = string.rep("x", 200000) .. state.turn }) end
return game
"#;
    let source = Source::new(Path::new("games/case.lua"), Language::Lua, LARGE, BTreeMap::new());
    let limits = Limits { memory_bytes: 24 << 20, ..Limits::default() };
    let script = engine(Language::Lua).compile(&source, &limits, &Library::default()).expect("a script");
    let questions = Questions { first: "next", at_nil: "over", then: [("over", 0); 3] };
    let (mut state, _) = begin(&*script, 0, "", None).expect("a state");
    // Three times as much text as the machine may hold.
    for step in 0..400 {
        let (next, answers) = change(&*script, &state, "", Some(&questions)).expect("a state");
        let told = answers.at_nil.unwrap_or_else(|| panic!("step {step}: the question was not answered"));
        assert!(told.get("text").and_then(Value::as_text).is_some_and(|text| text.len() > 200_000), "step {step}");
        state = next;
    }
}
