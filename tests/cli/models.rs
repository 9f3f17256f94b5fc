//! Models with a tokenizer of their own: a small one with random weights in a folder of Hugging Face's layout.

use std::path::Path;

use gift_host::policy::{DecoderConfig, NamedTensor, initial_weights, write_safetensors};
use gift_host::seed::Seed;
use serde_json::{Value, json};

use super::support::{Place, show};

const FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// A folder `model` with a tokenizer and a chat template, its weights in two files.
pub(crate) fn with_model() -> Place {
    with_model_of(&DecoderConfig {
        hidden_size: 32,
        intermediate_size: 48,
        head_count: 2,
        kv_head_count: 1,
        head_dim: 16,
        ..DecoderConfig::tiny(344)
    })
}

/// As [`with_model`], of another size.
pub(crate) fn with_model_of(config: &DecoderConfig) -> Place {
    let place = Place::with_echo();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numerics/data/chat_reference.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(path).expect("stored")).expect("JSON");
    place.write("model/tokenizer.json", &format!("{:#}", reference["tokenizer.json"]));
    for (name, text) in reference["cases"][0]["files"].as_object().expect("files") {
        place.write(&format!("model/{name}"), text.as_str().expect("text"));
    }
    place.write("model/config.json", &config.to_hugging_face());
    let mut weights = initial_weights(config, Seed::new(1));
    // As some folders have it although the projection is tied.
    weights.push(NamedTensor { name: "lm_head.weight".to_owned(), ..weights[0].clone() });
    let half = weights.len() / 2;
    let mut map = serde_json::Map::new();
    for (file, part) in [("a.safetensors", &weights[..half]), ("b.safetensors", &weights[half..])] {
        write_safetensors(&place.path("model").join(file), part, &[]).expect("written");
        map.extend(part.iter().map(|tensor| (tensor.name.clone(), json!(file))));
    }
    place.write("model/model.safetensors.index.json", &json!({ "weight_map": map }).to_string());
    place
}

#[test]
fn a_folder_trains_and_its_checkpoint_keeps_the_tokenizer() {
    let place = with_model();
    let more =
        ["--model", "model", "--steps", "1", "--set", "decode.observation=full", "--set", "decode.constrain=off"];
    let output = place.train(&more);
    assert!(output.status.success(), "{}", show(&output));
    for file in FILES {
        let kept = place.read(&format!("run/checkpoints/step-000001/{file}"));
        assert_eq!(kept, place.read(&format!("model/{file}")), "{file}");
    }
    let config: Value = serde_json::from_str(&place.read("run/checkpoints/step-000001/config.json")).expect("JSON");
    assert_eq!((&config["eos_token_id"], &config["bos_token_id"]), (&json!(2), &json!(1)));
    let output = place.run(&["model", "info", "run"]);
    assert!(output.status.success(), "{}", show(&output));
    // Resumed with the same tokenizer.
    let output = place.run(&["train", "--resume", "run", "--steps", "2"]);
    assert!(output.status.success(), "{}", show(&output));
}

