//! Log-probabilities of targets, entropies and the gradient of the logits.

use candle_core::{DType, Device, Tensor};
use gift_host::policy::fused::{TokenScores, TokenScoresBackward, TokenTargets, token_scores, token_scores_backward};

use super::super::emulator::TYPES;
use super::{assert_computes, every_way, normal, tolerance, values};

/// Targets among all ids, among few, among one, and among more than a block has threads.
const ALLOWED: [Option<usize>; 5] = [None, Some(3), Some(1), None, Some(700)];

fn targets(vocab: usize) -> Vec<(u32, Option<Vec<u32>>)> {
    let target = |(row, count): (usize, &Option<usize>)| {
        let ids: Option<Vec<u32>> = count.map(|count| (0..vocab as u32).filter(|id| id % 3 == 1).take(count).collect());
        let id = ids.as_ref().map_or((row * 31 % vocab) as u32, |ids| ids[ids.len() / 2]);
        (id, ids)
    };
    ALLOWED.iter().enumerate().map(target).collect()
}

fn tensors(targets: &[(u32, Option<Vec<u32>>)]) -> TokenTargets {
    let targets: Vec<_> = targets.iter().map(|(id, allowed)| (*id, allowed.as_deref())).collect();
    TokenTargets::new(&targets, &Device::Cpu).unwrap()
}

/// Log-probability, entropy and log-sum-exp of a row, and the probabilities of all ids.
fn expected(logits: &[f64], (id, allowed): &(u32, Option<Vec<u32>>), temperature: f64) -> ([f64; 3], Vec<f64>) {
    let counts = |id: usize| allowed.as_ref().is_none_or(|ids| ids.contains(&(id as u32)));
    let power = |(id, logit): (usize, &f64)| if counts(id) { (logit / temperature).exp() } else { 0.0 };
    let powers: Vec<f64> = logits.iter().enumerate().map(power).collect();
    let sum: f64 = powers.iter().sum();
    let probabilities: Vec<f64> = powers.iter().map(|power| power / sum).collect();
    let entropy = -probabilities.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>();
    ([logits[*id as usize] / temperature - sum.ln(), entropy, sum.ln()], probabilities)
}

#[test]
fn scores_match_plain_loops() {
    for to in TYPES {
        for (vocab, temperature) in [(67, 1.3), (2300, 0.7)] {
            let logits = normal(1, &[ALLOWED.len(), vocab], 4.0, DType::F32);
            let targets = targets(vocab);
            let TokenTargets { ids, ends, allowed } = &tensors(&targets);
            let wide = values(&logits);
            let rows: Vec<_> =
                wide.chunks(vocab).zip(&targets).map(|(row, target)| expected(row, target, temperature)).collect();
            let column = |index: usize| (rows.iter().map(|(scores, _)| scores[index]).collect::<Vec<_>>(), 5e-6);
            let operation = TokenScores { temperature: temperature as f32 };
            assert_computes(&operation, &[&logits, ids, ends, allowed], &[column(0), column(1), column(2)]);

            let of_log_probs = normal(2, &[ALLOWED.len()], 1.0, DType::F32);
            let of_entropies = normal(3, &[ALLOWED.len()], 1.0, DType::F32);
            let (wide_log_probs, wide_entropies) = (values(&of_log_probs), values(&of_entropies));
            let mut gradient = Vec::new();
            for (row, ([_, entropy, _], probabilities)) in rows.iter().enumerate() {
                gradient.extend(probabilities.iter().enumerate().map(|(id, &p)| {
                    let own = if id == targets[row].0 as usize { 1.0 } else { 0.0 };
                    let pull = if p > 0.0 { wide_entropies[row] * p * (p.ln() + entropy) } else { 0.0 };
                    (wide_log_probs[row] * (own - p) - pull) / temperature
                }));
            }
            let tensor = |index: usize| {
                let values: Vec<f32> = rows.iter().map(|(scores, _)| scores[index] as f32).collect();
                Tensor::new(values, &Device::Cpu).unwrap()
            };
            let (log_sums, entropies) = (tensor(2), tensor(1));
            let inputs = [&logits, ids, ends, allowed, &log_sums, &entropies, &of_log_probs, &of_entropies];
            for (way, found) in every_way(&TokenScoresBackward { temperature: temperature as f32, to }, &inputs) {
                // What is left of 1 where a probability is near it is as good as the log-sum-exp, about 10, is in `f32`.
                for (index, (found, expected)) in values(&found[0]).iter().zip(&gradient).enumerate() {
                    let close = (found - expected).abs() <= tolerance(to) * expected.abs() + 1e-5;
                    assert!(close, "{vocab} ids {to:?} {way}: {found} at {index}, not {expected}");
                }
            }
        }
    }
}

/// The gradient of a weighted sum of scores against central differences.
#[test]
fn the_gradient_of_logits_matches_finite_differences() {
    let (vocab, temperature) = (40, 1.3);
    let targets = tensors(&targets(vocab));
    let logits = normal(1, &[ALLOWED.len(), vocab], 2.0, DType::F32);
    let factors = [2, 3].map(|seed| normal(seed, &[ALLOWED.len()], 1.0, DType::F32));
    let value = |logits: &Tensor| {
        let found = token_scores(logits, &targets, temperature).unwrap();
        let sum = |scores: &Tensor, factors: &Tensor| values(&(scores * factors).unwrap()).iter().sum::<f64>();
        sum(&found.log_probs, &factors[0]) + sum(&found.entropies, &factors[1])
    };
    let distributions = token_scores(&logits, &targets, temperature).unwrap();
    let pair = (&factors[0], &factors[1]);
    let gradient = token_scores_backward(&logits, &targets, temperature, &distributions, pair, DType::F32).unwrap();
    let gradient = values(&gradient);
    let start: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    for element in 0..start.len() {
        let at = |step: f32| {
            let mut moved = start.clone();
            moved[element] += step;
            value(&Tensor::from_vec(moved, logits.dims(), &Device::Cpu).unwrap())
        };
        let difference = (at(0.01) - at(-0.01)) / 0.02;
        assert!((gradient[element] - difference).abs() < 1e-3, "{} at {element}, not {difference}", gradient[element]);
    }
}
