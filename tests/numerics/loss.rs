//! The objective against the PyTorch values of `data/loss_reference.py`, against a plain loop in `f64`, and its
//! gradients against finite differences.

use gift_host::config::{Loss, LossAggregation, RatioKind};
use gift_host::policy::{TokenGradient, TokenScore};
use gift_host::train::{SequenceTerms, sequence_objective, token_weights, trains_on};
use proptest::prelude::*;
use serde_json::Value;

/// Losses are sums of a dozen terms in `f64` on both sides.
const LOSS_TOLERANCE: f64 = 1e-12;
/// Gradients are handed out as `f32`: half a unit in the last place twice, of terms below 2.
const GRADIENT_TOLERANCE: f64 = 3e-7;

/// A minibatch: for each trajectory its advantage and, for each token, what the decoders say.
#[derive(Clone, Debug)]
struct Minibatch {
    advantages: Vec<f64>,
    truncated: Vec<bool>,
    log_prob: Vec<Vec<f32>>,
    entropy: Vec<Vec<f32>>,
    behaviour: Vec<Vec<f32>>,
    proximal: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
}

type Gradients = Vec<Vec<TokenGradient>>;

/// The loss and gradients as `Learner` puts them together.
fn evaluate(settings: &Loss, minibatch: &Minibatch) -> (f64, Gradients) {
    let in_loss: Vec<bool> =
        minibatch.truncated.iter().map(|&truncated| trains_on(truncated, settings.mask_truncated)).collect();
    let count = |(tokens, &in_loss): (&Vec<f32>, &bool)| if in_loss { tokens.len() } else { 0 };
    let counts: Vec<usize> = minibatch.log_prob.iter().zip(&in_loss).map(count).collect();
    let weights = token_weights(settings.aggregation, settings.constant, &counts);
    let (mut loss, mut gradients) = (0.0, Vec::new());
    for (index, &in_loss) in in_loss.iter().enumerate() {
        let pairs = minibatch.log_prob[index].iter().zip(&minibatch.entropy[index]);
        let scores: Vec<TokenScore> = pairs.map(|(&log_prob, &entropy)| TokenScore { log_prob, entropy }).collect();
        let mut out = vec![TokenGradient::default(); scores.len()];
        if in_loss {
            let terms = SequenceTerms {
                advantage: minibatch.advantages[index],
                weight: weights[index],
                behaviour: &minibatch.behaviour[index],
                proximal: (settings.max_importance_weight > 0.0).then_some(minibatch.proximal[index].as_slice()),
                reference: (settings.kl_coefficient > 0.0).then_some(minibatch.reference[index].as_slice()),
            };
            loss += sequence_objective(settings, &terms, &scores, &mut out).loss;
        }
        gradients.push(out);
    }
    (loss, gradients)
}

