//! Opponents as the command line names them: by game, by seat, mixed, with a strength; what is refused and what is checked.

use gift_host::policy::DecoderConfig;
use serde_json::{Value, json};

use super::models::with_model_of;
use super::support::{Place, QUICK, show};

/// Kuhn poker, with hidden cards and `hide`.
const KUHN: &str = include_str!("../games/kuhn.lua");

fn shipped() -> Place {
    let place = Place::new();
    place.copy("games");
    place.copy("scripts");
    place
}

fn eval(place: &Place, games: &str, player: &str, opponent: &str, more: &[&str]) -> std::process::Output {
    let first = ["eval", "--games", games, "--player", player, "--opponent", opponent, "--episodes", "40", "--json"];
    place.run(&[&first, more].concat())
}

#[test]
fn every_form_of_a_specification_plays_alike_for_a_seed_on_any_threads() {
    let place = shipped();
    let opponents = [
        "random*0.3+search:500*0.7",
        "bot,tictactoe.1=search:depth=2:epsilon=0.2,tictactoe.2=random+bot",
        "search:nodes=50",
    ];
    for opponent in opponents {
        let run = |threads: &str, seed: &str| {
            let more = ["--set", threads, "--seed", seed];
            let output = eval(&place, "games/tictactoe.lua", "random", opponent, &more);
            assert!(output.status.success(), "{}", show(&output));
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        let first = run("threads=1", "1");
        assert_eq!(first, run("threads=3", "1"), "{opponent}");
        assert_ne!(first, run("threads=1", "2"), "{opponent}");
    }
    let output = eval(&place, "games/tictactoe.lua", "random", "bot,tictactoe.2=random", &[]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["games"][0]["opponent"], "bot, seat 2 random");
}

#[test]
fn what_cannot_be_is_refused_with_the_fix() {
    let place = shipped();
    for (opponent, told) in [
        ("random*0+bot", ["opponent::mixture", "above 0"]),
        ("random*0.2+", ["opponent::unknown", "an opponent is missing"]),
        ("bot,bot", ["opponent::twice", "to mix two"]),
        ("search:depth=1:ms=5", ["opponent::strength", "one of `nodes`, `depth` and `ms`"]),
        ("tictactoe.3=bot", ["opponent::seat", "a seat from 1 to 2"]),
        ("openai:localhost", ["opponent::url", "behind a `#`"]),
        ("league:x", ["opponent::unknown", "write `league`"]),
        ("league", ["opponent::league", "checkpoint:runs/NAME/league/step-"]),
        ("self", ["opponent::self", "name a model: `checkpoint:runs/NAME`"]),
        ("bot+self", ["opponent::self", "there is no model here"]),
        ("checkpoint:", ["opponent::model", "a folder with a model, or a run directory"]),
        ("gguf:model.bin", ["opponent::model", "a file that ends in `.gguf`"]),
    ] {
        let output = eval(&place, "games/tictactoe.lua", "random", opponent, &[]);
        let text = show(&output);
        assert!(output.status.code() == Some(2) && told.iter().all(|told| text.contains(told)), "{opponent}: {text}");
    }
    let output = eval(&place, "games/tictactoe.lua", "random", "checkpoint:nowhere", &[]);
    let text = show(&output);
    assert!(output.status.code() == Some(1) && text.contains("no model in `nowhere`"), "{text}");
    assert!(text.contains("as the opponent `checkpoint:nowhere`"), "{text}");
    let output = eval(&place, "games/spy.lua", "bot", "search", &[]);
    let text = show(&output);
    assert!(text.contains("does not see all of its state") && text.contains("add `hide`"), "{text}");
    let output = eval(&place, "games/tictactoe.lua", "random", "tictactoo=bot", &[]);
    let text = show(&output);
    assert!(text.contains("did you mean `tictactoe`?") && output.status.success(), "{text}");
}

#[test]
fn hide_is_checked_and_lets_search_play() {
    let place = Place::new();
    place.write("games/kuhn.lua", KUHN);
    let output = place.run(&["check", "games/kuhn.lua"]);
    let text = show(&output);
    assert!(output.status.success() && !text.contains("warning"), "{text}");
    let output = eval(&place, "games/kuhn.lua", "search:nodes=300", "random", &[]);
    assert!(output.status.success(), "{}", show(&output));
    // The own card must stay.
    place.write("games/kuhn.lua", &KUHN.replace("state.cards[3 - seat] = rng", "state.cards[seat] = rng"));
    let text = show(&place.run(&["check", "games/kuhn.lua"]));
    assert!(text.contains("game::bad_hide") && text.contains("the text of `observe` as before"), "{text}");
    place.write("games/kuhn.lua", &KUHN.replace("  return state\nend\n\nreturn game", "end\n\nreturn game"));
    let text = show(&place.run(&["check", "games/kuhn.lua"]));
    assert!(text.contains("end `hide` with `return state`"), "{text}");
}

#[test]
fn key_is_checked_against_what_follows() {
    let place = Place::new();
    let game = include_str!("../../games/tictactoe.lua");
    let whole = r#"return state.turn .. ":" .. table.concat(state.cells, ",")"#;
    assert!(game.contains(whole));
    for (key, told) in [
        ("return state.turn .. \":\"", "error[game::bad_key]"),
        ("return table.concat(state.cells, \",\")", "the turn of seat 2, with the answers"),
        ("return state.turn", "`key` returned the wrong kind of value"),
        ("error(\"no key\")", "no key"),
    ] {
        place.write("games/tictactoe.lua", &game.replace(whole, key));
        let output = place.run(&["check", "games/tictactoe.lua"]);
        let text = show(&output);
        assert!(!output.status.success() && text.contains(told), "{key}: {text}");
    }
}

/// A run of one iteration in `run`.
fn trained(place: &Place, more: &[&str]) {
    let first = ["train", "--games", "games/tictactoe.lua", "--steps", "1", "--out", "run"];
    let output = place.run(&[&first[..], &QUICK, more].concat());
    assert!(output.status.success(), "{}", show(&output));
}

#[test]
fn models_play_in_eval_and_play_alike_on_any_threads() {
    let place = shipped();
    trained(&place, &[]);
    let json = |player: &[&str], opponent: &str, threads: &str| {
        let first = ["eval", "--games", "games/tictactoe.lua", "--opponent", opponent, "--episodes", "30", "--json"];
        let output = place.run(&[&first[..], player, &["--set", threads, "--device", "cpu"]].concat());
        assert!(output.status.success(), "{}", show(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")["games"][0].clone()
    };
    let model = ["--model", "run"];
    for opponent in ["self", "checkpoint:run", "checkpoint:run*0.5+self*0.5"] {
        let rate = json(&model, opponent, "threads=1");
        assert_eq!(rate, json(&model, opponent, "threads=3"), "{opponent}");
        assert_eq!((&rate["episodes"], &rate["illegal"]), (&30.into(), &0.0.into()), "{rate}");
    }
    // A scripted player meets the same model, alone or in batches.
    let rate = json(&["--player", "bot"], "checkpoint:run", "threads=1");
    assert_eq!(rate["opponent"], "checkpoint:run/checkpoints/step-000001");
    assert!(rate["success"].as_f64().is_some_and(|share| share > 0.3), "{rate}");
    let turned = json(&["--player", "checkpoint:run"], "bot", "threads=2");
    assert!(turned["success"].as_f64() < rate["success"].as_f64(), "{turned}");
    // The same weights in a GGUF file, which is widened, with prompts as it has them.
    let output = place.run(&["export", "run", "--format", "gguf", "--type", "f32"]);
    assert!(output.status.success(), "{}", show(&output));
    let rate = json(&["--player", "bot"], "gguf:run-f32.gguf", "threads=2");
    assert_eq!((&rate["opponent"], &rate["episodes"]), (&"gguf:run-f32.gguf".into(), &30.into()));
    assert_eq!(rate, json(&["--player", "bot"], "gguf:run-f32.gguf", "threads=1"));
    let play = ["play", "games/tictactoe.lua", "--opponent", "checkpoint:run", "--seat", "1"];
    let answers = "1\n2\n3\n4\n5\n6\n7\n8\n9\n".repeat(2);
    let output = place.run_with_input(&play, &answers);
    let text = show(&output);
    assert!(
        text.contains("the others: checkpoint:run/checkpoints/step-000001") && text.contains("Seat 2 answers: "),
        "{text}"
    );
}

/// Of a size that candle multiplies fast with as it is.
#[test]
fn a_quantized_model_plays_alike_on_any_threads() {
    let place = with_model_of(&DecoderConfig {
        hidden_size: 256,
        intermediate_size: 256,
        head_count: 4,
        kv_head_count: 2,
        head_dim: 64,
        ..DecoderConfig::tiny(344)
    });
    place.copy("games");
    place.copy("scripts");
    // Such files name the way in which a tokenizer cuts text.
    let mut tokenizer: Value = serde_json::from_str(&place.read("model/tokenizer.json")).expect("JSON");
    let pre_tokenizer =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    tokenizer["pre_tokenizer"] = pre_tokenizer;
    place.write("model/tokenizer.json", &tokenizer.to_string());
    let output = place.run(&["export", "model", "--format", "gguf", "--type", "q8_0"]);
    assert!(output.status.success(), "{}", show(&output));
    let eval = |threads: &str| {
        let arguments = ["eval", "--games", "games/tictactoe.lua", "--opponent", "gguf:model-q8_0.gguf", "--json"];
        let more = ["--player", "random", "--episodes", "12", "--device", "cpu", "--set", threads];
        let output = place.run(&[&arguments[..], &more].concat());
        assert!(output.status.success(), "{}", show(&output));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!errors.contains("widened"), "{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(eval("threads=1"), eval("threads=3"));
    // A model of random weights answers in no format; random play takes its place, and it is told.
    let player = ["eval", "--games", "games/tictactoe.lua", "--player", "gguf:model-q8_0.gguf", "--json", "--episodes"];
    let free =
        ["4", "--set", "decode.constrain=off", "--set", "decode.format=think", "--set", "rollout.max_new_tokens=4"];
    let output = place.run(&[&player[..], &free, &["--device", "cpu"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("sees the short observations"), "{}", show(&output));
    let rate = &serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["games"][0];
    assert!(rate["format_error"].as_f64().is_some_and(|share| share > 0.5), "{rate}");
}

#[test]
fn a_run_keeps_the_checkpoint_that_it_began_against_and_measures_a_league_by_others() {
    let place = shipped();
    trained(&place, &[]);
    let arguments =
        ["train", "--games", "games/tictactoe.lua", "--opponent", "checkpoint:run", "--steps", "1", "--out", "next"];
    let output = place.run(&[&arguments[..], &QUICK].concat());
    assert!(output.status.success(), "{}", show(&output));
    assert!(place.read("next/config.toml").contains("opponent = \"checkpoint:run/checkpoints/step-000001\""));
    let arguments =
        ["train", "--games", "games/tictactoe.lua", "--opponent", "league", "--steps", "1", "--out", "league"];
    let output = place.run(&[&arguments[..], &QUICK, &["--set", "evaluation.episodes=10"]].concat());
    let text = show(&output);
    assert!(output.status.success() && text.contains("opponent: league"), "{text}");
    assert!(place.read("league/evaluations.jsonl").contains("\"opponent\":\"random\""));
    let output = place.run(
        &[&["train", "--games", "games", "--opponent", "league"][..], &QUICK, &["--set", "league.fixed=[\"self\"]"]]
            .concat(),
    );
    let text = show(&output);
    assert!(
        output.status.code() == Some(2) && text.contains("error[opponent::league]") && !place.path("runs").exists(),
        "{text}"
    );
}

/// A model that nobody serves: the run ends with the reason and a checkpoint, not with a wrong usage.
#[test]
fn a_server_that_does_not_answer_ends_a_run_with_a_checkpoint() {
    let place = shipped();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let opponent = format!("openai:http://127.0.0.1:{port}#small");
    let first = ["train", "--games", "games/tictactoe.lua", "--opponent", &opponent, "--steps", "1", "--out", "run"];
    let settings = ["--set", "remote.grace_s=0.5", "--set", "evaluation.episodes=0", "--set", "rollout.groups=2"];
    let output = place.run(&[&first[..], &settings, &["--device", "cpu"]].concat());
    let text = show(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for told in ["error[remote::down]", "trying again", "a checkpoint was written to", "go on with `--resume`"] {
        assert!(text.contains(told), "`{told}`: {text}");
    }
}
