//! What scripts return and call wrongly, in games, nests and rewards, and what opponents cannot do: a message for each
//! kind of mistake.

use super::support::{ECHO, Place, QUICK, assert_output, filtered, show};

fn with(from: &str, to: &str) -> Place {
    assert!(ECHO.contains(from), "`{from}` is in the game");
    let place = Place::new();
    place.write("games/echo.lua", &ECHO.replace(from, to));
    place
}

/// The output of a quick training run with these arguments more.
fn train(place: &Place, more: &[&str]) -> String {
    show(&place.train(&[more, &["--steps", "1"]].concat()))
}

#[test]
fn a_field_that_should_be_a_function() {
    let place = with("function game.bot(state, seat, rng) return tostring(state.digit) end", "game.bot = \"1\"");
    assert_output!(place, ["check", "games/echo.lua"], @r#"
    status: 1
    --- output
    error[game::not_a_function]: `bot` is not a function
      --> games/echo.lua:13:6
        |
     13 | game.bot = "1"
        |      ^^^
        |
      expected: a function, or nothing
      found:    a string
      help:     make `bot` a function or rename the field
    "#);
}

#[test]
fn a_reward_script_among_the_games() {
    let place = Place::new();
    place.write("games/reward.lua", "return function(episode) return 1 end\n");
    assert_output!(place, ["train", "--games", "games/reward.lua", "--device", "cpu"], @r"
    status: 1
    --- errors
    error[game::not_a_table]: the script returns a function
      --> games/reward.lua
      expected: a table with the game's data and functions
      found:    one function, as in a reward script
      help:     end the script with `return game`
    ");
}

#[test]
fn a_prompt_without_end() {
    let place = with("return \"Name this digit: \" .. state.digit", "return string.rep(\"digit \", 20000)");
    assert_output!(place, ["check", "games/echo.lua"], @r#"
    status: 1
    --- output
    error[game::long_observation]: the text of `observe` is too long
      --> games/echo.lua:4:15
       |
     4 | function game.observe(state, seat) return string.rep("digit ", 20000) end
       |               ^^^^^^^ `observe` begins here
       |
      expected: at most 65536 bytes
      found:    120000 bytes
      help:     show what changed since the seat's last turn instead of the whole history
    note: in the episode of seed 1571218202235825; `gift-host check games/echo.lua --seed 1571218202235825` plays it again
    "#);
}

#[test]
fn an_empty_prompt() {
    let place = with("return \"Name this digit: \" .. state.digit", "return \"\"");
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "3"], @r#"
    status: 0
    --- output
    warning[game::empty_observation]: a seat sees nothing on its turn
      --> games/echo.lua:4:15
       |
     4 | function game.observe(state, seat) return "" end
       |               ^^^^^^^ `observe` begins here
       |
      expected: a text that asks the seat to act
      found:    an empty text for seat 1
      help:     return what the seat must know to act: a model that sees nothing can only learn one fixed answer

    games/echo.lua: echo is usable, with 1 warning (3 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 0 bytes (0 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random         3    33 %
               bot            3   100 %
               search         3   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
}

#[test]
fn a_refusal_outside_apply() {
    let place = with("return \"Name this digit: \" .. state.digit", "gift.illegal(\"not now\")");
    assert_output!(place, ["check", "games/echo.lua"], @r#"
    status: 1
    --- output
    error[game::misplaced_illegal]: `observe` called `gift.illegal`
      --> games/echo.lua:4:15
       |
     4 | function game.observe(state, seat) gift.illegal("not now") end
       |               ^^^^^^^ `observe` begins here
       |
      expected: `gift.illegal` only in `apply`, to refuse an action
      found:    `gift.illegal("not now")`
      help:     use `error(…)` in `observe` for what should never happen
    note: in the episode of seed 1571218202235825; `gift-host check games/echo.lua --seed 1571218202235825` plays it again
    "#);
}

#[test]
fn a_refusal_without_a_reason() {
    let place = with("gift.illegal(\"answer with a digit from 1 to 4\")", "gift.illegal(\"\")");
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "3"], @r#"
    status: 0
    --- output
    warning[game::no_reason]: `gift.illegal` was called without a reason
      --> games/echo.lua:7:15
       |
     7 | function game.apply(state, seat, action)
       |               ^^^^^ `apply` begins here
       |
      expected: a reason that the model can learn from
      found:    an empty one
      help:     write `gift.illegal("the cell is taken")`

    games/echo.lua: echo is usable, with 1 warning (3 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random         3    33 %
               bot            3   100 %
               search         3   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
}

#[test]
fn legal_answers_that_are_listed_twice() {
    let place = with("return { \"1\", \"2\", \"3\", \"4\" } end", "return { \"1\", \"1\" } end");
    assert_output!(place, ["check", "games/echo.lua"], @r#"
    status: 1
    --- output
    error[game::bad_result]: `actions` listed the answer `1` twice
      --> games/echo.lua:6:15
       |
     6 | function game.actions(state, seat) return { "1", "1" } end
       |               ^^^^^^^ `actions` begins here
       |
      expected: different answers
      found:    ["1","1"]
      help:     list each answer once (a number counts as its text): one that stands twice would be drawn twice as often
    note: in the episode of seed 1571218202235825; `gift-host check games/echo.lua --seed 1571218202235825` plays it again
    "#);
}

#[test]
fn free_answers_without_a_bot_for_the_opponent() {
    let place = with("seats = 1", "seats = 2");
    let text = place.read("games/echo.lua");
    let text = text
        .replace("function game.actions(state, seat) return { \"1\", \"2\", \"3\", \"4\" } end", "function game.actions() return nil end")
        .replace("function game.bot(state, seat, rng) return tostring(state.digit) end\n", "")
        .replace("scores = { state.right and 1 or 0 }, success = { state.right }", "scores = { 0, 0 }, success = { false, false }")
        .replace("if state.done then return nil end return 1 end", "if state.done then return nil end return 2 end")
        .replace("if not table.find({ \"1\", \"2\", \"3\", \"4\" }, action) then gift.illegal(\"answer with a digit from 1 to 4\") end\n", "");
    place.write("games/echo.lua", &text);
    let shown = train(&place, &["--opponent", "random", "--seat", "1"]);
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 1
    --- errors
    model: tiny, a byte-level decoder of [size] M parameters, built in and trained from scratch; train your own with --model DIR
    games: echo; opponent: random
    a checkpoint was written to run/checkpoints/step-000000
    error[run::failing_version]: version [hash] of `echo` fails too often
      expected: at most 25 % lost episodes (`scripts.max_voided_share`)
      found:    100 %
      help:     mend the script and save it; the reason stands above
    note: error[game::no_bot]: `echo` has no scripted player
            --> games/echo.lua
            expected: `function game.bot(state, seat, rng) … return action end`
            help:     add `bot`, or choose another opponent with `--opponent`
          note: when `random` was to answer for seat 2
          note: in the episode of seed 7745902512115188
          note: `gift-host play games/echo.lua --seed 7745902512115188 --opponent human` leads there
          note: 100 % of the episodes of `echo` were lost in this rollout
          there is no earlier version to go back to
    ");
    });
}

#[test]
fn an_opponent_whose_bot_is_refused() {
    let place = with("seats = 1", "seats = 2");
    let text = place.read("games/echo.lua");
    let text = text
        .replace("function game.actions(state, seat) return { \"1\", \"2\", \"3\", \"4\" } end\n", "")
        .replace("return tostring(state.digit) end", "if state.digit > 0 then return \"none\" end return \"1\" end")
        .replace(
            "scores = { state.right and 1 or 0 }, success = { state.right }",
            "scores = { 0, 0 }, success = { false, false }",
        )
        .replace("if state.done then return nil end return 1 end", "if state.done then return nil end return 2 end");
    place.write("games/echo.lua", &text);
    let shown = train(&place, &["--opponent", "bot", "--seat", "1"]);
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 1
    --- errors
    model: tiny, a byte-level decoder of [size] M parameters, built in and trained from scratch; train your own with --model DIR
    games: echo; opponent: bot
    a checkpoint was written to run/checkpoints/step-000000
    error[run::failing_version]: version [hash] of `echo` fails too often
      expected: at most 25 % lost episodes (`scripts.max_voided_share`)
      found:    100 %
      help:     mend the script and save it; the reason stands above
    note: error[opponent::refused]: the opponent of `echo` found no legal action
            --> games/echo.lua
            expected: `bot` and `actions` give answers that `apply` takes
            help:     run `gift-host check` on the game
          note: in the episode of seed 7745902512115188
          note: `gift-host play games/echo.lua --seed 7745902512115188 --opponent human` leads there
          note: 100 % of the episodes of `echo` were lost in this rollout
          there is no earlier version to go back to
    ");
    });
}

#[test]
fn a_person_as_the_opponent_of_a_run() {
    let place = Place::new();
    place.copy("games");
    assert_output!(place, ["train", "--games", "games/nim.rhai", "--opponent", "human", "--device", "cpu", "--out", "run"], @r"
    status: 2
    --- errors
    error[opponent::human]: a person cannot sit in a rollout
      expected: an opponent that plays by itself, such as `random`, `bot` or `search`
      help:     play yourself with `gift-host play GAME`
    ");
}

#[test]
fn a_nest_without_stages() {
    let place = Place::with_echo();
    place.write("nest.lua", "return { mode = \"mixed\" }\n");
    let shown = train(&place, &["--nest", "nest.lua"]);
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r#"
    status: 1
    --- errors
    error[nest::bad_field]: `stages` of the nest is missing or of the wrong kind
      --> nest.lua
      expected: a list of 1 to 100 names of games, or `function(rng, stats) … return list end`
      found:    nothing
      help:     a nest is `return { mode = "nested", stages = { "math", "tictactoe" } }`
    "#);
    });
}

#[test]
fn a_nest_whose_order_is_no_list() {
    let place = Place::with_echo();
    place.write("nest.lua", "return { stages = function(rng, stats) return \"echo\" end }\n");
    let shown = train(&place, &["--nest", "nest.lua"]);
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r#"
    status: 1
    --- errors
    error[nest::bad_result]: `stages` of the nest returned the wrong value
      --> nest.lua
      expected: a list of 1 to 100 names of games
      found:    "echo"
      help:     see `Nests` in `games/README.md`
    note: found when the nest was tried on examples
    "#);
    });
}

