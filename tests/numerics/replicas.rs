//! One policy on several devices against the same on one. The devices are CPUs here, and a CUDA device beside itself if there is one:
//! how work is divided and gradients are added up is the same.

use gift_host::config::{Loss, Optimizer};
use gift_host::policy::{
    CandleDecoder, Chunk, CpuDecoder, Decoder, DecoderConfig, HostReduce, Inference, NamedTensor, ReplicatedDecoder,
    TensorKind,
};
use gift_host::seed::Seed;
use gift_host::train::{Batch, BatchItem, Learner, UpdateContext};

use super::adapter::{settings, tensors};
use super::decoder::{
    Data, Linear, STEP, assert_tensors_close, bits, devices, qwen2, qwen3, small, tensor_bits, weights,
};

fn cpu(config: &DecoderConfig) -> CpuDecoder {
    CpuDecoder::new(config.clone(), &weights(config, 1)).expect("the weights fit")
}

fn replicated(config: &DecoderConfig, count: usize) -> ReplicatedDecoder<CpuDecoder> {
    ReplicatedDecoder::new((0..count).map(|_| cpu(config)).collect(), Box::new(HostReduce)).expect("alike")
}

fn gradients(decoder: &dyn Decoder) -> Vec<NamedTensor> {
    decoder.tensors(TensorKind::Gradient).expect("gradients")
}

/// Scores have the same bits, gradients are the same up to the order of sums, and all replicas the same bits after a step.
fn assert_like_one<D: Decoder>(mut many: ReplicatedDecoder<D>, mut one: D, config: &DecoderConfig) {
    let data = Data::new(config, &[50, 1, 9, 22, 31, 14]);
    let sequences = data.sequences();
    let kind = if one.adapter().is_some() { TensorKind::Adapter } else { TensorKind::Weight };
    for step in 1..3 {
        assert_eq!(many.score(&sequences, 1.3).expect("scored"), one.score(&sequences, 1.3).expect("scored"));
        // In two passes, the second one after somebody has looked at the sum of the first.
        for pass in [&sequences[..4], &sequences[4..]] {
            let scores = one.accumulate(pass, 1.3, &Linear).expect("accumulated");
            assert_eq!(many.accumulate(pass, 1.3, &Linear).expect("accumulated"), scores);
            assert_tensors_close(&gradients(&many), &gradients(&one), 1e-5);
            let ratio = many.gradient_norm().expect("a norm") / one.gradient_norm().expect("a norm");
            assert!((ratio - 1.0).abs() < 1e-5, "{ratio}");
        }
        let step = gift_host::policy::AdamWStep { step, epsilon: 1e-3, ..STEP };
        many.step(&step).expect("stepped");
        one.step(&step).expect("stepped");
        assert_tensors_close(&many.tensors(kind).expect("weights"), &one.tensors(kind).expect("weights"), 1e-5);
        for kind in [TensorKind::Weight, TensorKind::Adapter, TensorKind::FirstMoment, TensorKind::SecondMoment] {
            let all = many.each(|replica| tensor_bits(replica, kind));
            assert!(all.iter().all(|bits| *bits == all[0]), "replicas differ in their {kind:?}");
        }
        // Both go on from the same weights.
        for kind in [kind, TensorKind::FirstMoment, TensorKind::SecondMoment] {
            one.set_tensors(kind, &many.tensors(kind).expect("tensors")).expect("they fit");
        }
    }
}

#[test]
fn an_update_on_several_is_that_on_one() {
    for config in [small(), qwen2()] {
        for count in [1, 2, 3, 8] {
            assert_like_one(replicated(&config, count), cpu(&config), &config);
        }
    }
}

#[test]
fn an_update_of_an_adapter_on_several_is_that_on_one() {
    let (config, settings) = (qwen3(), settings(true));
    let tensors = tensors(&config, &settings);
    let decoder = || {
        CpuDecoder::with_adapter(config.clone(), &weights(&config, 1), settings.clone(), &tensors).expect("they fit")
    };
    let many = ReplicatedDecoder::new(vec![decoder(), decoder()], Box::new(HostReduce)).expect("alike");
    assert_like_one(many, decoder(), &config);
}

