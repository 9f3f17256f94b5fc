//! Both decoders against values that PyTorch, transformers and PEFT stored: logits, scores, gradients and a step of AdamW in
//! every family, whole and with adapters.

use gift_host::config::OptimizerStates;
use gift_host::policy::{
    AdamWStep, AdapterConfig, DecoderConfig, NamedTensor, SequenceLoss, Target, TensorKind, TokenGradient, TokenScore,
    read_safetensors,
};
use serde_json::Value;

use super::decoder::{
    Data, assert_scores_close, assert_tensors_close, every_adapted_decoder, every_decoder, logits_in_pieces,
};

/// The GRPO loss of `data/decoder_reference.py`: `-(min(r A, clip(r) A) + c H) / N` a target, `r = exp(log_prob - behaviour)`.
struct Reference {
    settings: Value,
    behaviour: Vec<Vec<f32>>,
    count: usize,
}

impl Reference {
    fn number(&self, name: &str) -> f64 {
        self.settings[name].as_f64().expect("a number")
    }
}

impl SequenceLoss for Reference {
    fn gradient(&self, index: usize, scores: &[TokenScore], out: &mut [TokenGradient]) {
        let advantage = self.settings["sequences"][index]["advantage"].as_f64().expect("a number");
        let (low, high) = (1.0 - self.number("clip_low"), 1.0 + self.number("clip_high"));
        for ((score, behaviour), out) in scores.iter().zip(&self.behaviour[index]).zip(out) {
            let ratio = f64::from(score.log_prob - behaviour).exp();
            let free = ratio * advantage <= ratio.clamp(low, high) * advantage;
            let gain = if free { ratio * advantage } else { 0.0 };
            out.log_prob = (-gain / self.count as f64) as f32;
            out.entropy = (-self.number("entropy_coefficient") / self.count as f64) as f32;
        }
    }
}

/// Tolerances: logits and scores 1e-5 of their size, gradients and the step 2e-5 of each tensor's norm, all in `f32` on both
/// sides.
#[test]
fn everything_matches_pytorch_in_every_family() {
    for name in ["llama", "llama3", "mistral", "qwen2", "qwen3"] {
        assert_matches_pytorch(&format!("decoder_{name}"));
    }
}

/// Tolerances as for whole models.
#[test]
fn adapters_match_peft() {
    for name in ["adapter_lora", "adapter_dora"] {
        assert_matches_pytorch(name);
    }
}

/// The files of `data/NAME`; with an adapter if the settings have one.
fn assert_matches_pytorch(name: &str) {
    let folder = super::root().join("tests/numerics/data");
    let text = std::fs::read(folder.join(format!("{name}.json"))).expect("the settings");
    let settings: Value = serde_json::from_slice(&text).expect("JSON");
    let stored = read_safetensors(&folder.join(format!("{name}.safetensors"))).expect("the tensors");
    let part = |prefix: &str| -> Vec<NamedTensor> {
        let strip = |tensor: &NamedTensor| {
            Some(NamedTensor { name: tensor.name.strip_prefix(prefix)?.to_owned(), ..tensor.clone() })
        };
        stored.iter().filter_map(strip).collect()
    };
    let values = |prefix: &str| -> Vec<Vec<f32>> { part(prefix).into_iter().map(|tensor| tensor.data).collect() };
    let config = DecoderConfig::from_hugging_face(&settings["config"].to_string(), &folder).expect("a supported model");

    let ids = |list: &Value| -> Vec<u32> {
        list.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let mut data = Data { tokens: Vec::new(), targets: Vec::new() };
    for sequence in settings["sequences"].as_array().expect("a list") {
        let target = |target: &Value| Target {
            position: target["position"].as_u64().expect("a position") as u32,
            allowed: target["allowed"].is_array().then(|| ids(&target["allowed"]).into()),
        };
        data.tokens.push(ids(&sequence["tokens"]));
        data.targets.push(sequence["targets"].as_array().expect("a list").iter().map(target).collect());
    }
    let pairs = |(log_probs, entropies): (&Vec<f32>, &Vec<f32>)| -> Vec<TokenScore> {
        log_probs.iter().zip(entropies).map(|(&log_prob, &entropy)| TokenScore { log_prob, entropy }).collect()
    };
    let expected_scores: Vec<_> = values("log_prob/").iter().zip(&values("entropy/")).map(pairs).collect();
    let count = data.targets.iter().map(Vec::len).sum();
    let loss = Reference { behaviour: values("behaviour/"), count, settings };
    let temperature = loss.number("temperature") as f32;
    let optimizer = |name: &str| loss.settings["optimizer"][name].as_f64().expect("a number");

    let adapter = loss
        .settings
        .get("adapter")
        .map(|text| AdapterConfig::from_peft(&text.to_string(), &folder).expect("a supported adapter").0);
    let decoders = match &adapter {
        Some(adapter) => every_adapted_decoder(&config, &part("weight/"), adapter, &part("adapter/")),
        None => every_decoder(&config, &part("weight/")),
    };
    let trained = if adapter.is_some() { TensorKind::Adapter } else { TensorKind::Weight };
    for mut decoder in decoders {
        for (tokens, expected) in data.tokens.iter().zip(values("logits/")) {
            for length in [1, 2, tokens.len() / 2, tokens.len()] {
                let found = logits_in_pieces(&*decoder, &[tokens[..length].to_vec()], 100);
                let expected = &expected[(length - 1) * config.vocab_size..][..config.vocab_size];
                let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5 * (1.0 + b.abs());
                assert!(found.iter().zip(expected).all(close), "{found:?} is not {expected:?}");
            }
        }
        let scores = decoder.accumulate(&data.sequences(), temperature, &loss).expect("accumulated");
        assert_scores_close(&scores, &expected_scores, 1e-5);
        assert_tensors_close(&decoder.tensors(TensorKind::Gradient).expect("gradients"), &part("gradient/"), 2e-5);
        let step = AdamWStep {
            learning_rate: optimizer("learning_rate"),
            beta1: optimizer("beta1"),
            beta2: optimizer("beta2"),
            epsilon: optimizer("epsilon"),
            weight_decay: optimizer("weight_decay"),
            step: 1,
            gradient_scale: 1.0,
            states: OptimizerStates::F32,
        };
        decoder.step(&step).expect("stepped");
        assert_tensors_close(&decoder.tensors(trained).expect("weights"), &part("stepped/"), 2e-5);
    }
}
