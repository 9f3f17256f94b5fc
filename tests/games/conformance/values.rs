//! What crosses between host and script, and what is refused.

use super::*;

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
