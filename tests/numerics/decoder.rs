//! Both decoders against each other, against finite differences and against plain loops; cached decoding
//! against scoring; the same bytes for any number of threads. The candle decoder also runs on a CUDA device if the build and
//! the machine have one.

use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device};
use gift_host::config::OptimizerStates;
use gift_host::policy::{
    AdamWStep, AdapterConfig, CandleDecoder, Chunk, CpuDecoder, Decoder, DecoderConfig, Error, Family, Inference as _,
    NamedTensor, RopeScaling, Sequence, SequenceLoss, Target, TensorKind, TokenGradient, TokenScore, initial_weights,
    open_cuda,
};
use gift_host::seed::Seed;

/// Head width below and intermediate width beside the vector width of the CPU kernels, grouped queries, tied embeddings.
pub(super) fn small() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 67,
        hidden_size: 24,
        intermediate_size: 52,
        layer_count: 2,
        head_count: 4,
        kv_head_count: 2,
        head_dim: 8,
        max_positions: 100,
        ..DecoderConfig::tiny(67)
    }
}

/// A head for each query, heads wider than the vector width, a projection of its own at the end.
pub(super) fn untied() -> DecoderConfig {
    DecoderConfig { head_count: 2, kv_head_count: 2, head_dim: 20, tied_embeddings: false, ..small() }
}

/// Biases on queries, keys and values.
pub(super) fn qwen2() -> DecoderConfig {
    DecoderConfig { family: Family::Qwen2, ..small() }
}

/// Normalized heads, and rotary frequencies of which some are stretched.
pub(super) fn qwen3() -> DecoderConfig {
    let rope_scaling = RopeScaling::Llama3 {
        factor: 4.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 3.0,
        original_positions: 24.0,
    };
    DecoderConfig { family: Family::Qwen3, rope_scaling, ..untied() }
}

/// Weights far enough from zero that attention, gates and entropies are far from uniform.
pub(super) fn weights(config: &DecoderConfig, seed: u64) -> Vec<NamedTensor> {
    let mut weights = initial_weights(config, Seed::new(seed));
    for (index, tensor) in weights.iter_mut().enumerate() {
        let mut stream = Seed::new(seed).child("test", index as u64).stream();
        let ends_in_stream = tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight");
        let (mean, deviation) = match (tensor.shape.len(), ends_in_stream) {
            (1, _) if tensor.name.ends_with("_proj.bias") => (0.0, 0.3),
            (1, _) => (1.0, 0.2),
            (_, true) => (0.0, 0.12),
            (_, false) => (0.0, 0.24),
        };
        tensor.data.iter_mut().for_each(|value| *value = mean + deviation * stream.normal() as f32);
    }
    weights
}

fn cpu(config: &DecoderConfig) -> CpuDecoder {
    CpuDecoder::new(config.clone(), &weights(config, 1)).expect("the weights fit")
}

/// Whether there must be a CUDA device: `GIFT_TEST_DEVICE=cuda` (`scripts/bench/gpu.sh`). The emulator, which needs a C++
/// compiler and time, then rests.
pub(super) fn must_have_device() -> bool {
    std::env::var_os("GIFT_TEST_DEVICE").is_some_and(|device| device == "cuda")
}

/// The CPU, and the first CUDA device if there is one.
pub(super) fn devices() -> Vec<Device> {
    // A build without CUDA, and a machine without a device, refuse. All tests share one, as kernels are compiled for each.
    static DEVICE: LazyLock<Result<Device, Error>> = LazyLock::new(|| open_cuda(0));
    let device = DEVICE.as_ref();
    assert!(device.is_ok() || !must_have_device(), "`GIFT_TEST_DEVICE` asks for a device: {device:?}");
    [Device::Cpu].into_iter().chain(device.ok().cloned()).collect()
}

