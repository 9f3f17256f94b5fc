//! `bench rollout` and `bench update`: figures that belong together, and models that other programs can load.

use serde_json::Value;

use super::support::{Place, assert_output, show};

fn report(place: &Place, arguments: &[&str]) -> Value {
    let mut all = vec!["bench"];
    all.extend(arguments);
    all.extend(["--device", "cpu", "--threads", "1", "--rounds", "1", "--json"]);
    let output = place.run(&all);
    assert!(output.status.success(), "{}", show(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_rollout_counts_its_tokens_and_saves_what_it_sampled() {
    let place = Place::new();
    let sizes = ["rollout", "--batch", "4", "--groups", "2", "--prompt", "30", "--new", "5"];
    let saved = report(&place, &[&sizes[..], &["--save", "model"]].concat());
    assert_eq!(saved["prefill"]["tokens"], 120);
    assert_eq!((&saved["decode"]["tokens"], &saved["rollout"]["tokens"]), (&16.into(), &20.into()));
    // Of each prompt all but the last token, or all of it where the members stood together.
    assert!(saved["shared_tokens"].as_u64().expect("a count") >= 2 * 29, "{saved}");
    let tokens: Value = serde_json::from_str(&place.read("model/tokens.json")).expect("JSON");
    assert_eq!(tokens["start"], 30);
    let sequences = tokens["sequences"].as_array().expect("a list");
    assert_eq!((sequences.len(), sequences[3].as_array().map(Vec::len)), (4, Some(35)));
    assert_eq!(tokens["log_probs"][0].as_array().map(Vec::len), Some(5));
    // The folder is a model, and gives the same figures but for times.
    let read = report(&place, &[&sizes[..], &["--model", "model"]].concat());
    assert_eq!((&read["parameters"], &read["cache_bytes"]), (&saved["parameters"], &saved["cache_bytes"]));
}

#[test]
fn turns_and_bounded_caches_are_told() {
    let place = Place::new();
    let sizes = ["rollout", "--batch", "6", "--groups", "6", "--prompt", "2000", "--new", "3", "--turns", "2"];
    let free = report(&place, &sizes);
    assert_eq!(free["turn_seconds"].as_array().map(Vec::len), Some(2));
    assert_eq!(free["preempted"], 0);
    let bound = report(&place, &[&sizes[..], &["--max-cache-mib", "16"]].concat());
    assert!(bound["preempted"].as_u64() > Some(0), "{bound}");
    assert!(bound["cache_bytes"].as_u64() <= Some(16 << 20) && free["cache_bytes"].as_u64() > Some(16 << 20));
}

#[test]
fn an_update_on_what_was_sampled_agrees_with_the_sampling() {
    let place = Place::new();
    let sizes = ["rollout", "--batch", "4", "--groups", "2", "--prompt", "12", "--new", "3"];
    let report = report(&place, &[&sizes[..], &["--turns", "2", "--turn-prompt", "5", "--update"]].concat());
    assert_eq!(report["update"]["tokens"], 4 * (12 + 3 + 5 + 3));
    let divergence = report["kl_rollout_train"].as_f64().expect("a number");
    assert!(divergence < 1e-9 && report["ratio_deviation"].as_f64() < Some(1e-4), "{report}");
    assert!(report["share_of_matrix_rate"].as_f64() > Some(0.0) && report["grad_norm"].as_f64() > Some(0.0));
    assert_eq!(report["config"]["model_type"], "llama");
}

#[test]
fn an_update_is_that_of_the_saved_tokens() {
    let place = Place::new();
    let sizes = ["update", "--batch", "4", "--groups", "2", "--prompt", "12", "--new", "6"];
    let first = report(&place, &[&sizes[..], &["--save", "model"]].concat());
    assert_eq!(first["update"]["tokens"], 72);
    assert!(first["grad_norm"].as_f64() > Some(0.0));
    // Ratios are 1 and advantages cancel, so the loss is their mean.
    assert!(first["loss"].as_f64().expect("a number").abs() < 1e-6, "{first}");
    let again = report(&place, &[&sizes[..], &["--model", "model"]].concat());
    assert_eq!(first["grad_norm"], again["grad_norm"]);
}

#[test]
fn sizes_that_cannot_be_measured() {
    let place = Place::new();
    assert_output!(place, ["bench", "rollout", "--batch", "6", "--groups", "4"], @r"
    status: 2
    --- errors
    error[cli::bench]: these sizes cannot be measured
      expected: numbers of at least 1, and `--groups` that divides `--batch`
      found:    --batch 6 --groups 4 --prompt 200 --new 64 --rounds 3
    ");
    let sizes = ["bench", "update", "--new", "18446744073709551615"];
    assert_output!(place, sizes, @r"
    status: 2
    --- errors
    error[cli::bench]: these are too many tokens to measure
      expected: sequences of at most 100000000 tokens together
      found:    --batch 16 of 18446744073709551615 tokens each
      help:     fewer or shorter sequences; a few seconds of work measure as well as an hour
    ");
    assert_output!(place, ["bench", "rollout", "--threads", "100000"], @r"
    status: 2
    --- errors
    error[cli::bench]: no machine has so many threads
      expected: `--threads` of at most 1024
      found:    100000
    ");
    assert_output!(place, ["bench", "rollout", "--turns", "2", "--save", "folder"], @r"
    status: 2
    --- errors
    error[cli::bench]: these turns cannot be measured
      expected: `--turns`, `--turn-prompt` and `--max-batch-tokens` of at least 1, and with `--save` one turn
      found:    --turns 2 --turn-prompt 200 --max-batch-tokens 8192 --save
    ");
}