#[test]
fn an_update_on_tensors_on_several_is_that_on_one() {
    let config = qwen2();
    for device in devices() {
        let dtype = candle_core::DType::F32;
        let decoder =
            || CandleDecoder::new(config.clone(), &weights(&config, 1), device.clone(), dtype).expect("they fit");
        let data = Data::new(&config, &[50, 9, 22]);
        let mut many = ReplicatedDecoder::new(vec![decoder(), decoder()], Box::new(HostReduce)).expect("alike");
        let mut one = decoder();
        many.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
        one.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
        assert_tensors_close(&gradients(&many), &gradients(&one), 1e-5);
    }
}

#[test]
fn sampling_on_several_is_that_on_one() {
    let config = small();
    let (many, one) = (replicated(&config, 3), cpu(&config));
    let tokens: [&[u32]; 5] = [&[1, 2, 3], &[4], &[1, 2], &[9, 8, 7, 6], &[5]];
    let logits = |decoder: &dyn Inference| {
        let mut caches: Vec<_> = tokens.iter().map(|_| decoder.new_cache()).collect();
        let mut all = Vec::new();
        for round in 0..2 {
            // What is cut from a cache goes on where that lies.
            caches[3] = caches[3].prefix(2);
            let mut chunks: Vec<_> =
                caches.iter_mut().zip(tokens).map(|(cache, tokens)| Chunk { cache, tokens }).collect();
            let chunks = &mut chunks[round..];
            all.extend(bits(&decoder.extend(chunks).expect("extended")));
        }
        assert_eq!(caches.iter().map(gift_host::policy::KvCache::len).collect::<Vec<_>>(), [3, 2, 4, 6, 2]);
        all
    };
    assert!(logits(&many) == logits(&one));
    let mut foreign = one.new_cache();
    assert!(many.extend(&mut [Chunk { cache: &mut foreign, tokens: &[1] }]).is_err());
    let mut foreign = many.new_cache();
    assert!(one.extend(&mut [Chunk { cache: &mut foreign, tokens: &[1] }]).is_err());
}

#[test]
fn a_learner_does_not_see_the_difference() {
    let config = small();
    let data = Data::new(&config, &[40, 12, 33, 20]);
    let old: Vec<Vec<f32>> = data.targets.iter().map(|targets| vec![-2.0; targets.len()]).collect();
    let item = |index: usize| BatchItem {
        tokens: &data.tokens[index],
        targets: &data.targets[index],
        old_log_probs: &old[index],
        advantage: [1.0, -0.5, 0.25, -1.0][index],
        truncated: false,
    };
    let batch = Batch { items: (0..4).map(item).collect() };
    let settings = Optimizer { minibatch: 3, max_pass_tokens: 50, warmup_updates: 0, ..Optimizer::default() };
    let context =
        UpdateContext { iteration: 1, iterations: 1, temperature: 1.3, max_pass_tokens: 50, seed: Seed::new(3) };
    let update = |decoder: &mut dyn Decoder| {
        let stats = Learner::new(&Loss::default(), &settings).update(decoder, None, &batch, &context).expect("updated");
        (stats, decoder.tensors(TensorKind::Weight).expect("weights"))
    };
    let (one, expected) = update(&mut cpu(&config));
    let (many, found) = update(&mut replicated(&config, 2));
    assert_eq!((one.updates, one.tokens), (many.updates, many.tokens));
    assert!((one.grad_norm / many.grad_norm - 1.0).abs() < 1e-4 && (one.loss - many.loss).abs() < 1e-4);
    assert_tensors_close(&found, &expected, 1e-4);
}

#[test]
fn replicas_that_differ_are_refused() {
    assert!(ReplicatedDecoder::<CpuDecoder>::new(Vec::new(), Box::new(HostReduce)).is_err());
    assert!(ReplicatedDecoder::new(vec![cpu(&small()), cpu(&qwen3())], Box::new(HostReduce)).is_err());
}