pub(super) fn every_decoder(config: &DecoderConfig, weights: &[NamedTensor]) -> Vec<Box<dyn Decoder>> {
    let cpu: Box<dyn Decoder> = Box::new(CpuDecoder::new(config.clone(), weights).expect("the weights fit"));
    let candle = devices().into_iter().map(|device| -> Box<dyn Decoder> {
        Box::new(CandleDecoder::new(config.clone(), weights, device, DType::F32).expect("the weights fit"))
    });
    [cpu].into_iter().chain(candle).collect()
}

/// As [`every_decoder`], with an adapter.
pub(super) fn every_adapted_decoder(
    config: &DecoderConfig,
    weights: &[NamedTensor],
    adapter: &AdapterConfig,
    tensors: &[NamedTensor],
) -> Vec<Box<dyn Decoder>> {
    let cpu: Box<dyn Decoder> =
        Box::new(CpuDecoder::with_adapter(config.clone(), weights, adapter.clone(), tensors).expect("the tensors fit"));
    let candle = devices().into_iter().map(|device| -> Box<dyn Decoder> {
        let adapter = (adapter.clone(), tensors);
        let decoder = CandleDecoder::with_adapter(config.clone(), weights, adapter, device, DType::F32);
        Box::new(decoder.expect("the tensors fit"))
    });
    [cpu].into_iter().chain(candle).collect()
}

/// Sequences with targets of all kinds: free, among few ids, among many ids, next to each other and apart.
pub(super) struct Data {
    pub(super) tokens: Vec<Vec<u32>>,
    pub(super) targets: Vec<Vec<Target>>,
}

impl Data {
    pub(super) fn new(config: &DecoderConfig, lengths: &[usize]) -> Self {
        let mut stream = Seed::new(9).stream();
        let vocab_size = config.vocab_size as u32;
        let (mut tokens, mut targets) = (Vec::new(), Vec::new());
        for &length in lengths {
            let sequence: Vec<u32> = (0..length).map(|_| stream.index(config.vocab_size) as u32).collect();
            let target = |position: usize| {
                let token = sequence[position];
                let among = |step: u32| -> Option<Arc<[u32]>> {
                    Some((0..vocab_size).filter(|id| id % step == token % step).collect())
                };
                let allowed = [None, among(20), among(2), None][position % 4].clone();
                Target { position: position as u32, allowed }
            };
            targets
                .push((length / 4..length).filter(|&position| position > 0 && position % 7 != 3).map(target).collect());
            tokens.push(sequence);
        }
        Self { tokens, targets }
    }

    pub(super) fn sequences(&self) -> Vec<Sequence<'_>> {
        self.tokens.iter().zip(&self.targets).map(|(tokens, targets)| Sequence { tokens, targets }).collect()
    }
}

/// `sum over targets of a log_prob + b entropy` with coefficients that differ from target to target.
pub(super) struct Linear;

impl Linear {
    fn coefficients(sequence: usize, target: usize) -> TokenGradient {
        let turn = (sequence * 31 + target * 7) as f32;
        TokenGradient { log_prob: turn.sin(), entropy: 0.5 * (2.0 * turn).cos() }
    }

    pub(super) fn value(scores: &[Vec<TokenScore>]) -> f64 {
        let mut sum = 0.0;
        for (sequence, scores) in scores.iter().enumerate() {
            for (target, score) in scores.iter().enumerate() {
                let factor = Self::coefficients(sequence, target);
                sum += f64::from(factor.log_prob) * f64::from(score.log_prob);
                sum += f64::from(factor.entropy) * f64::from(score.entropy);
            }
        }
        sum
    }
}

impl SequenceLoss for Linear {
    fn gradient(&self, index: usize, _scores: &[TokenScore], out: &mut [TokenGradient]) {
        for (target, out) in out.iter_mut().enumerate() {
            *out = Self::coefficients(index, target);
        }
    }
}

pub(super) const STEP: AdamWStep = AdamWStep {
    learning_rate: 0.01,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 1.0,
    states: OptimizerStates::F32,
};

