//! Advantages from the rewards of one group alone: GRPO (mean and standard deviation) and Dr. GRPO (mean only). No
//! state.

use super::{AdvantageEstimator, Error, MIN_STD, comparable_rewards};
use crate::rollout::Group;

/// Keeps the quotient finite for a small standard deviation; the RAGEN reference's constant.
const EPSILON: f64 = 1e-6;

/// [`group_relative`] as an estimator.
#[derive(Clone, Copy, Debug)]
pub struct MeanStd;

impl AdvantageEstimator for MeanStd {
    fn advantages(&mut self, group: &Group) -> Result<Vec<f32>, Error> {
        Ok(group_relative(&comparable_rewards(group)?))
    }
}

/// [`mean_relative`] as an estimator.
#[derive(Clone, Copy, Debug)]
pub struct Mean;

impl AdvantageEstimator for Mean {
    fn advantages(&mut self, group: &Group) -> Result<Vec<f32>, Error> {
        Ok(mean_relative(&comparable_rewards(group)?))
    }
}

/// Group-relative advantage, one per trajectory: `A_i = (r_i - mean(r)) / (std(r) + 1e-6)`.
///
/// GRPO outcome supervision (arXiv:2402.03300 §4.1.2). `std` divides by `G - 1`, as `torch.std` and so the RAGEN
/// reference do; the paper does not say. Equal rewards (`std` below [`MIN_STD`]) and groups of fewer than two carry no
/// signal and give zeros, never NaN.
pub fn group_relative(rewards: &[f64]) -> Vec<f32> {
    let spread = standard_deviation(rewards);
    if spread < MIN_STD {
        return vec![0.0; rewards.len()];
    }
    let mean = mean(rewards);
    rewards.iter().map(|reward| ((reward - mean) / (spread + EPSILON)) as f32).collect()
}

/// Centred reward, one per trajectory: `A_i = r_i - mean(r)`.
///
/// Dr. GRPO (arXiv:2503.20783 §3.2): without the division, groups of nearly equal rewards are not blown up. Zeros in
/// the same cases as [`group_relative`].
pub fn mean_relative(rewards: &[f64]) -> Vec<f32> {
    if standard_deviation(rewards) < MIN_STD {
        return vec![0.0; rewards.len()];
    }
    let mean = mean(rewards);
    rewards.iter().map(|reward| (reward - mean) as f32).collect()
}

/// Sample standard deviation `sqrt(sum (r_i - mean(r))^2 / (G - 1))`; 0 for fewer than two rewards.
pub fn standard_deviation(rewards: &[f64]) -> f64 {
    if rewards.len() < 2 {
        return 0.0;
    }
    let mean = mean(rewards);
    let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
    (squares / (rewards.len() - 1) as f64).sqrt()
}

/// Arithmetic mean; 0 for none.
pub(super) fn mean(rewards: &[f64]) -> f64 {
    if rewards.is_empty() { 0.0 } else { rewards.iter().sum::<f64>() / rewards.len() as f64 }
}
