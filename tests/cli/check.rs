//! `gift-host check`: fine games, games that break the contract, and the form for editors.

use super::support::{ECHO, Place, assert_output};

#[test]
fn a_fine_game_is_said_to_be_fine() {
    let place = Place::with_echo();
    assert_output!(place, ["check", "games/echo.lua"], @r"
    status: 0
    --- output
    games/echo.lua: echo is fine (100 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random       100    25 %
               bot          100   100 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
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
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 220 bytes (260 at most), brief 7 bytes (10 at most); 10.0 legal answers
      success  by      episodes  seat 1
               random        20     5 %
               bot           20   100 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.30; 2 of 16 groups have no spread
    games/matrix.lua: matrix is fine (20 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 670 bytes (2092 at most), brief 38 bytes (97 at most); 3.1 legal answers
      success  by      episodes  seat 1
               random        20    75 %
               bot           20   100 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.28; 6 of 16 groups have no spread
    games/nim.rhai: nim is fine (20 random episodes)
      length   4.5 turns; 3 at most of one seat; 100 % ended by the rules
      prompts  observe 259 bytes (372 at most), brief 7 bytes (7 at most); 4.7 legal answers
      success  by      episodes  seat 1  seat 2
               random        20    35 %    60 %
               bot           20    85 %    85 %
               search         4   100 %   100 %
      seats    alike, as far as 20 episodes tell, against `random`
      signal   the scores of a group of 16 by random play spread by 0.50; 0 of 16 groups have no spread
    games/spy.lua: spy is fine (20 random episodes)
      length   12.0 turns; 3 at most of one seat; 100 % ended by the rules
      prompts  observe 548 bytes (1021 at most), brief 7 bytes (8 at most); 4.7 legal answers
      success  by      episodes  seat 1  seat 2  seat 3  seat 4
               random        10    40 %    40 %    10 %    10 %
               bot           10    70 %    80 %    60 %    40 %
      search   not searched: there are more than two seats; `bot` stands for a good player
      seats    alike, as far as 10 episodes tell, against `bot`
      signal   the scores of a group of 16 by random play spread by 0.31; 4 of 16 groups have no spread
    games/tictactoe.lua: tictactoe is fine (20 random episodes)
      length   6.6 turns; 5 at most of one seat; 100 % ended by the rules
      prompts  observe 321 bytes (652 at most), brief 10 bytes (10 at most); 5.0 legal answers
      success  by      episodes  seat 1  seat 2
               random        20    55 %    40 %
               bot           20    80 %    85 %
               search         4    50 %   100 %
      seats    alike, as far as 20 episodes tell, against `random`
      signal   the scores of a group of 16 by random play spread by 0.46; 0 of 16 groups have no spread
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
      --> bad.lua:7:15
       |
     7 | function game.apply(state, seat, action)
       |               ^^^^^ `apply` begins here
       |
      expected: `apply` takes `5` from seat 1
      found:    gift.illegal("answer with a digit from 1 to 4")
      help:     make `actions` and `apply` agree on what is legal
    note: in the episode of seed 1571218202235825; `gift-host check bad.lua --seed 1571218202235825` plays it again
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
      --> bad.lua:7:15
       |
     7 | function game.apply(state, seat, action)
       |               ^^^^^ `apply` begins here
       |
      expected: `gift.illegal("why")` for an answer that `actions` does not list
      found:    a new state after `@@ not an answer @@`
      help:     check the action at the start of `apply`
    note: in the episode of seed 1571218202235825; `gift-host check bad.lua --seed 1571218202235825` plays it again
    "#);
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
      --> bad.lua:2:15
       |
     2 | function game.init(rng, options) return { tag = tostring({}), digit = rng:int(1, 4), done = false, right = false } end
       |               ^^^^ `init` begins here
       |
      expected: `init` draws only from its `rng`
      found:    two states that differ
      help:     look for the address of a table or a function in the state, as `tostring` gives it
    note: in the episode of seed 1571218202235825; `gift-host check bad.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn a_game_that_seldom_ends_gets_a_warning() {
    let place = Place::new();
    place.write("slow.lua", &ECHO.replace("state.done, state.right = true,", "state.done, state.right = false,"));
    assert_output!(place, ["check", "slow.lua"], @r#"
    status: 0
    --- output
    warning[game::truncated]: random play seldom ends within `max_turns`
      --> slow.lua:1:42
       |
     1 | local game = { name = "echo", seats = 1, max_turns = 1 }
       |                                          ^^^^^^^^^
       |
      expected: most episodes end by the rules
      found:    100 of 100 were cut off after 1 turns of a seat
      help:     raise `max_turns`, or make the game end sooner: a truncated episode teaches nothing

    warning[game::never_won]: seat 1 never succeeds
      --> slow.lua:12:15
        |
     12 | function game.outcome(state) return { scores = { state.right and 1 or 0 }, success = { state.right } } end
        |               ^^^^^^^ `outcome` begins here
        |
      expected: a seat that can succeed
      found:    no success of seat 1 by `random`, `bot`
      help:     make the game winnable for every seat, or fix the learner's with `--seat`; with success always 0 there is nothing to measure

    warning[game::no_signal]: GRPO sees no signal
      --> slow.lua:12:15
        |
     12 | function game.outcome(state) return { scores = { state.right and 1 or 0 }, success = { state.right } } end
        |               ^^^^^^^ `outcome` begins here
        |
      expected: episodes of one start that end with different scores
      found:    the 16 scores are equal in 16 of 16 groups of random play; GRPO learns nothing from such groups
      help:     give parts of the score for parts of the way, or begin with easier episodes (`options`, a nest)

    slow.lua: echo is usable, with 3 warnings (100 random episodes)
      length   1.0 turns; 1 at most of one seat; 0 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random       100     0 %
               bot          100     0 %
      search   not searched: the game is too large to be solved here; `bot` stands for a good player
      signal   the scores of a group of 16 by random play spread by 0.00; 16 of 16 groups have no spread
    "#);
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
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random       100    25 %
               bot          100   100 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
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
          "kind": "game",
          "game": "games/bad.lua",
          "ok": false,
          "problems": [
            {
              "severity": "error",
              "code": "script::syntax",
              "message": "expected identifier when parsing expression, got '}'",
              "file": "games/bad.lua",
              "line": 3,
              "column": null,
              "expected": null,
              "found": null,
              "help": "look for a missing bracket, comma, quote or `end` here or in the lines above",
              "stack": [],
              "notes": []
            }
          ],
          "figures": null,
          "play": null
        },
        {
          "file": "games/echo.lua",
          "kind": "game",
          "game": "echo",
          "ok": true,
          "problems": [],
          "figures": {
            "episodes": 100,
            "ended": 100,
            "turns": {
              "mean": 1.0,
              "largest": 1
            },
            "turns_of_a_seat": {
              "mean": 1.0,
              "largest": 1
            },
            "observe": {
              "mean": 18.0,
              "largest": 18
            },
            "brief": {
              "mean": 2.0,
              "largest": 2
            },
            "briefs_of_a_seat": {
              "mean": 2.0,
              "largest": 2
            },
            "actions": {
              "mean": 4.0,
              "largest": 4
            },
            "lists_actions": true
          },
          "play": {
            "opponent": "none",
            "success": [
              {
                "player": "random",
                "episodes": 100,
                "rates": [
                  0.25
                ],
                "intervals": [
                  [
                    0.17545211362287674,
                    0.34304463548061603
                  ]
                ]
              },
              {
                "player": "bot",
                "episodes": 100,
                "rates": [
                  1.0
                ],
                "intervals": [
                  [
                    0.9630065017930143,
                    1.0
                  ]
                ]
              },
              {
                "player": "search",
                "episodes": 4,
                "rates": [
                  1.0
                ],
                "intervals": [
                  [
                    0.5101091635454027,
                    1.0
                  ]
                ]
              }
            ],
            "search": "perfect",
            "signal": {
              "by": "random",
              "groups": 16,
              "members": 16,
              "without": 0,
              "spread": 0.45033824760651975
            }
          }
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
    assert_output!(place, ["check", "games/math.lua", "--episodes", "5", "--set", "games.math.level=9"], @r#"
    status: 1
    --- output
    error[script::runtime]: option `level` must be 1, 2 or 3, found 9
      --> games/math.lua:118
         |
     118 |     error("option `level` must be 1, 2 or 3, found " .. tostring(level))
         |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
         |
      stack:    games/math.lua:118 in `make_problem`
                games/math.lua:174 in `init`
    note: in the episode of seed 1571218202235825; `gift-host check games/math.lua --seed 1571218202235825` plays it again
    "#);
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
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 136 bytes (136 at most), brief 6 bytes (6 at most)
      success  by   episodes  seat 1
               bot         5   100 %
      search   not searched: the first turn has no list of legal answers
      signal   not measured: answers are free text, and `bot` gives the same one in all episodes
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
       |
     4 |   while true do end
       |   ^^^^^^^^^^^^^^^^^
       |
      help:     look for a loop that does not end; search less deep, or keep what can be computed once
      stack:    loop.lua:4 in `to_act`
    note: in the episode of seed 1571218202235825; `gift-host check loop.lua --seed 1571218202235825` plays it again
    ");
    });
}
