//! Stopping and going on changes nothing: not a byte of the metrics, of the weights or of the moments.

use std::time::{Duration, Instant};

use super::binary::{Place, QUICK, copy_folder};

/// Everything of a run that must be equal; the last step decides the checkpoint.
#[derive(PartialEq)]
struct Result {
    metrics: Vec<String>,
    weights: Vec<u8>,
    moments: Vec<u8>,
    state: Vec<u8>,
}

fn result(place: &Place, run: &str, step: u64) -> Result {
    let file = |name: &str| place.bytes(&format!("{run}/checkpoints/step-{step:06}/{name}"));
    Result {
        metrics: place.metrics(run),
        weights: file("model.safetensors"),
        moments: file("trainer.safetensors"),
        state: file("state.json"),
    }
}

fn assert_same(left: &Result, right: &Result) {
    assert_eq!(left.metrics, right.metrics);
    assert_eq!(String::from_utf8_lossy(&left.state), String::from_utf8_lossy(&right.state));
    assert!(left.weights == right.weights, "the weights differ");
    assert!(left.moments == right.moments, "the moments differ");
}

fn train(place: &Place, more: &[&str]) {
    let mut arguments = vec!["train"];
    arguments.extend(more);
    arguments.extend(QUICK);
    place.run_to_end(&arguments);
}

/// The estimator with a running mean and an adaptive nest, so that every part of the state matters.
const STATEFUL: [&str; 7] =
    ["--games", "games", "--nest", "scripts/nests/adaptive.lua", "--set", "advantage.estimator=role", "--set"];

#[test]
fn three_and_three_iterations_are_six() {
    let place = Place::new();
    let settings = [&STATEFUL[..], &["optimizer.schedule=constant"]].concat();
    train(&place, &[&settings[..], &["--out", "whole", "--steps", "6"]].concat());
    train(&place, &[&settings[..], &["--out", "parts", "--steps", "3"]].concat());
    place.run_to_end(&["train", "--resume", "parts", "--steps", "6"]);
    assert_eq!(place.metrics("whole").len(), 6);
    assert_same(&result(&place, "whole", 6), &result(&place, "parts", 6));
}

/// From an earlier checkpoint of a finished run: the later lines are cut off and written again, to the same bytes.
#[test]
fn an_earlier_checkpoint_leads_to_the_same_end() {
    let place = Place::new();
    let settings =
        ["--games", "games/tictactoe.lua", "--set", "optimizer.schedule=cosine", "--set", "checkpoint_every=2"];
    train(&place, &[&settings[..], &["--out", "whole", "--steps", "4"]].concat());
    copy_folder(&place.path("whole"), &place.path("again"));
    std::fs::remove_dir_all(place.path("again/checkpoints/step-000004")).expect("the last checkpoint goes");
    place.run_to_end(&["train", "--resume", "again/checkpoints/step-000002"]);
    assert_same(&result(&place, "whole", 4), &result(&place, "again", 4));
}

/// A resumed run starts from the versions that it stored, not from what happens to lie in the folder by then.
#[test]
fn a_resumed_run_starts_from_the_stored_scripts() {
    let place = Place::new();
    train(&place, &["--games", "games/tictactoe.lua", "--out", "run", "--steps", "1"]);
    std::fs::remove_file(place.path("games/tictactoe.lua")).expect("the script goes");
    place.run_to_end(&["train", "--resume", "run", "--steps", "2"]);
    let records = gift_host::metrics::read_jsonl(&place.path("run/metrics.jsonl")).expect("metrics");
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].get("scripts/tictactoe"), records[1].get("scripts/tictactoe"));
}

/// Waits until the run has written this many lines of metrics.
fn wait_for_steps(place: &Place, run: &str, steps: usize) {
    let started = Instant::now();
    let path = place.path(run).join("metrics.jsonl");
    while !gift_host::checkpoint::read_text(&path).is_ok_and(|text| text.lines().count() >= steps) {
        assert!(started.elapsed() < Duration::from_secs(120), "no {steps} steps in two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_writes_a_checkpoint_and_costs_nothing() {
    let place = Place::new();
    let settings = ["--games", "games/tictactoe.lua", "--set", "optimizer.schedule=cosine", "--steps", "10"];
    train(&place, &[&settings[..], &["--out", "whole"]].concat());
    let mut arguments = vec!["train", "--out", "stopped"];
    arguments.extend(settings);
    arguments.extend(QUICK);
    let child = place.spawn(&arguments);
    wait_for_steps(&place, "stopped", 2);
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let output = child.wait_with_output().expect("the end");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(errors.contains("go on with: gift-host train --resume stopped"), "{errors}");
    let done = place.metrics("stopped").len();
    assert!((2..10).contains(&done), "{done} steps before the interrupt");
    assert!(place.path(&format!("stopped/checkpoints/step-{done:06}/state.json")).is_file());
    place.run_to_end(&["train", "--resume", "stopped"]);
    assert_same(&result(&place, "whole", 10), &result(&place, "stopped", 10));
}