pub(super) fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Each tensor differs from the expected one by less than `tolerance` of its norm.
pub(super) fn assert_tensors_close(found: &[NamedTensor], expected: &[NamedTensor], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((&found.name, &found.shape), (&expected.name, &expected.shape));
        let pairs = found.data.iter().zip(&expected.data);
        let error = norm(pairs.map(|(&a, &b)| f64::from(a) - f64::from(b)));
        let size = norm(expected.data.iter().map(|&value| f64::from(value)));
        assert!(error <= tolerance * size, "`{}`: {error} of {size}", found.name);
    }
}

pub(super) fn assert_scores_close(found: &[Vec<TokenScore>], expected: &[Vec<TokenScore>], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let close = |a: f32, b: f32| (a - b).abs() <= tolerance * (1.0 + b.abs());
            assert!(
                close(found.log_prob, expected.log_prob) && close(found.entropy, expected.entropy),
                "{found:?} is not {expected:?}"
            );
        }
    }
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

pub(super) fn tensor_bits(decoder: &dyn Decoder, kind: TensorKind) -> Vec<Vec<u32>> {
    decoder.tensors(kind).expect("tensors").iter().map(|tensor| bits(&tensor.data)).collect()
}

/// Logits after the last token of each sequence, each fed in pieces that end at these multiples.
pub(super) fn logits_in_pieces(decoder: &dyn Decoder, tokens: &[Vec<u32>], piece: usize) -> Vec<f32> {
    let mut caches: Vec<_> = tokens.iter().map(|_| decoder.new_cache()).collect();
    let mut logits = vec![Vec::new(); tokens.len()];
    let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
    for start in (0..longest).step_by(piece) {
        let (mut chunks, mut places) = (Vec::new(), Vec::new());
        for (index, (tokens, cache)) in tokens.iter().zip(&mut caches).enumerate() {
            if start < tokens.len() {
                chunks.push(Chunk { cache, tokens: &tokens[start..(start + piece).min(tokens.len())] });
                places.push(index);
            }
        }
        let found = decoder.extend(&mut chunks).expect("extended");
        for (place, row) in places.into_iter().zip(found.chunks_exact(decoder.config().vocab_size)) {
            logits[place] = row.to_vec();
        }
    }
    for (tokens, cache) in tokens.iter().zip(&caches) {
        assert_eq!(cache.len(), tokens.len());
    }
    logits.concat()
}

/// One by one, in pieces, at once and alone: on the CPU the bits are the same, so a sampled token's log-probability is
/// exactly the one that scoring gives it later.
#[test]
fn cached_logits_are_those_of_the_whole_sequence() {
    for config in [small(), untied(), qwen2(), qwen3()] {
        let data = Data::new(&config, &[1, 90, 5, 17, 33, 64]);
        for (index, decoder) in every_decoder(&config, &weights(&config, 1)).iter().enumerate() {
            let whole = logits_in_pieces(&**decoder, &data.tokens, 100);
            let alone: Vec<f32> = data
                .tokens
                .iter()
                .flat_map(|one| logits_in_pieces(&**decoder, std::slice::from_ref(one), 100))
                .collect();
            for other in
                [logits_in_pieces(&**decoder, &data.tokens, 1), logits_in_pieces(&**decoder, &data.tokens, 13), alone]
            {
                if index == 0 {
                    assert_eq!(bits(&other), bits(&whole));
                }
                // Logits are up to 10: sums of a few dozen terms in f32.
                assert!(other.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 2e-5));
            }
        }
    }
}

