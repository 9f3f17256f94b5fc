//! Runs that train an adapter, what their checkpoints hold, and exports of either kind of run.

use serde_json::Value;

use super::models::with_model;
use super::support::{Place, show};

const LORA: [&str; 10] = [
    "--set",
    "lora.rank=4",
    "--set",
    "lora.dora=true",
    "--set",
    "lora.dropout=0.1",
    "--set",
    "optimizer.learning_rate=0.01",
    "--set",
    "checkpoint_every=1",
];

fn run(place: &Place, arguments: &[&str]) -> String {
    let output = place.run(arguments);
    assert!(output.status.success(), "{}", show(&output));
    show(&output)
}

fn trained(more: &[&str]) -> Place {
    let place = with_model();
    // The defaults of a model that knows language ask more of it than random weights can do.
    let mut arguments = vec!["--set", "decode.observation=full", "--set", "decode.constrain=legal"];
    arguments.extend(["--set", "decode.format=bare", "--set", "optimizer.warmup_updates=10"]);
    arguments.extend(more);
    let output = place.train(&arguments);
    assert!(output.status.success(), "{}", show(&output));
    place
}

fn bytes(place: &Place, name: &str) -> Vec<u8> {
    std::fs::read(place.path(name)).expect("a file")
}

fn top(place: &Place, source: &str) -> Value {
    let output = place.run(&["model", "logits", source, "--text", "the board is 1", "--json"]);
    assert!(output.status.success(), "{}", show(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The checkpoint is an adapter in PEFT's layout; it goes on to the bit, and is found when the run has moved.
#[test]
fn a_run_trains_an_adapter() {
    let place =
        trained(&[&["--model", "model", "--steps", "3", "--set", "loss.kl_coefficient=0.1"][..], &LORA].concat());
    let folder = "run/checkpoints/step-000003";
    assert!(!place.path(&format!("{folder}/model.safetensors")).exists());
    assert!(!place.path("run/reference").exists() && !place.path("run/base").exists());
    let settings: Value = serde_json::from_str(&place.read(&format!("{folder}/adapter_config.json"))).expect("JSON");
    let base = settings["base_model_name_or_path"].as_str().expect("a path");
    assert_eq!(std::path::Path::new(base), place.path("model").canonicalize().expect("there"));
    assert_eq!((&settings["r"], &settings["use_dora"]), (&4.into(), &true.into()));
    assert_eq!(settings["lora_dropout"], 0.1);
    // Sampler and trainer are compared without what training leaves out.
    for line in place.read("run/metrics.jsonl").lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        assert!(line["kl/rollout_train"].as_f64().expect("a number") < 1e-9, "{line}");
    }
    assert_eq!(place.read(&format!("{folder}/tokenizer.json")), place.read("model/tokenizer.json"));
    let shown = run(&place, &["model", "info", "run"]);
    assert!(shown.contains("DoRA, rank 4, alpha 32"), "{shown}");
    run(&place, &["eval", "--games", "games/echo.lua", "--model", "run", "--episodes", "4", "--device", "cpu"]);
    assert_ne!(top(&place, "run"), top(&place, "model"), "the adapter counts");
    // The same three iterations in two parts.
    let whole = bytes(&place, &format!("{folder}/adapter_model.safetensors"));
    run(&place, &["train", "--resume", "run/checkpoints/step-000001", "--steps", "3"]);
    assert_eq!(bytes(&place, &format!("{folder}/adapter_model.safetensors")), whole);
}

/// The built-in model's first weights stand nowhere else, so the run keeps them.
#[test]
fn weights_under_an_adapter_that_stand_nowhere_else_are_kept() {
    let place = trained(&[&["--steps", "1"][..], &LORA].concat());
    assert!(place.path("run/base/model.safetensors").is_file());
    let before = top(&place, "run");
    std::fs::rename(place.path("run"), place.path("moved")).expect("renamed");
    assert_eq!(top(&place, "moved"), before);
    // A run that goes on from an adapter begins with both added.
    let more = ["train", "--games", "games/echo.lua", "--model", "moved", "--out", "next", "--steps", "0"];
    run(&place, &[&more[..], &LORA, &super::support::QUICK].concat());
    assert_eq!(top(&place, "next"), before);
    std::fs::remove_dir_all(place.path("moved/base")).expect("removed");
    let shown = place.shown(&["model", "info", "moved"]);
    assert!(shown.contains("error[model::base]") && shown.contains("status: 1"), "{shown}");
}

#[test]
fn another_adapter_than_the_run_has_is_refused() {
    let place = trained(&[&["--model", "model", "--steps", "1"][..], &LORA].concat());
    let refused = |arguments: &[&str], parts: &[&str]| {
        let shown = place.shown(arguments);
        for part in parts {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    };
    let resume = ["train", "--resume", "run", "--steps", "2", "--set"];
    refused(
        &[&resume[..], &["lora.rank=8"]].concat(),
        &["status: 2", "error[config::lora]", "DoRA, rank 4,", "DoRA, rank 8,"],
    );
    refused(&[&resume[..], &["lora.rank=0"]].concat(), &["without an adapter"]);
    let train = ["train", "--games", "games/echo.lua", "--out", "other", "--model", "model", "--set"];
    refused(
        &[&train[..], &["lora.rank=400"]].concat(),
        &["status: 2", "error[config::lora]", "`rank`: expected from 1 to 16"],
    );
    refused(&[&train[..], &["lora.targets=[\"c_attn\"]"]].concat(), &["status: 2", "c_attn", "q_proj"]);
    place.write("run/checkpoints/step-000001/adapter_model.safetensors", "cut");
    refused(&["model", "info", "run"], &["status: 1", "error[model::unusable]", "adapter_model.safetensors"]);
}

/// An export says what the run says; what cannot be exported is refused before anything is written.
#[test]
fn a_run_is_exported_to_every_layout() {
    let place = trained(&[&["--model", "model", "--steps", "1"][..], &LORA].concat());
    let text = place.read("model/config.json").replacen('{', "{\n  \"transformers_version\": \"5.0.0\",", 1);
    place.write("model/config.json", &text);
    let logits = top(&place, "run");
    let shown = run(&place, &["export", "run", "--format", "hf"]);
    assert!(shown.contains("--- output\nrun-hf"), "{shown}");
    assert_eq!(top(&place, "run-hf"), logits);
    assert!(place.read("run-hf/config.json").contains("\"transformers_version\": \"5.0.0\""));
    assert_eq!(place.read("run-hf/chat_template.jinja"), place.read("model/chat_template.jinja"));
    run(&place, &["export", "run", "--format", "peft", "--out", "deep/adapter"]);
    assert_eq!(top(&place, "deep/adapter"), logits);
    let shown = place.shown(&["export", "run", "--format", "hf"]);
    assert!(shown.contains("status: 2") && shown.contains("error[cli::export_exists]"), "{shown}");
    let shown = place.shown(&["export", "model", "--format", "peft"]);
    assert!(shown.contains("status: 1") && shown.contains("error[export::no_adapter]"), "{shown}");
    let shown = place.shown(&["export", "run", "--format", "hf", "--type", "f16", "--out", "x"]);
    assert!(shown.contains("status: 2") && shown.contains("error[cli::export]"), "{shown}");
    assert!(!place.path("x").exists() && !place.path("model-peft").exists());
    // A full run of the built-in model, whose vocabulary fits a GGUF file.
    let place = trained(&["--steps", "1"]);
    run(&place, &["export", "run", "--format", "gguf", "--type", "f32"]);
    let (ours, theirs) = (top(&place, "run"), top(&place, "run-f32.gguf"));
    let log_prob = |document: &Value| document["positions"][3]["top"][0]["logprob"].as_f64().expect("a number");
    assert!((log_prob(&ours) - log_prob(&theirs)).abs() < 1e-5, "{ours} {theirs}");
}
