//! Wrong flags, settings and names: status 2, the nearest right one, and nothing done.

use super::support::{Place, assert_output};

#[test]
fn a_game_file_that_is_missing() {
    let place = Place::new();
    assert_output!(place, ["train", "--games", "games/gone.lua"], @r"
    status: 2
    --- errors
    error[cli::games]: there is no file `games/gone.lua`
      expected: a game script: a file ending in `.lua`, `.luau` or `.rhai`
      found:    no file or folder of that name
      help:     run in the folder that holds `games/`, or write a game with `gift-host new NAME`
    ");
}

#[test]
fn a_pattern_that_matches_nothing() {
    let place = Place::with_echo();
    assert_output!(place, ["train", "--games", "games/*.rhai"], @r"
    status: 2
    --- errors
    error[cli::games]: `games/*.rhai` matches no game script
      expected: files ending in `.lua`, `.luau` or `.rhai`
      found:    none
      help:     run in the folder that holds `games/`, or write a game with `gift-host new NAME`
    ");
    assert_output!(place, ["check", "nowhere/*"], @r"
    status: 2
    --- errors
    error[cli::games]: `nowhere/*` matches no game script
      expected: files ending in `.lua`, `.luau` or `.rhai`
      found:    none
      help:     run in the folder that holds `games/`, or write a game with `gift-host new NAME`
    ");
}

#[test]
fn no_games_folder_at_all() {
    let place = Place::new();
    assert_output!(place, ["train"], @r"
    status: 2
    --- errors
    error[cli::games]: `games/*` matches no game script
      expected: files ending in `.lua`, `.luau` or `.rhai`
      found:    none
      help:     run in the folder that holds `games/`, or write a game with `gift-host new NAME`
    ");
}

#[test]
fn an_unknown_key_in_the_configuration() {
    let place = Place::with_echo();
    place.write("run.toml", "steps = 3\n\n[rollout]\ngroup_sise = 4\n");
    assert_output!(place, ["train", "--games", "games/echo.lua", "--config", "run.toml"], @r"
    status: 2
    --- errors
    error[config::file]: unknown key `group_sise` in `[rollout]`
      --> run.toml:4:1
      help:     did you mean `group_size`?
    ");
}

#[test]
fn an_unknown_key_on_the_command_line() {
    let place = Place::with_echo();
    assert_output!(place, ["train", "--games", "games/echo.lua", "--set", "optimiser.learning_rate=1"], @r"
    status: 2
    --- errors
    error[config::key]: unknown key `optimiser`
      help:     did you mean `optimizer`?
    ");
}

#[test]
fn a_value_out_of_its_range() {
    let place = Place::with_echo();
    assert_output!(place, ["train", "--games", "games/echo.lua", "--set", "rollout.group_size=1"], @r"
    status: 2
    --- errors
    error[config::range]: `rollout.group_size` is out of its range
      expected: at least 2
      found:    1
      help:     change it in the configuration file or with `--set rollout.group_size=…`
    ");
}

#[test]
fn a_configuration_that_is_missing_or_no_toml() {
    let place = Place::with_echo();
    assert_output!(place, ["train", "--config", "gone.toml"], @r"
    status: 2
    --- errors
    error[config::file]: the configuration cannot be read
      --> gone.toml
      found:    No such file or directory (os error 2)
      help:     complete configurations stand in `configs/`
    ");
    place.write("run.toml", "steps = = 3\n");
    assert_output!(place, ["train", "--config", "run.toml"], @r"
    status: 2
    --- errors
    error[config::file]: extra `=`, expected nothing
      --> run.toml:1:9
    ");
}

#[test]
fn an_unknown_opponent() {
    let place = Place::with_echo();
    assert_output!(place, ["train", "--games", "games/echo.lua", "--opponent", "serach"], @r"
    status: 2
    --- errors
    error[opponent::unknown]: `serach` is not a known opponent
      expected: `random`, `bot`, `search`, `search:BUDGET`, `self`, `checkpoint:DIR`, `gguf:FILE`, `league`, `openai:URL#MODEL` or `human`
      found:    `serach`
      help:     did you mean `search`?
    ");
}

#[test]
fn an_opponent_that_cannot_play_the_game() {
    let place = Place::new();
    let two_seats = super::support::ECHO
        .replace("seats = 1", "seats = 2")
        .replace("function game.actions(state, seat) return { \"1\", \"2\", \"3\", \"4\" } end\n", "")
        .replace(
            "scores = { state.right and 1 or 0 }, success = { state.right }",
            "scores = { 1, 0 }, success = { true, false }",
        );
    place.write("games/two.lua", &two_seats);
    assert_output!(place, ["train", "--games", "games/two.lua", "--opponent", "search"], @r"
    status: 2
    --- errors
    error[opponent::cannot_play]: `search` cannot play `echo`
      --> games/two.lua
      expected: the game has `actions`
      found:    no such function
      help:     add it to the script, or choose another opponent: `--opponent echo=…`
    ");
}

#[test]
fn a_device_that_is_none() {
    let place = Place::with_echo();
    assert_output!(place, ["train", "--games", "games/echo.lua", "--device", "gpu"], @r"
    status: 2
    --- errors
    model: tiny, a byte-level decoder of [size] M parameters, built in and trained from scratch; train your own with --model DIR
    games: echo; no opponents: the games have one seat
    error[cli::device]: `gpu` is no device
      expected: `auto`, `cpu`, `cuda`, `cuda:N`, or several as `cuda:0,1`
    ");
    assert!(!place.path("runs").exists());
}

#[test]
fn a_type_of_number_that_is_none() {
    let place = Place::with_echo();
    assert_output!(place, ["eval", "--games", "games/echo.lua", "--device", "cpu", "--dtype", "f8"], @r"
    status: 2
    --- errors
    model: tiny, untrained: its [size] M parameters are random; `--model runs/NAME` measures a trained one
    error[cli::dtype]: `f8` is no type of number that models can have
      expected: `auto`, `f32` or `bf16`
    ");
}

#[test]
fn an_unknown_flag_and_command() {
    let place = Place::new();
    assert_output!(place, ["train", "--gmaes", "x"], @r"
    status: 2
    --- errors
    error: unexpected argument '--gmaes' found

      tip: a similar argument exists: '--games'

    Usage: gift-host train --games <GLOB>...

    For more information, try '--help'.
    ");
    assert_output!(place, ["trian"], @r"
    status: 2
    --- errors
    error: unrecognized subcommand 'trian'

      tip: a similar subcommand exists: 'train'

    Usage: gift-host [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn a_resume_of_nothing() {
    let place = Place::new();
    assert_output!(place, ["train", "--resume", "runs/none"], @r"
    status: 2
    --- errors
    error[cli::resume]: there is no whole checkpoint to resume from
      --> runs/none
      expected: a run directory, or a folder `step-…` below its `checkpoints`
      help:     `--resume runs/NAME`
    ");
}

#[test]
fn no_episodes_to_measure() {
    let place = Place::with_echo();
    assert_output!(place, ["eval", "--games", "games/echo.lua", "--player", "bot", "--episodes", "0"], @r"
    status: 2
    --- errors
    error[cli::episodes]: there is nothing to measure
      expected: `--episodes` of at least 1
    ");
}