#[test]
fn a_reward_that_is_no_number() {
    let place = Place::with_echo();
    place.write("reward.lua", "return function(episode) return episode.outcome end\n");
    let shown = train(&place, &["--reward", "reward.lua"]);
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r#"
    status: 1
    --- errors
    error[reward::bad_result]: the reward script returned no number
      --> reward.lua
      expected: a finite number
      found:    {"scores":[0],"success":[false]}
      help:     make every path of the function end with `return` and a number
    note: found when the script was tried on random episodes
    "#);
    });
}

/// The trial's answers are longer than what the model says, so only the run finds this one.
#[test]
fn a_reward_that_fails_in_play_only() {
    let place = Place::with_echo();
    place.write("reward.lua", "return function(episode) return episode.tokens.response > 20 and 1 or \"few\" end\n");
    let shown = train(&place, &["--reward", "reward.lua"]);
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r#"
    status: 1
    --- errors
    model: tiny, a byte-level decoder of [size] M parameters, built in and trained from scratch; train your own with --model DIR
    games: echo; no opponents: the games have one seat
    a checkpoint was written to run/checkpoints/step-000000
    error[run::failing_version]: version [hash] of `reward.lua` fails too often
      expected: at most 25 % lost episodes (`scripts.max_voided_share`)
      found:    100 %
      help:     mend the script and save it; the reason stands above
    note: error[reward::bad_result]: the reward script returned no number
            --> reward.lua
            expected: a finite number
            found:    "few"
            help:     make every path of the function end with `return` and a number
          note: in the episode of seed 7745902512115188, after the moves 1: `4`
          note: 100 % of the episodes were lost in this rollout
          there is no earlier version to go back to
    "#);
    });
}

