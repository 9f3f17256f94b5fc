//! Scripts that are wrong: each message has the place, what was expected and found, and a fix. The first is how `train`
//! says it; the others go through `check`, which prints the same diagnostics.

use super::support::{ECHO, Place, assert_output};

fn with(text: &str) -> Place {
    let place = Place::new();
    place.write("games/bad.lua", text);
    place
}

#[test]
fn a_syntax_error_in_training() {
    let place = with(
        "local game = { name = \"bad\", seats = 1, max_turns = 1 }\nfunction game.init(rng\n  return {}\nend\nreturn game\n",
    );
    assert_output!(place, ["train", "--games", "games/bad.lua", "--device", "cpu"], @r"
    status: 1
    --- errors
    error[script::syntax]: expected ')' (to close '(' at line 2), got 'return'
      --> games/bad.lua:3
       |
     3 |   return {}
       |   ^^^^^^^^^
       |
      help:     look for a missing bracket, comma, quote or `end` here or in the lines above
    ");
    assert!(!place.path("runs").exists(), "nothing is written before the scripts are fine");
}

#[test]
fn an_empty_file() {
    let place = with("\n");
    assert_output!(place, ["train", "--games", "games/bad.lua", "--device", "cpu"], @r"
    status: 1
    --- errors
    error[script::empty]: `games/bad.lua` is empty
      --> games/bad.lua
      expected: a script that returns a table
      found:    no text
      help:     see `games/tictactoe.lua` for a whole game
    ");
}

#[test]
fn a_missing_function() {
    let place = with(&ECHO.replace("function game.outcome(state)", "function game.result(state)"));
    assert_output!(place, ["check", "games/bad.lua"], @r"
    status: 1
    --- output
    error[game::missing_function]: the game has no `outcome`
      --> games/bad.lua
      expected: `function game.outcome(state) … return { scores = {…}, success = {…} } end`
      found:    nothing of that name in the returned table
      help:     add the function `outcome` to the table that the script returns
    ");
}

#[test]
fn a_field_of_the_wrong_type() {
    let place = with(&ECHO.replace("seats = 1", "seats = \"one\""));
    assert_output!(place, ["check", "games/bad.lua"], @r#"
    status: 1
    --- output
    error[game::bad_field]: `seats` is missing or out of its range
      --> games/bad.lua:1:31
       |
     1 | local game = { name = "echo", seats = "one", max_turns = 1 }
       |                               ^^^^^
       |
      expected: a whole number from 1 to 64
      found:    "one"
      help:     write `seats = 2` in the game's table
    "#);
}

#[test]
fn a_result_of_the_wrong_type() {
    let place = with(&ECHO.replace("return \"Name this digit: \" .. state.digit", "return state.digit"));
    assert_output!(place, ["check", "games/bad.lua"], @r"
    status: 1
    --- output
    error[game::bad_result]: `observe` returned the wrong kind of value
      --> games/bad.lua:4:15
       |
     4 | function game.observe(state, seat) return state.digit end
       |               ^^^^^^^ `observe` begins here
       |
      expected: a string
      found:    4
      help:     return the text that the seat sees
    note: in the episode of seed 1571218202235825; `gift-host check games/bad.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn a_seat_that_is_not_there() {
    let place = with(&ECHO.replace("return nil end return 1 end", "return nil end return 2 end"));
    assert_output!(place, ["check", "games/bad.lua"], @r"
    status: 1
    --- output
    error[game::illegal_seat]: `to_act` named a seat that is not there
      --> games/bad.lua:3:15
       |
     3 | function game.to_act(state) if state.done then return nil end return 2 end
       |               ^^^^^^ `to_act` begins here
       |
      expected: a seat from 1 to 1, or nil when the episode is over
      found:    2
      help:     seats count from 1; set `seats` to the number of players
    note: in the episode of seed 1571218202235825; `gift-host check games/bad.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn an_outcome_that_forgets_a_seat() {
    let place = with(&ECHO.replace("seats = 1", "seats = 2"));
    assert_output!(place, ["check", "games/bad.lua"], @r"
    status: 1
    --- output
    error[game::bad_outcome]: `outcome` gave no usable `scores`
      --> games/bad.lua:12:15
        |
     12 | function game.outcome(state) return { scores = { state.right and 1 or 0 }, success = { state.right } } end
        |               ^^^^^^^ `outcome` begins here
        |
      expected: a list with a finite number for each of the 2 seats
      found:    [0]
      help:     return { scores = {…}, success = {…} } with one entry a seat
    note: after the moves 1: `2`
    note: in the episode of seed 1571218202235825; `gift-host check games/bad.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn an_error_at_run_time_has_its_line() {
    let place = with(&ECHO.replace(
        "state.done, state.right = true,",
        "state.count = state.count + 1\n  state.done, state.right = true,",
    ));
    assert_output!(place, ["check", "games/bad.lua"], @r"
    status: 1
    --- output
    error[script::runtime]: attempt to perform arithmetic (add) on nil and number
      --> games/bad.lua:9
       |
     9 |   state.count = state.count + 1
       |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
      help:     one of the values is nil: is a field misspelt, or not set in `init`? `tonumber` gives nil for what is no number
      stack:    games/bad.lua:9 in `apply`
    note: when seat 1 answers `1`
    note: in the episode of seed 1571218202235825; `gift-host check games/bad.lua --seed 1571218202235825` plays it again
    ");
}

#[test]
fn a_syntax_error_in_rhai() {
    let place = Place::new();
    place.write(
        "games/bad.rhai",
        "fn init(rng, options) {\n    #{ digit: rng.int(1, 4 }\n}\n#{ name: \"bad\", seats: 1, max_turns: 1 }\n",
    );
    assert_output!(place, ["check", "games/bad.rhai"], @r"
    status: 1
    --- output
    error[script::syntax]: expecting ',' to separate the arguments to function call 'int'
      --> games/bad.rhai:2:28
       |
     2 |     #{ digit: rng.int(1, 4 }
       |                            ^
       |
      help:     look for a missing bracket, comma, semicolon or quote here or in the lines above
    ");
}

#[test]
fn the_file_system_is_not_there_for_scripts() {
    let place = with(
        &ECHO.replace("return { digit = rng:int(1, 4)", "io.open(\"/etc/passwd\")\n  return { digit = rng:int(1, 4)"),
    );
    assert_output!(place, ["check", "games/bad.lua"], @r#"
    status: 1
    --- output
    error[script::runtime]: attempt to index nil with 'open'
      --> games/bad.lua:2
       |
     2 | function game.init(rng, options) io.open("/etc/passwd")
       | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
      help:     scripts have no files; read data with `gift.dataset("data/rows.jsonl")`, and write with `gift.log(text)`
      stack:    games/bad.lua:2 in `init`
    note: in the episode of seed 1571218202235825; `gift-host check games/bad.lua --seed 1571218202235825` plays it again
    "#);
}

#[test]
fn a_nest_that_names_an_unknown_game() {
    let place = Place::with_echo();
    place.write("nest.lua", "return { mode = \"mixed\", stages = { \"echo\", \"chess\" } }\n");
    assert_output!(place, ["train", "--games", "games/echo.lua", "--nest", "nest.lua", "--device", "cpu"], @r"
    status: 1
    --- errors
    error[nest::unknown_game]: the nest names the unknown game `chess`
      --> nest.lua
      expected: one of the games of this run: echo
      found:    `chess`
      help:     add its script to `--games`, or take `chess` out of `stages`
    ");
}

#[test]
fn a_reward_that_is_no_function() {
    let place = Place::with_echo();
    place.write("reward.lua", "return { 1 }\n");
    assert_output!(place, ["train", "--games", "games/echo.lua", "--reward", "reward.lua", "--device", "cpu"], @r"
    status: 1
    --- errors
    error[reward::not_a_function]: the reward script returns no function
      --> reward.lua
      expected: `return function(episode) … return number end`
      found:    a table or other data
      help:     return the function itself; games go to `--games`, nests to `--nest`
    ");
}

#[test]
fn two_games_of_one_name() {
    let place = Place::with_echo();
    place.write("games/other.lua", ECHO);
    assert_output!(place, ["train", "--games", "games/*.lua", "--device", "cpu"], @r"
    status: 1
    --- errors
    error[game::same_name]: two games are called `echo`
      --> games/other.lua
      expected: a different `name` for each game
      found:    `games/echo.lua` has the same
      help:     change `name` in one of them, or leave one out of `--games`
    ");
}