/// The definition, in `f64` from the logits that sampling saw.
#[test]
fn scores_are_those_of_the_sampled_distribution() {
    let config = small();
    let data = Data::new(&config, &[40]);
    for decoder in every_decoder(&config, &weights(&config, 1)) {
        let temperature = 0.7;
        let scores = &decoder.score(&data.sequences(), temperature).expect("scored")[0];
        for (target, score) in data.targets[0].iter().zip(scores) {
            let position = target.position as usize;
            let logits = logits_in_pieces(&*decoder, &[data.tokens[0][..position].to_vec()], 100);
            let scaled = |id: u32| f64::from(logits[id as usize]) / f64::from(temperature);
            let all: Vec<u32> = (0..config.vocab_size as u32).collect();
            let allowed = target.allowed.as_deref().unwrap_or(&all);
            let log_sum = allowed.iter().map(|&id| scaled(id).exp()).sum::<f64>().ln();
            let log_prob = scaled(data.tokens[0][position]) - log_sum;
            let entropy: f64 = allowed.iter().map(|&id| scaled(id) - log_sum).map(|value| -value.exp() * value).sum();
            assert!((f64::from(score.log_prob) - log_prob).abs() < 1e-5, "{score:?}, not {log_prob}");
            assert!((f64::from(score.entropy) - entropy).abs() < 1e-5, "{score:?}, not {entropy}");
        }
    }
}

/// Large enough that products, sequences and optimizer are all divided over threads.
#[test]
fn results_are_the_same_bytes_for_any_number_of_threads() {
    let config = DecoderConfig {
        hidden_size: 256,
        intermediate_size: 1024,
        layer_count: 1,
        head_count: 4,
        kv_head_count: 2,
        head_dim: 64,
        vocab_size: 700,
        ..DecoderConfig::tiny(700)
    };
    let data = Data::new(&config, &[220, 60, 3, 110, 45]);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut decoder = cpu(&config);
            let logits = logits_in_pieces(&decoder, &data.tokens, 128);
            for _ in 0..2 {
                decoder.accumulate(&data.sequences(), 1.0, &Linear).expect("accumulated");
            }
            let gradients = tensor_bits(&decoder, TensorKind::Gradient);
            let norm = decoder.gradient_norm().expect("a norm").to_bits();
            decoder.step(&STEP).expect("stepped");
            (bits(&logits), gradients, norm, tensor_bits(&decoder, TensorKind::Weight))
        })
    };
    let one = run(1);
    assert!(one == run(2), "two threads differ from one");
    assert!(one == run(3), "three threads differ from one");
}

/// The largest gradients of every parameter against central differences. In `f32` the sum over 60 targets is good to about
/// 1e-5, so a difference over 2 * 0.004 is good to about 2e-3.
#[test]
fn gradients_match_finite_differences() {
    for config in [small(), untied(), qwen2(), qwen3()] {
        let data = Data::new(&config, &[30, 9, 22]);
        let mut decoder = cpu(&config);
        let start = decoder.tensors(TensorKind::Weight).expect("weights");
        decoder.accumulate(&data.sequences(), 0.9, &Linear).expect("accumulated");
        let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
        for (index, gradient) in gradients.iter().enumerate() {
            let mut order: Vec<usize> = (0..gradient.data.len()).collect();
            order.sort_by(|&a, &b| gradient.data[b].abs().total_cmp(&gradient.data[a].abs()));
            for &element in order.iter().take(3).chain(order.get(order.len() / 2)) {
                let mut value_at = |step: f32| {
                    let mut weights = start.clone();
                    weights[index].data[element] += step;
                    decoder.set_tensors(TensorKind::Weight, &weights).expect("the weights fit");
                    Linear::value(&decoder.score(&data.sequences(), 0.9).expect("scored"))
                };
                let difference = (value_at(0.004) - value_at(-0.004)) / 0.008;
                let found = f64::from(gradient.data[element]);
                let tolerance = 4e-3 + 5e-3 * difference.abs();
                assert!((found - difference).abs() < tolerance, "`{}`: {found}, not {difference}", gradient.name);
            }
        }
    }
}

