//! `gift-host play` with piped answers, and `gift-host new`, whose games pass the check at once.

use super::support::{ECHO, Place, assert_output, filtered, show};

#[test]
fn an_episode_is_played_through_a_pipe() {
    let place = Place::with_echo();
    let shown = show(&place.run_with_input(&["play", "games/echo.lua", "--seed", "3"], "2\n"));
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 0
    --- output
    Name this digit: 2

    Legal answers: 1, 2, 3, 4
    seat 1> 
    Seat 1 (you): score 1, success
    ");
    });
}

#[test]
fn a_refused_answer_is_explained_and_asked_for_again() {
    let place = Place::new();
    place.copy("games");
    let shown = show(&place.run_with_input(&["play", "games/nim.rhai", "--seat", "1", "--seed", "4"], "z9\nb1\n"));
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 1
    --- output
    You have seat 1 of 2; the others: bot.

    This is Nim. There are three piles, a, b and c. Two players move in turn. A move takes one or more objects from a single pile. Whoever takes the very last object wins; there is no draw.

    You move first.

    pile a: 4 ****
    pile b: 5 *****
    pile c: 4 ****

    What do you take? Answer with the pile and the count, like a1, in the form <think>...</think><answer>...</answer>

    Legal answers: a1, a2, a3, a4, b1, b2, b3, b4, b5, c1, c2, c3, c4
    seat 1> 
    Refused: the answer has to be a pile and a count that the pile still has, like a1, and nothing else

    This is Nim. There are three piles, a, b and c. Two players move in turn. A move takes one or more objects from a single pile. Whoever takes the very last object wins; there is no draw.

    You move first.

    pile a: 4 ****
    pile b: 5 *****
    pile c: 4 ****

    What do you take? Answer with the pile and the count, like a1, in the form <think>...</think><answer>...</answer>

    Legal answers: a1, a2, a3, a4, b1, b2, b3, b4, b5, c1, c2, c3, c4
    seat 1> 
    Seat 2 answers: a4

    Your opponent played a4.

    pile a: 0
    pile b: 4 ****
    pile c: 4 ****

    What do you take? Answer with the pile and the count, like a1, in the form <think>...</think><answer>...</answer>

    Legal answers: b1, b2, b3, b4, c1, c2, c3, c4
    seat 1> 
    The episode was left unfinished.
    ");
    });
}

#[test]
fn the_same_seed_replays_the_same_episode() {
    let place = Place::new();
    place.copy("games");
    let arguments = ["play", "games/tictactoe.lua", "--seat", "2", "--seed", "9", "--opponent", "search"];
    let input = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
    let first = show(&place.run_with_input(&arguments, input));
    assert_eq!(first, show(&place.run_with_input(&arguments, input)));
    assert!(first.starts_with("status: 0") && first.contains("Seat 2 (you): score"), "{first}");
}

