//! `gift-host check`: what it says of games that work but train badly, and of games that differ from process to process.

use super::support::{ECHO, Place, assert_output};

fn with(changes: &[(&str, &str)]) -> Place {
    let mut text = ECHO.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "`{from}` is in the game");
        text = text.replace(from, to);
    }
    let place = Place::new();
    place.write("games/echo.lua", &text);
    place
}

/// `pairs` over table keys goes by address, which another process has elsewhere.
#[test]
fn an_order_that_depends_on_addresses_is_caught() {
    let place = with(&[(
        "return { digit = rng:int(1, 4)",
        "local set = {}\n  for number = 1, 40 do set[{}] = number end\n  local order = {}\n  for _, number in pairs(set) do \
         order[#order + 1] = number end\n  return { order = order, digit = rng:int(1, 4)",
    )]);
    let output = place.run(&["check", "games/echo.lua", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "{json}");
    assert_eq!(json["games"][0]["problems"][0]["code"], "game::not_deterministic", "{json}");
}

#[test]
fn an_address_in_a_text_is_caught() {
    let place = with(&[("\"Name this digit: \" .. state.digit", "\"Name this digit: \" .. tostring(state)")]);
    let output = place.run(&["check", "games/echo.lua", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let problem = &json["games"][0]["problems"][0];
    assert_eq!(problem["code"], "game::not_deterministic", "{json}");
    assert!(problem["found"].as_str().expect("a text").contains("digit: table: 0x"), "{json}");
    assert_eq!((&problem["file"], &problem["line"]), (&"games/echo.lua".into(), &4.into()));
}

#[test]
fn the_seed_that_a_message_names_plays_that_episode_alone() {
    // Only some episodes fail.
    let place = with(&[(
        "state.done, state.right = true,",
        "if state.digit == 3 then error(\"three\") end\n  state.done, state.right = true,",
    )]);
    let said = place.shown(&["check", "games/echo.lua"]);
    let seed = said.split("--seed ").nth(1).expect("a seed").split('`').next().expect("its end").to_owned();
    let again = place.shown(&["check", "games/echo.lua", "--seed", &seed]);
    assert_eq!(said, again);
    assert_output!(place, ["check", "games/echo.lua", "--seed", "4"], @r#"
    status: 1
    --- output
    error[script::runtime]: three
      --> games/echo.lua:9
       |
     9 |   if state.digit == 3 then error("three") end
       |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
      stack:    games/echo.lua:9 in `apply`
    note: when seat 1 answers `1`
    note: in the episode of seed 4; `gift-host check games/echo.lua --seed 4` plays it again
    "#);
}

#[test]
fn a_misspelt_field_is_told_with_the_right_one() {
    let place = with(&[("function game.brief(", "function game.brif(")]);
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "2"], @r#"
    status: 0
    --- output
    warning[game::unknown_field]: nothing reads the field `brif` of the game
      --> games/echo.lua:5:15
       |
     5 | function game.brif(state, seat) return "e" .. state.digit end
       |               ^^^^
       |
      expected: one of the game's fields, or a helper of your own
      found:    `brif`, and no `brief`
      help:     did you mean `brief`? If `brif` is your own, another name or `local` ends this warning

    games/echo.lua: echo is usable, with 1 warning (2 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 18 bytes (18 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random         2     0 %
               bot            2   100 %
               search         2   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
    let said = super::support::show(&place.train(&["--steps", "1"]));
    assert_eq!(said.matches("did you mean `brief`?").count(), 1, "{said}");
    place.write("nest.lua", "return { stages = { \"echo\" }, weigths = { 1 } }\n");
    std::fs::remove_dir_all(place.path("run")).expect("the run");
    let said = super::support::show(&place.train(&["--steps", "1", "--nest", "nest.lua"]));
    assert!(said.contains("nothing reads the field `weigths` of the nest"), "{said}");
}

#[test]
fn a_missing_function_under_another_name_is_found() {
    let place = with(&[("function game.outcome(", "function game.outcom(")]);
    assert_output!(place, ["check", "games/echo.lua"], @r"
    status: 1
    --- output
    error[game::missing_function]: the game has no `outcome`
      --> games/echo.lua:12:15
        |
     12 | function game.outcom(state) return { scores = { state.right and 1 or 0 }, success = { state.right } } end
        |               ^^^^^^
        |
      expected: `function game.outcome(state) … return { scores = {…}, success = {…} } end`
      found:    nothing of that name in the returned table
      help:     rename `outcom` to `outcome`, if that is what it is
    ");
}

#[test]
fn numbers_among_the_answers_are_told() {
    let place = with(&[("return { \"1\", \"2\", \"3\", \"4\" } end", "return { 1, 2, 3, 4 } end")]);
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "2"], @r#"
    status: 0
    --- output
    warning[game::number_actions]: `actions` lists numbers
      --> games/echo.lua:6:15
       |
     6 | function game.actions(state, seat) return { 1, 2, 3, 4 } end
       |               ^^^^^^^ `actions` begins here
       |
      expected: strings, such as { "1", "2" }
      found:    numbers, which are made into text: `apply` is given "1", not 1
      help:     write `tostring(number)` in `actions`, and `tonumber(action)` in `apply`: "1" == 1 is false

    games/echo.lua: echo is usable, with 1 warning (2 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random         2     0 %
               bot            2   100 %
               search         2   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
}

#[test]
fn an_answer_that_is_taken_though_it_is_not_listed_is_told() {
    let place = with(&[(
        "function game.actions(state, seat) return { \"1\", \"2\", \"3\", \"4\" } end",
        "function game.actions(state, seat) return { \"1\", tostring(state.digit % 3 + 2) } end",
    )]);
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "20"], @r#"
    status: 0
    --- output
    warning[game::unlisted_taken]: `apply` takes an answer here that `actions` lists elsewhere, but not here
      --> games/echo.lua:7:15
       |
     7 | function game.apply(state, seat, action)
       |               ^^^^^ `apply` begins here
       |
      expected: seat 1 has only these: ["1","4"]
      found:    a new state after `3`
      help:     list it, or refuse it: a model that writes freely learns moves that random play and search never see

    warning[game::no_signal]: GRPO sees little signal
      --> games/echo.lua:12:15
        |
     12 | function game.outcome(state) return { scores = { state.right and 1 or 0 }, success = { state.right } } end
        |               ^^^^^^^ `outcome` begins here
        |
      expected: episodes of one start that end with different scores
      found:    the 16 scores are equal in 13 of 16 groups of random play; GRPO learns nothing from such groups
      help:     give parts of the score for parts of the way, or begin with easier episodes (`options`, a nest)

    games/echo.lua: echo is usable, with 2 warnings (20 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 2.0 legal answers
      success  by      episodes  seat 1
               random        20     5 %
               bot           20   100 %
               search         4    50 %
      signal   the scores of a group of 16 by random play spread by 0.10; 13 of 16 groups have no spread
    "#);
}

#[test]
fn a_bot_that_plays_against_the_rules_is_told() {
    let place = with(&[("return tostring(state.digit) end\nreturn", "return \"0\" end\nreturn")]);
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "20"], @r#"
    status: 0
    --- output
    warning[game::bot_refused]: `apply` refused the answer of `bot`
      --> games/echo.lua:13:15
        |
     13 | function game.bot(state, seat, rng) return "0" end
        |               ^^^ `bot` begins here
        |
      expected: a legal answer of seat 1
      found:    `0`, and gift.illegal("answer with a digit from 1 to 4")
      help:     take the answer from `actions`: an episode in which the opponent's answers are refused is lost

    games/echo.lua: echo is usable, with 1 warning (20 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random        20    20 %
               bot           20     0 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
}

#[test]
fn a_game_whose_seats_always_succeed_teaches_nothing() {
    let place = with(&[("state.right and 1 or 0", "1"), ("success = { state.right }", "success = { true }")]);
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "20"], @r"
    status: 0
    --- output
    warning[game::always_won]: seat 1 always succeeds
      --> games/echo.lua:12:15
        |
     12 | function game.outcome(state) return { scores = { 1 }, success = { true } } end
        |               ^^^^^^^ `outcome` begins here
        |
      expected: a seat that can fail
      found:    success in every episode of random play
      help:     make the game harder, or its opponents stronger: a model that need not choose learns nothing

    warning[game::no_signal]: GRPO sees no signal
      --> games/echo.lua:12:15
        |
     12 | function game.outcome(state) return { scores = { 1 }, success = { true } } end
        |               ^^^^^^^ `outcome` begins here
        |
      expected: episodes of one start that end with different scores
      found:    the 16 scores are equal in 16 of 16 groups of random play; GRPO learns nothing from such groups
      help:     give parts of the score for parts of the way, or begin with easier episodes (`options`, a nest)

    games/echo.lua: echo is usable, with 2 warnings (20 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random        20   100 %
               bot           20   100 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.00; 16 of 16 groups have no spread
    ");
}

/// Free text has no list to draw from: what the bot says here and elsewhere stands for it, and without a bot nothing does.
#[test]
fn the_signal_of_free_text_is_measured_with_the_bots_answers() {
    let free = [("function game.actions(state, seat) return { \"1\", \"2\", \"3\", \"4\" } end\n", "")];
    let place = with(&free);
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "20"], @r"
    status: 0
    --- output
    games/echo.lua: echo is fine (20 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most)
      success  by   episodes  seat 1
               bot        20   100 %
      search   not searched: the first turn has no list of legal answers
      signal   the scores of a group of 16 by answers of `bot` here and elsewhere spread by 0.49; 0 of 16 groups have no spread
    ");
    let json: serde_json::Value =
        serde_json::from_slice(&place.run(&["check", "games/echo.lua", "--json"]).stdout).expect("JSON");
    assert_eq!(json["games"][0]["play"]["signal"]["by"], "bot", "{json}");
    // Whatever is answered scores the same.
    let flat = with(&[free[0], ("state.right and 1 or 0", "1")]);
    assert_output!(flat, ["check", "games/echo.lua", "--episodes", "20"], @r"
    status: 0
    --- output
    warning[game::no_signal]: GRPO sees no signal
      --> games/echo.lua:11:15
        |
     11 | function game.outcome(state) return { scores = { 1 }, success = { state.right } } end
        |               ^^^^^^^ `outcome` begins here
        |
      expected: episodes of one start that end with different scores
      found:    the 16 scores are equal in 16 of 16 groups of answers of `bot` here and elsewhere; GRPO learns nothing from such groups
      help:     give parts of the score for parts of the way, or begin with easier episodes (`options`, a nest)

    games/echo.lua: echo is usable, with 1 warning (20 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most)
      success  by   episodes  seat 1
               bot        20   100 %
      search   not searched: the first turn has no list of legal answers
      signal   the scores of a group of 16 by answers of `bot` here and elsewhere spread by 0.00; 16 of 16 groups have no spread
    ");
    let bot = "function game.bot(state, seat, rng) return tostring(state.digit) end\n";
    let mute = with(&[free[0], (bot, "")]);
    assert!(
        mute.shown(&["check", "games/echo.lua"])
            .contains("  signal   not measured: answers are free text, and there is no `bot` to take any from")
    );
}

#[test]
fn a_game_without_brief_and_with_long_prompts_is_told() {
    let place = with(&[
        ("function game.brief(state, seat) return \"e\" .. state.digit end\n", ""),
        ("return \"Name this digit: \" .. state.digit", "return string.rep(\"Name this digit. \", 300) .. state.digit"),
    ]);
    assert_output!(place, ["check", "games/echo.lua", "--episodes", "20"], @r#"
    status: 0
    --- output
    warning[game::long_brief]: the built-in model has much to read on each turn
      --> games/echo.lua:4:15
       |
     4 | function game.observe(state, seat) return string.rep("Name this digit. ", 300) .. state.digit end
       |               ^^^^^^^ `observe` begins here
       |
      expected: a `brief` of less than 200 bytes
      found:    no `brief`, and `observe` of 5101 bytes in the mean
      help:     add `brief(state, seat)`: the built-in model reads byte by byte, and without it all of `observe`

    warning[game::long_episode]: an episode does not fit the built-in model's context
      --> games/echo.lua:4:15
       |
     4 | function game.observe(state, seat) return string.rep("Name this digit. ", 300) .. state.digit end
       |               ^^^^^^^ `observe` begins here
       |
      expected: prompts of less than 4096 bytes for all turns of a seat together
      found:    5101 bytes in the longest episode
      help:     shorten `brief`, or the game: an episode that the context cuts off scores 0 and teaches nothing

    games/echo.lua: echo is usable, with 2 warnings (20 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 5101 bytes (5101 at most), brief 5101 bytes (5101 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random        20    20 %
               bot           20   100 %
               search         4   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
}

#[test]
fn a_file_that_is_missing_is_told_with_the_one_that_is_meant() {
    let place = Place::with_echo();
    assert_output!(place, ["check", "games/ehco.lua"], @r"
    status: 2
    --- errors
    error[cli::games]: there is no file `games/ehco.lua`
      expected: a game script: a file ending in `.lua`, `.luau` or `.rhai`
      found:    no file or folder of that name
      help:     did you mean `games/echo.lua`?
    ");
    assert_output!(place, ["check", "echo.lua"], @r"
    status: 2
    --- errors
    error[cli::games]: there is no file `echo.lua`
      expected: a game script: a file ending in `.lua`, `.luau` or `.rhai`
      found:    no file or folder of that name
      help:     did you mean `games/echo.lua`?
    ");
}

#[test]
fn values_of_the_wrong_kind_are_told_with_their_key() {
    let place = Place::with_echo();
    assert_output!(place, ["train", "--games", "games/echo.lua", "--set", "rollout.groups=many"], @r#"
    status: 2
    --- errors
    error[config::key]: `rollout.groups` has a value of the wrong kind
      expected: a whole number
      found:    "many", a text
      help:     such as `rollout.groups=32`, the default
    "#);
    assert_output!(place, ["train", "--games", "games/echo.lua", "--set", "decode.constrain=leagl"], @r#"
    status: 2
    --- errors
    error[config::key]: `decode.constrain` has a value of the wrong kind
      expected: one of `off`, `legal`
      found:    "leagl", a text
      help:     did you mean `legal`?
    "#);
}

#[test]
fn a_mode_that_is_none_is_told_with_the_nearest() {
    let place = Place::with_echo();
    place.write("nest.lua", "return {\n  mode = \"nestd\",\n  stages = { \"echo\" },\n}\n");
    assert_output!(place, ["train", "--games", "games/echo.lua", "--nest", "nest.lua"], @r#"
    status: 1
    --- errors
    error[nest::bad_field]: `nestd` is no mode of a nest
      --> nest.lua:2:3
       |
     2 |   mode = "nestd",
       |   ^^^^
       |
      expected: "nested", "mixed" or "cst"
      found:    `mode = "nestd"`
      help:     did you mean `nested`?
    "#);
}

#[test]
fn a_run_with_nothing_left_to_do_says_so() {
    let place = Place::with_echo();
    assert!(place.train(&["--steps", "1"]).status.success());
    assert_output!(place, ["train", "--resume", "run", "--device", "cpu"], @r"
    status: 0
    --- errors
    going on after iteration 1 of run
    nothing is left to do: 1 of 1 iterations are done; go on further with `--steps N`
    ");
}

#[test]
fn nests_and_rewards_are_tried_on_the_games() {
    let place = Place::with_echo();
    place.write(
        "fine.lua",
        "return { stages = { \"echo\" }, reward = function(results) return gift.mean(results) end }\n",
    );
    place.write(
        "bad.lua",
        "return { mode = \"nested\", stages = { \"echo\" }, rewards = function(r) return r.x end }\n",
    );
    place.write("reward.lua", "return function(episode)\n  return episode.outcome.scores[2] + 1\nend\n");
    assert_output!(place, ["check", "fine.lua", "bad.lua", "reward.lua", "games/echo.lua", "--episodes", "2"], @r#"
    status: 1
    --- output
    fine.lua: the nest is fine (tried on echo)
    warning[nest::unknown_field]: nothing reads the field `rewards` of the nest
      --> bad.lua:1:48
       |
     1 | return { mode = "nested", stages = { "echo" }, rewards = function(r) return r.x end }
       |                                                ^^^^^^^
       |
      expected: one of the nest's fields, or a helper of your own
      found:    `rewards`, and no `reward`
      help:     did you mean `reward`? If `rewards` is your own, another name or `local` ends this warning

    bad.lua: the nest is usable, with 1 warning (tried on echo)
    error[script::runtime]: attempt to perform arithmetic (add) on nil and number
      --> reward.lua:2
       |
     2 |   return episode.outcome.scores[2] + 1
       |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
      help:     one of the values is nil: is a field misspelt, or not set in `init`? `tonumber` gives nil for what is no number
      stack:    reward.lua:2

    games/echo.lua: echo is fine (2 random episodes)
      length   1.0 turns; 1 at most of one seat; 100 % ended by the rules
      prompts  observe 18 bytes (18 at most), brief 2 bytes (2 at most); 4.0 legal answers
      success  by      episodes  seat 1
               random         2     0 %
               bot            2   100 %
               search         2   100 %
      signal   the scores of a group of 16 by random play spread by 0.45; 0 of 16 groups have no spread
    "#);
    assert_output!(place, ["check", "fine.lua"], @r"
    status: 0
    --- output
    fine.lua: the nest is fine (tried on echo)
    ");
}
