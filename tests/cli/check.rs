//! `gift-host check`: fine games, games that break the contract, and the form for editors.

use super::support::{ECHO, Place, assert_output};

#[test]
fn a_fine_game_is_said_to_be_fine() {
    let place = Place::with_echo();
    assert_output!(place, ["check", "games/echo.lua"], @r"
    status: 0
    --- output
    games/echo.lua: echo is fine (100 random episodes)
    ");
}

#[test]
fn every_shipped_game_is_fine() {
    let place = Place::new();
    place.copy("games");
    place.copy("scripts");
    assert_output!(place, ["check", "games/*", "--episodes", "20"], @r"
    status: 0
    --- output
    games/math.lua: math is fine (20 random episodes)
    games/matrix.lua: matrix is fine (20 random episodes)
    games/nim.rhai: nim is fine (20 random episodes)
    games/spy.lua: spy is fine (20 random episodes)
    games/tictactoe.lua: tictactoe is fine (20 random episodes)
    ");
}

#[test]
fn a_legal_answer_that_is_refused_is_named() {
    let place = Place::new();
    place.write(
        "bad.lua",
        &ECHO.replace("return { \"1\", \"2\", \"3\", \"4\" } end", "return { \"1\", \"2\", \"3\", \"5\" } end"),
    );
    assert_output!(place, ["check", "bad.lua"], @r#"
    status: 1
    --- output
    error[game::legal_refused]: `apply` refused an answer that `actions` lists
      --> bad.lua
      expected: `apply` takes `5` from seat 1
      found:    gift.illegal("answer with a digit from 1 to 4")
      help:     make `actions` and `apply` agree on what is legal
    note: in the episode of seed 2838470607596199
    "#);
}

#[test]
fn an_unknown_answer_that_is_taken_is_named() {
    let place = Place::new();
    let guard = "  if not table.find({ \"1\", \"2\", \"3\", \"4\" }, action) then gift.illegal(\"answer with a digit from 1 to 4\") end\n";
    place.write("bad.lua", &ECHO.replace(guard, ""));
    assert_output!(place, ["check", "bad.lua"], @r#"
    status: 1
    --- output
    error[game::illegal_taken]: `apply` took an answer that is not legal
      --> bad.lua
      expected: `gift.illegal("why")` for an answer that `actions` does not list
      found:    a new state after `@@ not an answer @@`
      help:     check the action at the start of `apply`
    note: in the episode of seed 1571218202235825
    "#);
}

#[test]
fn a_game_that_keeps_something_outside_its_state_gets_a_warning() {
    let place = Place::new();
    let start = "local count = 0\nfunction game.init(rng, options) count = count + 1 return { digit = count % 4 + 1";
    let text = ECHO.replace("function game.init(rng, options) return { digit = rng:int(1, 4)", start);
    place.write("kept.lua", &text);
    assert_output!(place, ["check", "kept.lua"], @r"
    status: 0
    --- output
    warning[game::kept]: functions change what stands outside them
      --> kept.lua
      expected: all that lasts is in the state, and tables are built while the script loads
      found:    writes to variables or tables of the top level, which are gone after each call
      help:     keep it in the state; as it is, the top level runs again for every call, which takes time

    kept.lua: echo is fine (100 random episodes)
    ");
}

#[test]
fn a_start_that_differs_from_call_to_call_is_named() {
    let place = Place::new();
    let text = ECHO.replace("return { digit = rng:int(1, 4)", "return { tag = tostring({}), digit = rng:int(1, 4)");
    place.write("bad.lua", &text);
    assert_output!(place, ["check", "bad.lua"], @r"
    status: 1
    --- output
    error[game::not_deterministic]: the same seed gave two different starts
      --> bad.lua
      expected: `init` draws only from its `rng`
      found:    two states that differ
      help:     look for the address of a table or a function in the state, as `tostring` gives it
    note: in the episode of seed 1571218202235825
    ");
}

#[test]
fn a_game_that_seldom_ends_gets_a_warning() {
    let place = Place::new();
    place.write("slow.lua", &ECHO.replace("state.done, state.right = true,", "state.done, state.right = false,"));
    assert_output!(place, ["check", "slow.lua"], @r"
    status: 0
    --- output
    warning[game::truncated]: random play seldom ends within `max_turns`
      --> slow.lua
      expected: most episodes end by the rules
      found:    100 of 100 were cut off after 1 turns of a seat
      help:     raise `max_turns`, or make the game end sooner: a truncated episode teaches nothing

    slow.lua: echo is fine (100 random episodes)
    ");
}

#[test]
fn one_bad_game_among_fine_ones_fails_and_the_others_are_told() {
    let place = Place::with_echo();
    place.write("games/bad.lua", "return {}\n");
    assert_output!(place, ["check", "games"], @r"
    status: 1
    --- output
    error[game::missing_function]: the game has no `init`
      --> games/bad.lua
      expected: `function game.init(rng, options) … return state end`
      found:    nothing of that name in the returned table
      help:     add the function `init` to the table that the script returns

    games/echo.lua: echo is fine (100 random episodes)
    ");
}

#[test]
fn json_is_for_editors() {
    let place = Place::with_echo();
    place.write("games/bad.lua", "local game = {\n  name = oops(\n}\n");
    assert_output!(place, ["check", "games/*.lua", "--json"], @r#"
    status: 1
    --- output
    {
      "games": [
        {
          "file": "games/bad.lua",
          "game": "games/bad.lua",
          "ok": false,
          "problems": [
            {
              "severity": "error",
              "code": "script::syntax",
              "message": "expected identifier when parsing expression, got '}'",
              "place": {
                "file": "games/bad.lua",
                "line": 3,
                "column": 0
              },
              "expected": null,
              "found": null,
              "help": "look for a missing bracket, comma, quote or `end` here or in the lines above",
              "notes": []
            }
          ]
        },
        {
          "file": "games/echo.lua",
          "game": "echo",
          "ok": true,
          "problems": []
        }
      ]
    }
    "#);
}

#[test]
fn options_reach_the_game() {
    let place = Place::new();
    place.copy("games");
    place.copy("scripts");
    assert_output!(place, ["check", "games/math.lua", "--episodes", "5", "--set", "games.math.level=9"], @r"
    status: 1
    --- output
    error[script::runtime]: option `level` must be 1, 2 or 3, found 9
      --> games/math.lua:118
    note: called from games/math.lua:174
    note: in the episode of seed 1571218202235825
    ");
}

/// A person who only names a data set gets it, whatever level its rows have.
#[test]
fn a_data_set_without_levels_is_played() {
    let place = Place::new();
    place.copy("games");
    place.copy("scripts");
    place.write("rows.jsonl", "{\"problem\": \"1 + 1?\", \"solution\": \"It is $\\\\boxed{2}$.\"}\n");
    assert_output!(place, ["check", "games/math.lua", "--episodes", "5", "--set", "games.math.data=rows.jsonl"], @r"
    status: 0
    --- output
    games/math.lua: math is fine (5 random episodes)
    ");
}

/// The script would spin for ever; the host stops it and says where.
#[test]
fn a_loop_without_end_is_stopped() {
    let place = Place::new();
    place.write(
        "loop.lua",
        &ECHO.replace("function game.to_act(state) ", "function game.to_act(state)\n  while true do end\n  "),
    );
    let shown = place.shown(&["check", "loop.lua", "--set", "scripts.call_ms=200"]);
    super::support::filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 1
    --- output
    error[script::timeout]: the script ran longer than 200ms
      --> loop.lua:4
      help:     look for a loop that does not end; search less deep, or keep what can be computed once
    note: in the episode of seed 1571218202235825
    ");
    });
}
