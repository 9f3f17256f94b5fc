#![expect(clippy::float_cmp, reason = "the expected numbers are exact")]

use super::fake::TableDecoder;
use super::*;
use crate::config::{Loss, LossAggregation, Optimizer, Schedule};
use crate::policy::{Decoder, Sequence, Target};
use crate::seed::Seed;

const VOCAB: usize = 5;
const CONTEXT: UpdateContext =
    UpdateContext { iteration: 1, iterations: 10, temperature: 1.0, max_pass_tokens: 0, seed: Seed::new(3) };

/// A trajectory that owns what a batch item borrows.
#[derive(Clone)]
struct Sample {
    tokens: Vec<u32>,
    targets: Vec<Target>,
    old: Vec<f32>,
    advantage: f32,
    truncated: bool,
}

/// Samples whose old log-probabilities are those of `decoder`.
fn samples(decoder: &TableDecoder) -> Vec<Sample> {
    let plan: [(&[u32], &[u32], f32); 4] = [
        (&[0, 1, 2, 3, 4, 0], &[1, 2, 4], 1.0),
        (&[2, 2, 1], &[2], -0.5),
        (&[3, 0, 4, 4, 1, 2, 0], &[1, 3, 4, 5, 6], 0.25),
        (&[1, 3, 0, 1], &[1, 2], -1.5),
    ];
    let sample = |(tokens, positions, advantage): (&[u32], &[u32], f32)| {
        // The last token of a trajectory was sampled among two, the others among all.
        let allowed = |position: u32| {
            let token = tokens[position as usize];
            (position as usize + 1 == tokens.len()).then(|| [token.min(1), token.max(1)].into())
        };
        let targets: Vec<Target> =
            positions.iter().map(|&position| Target { position, allowed: allowed(position) }).collect();
        let scores = decoder.score(&[Sequence { tokens, targets: &targets }], 1.0).unwrap().remove(0);
        let old = scores.iter().map(|score| score.log_prob).collect();
        Sample { tokens: tokens.to_vec(), targets, old, advantage, truncated: false }
    };
    plan.into_iter().map(sample).collect()
}

fn batch(samples: &[Sample]) -> Batch<'_> {
    let items = samples.iter().map(|sample| BatchItem {
        tokens: &sample.tokens,
        targets: &sample.targets,
        old_log_probs: &sample.old,
        advantage: sample.advantage,
        truncated: sample.truncated,
    });
    Batch { items: items.collect() }
}

fn plain(loss: &Loss) -> Learner {
    let optimizer = Optimizer { schedule: Schedule::Constant, warmup_updates: 0, minibatch: 0, ..Optimizer::default() };
    Learner::new(loss, &optimizer)
}

/// A rollout from the very weights that are trained must show a ratio of 1 at every step.
#[test]
fn a_fresh_batch_has_ratio_one() {
    let mut decoder = TableDecoder::new(VOCAB);
    let samples = samples(&decoder);
    let stats = plain(&Loss::default()).update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap();
    assert!(stats.ratio_deviation < 1e-6, "{stats:?}");
    assert!((0.0..1e-12).contains(&stats.kl_rollout_train), "{stats:?}");
    assert_eq!((stats.updates, stats.skipped, stats.clip_fraction), (1, 0, 0.0));
    assert_eq!((stats.target_tokens, stats.kl_reference), (11, None));
    // The first sequence ends with a token that nothing sampled: it is not scored.
    assert_eq!(stats.tokens, 5 + 3 + 7 + 3);
}

/// The comparison of sampler and trainer ends with the first step: after it the weights differ by intent.
#[test]
fn updates_move_the_ratio_but_not_the_agreement() {
    let mut decoder = TableDecoder::new(VOCAB);
    let samples = samples(&decoder);
    let optimizer = Optimizer { learning_rate: 0.1, warmup_updates: 0, epochs: 3, ..Optimizer::default() };
    let mut learner = Learner::new(&Loss::default(), &optimizer);
    let stats = learner.update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap();
    assert!(stats.ratio_max > 1.05 && stats.clip_fraction > 0.0, "{stats:?}");
    assert!(stats.ratio_deviation < 1e-6 && stats.kl_rollout_train < 1e-12, "{stats:?}");
}

