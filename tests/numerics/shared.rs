//! Sequences that begin with the same tokens, which the CPU decoder computes once: the same bits as one by one where nothing is
//! summed, the same gradients where sums have another order.

use gift_host::policy::{
    AdapterConfig, CpuDecoder, Decoder, DecoderConfig, NamedTensor, Sequence, SequenceLoss, Target, TensorKind,
    TokenGradient, TokenScore,
};
use gift_host::seed::Seed;

use super::adapter::{adapted, settings};
use super::decoder::{
    Data, assert_scores_close, assert_tensors_close, every_decoder, qwen2, qwen3, small, tensor_bits, untied, weights,
};

fn long(config: &DecoderConfig) -> DecoderConfig {
    DecoderConfig { max_positions: 400, ..config.clone() }
}

/// Two groups of five with prompts of their own after common rules, a sequence that has only the rules in common and one that
/// has nothing; answers of several lengths, some long enough to go through the layers in parts; turns with targets apart.
fn episodes(config: &DecoderConfig) -> Data {
    let mut stream = Seed::new(4).stream();
    let mut random =
        |length: usize| -> Vec<u32> { (0..length).map(|_| stream.index(config.vocab_size) as u32).collect() };
    let rules = random(45);
    let prompts = [random(50), random(37)];
    let mut data = Data { tokens: Vec::new(), targets: Vec::new() };
    let mut add = |prompt: Vec<u32>, own: Vec<u32>| {
        let first = prompt.len();
        let tokens = [prompt, own].concat();
        let target = |position: usize| {
            let token = tokens[position];
            let allowed = position.is_multiple_of(3).then(|| [token.min(3), token.max(4)].into());
            Target { position: position as u32, allowed }
        };
        data.targets.push((first..tokens.len()).filter(|position| (position - first) % 9 < 5).map(target).collect());
        data.tokens.push(tokens);
    };
    for member in 0..5 {
        for prompt in &prompts {
            add([&rules[..], prompt].concat(), random(4 + 61 * (member % 3)));
        }
    }
    add(rules, random(20));
    add(random(30), random(12));
    data
}

/// [`super::decoder::Linear`] would give every sequence a gradient; a group whose episodes are all alike has none.
struct SomeWithout;

impl SequenceLoss for SomeWithout {
    fn gradient(&self, index: usize, scores: &[TokenScore], out: &mut [TokenGradient]) {
        if index % 4 == 1 {
            return;
        }
        for ((target, score), out) in scores.iter().enumerate().zip(out) {
            let turn = (index * 31 + target * 7) as f32;
            *out = TokenGradient { log_prob: turn.sin() * score.log_prob.exp(), entropy: 0.5 * (2.0 * turn).cos() };
        }
    }
}

/// The loss of one sequence of a call.
struct Only(usize);

impl SequenceLoss for Only {
    fn gradient(&self, _index: usize, scores: &[TokenScore], out: &mut [TokenGradient]) {
        SomeWithout.gradient(self.0, scores, out);
    }
}

/// Scores and gradients with one call for each sequence, which then shares nothing.
fn one_by_one(decoder: &mut dyn Decoder, sequences: &[Sequence<'_>]) -> (Vec<Vec<TokenScore>>, Vec<NamedTensor>) {
    let mut scores = Vec::new();
    for (index, &sequence) in sequences.iter().enumerate() {
        scores.extend(decoder.accumulate(&[sequence], 1.3, &Only(index)).expect("accumulated"));
    }
    let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
    decoder.clear_gradients().expect("cleared");
    (scores, gradients)
}

fn assert_shared_equals_alone(decoders: Vec<Box<dyn Decoder>>, data: &Data) {
    let sequences = data.sequences();
    let mut expected = None;
    for mut decoder in decoders {
        let (scores, gradients) = one_by_one(decoder.as_mut(), &sequences);
        let together = decoder.accumulate(&sequences, 1.3, &SomeWithout).expect("accumulated");
        if expected.is_none() {
            // The CPU decoder: a row has the same bits whatever shares its pass.
            assert_eq!(together, scores);
            assert_eq!(decoder.score(&sequences, 1.3).expect("scored"), scores);
        }
        assert_tensors_close(&decoder.tensors(TensorKind::Gradient).expect("gradients"), &gradients, 2e-6);
        let (expected_scores, expected_gradients) = expected.get_or_insert((scores, gradients));
        assert_scores_close(&together, expected_scores, 1e-5);
        assert_tensors_close(&decoder.tensors(TensorKind::Gradient).expect("gradients"), expected_gradients, 1e-5);
    }
}

#[test]
fn what_is_shared_gets_the_gradients_of_all_that_follows() {
    for config in [small(), untied(), qwen2(), qwen3()].iter().map(long) {
        assert_shared_equals_alone(every_decoder(&config, &weights(&config, 1)), &episodes(&config));
    }
}

#[test]
fn what_is_shared_gets_the_gradients_of_all_that_follows_with_an_adapter() {
    for (config, dora) in [(long(&small()), false), (long(&qwen3()), true)] {
        assert_shared_equals_alone(adapted(&config, &settings(dora)), &episodes(&config));
    }
}

/// What is left out of a row depends on the tokens up to it, so rows that are shared lose what they would lose alone.
#[test]
fn what_is_shared_leaves_out_the_same() {
    let config = long(&small());
    let settings = AdapterConfig { dropout: 0.2, ..settings(true) };
    let data = episodes(&config);
    for mut decoder in adapted(&config, &settings) {
        decoder.draw_dropout(9);
        let (scores, gradients) = one_by_one(decoder.as_mut(), &data.sequences());
        let together = decoder.accumulate(&data.sequences(), 1.3, &SomeWithout).expect("accumulated");
        assert_scores_close(&together, &scores, 1e-5);
        assert_tensors_close(&decoder.tensors(TensorKind::Gradient).expect("gradients"), &gradients, 1e-5);
    }
}

/// What is computed again in the backward pass is what the forward pass had.
#[test]
fn gradient_checkpointing_changes_no_bit() {
    for (config, dropout) in [(small(), 0.0), (qwen2(), 0.0), (qwen3(), 0.2)] {
        let config = long(&config);
        let data = episodes(&config);
        let gradients = |mut decoder: Box<dyn Decoder>, is_on| {
            decoder.set_gradient_checkpointing(is_on);
            decoder.draw_dropout(2);
            let scores = decoder.accumulate(&data.sequences(), 1.3, &SomeWithout).expect("accumulated");
            (scores, tensor_bits(decoder.as_ref(), TensorKind::Gradient))
        };
        let adapter = AdapterConfig { dropout, ..settings(true) };
        let all = || every_decoder(&config, &weights(&config, 1)).into_iter().chain(adapted(&config, &adapter));
        for (index, (one, other)) in all().zip(all()).enumerate() {
            assert!(gradients(one, true) == gradients(other, false), "decoder {index}");
        }
    }
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let config = long(&small());
    let data = episodes(&config);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut decoder = CpuDecoder::new(config.clone(), &weights(&config, 1)).expect("a decoder");
            decoder.accumulate(&data.sequences(), 1.0, &SomeWithout).expect("accumulated");
            tensor_bits(&decoder, TensorKind::Gradient)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}
