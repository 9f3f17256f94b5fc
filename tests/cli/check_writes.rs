//! `gift-host check`: what a script writes where it is lost, and what a model may write that a script fails at.

use super::support::{ECHO, Place, assert_output, filtered};

#[test]
fn a_game_that_keeps_something_outside_its_state_gets_a_warning() {
    let place = Place::new();
    let start = "local count = 0\nfunction game.init(rng, options) count = count + 1 return { digit = count % 4 + 1";
    let text = ECHO.replace("function game.init(rng, options) return { digit = rng:int(1, 4)", start);
    place.write("kept.lua", &text);
    assert_output!(place, ["check", "kept.lua"], @r"
    status: 0
    --- output
    warning[game::kept]: functions change what stands outside them: `count`
      --> kept.lua:3:34
       |
     3 | function game.init(rng, options) count = count + 1 return { digit = count % 4 + 1, done = false, right = false } end
       |                                  ^^^^^ `count` is assigned here
       |
      expected: all that lasts is in the state, and tables are built while the script loads
      found:    `count` assigned by functions, in line 3
      help:     keep it in the state, or build it whole at the top level
    note: what is written is gone after the call, so nothing can be remembered or computed once this way
    note: and it is slow: the top level runs again for each call. A call of `to_act` takes [time] µs here; where nothing is kept, a microsecond or less is usual, and rollouts and search are slower by as much

    kept.lua: echo is usable, with 1 warning (100 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random       100    26 %
               bot          100   100 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    ");
}

#[test]
fn a_write_into_a_table_of_the_top_level_is_named_with_its_line() {
    let place = Place::new();
    let text = ECHO.replace("function game.init(", "local cache = {}\nfunction game.init(");
    let text = text.replace("return \"Name this digit: \"", "cache[state.digit] = true return \"Name this digit: \"");
    place.write("kept.lua", &text);
    let shown = place.shown(&["check", "kept.lua", "--episodes", "3"]);
    let warning = shown.lines().skip(2).take(11).collect::<Vec<_>>().join("\n");
    filtered(&place, || {
        insta::assert_snapshot!(warning, @r#"
        warning[game::kept]: functions change what stands outside them: `cache`
          --> kept.lua:5
           |
         5 | function game.observe(state, seat) cache[state.digit] = true return "Name this digit: " .. state.digit end
           | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this writes into a table outside the function
           |
          expected: all that lasts is in the state, and tables are built while the script loads
          found:    a write into a table that was made at the top level
          help:     keep it in the state, or build it whole at the top level
        note: what is written is gone after the call, so nothing can be remembered or computed once this way
        note: and it is slow: the top level runs again for each call. A call of `to_act` takes [time] µs here; where nothing is kept, a microsecond or less is usual, and rollouts and search are slower by as much
        "#);
    });
}

#[test]
fn a_function_that_writes_into_the_state_it_looks_at_gets_a_warning() {
    let place = Place::new();
    let text = ECHO
        .replace("return \"Name this digit: \"", "state.seen = true return \"Name this digit: \"")
        .replace("function game.outcome(state) return", "function game.outcome(state) state.done = false return");
    place.write("writes.lua", &text);
    assert_output!(place, ["check", "writes.lua", "--episodes", "3"], @r#"
    status: 0
    --- output
    warning[game::state_written]: `observe` writes into the state, and what it writes is lost
      --> writes.lua:4
       |
     4 | function game.observe(state, seat) state.seen = true return "Name this digit: " .. state.digit end
       | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this writes into the state
       |
      expected: only `init` and `apply` make and change states, and return them
      found:    a write into the copy of the state that `observe` is given to look at
      help:     do it in `apply`; where a text needs a sorted or marked copy, take `gift.clone` of that part
      stack:    writes.lua:4 in `observe`
    note: no later call sees what is written, and a run is slower: the script gets a copy of each state to look at

    warning[game::state_written]: `outcome` writes into the state, and what it writes is lost
      --> writes.lua:12
        |
     12 | function game.outcome(state) state.done = false return { scores = { state.right and 1 or 0 }, success = { state.right } 
        | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this writes into the state
        |
      expected: only `init` and `apply` make and change states, and return them
      found:    a write into the copy of the state that `outcome` is given to look at
      help:     do it in `apply`; where a text needs a sorted or marked copy, take `gift.clone` of that part
      stack:    writes.lua:12 in `outcome`
    note: no later call sees what is written, and a run is slower: the script gets a copy of each state to look at

    writes.lua: echo is usable, with 2 warnings (3 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random         3    33 %
               bot            3   100 %
               search         3   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
    // A script that changes a copy for its text is left alone.
    let own = "local own = gift.clone(state) own.seen = true return \"Name this digit: \"";
    place.write("writes.lua", &ECHO.replace("return \"Name this digit: \"", own));
    let shown = place.shown(&["check", "writes.lua", "--episodes", "3"]);
    assert!(shown.contains("writes.lua: echo is fine"), "{shown}");
}

/// A model may write anything where answers are free text.
#[test]
fn a_game_that_fails_at_free_text_is_told() {
    let place = Place::new();
    let guard = "  if not table.find({ \"1\", \"2\", \"3\", \"4\" }, action) then gift.illegal(\"answer with a digit from 1 to 4\") end\n";
    let text = ECHO
        .replace("function game.actions(state, seat) return { \"1\", \"2\", \"3\", \"4\" } end\n", "")
        .replace(guard, "  state.sum = tonumber(action) + 1\n");
    place.write("bad.lua", &text);
    assert_output!(place, ["check", "bad.lua"], @r"
    status: 1
    --- output
    error[script::runtime]: attempt to perform arithmetic (add) on nil and number
      --> bad.lua:7
       |
     7 |   state.sum = tonumber(action) + 1
       |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
      help:     one of the values is nil: is a field misspelt, or not set in `init`? `tonumber` gives nil for what is no number
      stack:    bad.lua:7 in `apply`
    note: when seat 1 answers `@@ not an answer @@`: a model may write anything, and `apply` must refuse with `gift.illegal` what it cannot take, not fail
    note: in the episode of seed 1571218202235825; `gift-host check bad.lua --seed 1571218202235825` plays it again
    ");
}