/// A product or a norm without backward would leave layers untrained, and nothing else would show it.
#[test]
fn every_parameter_gets_a_gradient() {
    for config in [small(), untied(), qwen2(), qwen3()] {
        let data = Data::new(&config, &[30]);
        for mut decoder in every_decoder(&config, &weights(&config, 1)) {
            decoder.accumulate(&data.sequences(), 1.0, &Linear).expect("accumulated");
            let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
            let names: Vec<_> = gradients.iter().map(|tensor| tensor.name.clone()).collect();
            let mut expected: Vec<_> = config.parameters().into_iter().map(|(name, _)| name).collect();
            expected.sort();
            assert_eq!(names, expected);
            let size = |tensor: &NamedTensor| norm(tensor.data.iter().map(|&value| f64::from(value)));
            let cut: Vec<_> = gradients.iter().filter(|tensor| size(tensor) < 1e-3).collect();
            assert!(cut.is_empty(), "no gradient reaches {cut:?}");
            let total = norm(gradients.iter().map(size));
            assert!((decoder.gradient_norm().expect("a norm") / total - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn the_two_decoders_agree_on_scores_gradients_and_steps() {
    for config in [small(), untied(), qwen2(), qwen3()] {
        let data = Data::new(&config, &[50, 1, 9, 22]);
        let mut decoders = every_decoder(&config, &weights(&config, 1));
        let mut results = decoders.iter_mut().map(|decoder| {
            let scores = decoder.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
            assert_scores_close(&decoder.score(&data.sequences(), 1.3).expect("scored"), &scores, 1e-6);
            let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
            decoder.step(&AdamWStep { epsilon: 1e-3, ..STEP }).expect("stepped");
            assert!(decoder.gradient_norm().expect("a norm") < f64::MIN_POSITIVE, "a step forgets the gradients");
            (scores, gradients, decoder.tensors(TensorKind::Weight).expect("weights"))
        });
        let (scores, gradients, stepped) = results.next().expect("the CPU decoder");
        for (other_scores, other_gradients, other_stepped) in results {
            assert_scores_close(&other_scores, &scores, 1e-5);
            assert_tensors_close(&other_gradients, &gradients, 1e-5);
            assert_tensors_close(&other_stepped, &stepped, 1e-5);
        }
    }
}

/// AdamW in `f64`, three steps with made-up gradients; vectors do not decay.
#[test]
fn steps_match_a_plain_loop() {
    let config = small();
    let start = weights(&config, 1);
    for mut decoder in every_decoder(&config, &start) {
        let mut expected = decoder.tensors(TensorKind::Weight).expect("weights");
        let mut moments: Vec<Vec<[f64; 2]>> = expected.iter().map(|tensor| vec![[0.0; 2]; tensor.data.len()]).collect();
        for step in 1..=3 {
            let settings = AdamWStep { step, gradient_scale: 0.5, ..STEP };
            let gradients = weights(&config, 10 + step);
            decoder.set_tensors(TensorKind::Gradient, &gradients).expect("the gradients fit");
            let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
            decoder.step(&settings).expect("stepped");
            for ((tensor, moments), gradient) in expected.iter_mut().zip(&mut moments).zip(&gradients) {
                let decay = if tensor.shape.len() == 2 { settings.weight_decay } else { 0.0 };
                for ((weight, [m, v]), &gradient) in tensor.data.iter_mut().zip(moments).zip(&gradient.data) {
                    let gradient = f64::from(gradient) * settings.gradient_scale;
                    *m = settings.beta1 * *m + (1.0 - settings.beta1) * gradient;
                    *v = settings.beta2 * *v + (1.0 - settings.beta2) * gradient * gradient;
                    let corrected = *m / (1.0 - settings.beta1.powi(step as i32));
                    let root = (*v / (1.0 - settings.beta2.powi(step as i32))).sqrt() + settings.epsilon;
                    let kept = f64::from(*weight) * (1.0 - settings.learning_rate * decay);
                    *weight = (kept - settings.learning_rate * corrected / root) as f32;
                }
            }
            assert_tensors_close(&decoder.tensors(TensorKind::Weight).expect("weights"), &expected, 1e-6);
        }
    }
}

/// Weights and moments carried to a fresh decoder give the same next update, to the bit on the CPU.
#[test]
fn a_restored_decoder_takes_the_same_next_step() {
    let config = small();
    let data = Data::new(&config, &[30, 12]);
    let update = |decoder: &mut dyn Decoder, step: u64| {
        decoder.accumulate(&data.sequences(), 1.0, &Linear).expect("accumulated");
        decoder.step(&AdamWStep { step, ..STEP }).expect("stepped");
    };
    let fresh = every_decoder(&config, &weights(&config, 2));
    for (mut first, mut second) in every_decoder(&config, &weights(&config, 1)).into_iter().zip(fresh) {
        update(&mut *first, 1);
        for kind in [TensorKind::Weight, TensorKind::FirstMoment, TensorKind::SecondMoment] {
            second.set_tensors(kind, &first.tensors(kind).expect("tensors")).expect("the tensors fit");
        }
        update(&mut *first, 2);
        update(&mut *second, 2);
        assert_eq!(tensor_bits(&*first, TensorKind::Weight), tensor_bits(&*second, TensorKind::Weight));
    }
}

/// Whatever is refused changes nothing: not the cache, not the weights.
#[test]
fn inputs_that_do_not_fit_are_refused() {
    let config = small();
    for mut decoder in every_decoder(&config, &weights(&config, 1)) {
        let long = vec![0; 101];
        let mut cache = decoder.new_cache();
        decoder.extend(&mut [Chunk { cache: &mut cache, tokens: &[1, 2] }]).expect("extended");
        for tokens in [&[][..], &[67], &long] {
            let mut good = decoder.new_cache();
            let mut chunks = [Chunk { cache: &mut good, tokens: &[1] }, Chunk { cache: &mut cache, tokens }];
            assert!(matches!(decoder.extend(&mut chunks), Err(Error::Shape { .. })));
            assert_eq!((good.len(), cache.len()), (0, 2));
        }
        let target = |position, allowed: Option<&[u32]>| Target { position, allowed: allowed.map(Arc::from) };
        let refused: [&[Target]; 7] = [
            &[target(0, None)],
            &[target(3, None)],
            &[target(2, None), target(1, None)],
            &[target(1, None), target(1, None)],
            &[target(1, Some(&[1, 3]))],
            &[target(1, Some(&[3, 2]))],
            &[target(1, Some(&[2, 67]))],
        ];
        for targets in refused {
            let sequence = Sequence { tokens: &[1, 2, 3], targets };
            assert!(matches!(decoder.score(&[sequence], 1.0), Err(Error::Shape { .. })), "{targets:?}");
        }
        for temperature in [0.0, -1.0, f32::NAN] {
            assert!(matches!(decoder.accumulate(&[], temperature, &Linear), Err(Error::Shape { .. })));
        }
        let before = tensor_bits(&*decoder, TensorKind::Weight);
        let mut tensors = weights(&config, 3);
        tensors[3].shape.reverse();
        assert!(matches!(decoder.set_tensors(TensorKind::Weight, &tensors), Err(Error::Shape { .. })));
        tensors.remove(3);
        assert!(matches!(decoder.set_tensors(TensorKind::Weight, &tensors), Err(Error::Shape { .. })));
        assert_eq!(tensor_bits(&*decoder, TensorKind::Weight), before);
        assert_eq!(decoder.extend(&mut []).expect("nothing"), Vec::<f32>::new());
    }
}

/// A cache holds keys of one model; in another it would be silent nonsense.
#[test]
fn a_cache_of_another_backend_or_shape_is_refused() {
    let decoders = every_decoder(&small(), &weights(&small(), 1));
    let mut of_candle = decoders[1].new_cache();
    let mut of_other_shape = cpu(&untied()).new_cache();
    for cache in [&mut of_candle, &mut of_other_shape] {
        let result = decoders[0].extend(&mut [Chunk { cache, tokens: &[1] }]);
        assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    }
}