#[test]
fn a_sampler_that_disagrees_is_reported() {
    let mut decoder = TableDecoder::new(VOCAB);
    let mut samples = samples(&decoder);
    samples[3].old[0] -= 0.1;
    for max_importance_weight in [0.0, 2.0] {
        let loss = Loss { max_importance_weight, ..Loss::default() };
        let stats = plain(&loss).update(&mut decoder.clone(), None, &batch(&samples), &CONTEXT).unwrap();
        assert!((stats.ratio_deviation - 0.1_f64.exp_m1()).abs() < 1e-6, "{stats:?}");
        assert!((stats.kl_rollout_train - (0.1_f64.exp_m1() - 0.1) / 11.0).abs() < 1e-7, "{stats:?}");
        // The importance weight takes the disagreement out of the ratio.
        let expected = if max_importance_weight > 0.0 { 1.0 } else { 0.1_f64.exp() };
        assert!((stats.ratio_max - expected).abs() < 1e-6, "{stats:?}");
    }
    let stats = plain(&Loss::default()).update(&mut decoder, None, &Batch::default(), &CONTEXT).unwrap();
    assert!(stats.loss.is_nan() && stats.kl_rollout_train.is_nan() && stats.updates == 0);
}

/// The gradient that reaches the weights is that of the reported loss, for every aggregation.
#[test]
fn accumulated_gradients_are_those_of_the_loss() {
    let decoder = TableDecoder::new(VOCAB);
    let mut samples = samples(&decoder);
    for (index, old) in samples.iter_mut().flat_map(|sample| &mut sample.old).enumerate() {
        *old += [0.05, -0.3, 0.15, 0.4][index % 4];
    }
    let mut reference = TableDecoder::new(VOCAB);
    reference.weights.iter_mut().for_each(|weight| *weight *= 0.7);
    for aggregation in [LossAggregation::TokenMean, LossAggregation::SequenceMean, LossAggregation::Constant] {
        let loss = Loss { aggregation, kl_coefficient: 0.2, entropy_coefficient: 0.1, ..Loss::default() };
        let run = |mut decoder: TableDecoder| {
            let batch = batch(&samples);
            let stats = plain(&loss).update(&mut decoder, Some(&reference), &batch, &CONTEXT).unwrap();
            (stats, decoder.weights)
        };
        // SGD in the guise of AdamW: a first step with beta = 0 and a huge epsilon moves by rate * gradient / epsilon.
        let sgd = Optimizer {
            learning_rate: 1e6,
            epsilon: 1e6,
            beta1: 0.0,
            beta2: 0.0,
            warmup_updates: 0,
            max_gradient_norm: 0.0,
            minibatch: 0,
            ..Optimizer::default()
        };
        let mut moved = decoder.clone();
        Learner::new(&loss, &sgd).update(&mut moved, Some(&reference), &batch(&samples), &CONTEXT).unwrap();
        let step = 1e-3;
        for index in 0..VOCAB * VOCAB {
            let at = |offset: f64| {
                let mut decoder = decoder.clone();
                decoder.weights[index] += offset;
                run(decoder).0.loss
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let gradient = decoder.weights[index] - moved.weights[index];
            // Scores are f32, so the difference quotient has a rounding error of about 1e-7 / 1e-3.
            assert!((slope - gradient).abs() < 2e-4, "{aggregation:?} {index}: {gradient} is not {slope}");
        }
    }
}

#[test]
fn splitting_a_minibatch_into_passes_changes_nothing() {
    let decoder = TableDecoder::new(VOCAB);
    let samples = samples(&decoder);
    let train = |max_pass_tokens| {
        let mut decoder = decoder.clone();
        let context = UpdateContext { max_pass_tokens, ..CONTEXT };
        let stats = plain(&Loss::default()).update(&mut decoder, None, &batch(&samples), &context).unwrap();
        (decoder, stats)
    };
    let (whole, whole_stats) = train(0);
    let (split, split_stats) = train(1);
    assert_eq!((whole.calls.as_slice(), split.calls.as_slice()), ([4].as_slice(), [1, 1, 1, 1].as_slice()));
    assert_eq!(whole.weights, split.weights);
    assert_eq!(whole_stats, split_stats);
}

#[test]
fn minibatches_are_shuffled_by_the_seed_and_cover_everything() {
    let decoder = TableDecoder::new(VOCAB);
    let samples = samples(&decoder);
    let optimizer = Optimizer { minibatch: 3, epochs: 2, ..Optimizer::default() };
    let train = |seed| {
        let (mut decoder, mut learner) = (decoder.clone(), Learner::new(&Loss::default(), &optimizer));
        let context = UpdateContext { seed: Seed::new(seed), ..CONTEXT };
        let stats = learner.update(&mut decoder, None, &batch(&samples), &context).unwrap();
        assert_eq!((stats.updates, learner.state().updates), (4, 4));
        assert_eq!(decoder.calls, [3, 1, 3, 1]);
        decoder.weights
    };
    assert_eq!(train(1), train(1));
    assert!((2..6).any(|seed| train(seed) != train(1)), "the order never changes");
}

#[test]
fn gradients_are_clipped_and_the_rate_warms_up() {
    let mut decoder = TableDecoder::new(VOCAB);
    let samples = samples(&decoder);
    let optimizer = Optimizer { max_gradient_norm: 0.01, warmup_updates: 4, minibatch: 2, ..Optimizer::default() };
    let mut learner = Learner::new(&Loss::default(), &optimizer);
    let stats = learner.update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap();
    assert_eq!(decoder.steps.iter().map(|step| step.step).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(decoder.steps[0].learning_rate, optimizer.learning_rate / 4.0);
    assert_eq!(stats.learning_rate, optimizer.learning_rate / 2.0);
    assert!(stats.grad_norm > 0.1 && decoder.steps.iter().all(|step| step.gradient_scale < 0.1), "{stats:?}");
}

#[test]
fn updates_that_are_not_finite_are_skipped_and_three_in_a_row_stop() {
    let mut decoder = TableDecoder::new(VOCAB);
    let (start, samples) = (decoder.weights.clone(), samples(&decoder));
    let mut learner = plain(&Loss::default());
    decoder.poisoned = 2;
    for skipped in 1..=2 {
        let stats = learner.update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap();
        assert_eq!((stats.skipped, stats.updates), (1, 0));
        assert_eq!(learner.state(), LearnerState { updates: 0, skips_in_a_row: skipped, skipped });
    }
    assert_eq!(decoder.weights, start);
    let stats = learner.update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap();
    assert!(stats.loss.is_finite());
    assert_eq!(learner.state(), LearnerState { updates: 1, skips_in_a_row: 0, skipped: 2 });

    decoder.poisoned = 3;
    let before = decoder.weights.clone();
    let mut update = || learner.update(&mut decoder, None, &batch(&samples), &CONTEXT);
    assert!(update().is_ok() && update().is_ok());
    let error = update().unwrap_err();
    assert!(matches!(error, Error::NotFinite { count: 3, what: "loss" }), "{error}");
    assert_eq!(decoder.weights, before);
    assert_eq!(learner.state().skips_in_a_row, 0, "a resumed run may try three times again");
}

#[test]
fn one_bad_minibatch_leaves_the_figures_of_the_others() {
    let mut decoder = TableDecoder::new(VOCAB);
    let samples = samples(&decoder);
    let mut learner = Learner::new(&Loss::default(), &Optimizer { minibatch: 2, ..Optimizer::default() });
    decoder.poisoned = 1;
    let stats = learner.update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap();
    assert_eq!((stats.updates, stats.skipped, stats.target_tokens), (1, 1, 11));
    assert!(stats.loss.is_finite() && stats.entropy.is_finite() && stats.ratio_max.is_finite(), "{stats:?}");
    assert!(stats.kl_rollout_train.is_nan(), "the disagreement must not be hidden");
}

#[test]
fn a_restored_learner_takes_the_same_next_step() {
    let mut first = TableDecoder::new(VOCAB);
    let samples = samples(&first);
    let mut learner = Learner::new(&Loss::default(), &Optimizer::default());
    learner.update(&mut first, None, &batch(&samples), &CONTEXT).unwrap();
    let stored = serde_json::to_string(&learner.state()).unwrap();
    let mut second = first.clone();
    let mut resumed = Learner::new(&Loss::default(), &Optimizer::default());
    resumed.restore(serde_json::from_str(&stored).unwrap());
    let next = UpdateContext { iteration: 2, ..CONTEXT };
    let stats = learner.update(&mut first, None, &batch(&samples), &next).unwrap();
    assert_eq!(stats, resumed.update(&mut second, None, &batch(&samples), &next).unwrap());
    assert_eq!(first.weights, second.weights);
}

#[test]
fn truncated_and_empty_trajectories_are_left_out() {
    let decoder = TableDecoder::new(VOCAB);
    let all = samples(&decoder);
    let mut marked = all.clone();
    marked[0].truncated = true;
    marked.push(Sample { tokens: vec![1, 2], targets: vec![], old: vec![], advantage: 9.0, truncated: false });
    let train = |samples: &[Sample], mask_truncated| {
        let mut decoder = decoder.clone();
        let loss = Loss { mask_truncated, aggregation: LossAggregation::SequenceMean, ..Loss::default() };
        // One order for both, whatever their number: sequences are summed in one minibatch of f64.
        let stats = plain(&loss).update(&mut decoder, None, &batch(samples), &CONTEXT).unwrap();
        (stats.target_tokens, (stats.loss * 1e12).round())
    };
    assert_eq!(train(&marked, true), train(&all[1..], true));
    assert_eq!(train(&marked, false), train(&all, false));
}

#[test]
fn the_kl_term_needs_a_reference() {
    let mut decoder = TableDecoder::new(VOCAB);
    let (reference, samples) = (decoder.clone(), samples(&decoder));
    let loss = Loss { kl_coefficient: 0.1, ..Loss::default() };
    let error = plain(&loss).update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap_err();
    assert!(matches!(error, Error::MissingReference), "{error}");
    let stats = plain(&loss).update(&mut decoder, Some(&reference), &batch(&samples), &CONTEXT).unwrap();
    assert_eq!(stats.kl_reference, Some(0.0));
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let mut decoder = TableDecoder::new(VOCAB);
    let mut samples = samples(&decoder);
    samples[1].old.clear();
    let error = plain(&Loss::default()).update(&mut decoder, None, &batch(&samples), &CONTEXT).unwrap_err();
    assert_eq!(error.to_string(), "`old_log_probs`: expected 1 entries, found 0");
    let error = Batch::from_groups(&[], &[true], &[]).unwrap_err();
    assert_eq!(error.to_string(), "`keep`: expected 0 entries, found 1");
}

/// A bandit: token 2 after token 0 earns 1, any other nothing.
#[test]
fn the_rewarded_token_becomes_probable() {
    let mut decoder = TableDecoder::new(VOCAB);
    let optimizer = Optimizer { learning_rate: 0.05, warmup_updates: 0, minibatch: 0, ..Optimizer::default() };
    let mut learner = Learner::new(&Loss::default(), &optimizer);
    for iteration in 1..=120 {
        let sample = |token: u32| {
            let (tokens, targets) = (vec![0, token], vec![Target { position: 1, allowed: None }]);
            let score = decoder.score(&[Sequence { tokens: &tokens, targets: &targets }], 1.0).unwrap()[0][0];
            let advantage = if token == 2 { 0.8 } else { -0.2 };
            Sample { tokens, targets, old: vec![score.log_prob], advantage, truncated: false }
        };
        let samples: Vec<Sample> = (0..VOCAB as u32).map(sample).collect();
        let context = UpdateContext { iteration, iterations: 120, ..CONTEXT };
        learner.update(&mut decoder, None, &batch(&samples), &context).unwrap();
    }
    let targets = [Target { position: 1, allowed: None }];
    let score = decoder.score(&[Sequence { tokens: &[0, 2], targets: &targets }], 1.0).unwrap()[0][0];
    assert!(score.log_prob.exp() > 0.8, "{}", score.log_prob.exp());
}
