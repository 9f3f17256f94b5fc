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
    game       opponent  seat  episodes  success     95 % interval    draw   loss  score  illegal  format  turns  tokens
    tictactoe  random     all        50   82.0 %   69.2 % - 90.2 %  18.0 %  0.0 %  0.910    0.0 %   0.0 %    3.0     0.0
    tictactoe  random       1        26   73.1 %   53.9 % - 86.3 %  26.9 %  0.0 %  0.865    0.0 %   0.0 %    3.0     0.0
    tictactoe  random       2        24   91.7 %   74.2 % - 97.7 %   8.3 %  0.0 %  0.958    0.0 %   0.0 %    2.9     0.0
    matrix     none       all        50  100.0 %  92.9 % - 100.0 %   0.0 %  0.0 %  1.000    0.0 %   0.0 %    1.0     0.0
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
          "draw": 0.0,
          "draw_interval": [
            0.0,
            0.2775327998628892
          ],
          "loss": 0.0,
          "loss_interval": [
            0.0,
            0.2775327998628892
          ],
          "score": 1.0,
          "illegal": 0.0,
          "illegal_interval": [
            0.0,
            0.2775327998628892
          ],
          "format_error": 0.0,
          "format_error_interval": [
            0.0,
            0.2775327998628892
          ],
          "truncated": 0.0,
          "turns": 1.0,
          "tokens": 0.0,
          "voided": 0,
          "seats": []
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
    game  opponent  episodes  success     95 % interval   draw   loss  score  illegal  format  turns  tokens
    math  none            20  100.0 %  83.9 % - 100.0 %  0.0 %  0.0 %  1.000    0.0 %   0.0 %    1.0     0.0
    ");
}