/// The same loss as one sum over tokens after another, from the formulas of the papers.
fn plain_loss(settings: &Loss, minibatch: &Minibatch) -> f64 {
    let kept: Vec<usize> = (0..minibatch.log_prob.len())
        .filter(|&i| !settings.mask_truncated || !minibatch.truncated[i])
        .filter(|&i| !minibatch.log_prob[i].is_empty())
        .collect();
    let all_tokens: usize = kept.iter().map(|&i| minibatch.log_prob[i].len()).sum();
    let mut loss = 0.0;
    for &i in &kept {
        let length = minibatch.log_prob[i].len();
        let weighted = settings.max_importance_weight > 0.0;
        let old = |t: usize| f64::from(if weighted { minibatch.proximal[i][t] } else { minibatch.behaviour[i][t] });
        let ratio = |t: usize| (f64::from(minibatch.log_prob[i][t]) - old(t)).exp();
        let mut geometric = 1.0;
        for t in 0..length {
            geometric *= ratio(t).powf(1.0 / length as f64);
        }
        let mut sum = 0.0;
        for t in 0..length {
            let r = if settings.ratio == RatioKind::Sequence { geometric } else { ratio(t) };
            let a = minibatch.advantages[i];
            let surrogate = f64::min(r * a, r.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high) * a);
            let behaviour = f64::from(minibatch.behaviour[i][t]);
            let v = if weighted { (old(t) - behaviour).exp().min(settings.max_importance_weight) } else { 1.0 };
            sum -= v * surrogate + settings.entropy_coefficient * f64::from(minibatch.entropy[i][t]);
            if settings.kl_coefficient > 0.0 {
                let q = (f64::from(minibatch.reference[i][t]) - f64::from(minibatch.log_prob[i][t])).exp();
                sum += settings.kl_coefficient * (q - q.ln() - 1.0);
            }
        }
        loss += match settings.aggregation {
            LossAggregation::TokenMean => sum / all_tokens as f64,
            LossAggregation::SequenceMean => sum / length as f64 / kept.len() as f64,
            LossAggregation::Constant => sum / settings.constant / kept.len() as f64,
        };
    }
    loss
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| numbers(row).into_iter().map(|x| x as f32).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let stored: Value = serde_json::from_str(include_str!("data/loss_reference.json")).unwrap();
    let inputs = &stored["inputs"];
    let minibatch = Minibatch {
        advantages: numbers(&stored["advantages"]),
        truncated: stored["truncated"].as_array().unwrap().iter().map(|x| x.as_bool().unwrap()).collect(),
        log_prob: rows(&inputs["log_prob"]),
        entropy: rows(&inputs["entropy"]),
        behaviour: rows(&inputs["behaviour"]),
        proximal: rows(&inputs["proximal"]),
        reference: rows(&inputs["reference"]),
    };
    let number = |name: &str| stored[name].as_f64().unwrap();
    let cases = stored["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 144, "3 aggregations, 2 ratios, 3 pairs of bounds, KL, importance weight, overlong mask");
    for case in cases {
        let switch = |name: &str, on: &str| if case[name].as_bool().unwrap() { number(on) } else { 0.0 };
        let settings = Loss {
            aggregation: serde_json::from_value(case["aggregation"].clone()).unwrap(),
            constant: number("constant"),
            clip_low: case["clip_low"].as_f64().unwrap(),
            clip_high: case["clip_high"].as_f64().unwrap(),
            ratio: serde_json::from_value(case["ratio"].clone()).unwrap(),
            kl_coefficient: switch("kl", "kl_coefficient"),
            entropy_coefficient: number("entropy_coefficient"),
            max_importance_weight: switch("importance", "max_importance_weight"),
            mask_truncated: case["mask_truncated"].as_bool().unwrap(),
        };
        let (loss, gradients) = evaluate(&settings, &minibatch);
        let expected = case["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < LOSS_TOLERANCE, "{loss} is not {expected} with {settings:?}");
        assert!((plain_loss(&settings, &minibatch) - expected).abs() < LOSS_TOLERANCE, "{settings:?}");
        let expected = rows(&case["log_prob"]).concat().into_iter().zip(rows(&case["entropy"]).concat());
        for (found, (log_prob, entropy)) in gradients.concat().into_iter().zip(expected) {
            let distance = f64::from((found.log_prob - log_prob).abs().max((found.entropy - entropy).abs()));
            assert!(distance < GRADIENT_TOLERANCE, "{found:?} is not {log_prob}, {entropy} with {settings:?}");
        }
    }
}

/// Numbers on a grid of 2^-12, so that moving one by 2^-9 is exact in `f32`.
fn grid(low: i32, high: i32) -> impl Strategy<Value = f32> {
    (low * 4096..=high * 4096).prop_map(|steps| steps as f32 / 4096.0)
}

fn minibatches() -> impl Strategy<Value = Minibatch> {
    let token = (grid(-3, 0), grid(0, 2), grid(-3, 0), -1024..=1024_i32, grid(-3, 0));
    let trajectory = (-2.0..2.0, any::<bool>(), prop::collection::vec(token, 0..5));
    prop::collection::vec(trajectory, 1..4).prop_map(|trajectories| {
        let mut minibatch = Minibatch {
            advantages: Vec::new(),
            truncated: Vec::new(),
            log_prob: Vec::new(),
            entropy: Vec::new(),
            behaviour: Vec::new(),
            proximal: Vec::new(),
            reference: Vec::new(),
        };
        for (advantage, truncated, tokens) in trajectories {
            minibatch.advantages.push(advantage);
            minibatch.truncated.push(truncated);
            minibatch.log_prob.push(tokens.iter().map(|token| token.0).collect());
            minibatch.entropy.push(tokens.iter().map(|token| token.1).collect());
            minibatch.behaviour.push(tokens.iter().map(|token| token.2).collect());
            // The trainer is close to the sampler.
            minibatch.proximal.push(tokens.iter().map(|token| token.2 + token.3 as f32 / 4096.0).collect());
            minibatch.reference.push(tokens.iter().map(|token| token.4).collect());
        }
        minibatch
    })
}

fn settings() -> impl Strategy<Value = Loss> {
    let aggregation = prop::sample::select(vec![
        LossAggregation::TokenMean,
        LossAggregation::SequenceMean,
        LossAggregation::Constant,
    ]);
    let ratio = prop::sample::select(vec![RatioKind::Token, RatioKind::Sequence]);
    let off_or = |value: f64| prop::sample::select(vec![0.0, value]);
    (aggregation, ratio, off_or(0.3), off_or(0.1), off_or(1.05), any::<bool>()).prop_map(
        |(aggregation, ratio, kl_coefficient, entropy_coefficient, max_importance_weight, mask_truncated)| Loss {
            aggregation,
            constant: 5.0,
            clip_low: 0.2,
            clip_high: 0.28,
            ratio,
            kl_coefficient,
            entropy_coefficient,
            max_importance_weight,
            mask_truncated,
        },
    )
}

proptest! {
    #[test]
    fn the_loss_is_that_of_a_plain_loop(settings in settings(), minibatch in minibatches()) {
        let (loss, expected) = (evaluate(&settings, &minibatch).0, plain_loss(&settings, &minibatch));
        // Ratios reach exp(3.25).
        prop_assert!((loss - expected).abs() < 1e-10, "{} is not {}", loss, expected);
    }

    /// Central differences with a step of 2^-9. The loss is smooth but at the two bounds, where a difference mixes both
    /// sides: there the gradient must lie between the one-sided slopes.
    #[test]
    fn gradients_are_those_of_finite_differences(settings in settings(), minibatch in minibatches()) {
        let step = 1.0 / 512.0_f32;
        let (loss, gradients) = evaluate(&settings, &minibatch);
        for (i, row) in gradients.iter().enumerate() {
            for (t, gradient) in row.iter().enumerate() {
                for (found, of_entropy) in [(gradient.log_prob, false), (gradient.entropy, true)] {
                    let at = |offset: f32| {
                        let mut moved = minibatch.clone();
                        let rows = if of_entropy { &mut moved.entropy } else { &mut moved.log_prob };
                        rows[i][t] += offset;
                        evaluate(&settings, &moved).0
                    };
                    let (below, above) = (at(-step), at(step));
                    let left = (loss - below) / f64::from(step);
                    let right = (above - loss) / f64::from(step);
                    // Half a step times a second derivative below 2 * exp(3.25 + 0.25) bounds how the slopes differ.
                    let tolerance = f64::from(step) * 35.0;
                    let found = f64::from(found);
                    prop_assert!(
                        (left.min(right) - tolerance..=left.max(right) + tolerance).contains(&found),
                        "{found} is not between {left} and {right}"
                    );
                    let smooth = (left - right).abs() < 1e-4;
                    let slope = 0.5 * (left + right);
                    prop_assert!(!smooth || (found - slope).abs() < 1e-4, "{found} is not {slope}");
                }
            }
        }
    }

    /// What a limit cut off must not move the weights.
    #[test]
    fn masked_tokens_get_no_gradient(settings in settings(), minibatch in minibatches()) {
        let settings = Loss { mask_truncated: true, ..settings };
        let gradients = evaluate(&settings, &minibatch).1;
        for (row, _) in gradients.iter().zip(&minibatch.truncated).filter(|(_, truncated)| **truncated) {
            prop_assert!(row.iter().all(|gradient| *gradient == TokenGradient::default()));
        }
    }

    /// Splitting a minibatch's tokens among its trajectories otherwise changes nothing in a token mean.
    #[test]
    fn token_weights_sum_to_one(counts in prop::collection::vec(0..9_usize, 1..6)) {
        let total = |aggregation| -> f64 {
            let weights = token_weights(aggregation, 4.0, &counts);
            weights.iter().zip(&counts).map(|(weight, &count)| weight * count as f64).sum()
        };
        prop_assume!(counts.iter().any(|&count| count > 0));
        prop_assert!((total(LossAggregation::TokenMean) - 1.0).abs() < 1e-12);
        prop_assert!((total(LossAggregation::SequenceMean) - 1.0).abs() < 1e-12);
    }
}
