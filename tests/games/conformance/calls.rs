//! Calls: arguments, refusals, generators, limits, and scripts beside each other.

use super::*;

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

/// The reason stands in front of the next observation, so it cannot be as long as a script likes.
#[test]
fn a_long_reason_is_cut() {
    let (lua, rhai) = bodies(
        "gift.illegal(string.rep('no ', 10000000))",
        "let text = \"\"; text.pad(900000, \"no \"); gift.illegal(text)",
    );
    for result in [run(Language::Lua, &lua, Value::Nil), run(Language::Rhai, &rhai, Value::Nil)] {
        match result {
            Err(CallError::Illegal(reason)) => {
                assert!(
                    reason.starts_with("no no ") && reason.ends_with('…') && reason.len() < 1010,
                    "{}",
                    reason.len()
                );
            }
            other => panic!("{other:?}"),
        }
    }
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

#[test]
fn endless_recursion_is_an_error_of_the_script() {
    bodies_fail(
        "local function f(n) return 1 + f(n + 1) end return f(0)",
        "f(0)\n}\nfn f(n) { 1 + f(n + 1)",
        "script::runtime",
    );
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

/// Luau does not collect garbage because memory runs out: what the top level has dropped would leave no room to set the
/// script up, to the last bytes that the small tables take.
#[test]
fn memory_that_the_top_level_has_dropped_is_free_again() {
    let body = "pcall(function()\n\
                local kept = {}\n\
                pcall(function() while true do kept[#kept + 1] = string.rep('x', 5000) .. #kept end end)\n\
                while true do kept = { kept } end\n\
                end)\n\
                function game.run() return 1 end";
    let given = run(Language::Lua, body, Value::Nil).expect("a value");
    assert_eq!(given, Value::Int(1));
}