#[test]
fn an_untrained_model_that_is_missing_is_named() {
    let place = Place::with_echo();
    assert_output!(place, ["eval", "--games", "games/echo.lua", "--model", "nowhere"], @r"
    status: 1
    --- errors
    error[model::missing]: no model in `nowhere`
      expected: a folder with `config.json` and `model.safetensors`, such as a checkpoint of a run, or a file `NAME.gguf`
      found:    nothing of that name
      help:     a run's are in `runs/NAME/checkpoints/`; `--model tiny` is the built-in one
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

/// The end of a run and one of its earlier checkpoints, over 1,000 episodes.
#[test]
fn two_models_are_compared_on_the_same_episodes() {
    let place = Place::with_echo();
    let mut train = vec!["train", "--games", "games/echo.lua", "--steps", "12", "--out", "run"];
    train.extend(super::support::QUICK);
    train.extend(["--set", "checkpoint_every=4"]);
    assert!(place.run(&train).status.success());
    let early = "run/checkpoints/step-000004";
    let run = |arguments: &[&str]| {
        let all = ["eval", "--games", "games/echo.lua", "--episodes", "1000", "--seed", "3", "--device", "cpu"];
        let output = place.run(&[&all, arguments].concat());
        assert!(output.status.success(), "{}", show(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let json = |arguments: &[&str]| -> serde_json::Value { serde_json::from_str(&run(arguments)).expect("JSON") };
    let both = json(&["--model", "run", "--baseline", early, "--json"]);
    // Together they are measured just as alone, to the last digit.
    assert_eq!(both["games"], json(&["--model", "run", "--json"])["games"]);
    assert_eq!(both["baseline"]["games"], json(&["--model", early, "--format", "json"])["games"]);
    assert_eq!(both["baseline"]["model"], early);
    let (player, baseline) = (&both["games"][0], &both["baseline"]["games"][0]);
    let pair = &both["comparison"][0];
    let count = |key: &str| pair[key].as_f64().expect("a count");
    assert_eq!(count("episodes"), 1000.0);
    assert_eq!(count("both") + count("only_player") + count("only_baseline") + count("neither"), 1000.0);
    assert_eq!((count("both") + count("only_player")) / 1000.0, player["success"].as_f64().expect("a share"));
    assert_eq!((count("both") + count("only_baseline")) / 1000.0, baseline["success"].as_f64().expect("a share"));
    assert!(count("only_player") > 0.0, "the two differ: {pair}");
    let p = gift_host::eval::mcnemar(count("only_player") as usize, count("only_baseline") as usize);
    assert_eq!(pair["p_value"], p);
    // A model against itself.
    let same = &json(&["--model", early, "--baseline", early, "--json"])["comparison"][0];
    assert_eq!((&same["p_value"], &same["difference"]), (&1.0.into(), &0.0.into()));
    for (format, rows) in [("table", 10), ("markdown", 8), ("csv", 3)] {
        let text = run(&["--model", "run", "--baseline", early, "--format", format]);
        assert_eq!(text.lines().count(), rows, "{text}");
    }
}

#[test]
fn figures_are_printed_as_markdown_and_csv() {
    let place = shipped();
    let arguments =
        ["eval", "--games", "games/tictactoe.lua", "--player", "bot", "--opponent", "bot", "--episodes", "40"];
    let markdown = [&arguments[..], &["--format", "markdown"]].concat();
    assert_output!(place, markdown, @r"
    status: 0
    --- output
    | model | game | opponent | seat | episodes | success | draw | loss | score | illegal | format | turns | tokens |
    | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
    | bot | tictactoe | bot | all | 40 | 7.5 % (2.6–19.9) | 90.0 % (76.9–96.0) | 2.5 % (0.4–12.9) | 0.525 | 0.0 % (0.0–2.5) | 0.0 % (0.0–2.5) | 3.8 | 0.0 |
    | bot | tictactoe | bot | 1 | 21 | 4.8 % (0.8–22.7) | 90.5 % (71.1–97.3) | 4.8 % (0.8–22.7) | 0.500 | 0.0 % (0.0–4.6) | 0.0 % (0.0–4.6) | 3.8 | 0.0 |
    | bot | tictactoe | bot | 2 | 19 | 10.5 % (2.9–31.4) | 89.5 % (68.6–97.1) | 0.0 % (0.0–16.8) | 0.553 | 0.0 % (0.0–5.1) | 0.0 % (0.0–5.1) | 3.8 | 0.0 |
    ");
    let csv = [&arguments[..], &["--format", "csv"]].concat();
    assert_output!(place, csv, @r"
    status: 0
    --- output
    model,game,opponent,seat,episodes,success,success_low,success_high,draw,draw_low,draw_high,loss,loss_low,loss_high,score,illegal,illegal_low,illegal_high,format_error,format_error_low,format_error_high,truncated,turns,tokens,voided
    bot,tictactoe,bot,all,40,0.075,0.025836025774588198,0.19864233524310546,0.9,0.769482247724777,0.9604204713173937,0.025,0.004426831502681404,0.1288136896347409,0.525,0,0,0.024649787352889047,0,0,0.024649787352889047,0,3.8,0,0
    bot,tictactoe,bot,1,21,0.047619047619047616,0.0084559878098264,0.2266936007412256,0.9047619047619048,0.7108586092608175,0.9734812325619254,0.047619047619047616,0.0084559878098264,0.2266936007412256,0.5,0,0,0.0458181295355271,0,0,0.0458181295355271,0,3.8095238095238093,0,
    bot,tictactoe,bot,2,19,0.10526315789473684,0.029358560298870143,0.31394082711109006,0.8947368421052632,0.6860591728889099,0.9706414397011299,0,0,0.16817922405261626,0.5526315789473685,0,0,0.05065117259645781,0,0,0.05065117259645781,0,3.789473684210526,0,
    ");
}

#[test]
fn a_benchmark_is_measured_by_one_configuration() {
    let place = shipped();
    for name in ["mmlu.parquet", "math500.jsonl"] {
        let (from, to) = (format!("tests/games/data/bench/{name}"), format!("data/{name}"));
        let bytes = std::fs::read(from).expect("a sample");
        std::fs::create_dir_all(place.path("data")).expect("a folder");
        std::fs::write(place.path(&to), bytes).expect("a file");
    }
    place.write(
        "bench.toml",
        "[games]\nfiles = [\"games/bench/mmlu.lua\", \"games/bench/math500.lua\"]\n\
        mmlu.data = \"data/mmlu.parquet\"\nmath500.data = \"data/math500.jsonl\"\n\
        [evaluation]\nby_game = { mmlu = 3 }\n",
    );
    let arguments = ["eval", "--config", "bench.toml", "--player", "bot"];
    assert_output!(place, arguments, @r"
    status: 0
    --- output
    game     opponent  episodes  success     95 % interval   draw   loss  score  illegal  format  turns  tokens
    mmlu     none             3  100.0 %  43.9 % - 100.0 %  0.0 %  0.0 %  1.000    0.0 %   0.0 %    1.0     0.0
    math500  none             5  100.0 %  56.6 % - 100.0 %  0.0 %  0.0 %  1.000    0.0 %   0.0 %    1.0     0.0
    ");
    let arguments = ["eval", "--config", "bench.toml", "--player", "bot", "--episodes", "2"];
    assert_output!(place, arguments, @r"
    status: 0
    --- output
    game     opponent  episodes  success     95 % interval   draw   loss  score  illegal  format  turns  tokens
    mmlu     none             2  100.0 %  34.2 % - 100.0 %  0.0 %  0.0 %  1.000    0.0 %   0.0 %    1.0     0.0
    math500  none             2  100.0 %  34.2 % - 100.0 %  0.0 %  0.0 %  1.000    0.0 %   0.0 %    1.0     0.0
    ");
}

#[test]
fn a_number_of_episodes_that_is_none_is_told() {
    let place = Place::new();
    let text = super::support::ECHO
        .replace("return game\n", "function game.episodes(options) return \"all\" end\nreturn game\n");
    place.write("games/echo.lua", &text);
    assert_output!(place, ["eval", "--games", "games/echo.lua", "--player", "bot"], @r#"
    status: 1
    --- errors
    error[game::bad_result]: `episodes` returned the wrong kind of value
      --> games/echo.lua:14:15
        |
     14 | function game.episodes(options) return "all" end
        |               ^^^^^^^^ `episodes` begins here
        |
      expected: a whole number of at least 1
      found:    "all"
      help:     return the number of different episodes
    "#);
}

/// A server of chat completions that gives the same answer to every request.
fn server_that_says(text: &'static str) -> std::net::SocketAddr {
    use std::io::{BufRead as _, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = std::io::BufReader::new(stream.try_clone().expect("the stream"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                if request.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            std::io::copy(&mut request.take(length), &mut std::io::sink()).expect("the request");
            let message = serde_json::json!({ "role": "assistant", "content": text });
            let body = serde_json::json!({ "choices": [{ "message": message }] }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // The program may have gone.
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

/// In `CommonGen` a language model behind a server can be the judge: its verdict is the score.
#[test]
fn a_model_behind_a_server_judges_sentences() {
    let place = shipped();
    std::fs::copy("tests/games/data/bench/commongen.jsonl", place.path("sets.jsonl")).expect("a sample");
    for (verdict, success) in
        [("<think>fine</think><answer>yes</answer>", 1.0), ("<think>no verb</think><answer>No</answer>", 0.0)]
    {
        let judge = format!("commongen_judged.2=openai:http://{}/v1#judge", server_that_says(verdict));
        let output = place.run(&[
            "eval",
            "--games",
            "games/bench/commongen_judged.lua",
            "--set",
            "seat=1",
            "--set",
            "games.commongen_judged.data=sets.jsonl",
            "--player",
            "bot",
            "--opponent",
            &judge,
            "--episodes",
            "3",
            "--json",
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rates: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(rates["games"][0]["success"], success, "{rates}");
        assert_eq!((&rates["games"][0]["episodes"], &rates["games"][0]["voided"]), (&3.into(), &0.into()), "{rates}");
    }
}