#[test]
fn a_seat_that_is_not_there_is_refused() {
    let place = Place::with_echo();
    assert_output!(place, ["play", "games/echo.lua", "--seat", "2"], @r"
    status: 2
    --- errors
    error[cli::seat]: `echo` has no seat 2
      expected: `--seat` from 1 to 1
    ");
}

#[test]
fn new_games_pass_the_check_in_both_languages() {
    let place = Place::new();
    assert_output!(place, ["new", "sticks"], @r"
    status: 0
    --- output
    wrote games/sticks.lua

    next:
      gift-host check games/sticks.lua
      gift-host play games/sticks.lua
      gift-host train --games games/sticks.lua
    ");
    assert_output!(place, ["new", "stones", "--lang", "rhai"], @r"
    status: 0
    --- output
    wrote games/stones.rhai

    next:
      gift-host check games/stones.rhai
      gift-host play games/stones.rhai
      gift-host train --games games/stones.rhai
    ");
    assert_output!(place, ["check", "games/*"], @r"
    status: 0
    --- output
    games/sticks.lua: sticks is fine (100 random episodes)
      length   6.6 turns; 6 at most of one seat; 100 % ended by the rules
      prompts  observe 192 bytes (193 at most), brief 2 bytes (3 at most); 2.8 legal answers
      success  by      episodes  seat 1  seat 2
               random       100    50 %    55 %
               bot          100    97 %    98 %
               search         4   100 %   100 %
      seats    alike, as far as 100 episodes tell, against `random`
      signal   the scores of a group of 16 by random play spread by 0.50; 0 of 16 groups have no spread
    games/stones.rhai: stones is fine (100 random episodes)
      length   6.6 turns; 6 at most of one seat; 100 % ended by the rules
      prompts  observe 192 bytes (193 at most), brief 2 bytes (3 at most); 2.8 legal answers
      success  by      episodes  seat 1  seat 2
               random       100    53 %    55 %
               bot          100    95 %   100 %
               search         4   100 %   100 %
      seats    alike, as far as 100 episodes tell, against `random`
      signal   the scores of a group of 16 by random play spread by 0.50; 0 of 16 groups have no spread
    ");
}

#[test]
fn a_new_game_overwrites_nothing() {
    let place = Place::with_echo();
    let before = place.files("games");
    assert_output!(place, ["new", "echo"], @r"
    status: 2
    --- errors
    error[cli::file_exists]: `games/echo.lua` is there already
      --> games/echo.lua
      help:     choose another name; nothing was written
    ");
    assert_eq!(place.files("games"), before);
}

#[test]
fn a_name_with_a_slash_is_refused() {
    let place = Place::new();
    assert_output!(place, ["new", "../escape"], @r"
    status: 2
    --- errors
    error[cli::name]: `../escape` is not a usable name of a game
      expected: letters, digits, `_` and `-`, at most 64, and not `all`, `files`, `mean`, `nest` or `reward`
      found:    a name has no '.'
      help:     choose another, as in `gift-host new connect3`; nothing was written
    ");
    assert!(!place.path("games").exists());
}

#[test]
fn a_name_that_means_something_else_is_refused() {
    let place = Place::new();
    assert_output!(place, ["new", "all"], @r"
    status: 2
    --- errors
    error[cli::name]: `all` is not a usable name of a game
      expected: letters, digits, `_` and `-`, at most 64, and not `all`, `files`, `mean`, `nest` or `reward`
      found:    the name is taken: `success/all` is the success in all games together
      help:     choose another, as in `gift-host new connect3`; nothing was written
    ");
    for name in ["files", "mean", "nest", "reward", "", "two words", &"a".repeat(65)] {
        let shown = place.shown(&["new", name]);
        assert!(shown.starts_with("status: 2") && shown.contains("error[cli::name]"), "{shown}");
    }
    assert!(!place.path("games").exists());
}

/// Two games of one name cannot be in one run.
#[test]
fn a_name_that_a_game_in_the_other_language_has_is_refused() {
    let place = Place::with_echo();
    let shown = place.shown(&["new", "echo", "--lang", "rhai"]);
    assert!(shown.starts_with("status: 2") && shown.contains("`games/echo.lua` is there already"), "{shown}");
    assert!(!place.path("games/echo.rhai").exists());
}

/// The command of the README, for a game that has no scripted player.
#[test]
fn a_game_for_two_without_a_bot_is_played_against_chance() {
    let place = Place::new();
    let scores = "scores = { state.right and 1 or 0 }, success = { state.right }";
    let text = ECHO
        .replace("seats = 1", "seats = 2")
        .replace("function game.bot(state, seat, rng) return tostring(state.digit) end\n", "")
        .replace(scores, "scores = { 0, 1 }, success = { false, true }")
        .replace("if state.done then return nil end return 1 end", "if state.done then return nil end return 2 end");
    place.write("games/echo.lua", &text);
    assert_output!(place, ["play", "games/echo.lua", "--seat", "1"], @r"
    status: 0
    --- output
    You have seat 1 of 2; the others: random.

    Seat 2 answers: 3

    Seat 1 (you): score 0, no success
    Seat 2: score 1, success
    --- errors
    note: `echo` has no `bot`, so the other seats answer at random; `--opponent search` plays well, with `--opponent human` you answer for every seat
    ");
    // Who asks for the bot is told that there is none.
    let shown = place.shown(&["play", "games/echo.lua", "--seat", "1", "--opponent", "bot"]);
    assert!(shown.contains("error[opponent::cannot_play]: `bot` cannot play `echo`"), "{shown}");
}
