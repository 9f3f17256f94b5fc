//! Low-rank adapters in both decoders: against finite differences and against each other; sampling with the
//! weights that training just changed; frozen weights that stay.

use gift_host::policy::{
    AdamWStep, AdapterConfig, CpuDecoder, Decoder, DecoderConfig, Error, NamedTensor, Projection, SequenceLoss,
    TensorKind, TokenGradient, TokenScore,
};
use gift_host::seed::Seed;

use super::decoder::{
    Data, Linear, STEP, assert_scores_close, assert_tensors_close, every_adapted_decoder, logits_in_pieces, norm,
    qwen2, qwen3, small, tensor_bits, untied, weights,
};

pub(super) fn settings(dora: bool) -> AdapterConfig {
    let targets = vec![Projection::Query, Projection::Value, Projection::Output, Projection::Gate, Projection::Down];
    AdapterConfig { rank: 3, alpha: 6.0, targets, dora, root_scaling: false, dropout: 0.0 }
}

/// An adapter that has been trained: no `B` is zero any more.
pub(super) fn tensors(config: &DecoderConfig, settings: &AdapterConfig) -> Vec<NamedTensor> {
    let mut tensors = settings.initial(config, &weights(config, 1), Seed::new(5)).expect("it fits");
    let mut stream = Seed::new(6).stream();
    tensors.iter_mut().flat_map(|tensor| &mut tensor.data).for_each(|value| *value += 0.1 * stream.normal() as f32);
    tensors
}

pub(super) fn adapted(config: &DecoderConfig, settings: &AdapterConfig) -> Vec<Box<dyn Decoder>> {
    every_adapted_decoder(config, &weights(config, 1), settings, &tensors(config, settings))
}

/// A loss that is always 0, to see the scores of a training pass.
struct Nothing;

impl SequenceLoss for Nothing {
    fn gradient(&self, _: usize, _: &[TokenScore], _: &mut [TokenGradient]) {}
}

/// `dL/dW'` with `L = sum of Linear` by central differences, of the largest gradient of every tensor. Lengths of rows count as
/// constant in the definition of the method, which differences cannot do, so only plain adapters are compared so. With dropout
/// the same inputs are left out each time.
#[test]
fn gradients_match_finite_differences() {
    for (config, dropout) in [(small(), 0.0), (qwen2(), 0.0), (qwen3(), 0.0), (small(), 0.3), (qwen3(), 0.3)] {
        let settings = AdapterConfig { dropout, ..settings(false) };
        let data = Data::new(&config, &[30, 8]);
        for mut decoder in adapted(&config, &settings) {
            decoder.draw_dropout(7);
            decoder.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
            let start = decoder.tensors(TensorKind::Adapter).expect("tensors");
            for (index, gradient) in decoder.tensors(TensorKind::Gradient).expect("gradients").iter().enumerate() {
                let (at, &largest) =
                    gradient.data.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).expect("values");
                let mut value = |step: f32| {
                    let mut moved = start.clone();
                    moved[index].data[at] += step;
                    decoder.set_tensors(TensorKind::Adapter, &moved).expect("it fits");
                    Linear::value(&decoder.accumulate(&data.sequences(), 1.3, &Nothing).expect("scored"))
                };
                let difference = (value(1e-2) - value(-1e-2)) / 2e-2;
                let error = (f64::from(largest) - difference).abs();
                assert!(error < 0.01 * difference.abs() + 1e-3, "{}: {largest}, not {difference}", gradient.name);
            }
        }
    }
}

#[test]
fn the_two_decoders_agree_with_an_adapter() {
    for (config, dora) in [(small(), false), (untied(), true), (qwen2(), true), (qwen3(), false)] {
        let settings = settings(dora);
        let data = Data::new(&config, &[50, 1, 9, 22]);
        let mut results = adapted(&config, &settings).into_iter().map(|mut decoder| {
            let scores = decoder.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
            let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
            decoder.step(&AdamWStep { epsilon: 1e-3, ..STEP }).expect("stepped");
            let after = decoder.score(&data.sequences(), 1.3).expect("scored");
            (scores, gradients, decoder.tensors(TensorKind::Adapter).expect("tensors"), after)
        });
        let (scores, gradients, stepped, after) = results.next().expect("the CPU decoder");
        for (other_scores, other_gradients, other_stepped, other_after) in results {
            assert_scores_close(&other_scores, &scores, 1e-5);
            assert_tensors_close(&other_gradients, &gradients, 1e-5);
            assert_tensors_close(&other_stepped, &stepped, 1e-5);
            assert_scores_close(&other_after, &after, 1e-4);
        }
    }
}

/// Both leave out the same inputs, whatever goes through the layers together; scores that are not trained on know of none.
#[test]
fn the_two_decoders_leave_out_the_same() {
    for (config, dora) in [(small(), false), (untied(), true), (qwen2(), true)] {
        let settings = AdapterConfig { dropout: 0.2, ..settings(dora) };
        let data = Data::new(&config, &[50, 1, 9, 22]);
        let mut results = adapted(&config, &settings).into_iter().map(|mut decoder| {
            let plain = decoder.score(&data.sequences(), 1.3).expect("scored");
            decoder.draw_dropout(3);
            let scores = decoder.accumulate(&data.sequences(), 1.3, &Linear).expect("accumulated");
            let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
            assert_eq!(decoder.score(&data.sequences(), 1.3).expect("scored"), plain);
            let alone = decoder.accumulate(&data.sequences()[3..], 1.3, &Nothing).expect("accumulated");
            assert_scores_close(&alone, &scores[3..], 1e-5);
            decoder.draw_dropout(4);
            let other = decoder.accumulate(&data.sequences(), 1.3, &Nothing).expect("accumulated");
            assert!(other != scores && scores != plain, "nothing is left out");
            (scores, gradients)
        });
        let (scores, gradients) = results.next().expect("the CPU decoder");
        for (other_scores, other_gradients) in results {
            assert_scores_close(&other_scores, &scores, 1e-5);
            assert_tensors_close(&other_gradients, &gradients, 1e-5);
        }
    }
}

