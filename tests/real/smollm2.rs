//! SmolLM2-135M-Instruct against transformers: token ids, logits, the gradients of a GRPO loss and a step of AdamW; the same
//! model quantized, as opponents play with it.

use candle_core::Device;
use gift_host::config::OptimizerStates;
use gift_host::policy::{
    AdamWStep, Chunk, CpuDecoder, Decoder as _, Inference, NamedTensor, Sequence, SequenceLoss, Target, TensorKind,
    TokenGradient, TokenScore, read_gguf, read_quantized,
};
use serde_json::Value;

use super::{fetched, stored};

const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(number).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|id| id as u32).collect()
}

/// The GRPO loss of `data/smollm2_reference.py`.
struct Loss<'a>(&'a Value);

impl SequenceLoss for Loss<'_> {
    fn gradient(&self, index: usize, scores: &[TokenScore], out: &mut [TokenGradient]) {
        let (settings, sequence) = (self.0, &self.0["sequences"][index]);
        let (low, high) = (1.0 - number(&settings["clip_low"]), 1.0 + number(&settings["clip_high"]));
        let (advantage, count) = (number(&sequence["advantage"]), number(&settings["count"]));
        for ((score, behaviour), out) in scores.iter().zip(numbers(&sequence["behaviour"])).zip(out) {
            let ratio = (f64::from(score.log_prob) - behaviour).exp();
            let is_free = ratio * advantage <= ratio.clamp(low, high) * advantage;
            out.log_prob = if is_free { (-ratio * advantage / count) as f32 } else { 0.0 };
            out.entropy = (-number(&settings["entropy_coefficient"]) / count) as f32;
        }
    }
}

/// As in `data/smollm2_reference.py`: the norm, and the product with `cos(0.37 i + 1)`.
fn digest(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let (mut square, mut wave) = (0.0, 0.0);
    for (index, value) in values.enumerate() {
        square += value * value;
        wave += value * (0.37 * index as f64 + 1.0).cos();
    }
    [square.sqrt(), wave]
}

/// Logits at every position, all sequences in one batch, fed `piece` tokens at a time.
fn logits(decoder: &dyn Inference, tokens: &[Vec<u32>], piece: usize) -> Vec<Vec<Vec<f32>>> {
    let vocab_size = decoder.config().vocab_size;
    let mut caches: Vec<_> = tokens.iter().map(|_| decoder.new_cache()).collect();
    let mut all: Vec<Vec<Vec<f32>>> = tokens.iter().map(|tokens| vec![Vec::new(); tokens.len()]).collect();
    for start in (0..).step_by(piece).take_while(|&start| tokens.iter().any(|tokens| start < tokens.len())) {
        let part = |tokens: &'_ Vec<u32>| start..(start + piece).min(tokens.len());
        let live: Vec<usize> = (0..tokens.len()).filter(|&index| start < tokens[index].len()).collect();
        let mut chunks: Vec<Chunk<'_>> = caches
            .iter_mut()
            .zip(tokens)
            .filter(|(_, tokens)| start < tokens.len())
            .map(|(cache, tokens)| Chunk { cache, tokens: &tokens[part(tokens)] })
            .collect();
        let rows = decoder.extend(&mut chunks).expect("extended");
        for (row, index) in rows.chunks_exact(vocab_size).zip(live) {
            all[index][part(&tokens[index]).end - 1] = row.to_vec();
        }
    }
    all
}

