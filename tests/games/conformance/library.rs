//! The library, modules and data sets, and that a script cannot change them.

use super::*;

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
