//! `gift-host eval`: the table, the JSON of the contract, and the same numbers for the same seed.

use super::support::{Place, assert_output, show};

fn shipped() -> Place {
    let place = Place::new();
    place.copy("games");
    place.copy("scripts");
    place
}

#[test]
fn scripted_players_are_measured_in_a_table() {
    let place = shipped();
    let arguments = [
        "eval",
        "--games",
        "games/tictactoe.lua",
        "games/matrix.lua",
        "--player",
        "bot",
        "--opponent",
        "random",
        "--episodes",
        "50",
    ];
    assert_output!(place, arguments, @r"
    status: 0
    --- output
    game       opponent  episodes  success     95 % interval  score  illegal  format  turns
    tictactoe  random          50   82.0 %   69.2 % - 90.2 %  0.910    0.0 %   0.0 %    3.0
    matrix     none            50  100.0 %  92.9 % - 100.0 %  1.000    0.0 %   0.0 %    1.0
    ");
}

#[test]
fn the_json_has_the_keys_of_the_contract() {
    let place = Place::with_echo();
    let arguments = ["eval", "--games", "games/echo.lua", "--player", "bot", "--episodes", "10", "--json"];
    assert_output!(place, arguments, @r#"
    status: 0
    --- output
    {
      "games": [
        {
          "game": "echo",
          "opponent": "none",
          "episodes": 10,
          "success": 1.0,
          "interval": [
            0.7224672001371106,
            1.0
          ],
          "score": 1.0,
          "illegal": 0.0,
          "format_error": 0.0,
          "truncated": 0.0,
          "turns": 1.0,
          "voided": 0
        }
      ]
    }
    "#);
}

#[test]
fn a_policy_gives_the_same_rates_for_the_same_seed_and_other_threads() {
    let place = shipped();
    let run = |seed: &str, threads: &str| {
        let output = place.run(&[
            "eval",
            "--games",
            "games/tictactoe.lua",
            "--device",
            "cpu",
            "--episodes",
            "30",
            "--json",
            "--seed",
            seed,
            "--set",
            threads,
        ]);
        assert!(output.status.success(), "{}", show(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let first = run("1", "threads=1");
    assert_eq!(first, run("1", "threads=1"));
    assert_eq!(first, run("1", "threads=2"));
    assert_ne!(first, run("2", "threads=1"));
    let json: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    let rate = &json["games"][0];
    for key in ["game", "opponent", "episodes", "success", "interval", "illegal", "format_error"] {
        assert!(!rate[key].is_null(), "`{key}` is missing: {rate}");
    }
    assert_eq!((&rate["episodes"], &rate["illegal"]), (&30.into(), &0.0.into()), "{rate}");
}

#[test]
fn free_answers_of_an_untrained_policy_are_format_errors_or_illegal() {
    let place = Place::with_echo();
    let arguments = [
        "eval",
        "--games",
        "games/echo.lua",
        "--device",
        "cpu",
        "--episodes",
        "20",
        "--json",
        "--set",
        "decode.constrain=off",
        "--set",
        "decode.format=think",
        "--set",
        "rollout.max_new_tokens=8",
    ];
    let output = place.run(&arguments);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["games"][0]["format_error"], 1.0, "{json}");
    assert_eq!(json["games"][0]["success"], 0.0, "{json}");
}

/// The data set is a file that the user named, so it may lie anywhere.
#[test]
fn the_bot_solves_every_problem_of_a_data_set() {
    let place = shipped();
    let row = |a: u32, b: u32| {
        let solution = format!("The sum is $\\boxed{{{}}}$.", a + b);
        serde_json::json!({ "problem": format!("{a} + {b}?"), "solution": solution }).to_string() + "\n"
    };
    place.write("elsewhere/rows.jsonl", &(1..20).map(|a| row(a, 2 * a)).collect::<String>());
    let arguments = [
        "eval",
        "--games",
        "games/math.lua",
        "--player",
        "bot",
        "--episodes",
        "20",
        "--set",
        "games.math.data=elsewhere/rows.jsonl",
    ];
    assert_output!(place, arguments, @r"
    status: 0
    --- output
    game  opponent  episodes  success     95 % interval  score  illegal  format  turns
    math  none            20  100.0 %  83.9 % - 100.0 %  1.000    0.0 %   0.0 %    1.0
    ");
}

#[test]
fn an_untrained_model_that_is_missing_is_named() {
    let place = Place::with_echo();
    assert_output!(place, ["eval", "--games", "games/echo.lua", "--model", "nowhere"], @r"
    status: 1
    --- errors
    error[model::missing]: no model in `nowhere`
      expected: a folder with `config.json` and `model.safetensors`, such as a checkpoint of a run
      found:    no `config.json` there
      help:     give `--model tiny`, or a folder `runs/NAME/checkpoints/step-…`
    ");
}

#[test]
fn a_player_that_the_game_does_not_know_is_named() {
    let place = Place::new();
    let text =
        super::support::ECHO.replace("function game.bot(state, seat, rng) return tostring(state.digit) end\n", "");
    place.write("games/echo.lua", &text);
    assert_output!(place, ["eval", "--games", "games/echo.lua", "--player", "bot"], @r"
    status: 2
    --- errors
    error[opponent::cannot_play]: `bot` cannot play `echo`
      --> games/echo.lua
      expected: the game has `bot`
      found:    no such function
      help:     add it to the script, or choose another opponent: `--opponent echo=…`
    note: as `--player`; leave the game out of `--games`, or choose another player
    ");
}

#[test]
fn a_nest_is_measured_as_it_is_trained() {
    let place = shipped();
    let measure = |arguments: &[&str]| {
        let all = ["eval", "--games", "games/tictactoe.lua", "games/matrix.lua", "--episodes", "20", "--json"];
        let run = place.run(&[&all, arguments].concat());
        assert!(run.status.success(), "{}", show(&run));
        let document: serde_json::Value = serde_json::from_slice(&run.stdout).expect("JSON");
        document["games"].clone()
    };
    let (alone, nested) = (measure(&[]), measure(&["--nest"]));
    assert_eq!(alone[0], nested[0], "the first stage has the same seeds and the same context as the game alone");
    assert_eq!(nested[1]["episodes"], 20);
    assert_ne!(alone[1], nested[1], "the second stage comes after the first one's tokens");
    place.write("nest.lua", "return { stages = { \"matrix\", \"matrix\" } }\n");
    let twice = measure(&["--nest", "nest.lua"]);
    assert_eq!(twice[0], alone[0], "a game that the nest leaves out is played alone");
    assert_eq!(twice[1]["episodes"], 40);
    place.write("nest.lua", "return { mode = \"mixed\", stages = { \"matrix\", \"tictactoe\" } }\n");
    assert_eq!(measure(&["--nest", "nest.lua"]), alone, "mixed games are trained alone");
}