#[test]
fn smollm2_agrees_with_transformers() {
    let Some(path) = fetched(MODEL) else { return };
    let reference = stored("smollm2_reference.json");
    let sequences = reference["sequences"].as_array().expect("a list");
    let (config, weights, tokenizer) = read_gguf(&path).expect("the model");
    let tokens: Vec<Vec<u32>> = sequences.iter().map(|sequence| ids(&sequence["tokens"])).collect();
    for (sequence, tokens) in sequences.iter().zip(&tokens) {
        assert_eq!(tokenizer.encode(sequence["text"].as_str().expect("a text")), *tokens);
    }
    let mut decoder = CpuDecoder::new(config, &weights).expect("a decoder");

    // With a cache token by token, in pieces, and at once; the shorter sequence ends before the longer.
    let some_ids = ids(&reference["ids"]);
    let mut worst = 0.0_f64;
    for piece in [1, 7, 1000] {
        for (sequence, rows) in sequences.iter().zip(logits(&decoder, &tokens, piece)) {
            let expected = sequence["logits"].as_array().expect("a list");
            for (row, expected) in rows.iter().zip(expected).filter(|(row, _)| !row.is_empty()) {
                for (&id, expected) in some_ids.iter().zip(numbers(expected)) {
                    let error = (f64::from(row[id as usize]) - expected).abs() / number(&sequence["largest"]);
                    worst = worst.max(error);
                }
            }
        }
    }
    println!("logits: largest difference {worst:.1e} of the largest logit");
    assert!(worst < 1e-4, "{worst}");

    let targets: Vec<Vec<Target>> = sequences
        .iter()
        .zip(&tokens)
        .map(|(sequence, tokens)| {
            let first = number(&sequence["first"]) as u32;
            (first..tokens.len() as u32).map(|position| Target { position, allowed: None }).collect()
        })
        .collect();
    let batch: Vec<Sequence<'_>> =
        tokens.iter().zip(&targets).map(|(tokens, targets)| Sequence { tokens, targets }).collect();
    let temperature = number(&reference["temperature"]) as f32;
    let scores = decoder.accumulate(&batch, temperature, &Loss(&reference)).expect("accumulated");
    for (sequence, scores) in sequences.iter().zip(&scores) {
        let expected = numbers(&sequence["log_probs"]).into_iter().zip(numbers(&sequence["entropies"]));
        for (score, (log_prob, entropy)) in scores.iter().zip(expected) {
            assert!((f64::from(score.log_prob) - log_prob).abs() < 1e-4, "{score:?}, not {log_prob}");
            assert!((f64::from(score.entropy) - entropy).abs() < 1e-4, "{score:?}, not {entropy}");
        }
    }
    let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
    let values = |tensor: &NamedTensor| digest(tensor.data.iter().map(|&value| f64::from(value)));
    assert_digests(
        "gradients",
        &gradients.iter().map(|tensor| (&*tensor.name, values(tensor))).collect::<Vec<_>>(),
        &reference["gradients"],
        1e-3,
    );

    let of = |name: &str| number(&reference["optimizer"][name]);
    let step = AdamWStep {
        learning_rate: of("learning_rate"),
        beta1: of("beta1"),
        beta2: of("beta2"),
        epsilon: of("epsilon"),
        weight_decay: of("weight_decay"),
        step: 1,
        gradient_scale: 1.0,
        states: OptimizerStates::F32,
    };
    let before = decoder.tensors(TensorKind::Weight).expect("weights");
    decoder.step(&step).expect("stepped");
    let after = decoder.tensors(TensorKind::Weight).expect("weights");
    let changes: Vec<_> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| {
            let change = before.data.iter().zip(&after.data).map(|(a, b)| f64::from(*b) - f64::from(*a));
            (&*before.name, digest(change))
        })
        .collect();
    // Every element moves by nearly the learning rate, so gradients that are little more than rounding count like others.
    assert_digests("changes", &changes, &reference["changes"], 5e-3);
}

fn assert_digests(what: &str, found: &[(&str, [f64; 2])], expected: &Value, tolerance: f64) {
    assert_eq!(found.len(), expected.as_object().expect("an object").len(), "{what}");
    let mut worst = (0.0, "");
    for &(name, [norm, wave]) in found {
        let expected = numbers(&expected[name]);
        let error = (norm - expected[0]).abs().max((wave - expected[1]).abs()) / expected[0];
        if error > worst.0 {
            worst = (error, name);
        }
    }
    println!("{what}: largest difference {:.1e} of a tensor's norm, in {}", worst.0, worst.1);
    assert!(worst.0 < tolerance, "{what}: {worst:?}");
}

/// What opponents `gguf:FILE` may be sampled with.
#[test]
fn quantized_smollm2_is_near_the_widened_one() {
    let Some(path) = fetched(MODEL) else { return };
    let reference = stored("smollm2_reference.json");
    let (quantized, tokenizer) = read_quantized(&path, &Device::Cpu).expect("the model");
    let text = "The capital of France is";
    let rows = logits(&quantized, &[tokenizer.encode(text)], 1000).remove(0);
    let last = rows.last().expect("a row");
    let most = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("an id");
    assert_eq!(tokenizer.decode(&[most as u32]), " Paris");
    let some_ids = ids(&reference["ids"]);
    let sequence = &reference["sequences"][1];
    let rows = logits(&quantized, &[ids(&sequence["tokens"])], 1).remove(0);
    let (mut apart, mut size) = (0.0, 0.0);
    for (row, expected) in rows.iter().zip(sequence["logits"].as_array().expect("a list")) {
        for (&id, expected) in some_ids.iter().zip(numbers(expected)) {
            apart += (f64::from(row[id as usize]) - expected).powi(2);
            size += expected * expected;
        }
    }
    let error = (apart / size).sqrt();
    println!("quantized: logits differ by {error:.1e} of their norm");
    assert!(error < 0.05, "{error}");
}