#[test]
fn what_a_model_is() {
    let place = with_model();
    let shown = place.shown(&["model", "info", "model"]);
    for part in [
        "family       llama, 0.0 M parameters",
        "context      4096 tokens",
        "answer ends  \"<|im_end|>\" (2)",
        r#"first turn   "<|im_start|>system\nYou play games.<|im_end|>\n<|im_start|>user\nOBSERVATION<|im_end|>\n<|im_start|>assistant\n""#,
        r#"later turn   "\n<|im_start|>user\nOBSERVATION<|im_end|>\n<|im_start|>assistant\n""#,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let shown = place.shown(&["model", "info", "tiny", "--json"]);
    assert!(shown.contains("\"first_prompt\": \"<|observation|>OBSERVATION<|answer|>\""), "{shown}");
}

#[test]
fn logits_are_distributions_over_the_vocabulary() {
    let place = with_model();
    let output = place.run(&["model", "logits", "model", "--text", "the board is 1", "--top", "344", "--json"]);
    assert!(output.status.success(), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let positions = document["positions"].as_array().expect("a list");
    let text: String = positions.iter().map(|position| position["token"].as_str().expect("text")).collect();
    assert_eq!(text, "the board is 1");
    for position in positions {
        let top = position["top"].as_array().expect("a list");
        let log_probs: Vec<f64> = top.iter().map(|entry| entry["logprob"].as_f64().expect("a number")).collect();
        assert!(log_probs.is_sorted_by(|a, b| a >= b), "{log_probs:?}");
        let sum: f64 = log_probs.iter().map(|log_prob| log_prob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6 && top.len() == 344, "{sum}");
    }
}

/// Predictions are within a fifth of the peak of a process that takes such a step.
#[cfg(target_os = "linux")]
#[test]
fn predicted_memory_is_near_the_measured() {
    let place = with_model();
    // Large enough that the program itself and its rounding count little.
    let config = DecoderConfig {
        hidden_size: 384,
        intermediate_size: 1024,
        layer_count: 6,
        head_count: 6,
        kv_head_count: 2,
        head_dim: 64,
        ..DecoderConfig::tiny(20_000)
    };
    place.write("model/config.json", &config.to_hugging_face());
    let weights = initial_weights(&config, Seed::new(1));
    write_safetensors(&place.path("model/model.safetensors"), &weights, &[]).expect("written");
    let mut found = Vec::new();
    for (method, more) in [("full", None), ("8bit", None), ("lora", None), ("lora", Some("--gradient-checkpointing"))] {
        let step = ["--sequences", "4", "--tokens", "256", "--threads", "2", "--measure", method, "--json"];
        let step: Vec<&str> = step.into_iter().chain(more).collect();
        // The allocator gives memory back when it likes, on a busy machine late: the least of a few peaks is what is needed.
        let (mut predicted, mut measured) = (0.0, f64::INFINITY);
        for _ in 0..5 {
            let output = place.run(&[&["model", "memory", "model"][..], &step].concat());
            assert!(output.status.success(), "{}", show(&output));
            let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let bytes = |part: &str| document[part]["peak"].as_f64().expect("a number");
            (predicted, measured) = (bytes(method), bytes("measured").min(measured));
            if measured < predicted * 1.2 {
                break;
            }
        }
        found.push((method, predicted / 1e6, measured / 1e6));
    }
    for (method, predicted, measured) in &found {
        assert!(
            (predicted / measured - 1.0).abs() < 0.2,
            "{method}: {predicted} MB predicted, {measured} measured; {found:?}"
        );
    }
}

#[test]
fn models_that_cannot_be_loaded() {
    let place = with_model();
    let refused = |arguments: &[&str], parts: &[&str]| {
        let shown = place.shown(arguments);
        for part in parts {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    };
    place.write("broken.gguf", "GGUF");
    refused(&["model", "info", "broken.gguf"], &["status: 1", "error[model::unusable]", "--> broken.gguf"]);
    refused(&["model", "info", "none.gguf"], &["status: 1", "it cannot be read", "--> none.gguf"]);
    place.write("model/tokenizer.json", "{}");
    refused(&["model", "info", "model"], &["status: 1", "error[model::unusable]", "--> model/tokenizer.json"]);
    std::fs::remove_file(place.path("model/tokenizer.json")).expect("there");
    refused(&["model", "info", "model"], &["the model has no `tokenizer.json`"]);
    place.write("model/model.safetensors.index.json", r#"{"weight_map": {"a": "../a.safetensors"}}"#);
    refused(&["model", "info", "model"], &["which is no file of this folder"]);
    refused(&["model", "logits", "tiny", "--text", ""], &["status: 2", "error[cli::text]"]);
}

/// What cannot teach anything is said, at the start or at the end.
#[test]
fn settings_without_effect_are_told() {
    let place = with_model();
    let told = |more: &[&str], parts: &[&str]| {
        let shown = show(&place.train(&[&["--model", "model", "--steps", "1"][..], more].concat()));
        std::fs::remove_dir_all(place.path("run")).ok();
        for part in parts {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    };
    told(&["--set", "rollout.max_new_tokens=3"], &["note: nothing was learned: no update was taken"]);
    told(&["--set", "lora.dora=true"], &["warning: `lora` has no effect"]);
    told(&["--set", "decode.constrain=legal"], &["decode.format=\"bare\""]);
    let both = ["--set", "decode.constrain=legal", "--set", "decode.format=think"];
    told(&both, &["warning: where a game lists its legal answers, they are sampled bare"]);
    told(&["--seat", "3"], &["status: 2", "error[cli::seat]: none of the games has a seat 3"]);
}

#[test]
fn a_system_prompt_needs_a_place_for_it() {
    let place = Place::with_echo();
    let shown = show(&place.train(&["--steps", "1", "--set", "decode.system=Win."]));
    assert!(shown.contains("error[config::system]") && shown.contains("status: 2"), "{shown}");
    let place = with_model();
    let told = ["--model", "model", "--steps", "1", "--set", "decode.constrain=legal", "--set", "decode.format=bare"];
    let entropy = |more: &[&str]| {
        let output = place.train(&[&told[..], more].concat());
        assert!(output.status.success(), "{}", show(&output));
        let line: Value = serde_json::from_str(place.read("run/metrics.jsonl").trim()).expect("JSON");
        std::fs::remove_dir_all(place.path("run")).expect("removed");
        line["entropy"].as_f64().expect("a number")
    };
    let plain = entropy(&[]);
    assert_eq!(plain.to_bits(), entropy(&[]).to_bits());
    assert_ne!(entropy(&["--set", "decode.system=Win."]).to_bits(), plain.to_bits(), "the model does not see it");
}

/// A model that knows language has the paper's settings where nothing else is said; what a run of the tiny model left has not.
#[test]
fn a_language_model_has_defaults_of_its_own() {
    let place = with_model();
    let output = place.train(&["--model", "model", "--steps", "1", "--set", "rollout.max_new_tokens=3"]);
    assert!(output.status.success(), "{}", show(&output));
    let told = "decode.constrain=\"off\", decode.observation=\"full\", decode.format=\"think\"";
    assert!(show(&output).contains(told), "{}", show(&output));
    let settings: toml::Table = place.read("run/config.toml").parse().expect("TOML");
    assert_eq!(settings["optimizer"]["learning_rate"].as_float(), Some(1e-6));
    assert_eq!(settings["rollout"]["max_new_tokens"].as_integer(), Some(3));
    let adapted = ["--model", "model", "--out", "adapted", "--steps", "0", "--set", "lora.rank=2"];
    let output = place.run(&[&["train", "--games", "games/echo.lua"][..], &adapted, &super::support::QUICK].concat());
    assert!(show(&output).contains("optimizer.learning_rate=0.00001,"), "{}", show(&output));
    let place = Place::with_echo();
    assert!(place.train(&["--steps", "1"]).status.success());
    let more = ["train", "--games", "games/echo.lua", "--model", "run", "--out", "next", "--steps", "0"];
    let output = place.run(&[&more[..], &super::support::QUICK].concat());
    assert!(output.status.success(), "{}", show(&output));
    assert!(place.read("next/config.toml").contains("constrain = \"legal\""), "{}", place.read("next/config.toml"));
}