#[test]
fn a_file_in_no_known_language() {
    let place = Place::new();
    place.write("games/echo.py", "print('hello')\n");
    assert_output!(place, ["check", "games/echo.py"], @r"
    status: 1
    --- output
    error[script::language]: `games/echo.py` is in no known script language
      expected: a file ending in `.lua`, `.luau` or `.rhai`
      help:     rename the file, or narrow the pattern of `--games`
    ");
}

#[test]
fn a_file_that_is_no_text() {
    let place = Place::new();
    place.write("games/echo.lua", "");
    std::fs::write(place.path("games/echo.lua"), [0xff, 0xfe, 0x00, 0x41]).expect("a file");
    assert_output!(place, ["check", "games/echo.lua"], @r"
    status: 1
    --- output
    error[script::unreadable]: `games/echo.lua` cannot be read
      --> games/echo.lua
      expected: a readable UTF-8 text file
      found:    invalid utf-8 sequence of 1 bytes from index 0
      help:     check the file's name and rights
    ");
}

#[test]
fn a_setting_without_a_value() {
    let place = Place::with_echo();
    let mut arguments = vec!["train", "--games", "games/echo.lua", "--set", "steps"];
    arguments.extend(QUICK);
    let shown = place.shown(&arguments);
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 2
    --- errors
    error[config::set]: `--set` needs a key and a value
      expected: `KEY=VALUE`, such as `optimizer.learning_rate=1e-4`
      found:    `steps`
    ");
    });
}

#[test]
fn a_model_with_another_tokenizer() {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "1"]);
    assert!(output.status.success(), "{}", show(&output));
    let file = "run/checkpoints/step-000001/config.json";
    let vocabulary = "\"vocab_size\": 264";
    assert!(place.read(file).contains(vocabulary));
    place.write(file, &place.read(file).replace(vocabulary, "\"vocab_size\": 32000"));
    assert_output!(place, ["eval", "--games", "games/echo.lua", "--model", "run"], @r"
    status: 1
    --- errors
    error[model::tokenizer]: the model in `run/checkpoints/step-000001` does not fit its tokenizer
      expected: a vocabulary of 264 ids, as the built-in tokenizer has
      found:    a vocabulary of 32000
      help:     take another checkpoint of the run: `config.json` or `tokenizer.json` was changed in this one
    ");
}