/// Every tensor of the adapter is trained, nothing else is, and the next token comes from the new weights at once.
#[test]
fn the_adapter_alone_is_trained_and_sampled_with() {
    let config = qwen2();
    for settings in [settings(false), settings(true)] {
        let data = Data::new(&config, &[30, 12]);
        for mut decoder in adapted(&config, &settings) {
            let frozen = tensor_bits(&*decoder, TensorKind::Weight);
            let before = decoder.tensors(TensorKind::Adapter).expect("tensors");
            let logits = logits_in_pieces(&*decoder, &data.tokens, 100);
            decoder.accumulate(&data.sequences(), 1.0, &Linear).expect("accumulated");
            let gradients = decoder.tensors(TensorKind::Gradient).expect("gradients");
            let names: Vec<_> = gradients.iter().map(|tensor| tensor.name.clone()).collect();
            let mut expected: Vec<_> = settings.parameters(&config).into_iter().map(|(name, _)| name).collect();
            expected.sort();
            assert_eq!(names, expected);
            let size = |tensor: &NamedTensor| norm(tensor.data.iter().map(|&value| f64::from(value)));
            let cut: Vec<_> = gradients.iter().filter(|tensor| size(tensor) < 1e-4).collect();
            assert!(cut.is_empty(), "no gradient reaches {cut:?}");
            decoder.step(&STEP).expect("stepped");
            assert_eq!(tensor_bits(&*decoder, TensorKind::Weight), frozen);
            let after = decoder.tensors(TensorKind::Adapter).expect("tensors");
            assert!(before.iter().zip(&after).all(|(before, after)| before.data != after.data));
            assert_ne!(logits_in_pieces(&*decoder, &data.tokens, 100), logits);
            // A decoder whose weights are the merged ones says the same; on the CPU to the bit.
            let merged = CpuDecoder::new(config.clone(), &decoder.merged_weights().expect("weights")).expect("it fits");
            let (ours, theirs) = (
                decoder.score(&data.sequences(), 1.0).expect("scored"),
                merged.score(&data.sequences(), 1.0).expect("scored"),
            );
            assert_scores_close(&ours, &theirs, 1e-4);
        }
        let cpu = adapted(&config, &settings).remove(0);
        let merged = CpuDecoder::new(config.clone(), &cpu.merged_weights().expect("weights")).expect("it fits");
        assert_eq!(
            cpu.score(&data.sequences(), 1.0).expect("scored"),
            merged.score(&data.sequences(), 1.0).expect("scored")
        );
    }
}

/// A ratio that is not exactly 1 before the first update would mean that sampler and trainer differ.
#[test]
fn sampled_logits_and_scores_agree_to_the_bit_on_the_cpu() {
    let config = small();
    let decoder = adapted(&config, &settings(true)).remove(0);
    let data = Data::new(&config, &[40]);
    assert_eq!(logits_in_pieces(&*decoder, &data.tokens, 1), logits_in_pieces(&*decoder, &data.tokens, 40));
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let config = small();
    let data = Data::new(&config, &[50, 1, 9, 22, 31]);
    let run = |threads: usize| {
        let pool = rayon_pool(threads);
        pool.install(|| {
            let mut decoder = adapted(&config, &settings(true)).remove(0);
            decoder.accumulate(&data.sequences(), 1.0, &Linear).expect("accumulated");
            decoder.step(&STEP).expect("stepped");
            tensor_bits(&*decoder, TensorKind::Adapter)
        })
    };
    assert_eq!(run(1), run(3));
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

#[test]
fn a_restored_adapter_takes_the_same_next_step() {
    let config = small();
    let settings = settings(true);
    let data = Data::new(&config, &[30, 12]);
    let update = |decoder: &mut dyn Decoder, step: u64| {
        decoder.accumulate(&data.sequences(), 1.0, &Linear).expect("accumulated");
        decoder.step(&AdamWStep { step, ..STEP }).expect("stepped");
    };
    let fresh = settings.initial(&config, &weights(&config, 1), Seed::new(8)).expect("it fits");
    let seconds = every_adapted_decoder(&config, &weights(&config, 1), &settings, &fresh);
    for (mut first, mut second) in adapted(&config, &settings).into_iter().zip(seconds) {
        update(&mut *first, 1);
        for kind in [TensorKind::Adapter, TensorKind::FirstMoment, TensorKind::SecondMoment] {
            second.set_tensors(kind, &first.tensors(kind).expect("tensors")).expect("the tensors fit");
        }
        update(&mut *first, 2);
        update(&mut *second, 2);
        assert_eq!(tensor_bits(&*first, TensorKind::Adapter), tensor_bits(&*second, TensorKind::Adapter));
        let wrong = &fresh[1..];
        assert!(matches!(first.set_tensors(TensorKind::Adapter, wrong), Err(Error::Shape { .. })));
    }
}
