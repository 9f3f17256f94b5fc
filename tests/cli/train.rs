//! `gift-host train`: what a short run prints and what its directory holds, by the contract of DESIGN.md §5.

use std::collections::BTreeSet;

use super::support::{Place, filtered, show};

#[test]
fn a_short_run_prints_progress_and_rates() {
    let place = Place::with_echo();
    let shown =
        show(&place.train(&["--steps", "2", "--set", "evaluation.episodes=20", "--set", "optimizer.learning_rate=0"]));
    // Rates of an untrained model and the columns' widths, which follow from them, depend on its first weights.
    let plain = |line: &str| match line.strip_prefix("echo  none") {
        Some(rest) => format!("echo none {} [rates]", rest.split_whitespace().next().unwrap_or_default()),
        None if line.starts_with("game") => line.split_whitespace().collect::<Vec<_>>().join(" "),
        None => line.to_owned(),
    };
    let shown = shown.lines().map(plain).collect::<Vec<_>>().join("\n");
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 0
    --- output
    game opponent episodes before success 95 % interval score illegal format turns
    echo none 20 [rates]
    --- errors
    model: tiny, a byte-level decoder of [size] M parameters, built in and trained from scratch; train your own with --model DIR
    games: echo; no opponents: the games have one seat
    before training:
    game opponent episodes success 95 % interval score illegal format turns
    echo none 20 [rates]

    sampler and trainer agree: before the first update no ratio is further from 1 than [rounding]
    iteration 1/2 | echo [reward] [success] | [speed] tokens/s | [time] left
    iteration 2/2 | echo [reward] [success] | [speed] tokens/s | [time] left
    done; the run is in run
    ");
    });
}

#[test]
fn the_run_directory_holds_what_the_contract_names() {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "3", "--set", "checkpoint_every=2", "--set", "episodes_every=3"]);
    assert!(output.status.success(), "{}", show(&output));
    let root = place.path("run");
    let names: BTreeSet<String> = place
        .files("run")
        .into_iter()
        .map(|(path, _)| path.strip_prefix(&root).expect("below").to_string_lossy().into_owned())
        .map(|name| match name.split_once("tfevents") {
            Some(_) => "events.out.tfevents.*".to_owned(),
            None => name,
        })
        .collect();
    let version = version_of(&place);
    let mut expected: BTreeSet<String> = [
        "config.toml",
        "launches.jsonl",
        "metrics.jsonl",
        "events.out.tfevents.*",
        "episodes/step-000001.jsonl.zst",
        "episodes/step-000003.jsonl.zst",
    ]
    .map(str::to_owned)
    .into();
    expected.extend(["lua", "json"].map(|extension| format!("scripts/{version}.{extension}")));
    for step in ["step-000002", "step-000003"] {
        let files = [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "trainer.safetensors",
            "state.json",
        ];
        expected.extend(files.map(|file| format!("checkpoints/{step}/{file}")));
    }
    assert_eq!(names, expected);
    assert_eq!(place.read(&format!("run/scripts/{version}.lua")), super::support::ECHO);
}

/// The version of the game in the last line of the metrics.
fn version_of(place: &Place) -> String {
    let metrics = place.read("run/metrics.jsonl");
    let line: serde_json::Value = serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON");
    line["scripts/echo"].as_str().expect("a hash").to_owned()
}

#[test]
fn every_metric_of_the_contract_is_written_at_every_step() {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "3", "--set", "optimizer.learning_rate=0.001"]);
    assert!(output.status.success(), "{}", show(&output));
    let expected = [
        "step",
        "reward/mean",
        "reward/echo",
        "success/echo",
        "success/all",
        "entropy",
        "loss",
        "grad_norm",
        "clip_fraction",
        "kl/rollout_train",
        "ratio_max",
        "groups/kept",
        "groups/zero_std",
        "format_error/echo",
        "illegal/echo",
        "truncated",
        "voided/echo",
        "length/response",
        "turns/echo",
        "tokens/rollout_per_s",
        "tokens/update_per_s",
        "time/rollout_s",
        "time/env_s",
        "time/scripts_s",
        "time/update_s",
        "memory/peak_bytes",
        "scripts/echo",
    ];
    let metrics = place.read("run/metrics.jsonl");
    assert_eq!(metrics.lines().count(), 3);
    for (index, line) in metrics.lines().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["step"], index + 1);
        for key in expected {
            assert!(!line[key].is_null(), "`{key}` is missing in {line}");
        }
        for key in line.as_object().expect("an object").keys() {
            assert!(gift_host::metrics::names::find(key).is_some(), "`{key}` is explained nowhere");
        }
        // The sampler's probabilities are the trainer's up to rounding.
        assert!(line["kl/rollout_train"].as_f64().expect("a number").abs() < 1e-6, "{line}");
        assert!(line["memory/peak_bytes"].as_u64().expect("bytes") > 1 << 20, "{line}");
    }
}

#[test]
fn an_episodes_line_has_every_field_of_the_contract() {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "1"]);
    assert!(output.status.success(), "{}", show(&output));
    let bytes = std::fs::read(place.path("run/episodes/step-000001.jsonl.zst")).expect("the episodes");
    let text = String::from_utf8(zstd::decode_all(&bytes[..]).expect("zstd")).expect("UTF-8");
    assert_eq!(text.lines().count(), 16, "four groups of four");
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let fields = line.as_object().expect("an object");
        for key in [
            "id",
            "step",
            "group",
            "game",
            "seed",
            "seat",
            "scripts",
            "tokens",
            "policy_mask",
            "logprobs",
            "reward",
            "stage_rewards",
            "advantage",
            "kept",
            "success",
            "truncated",
            "turns",
        ] {
            assert!(fields.contains_key(key), "`{key}` is missing in {line}");
        }
        assert_eq!((&line["game"], &line["step"], &line["seat"]), (&"echo".into(), &1.into(), &1.into()));
        assert_eq!(line["scripts"][0], version_of(&place).as_str());
        for turn in line["turns"].as_array().expect("turns") {
            for key in ["seat", "observation", "answer", "action", "legal", "well_formed", "reward"] {
                assert!(turn.get(key).is_some(), "`{key}` is missing in {turn}");
            }
        }
    }
}

#[test]
fn the_written_configuration_starts_the_same_run_again() {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "2"]);
    assert!(output.status.success(), "{}", show(&output));
    let again = place.run(&["train", "--config", "run/config.toml", "--out", "again"]);
    assert!(again.status.success(), "{}", show(&again));
    let weights =
        |run: &str| std::fs::read(place.path(run).join("checkpoints/step-000002/model.safetensors")).expect("weights");
    assert!(weights("run") == weights("again"), "the weights differ");
}

#[test]
fn a_trained_checkpoint_can_be_measured_and_trained_on() {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "1"]);
    assert!(output.status.success(), "{}", show(&output));
    for model in ["run", "run/checkpoints/step-000001"] {
        let output =
            place.run(&["eval", "--games", "games/echo.lua", "--model", model, "--device", "cpu", "--episodes", "5"]);
        assert!(output.status.success(), "{}", show(&output));
    }
    let mut arguments = vec!["train", "--games", "games/echo.lua", "--model", "run", "--out", "second", "--steps", "1"];
    arguments.extend(super::support::QUICK);
    let output = place.run(&arguments);
    assert!(output.status.success(), "{}", show(&output));
}

#[test]
fn without_a_name_a_free_folder_below_runs_is_taken() {
    let place = Place::with_echo();
    let mut arguments = vec!["train", "--steps", "1", "--set", "episodes_every=0"];
    arguments.extend(super::support::QUICK);
    for expected in ["runs/echo-1", "runs/echo-2"] {
        let output = place.run(&arguments);
        assert!(output.status.success(), "{}", show(&output));
        assert!(place.path(expected).join("metrics.jsonl").is_file(), "{expected}");
        assert!(!place.path(expected).join("episodes").exists());
    }
}
