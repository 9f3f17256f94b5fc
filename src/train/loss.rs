//! The objective, part by part, each with its equation, its source and its derivative in closed form. Pure functions of
//! numbers in `f64`: [`super::Learner`] feeds them the decoder's scores and hands the gradients back to it.
//!
//! Notation: `x_t` is the current log-probability of the sampled token `t`, `o_t` the old one, `A` the trajectory's
//! advantage, `w` the weight that the aggregation gives each token. The loss of a minibatch is the sum over its
//! trajectories of
//!
//! ```text
//! sum_t w * ( - v_t * min(r_t A, clip(r_t, 1 - low, 1 + high) A)  +  kl * k3_t  -  entropy * H_t )
//! ```

use crate::config::{Loss, LossAggregation, RatioKind};
use crate::policy::{TokenGradient, TokenScore};

/// The clipped surrogate of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surrogate {
    /// Its value, to be maximized.
    pub value: f64,
    /// Its derivative with respect to the logarithm of the ratio.
    pub slope: f64,
    /// Whether the clipped branch is the smaller one, so that no gradient flows.
    pub clipped: bool,
}

/// `min(r A, clip(r, 1 - low, 1 + high) A)` with `d/d(log r) = r A`, or 0 where the clipped branch is smaller.
///
/// PPO (arXiv:1707.06347 Eq. 7) with two bounds, "clip-higher" of DAPO (arXiv:2503.14476 §3.1). `ratio` is
/// `r = exp(x - o)` for a token or [`sequence_log_ratio`]'s exponential for a sequence. On a bound both branches are
/// equal and the gradient flows.
pub fn clipped_surrogate(ratio: f64, advantage: f64, low: f64, high: f64) -> Surrogate {
    let clipped = (advantage > 0.0 && ratio > 1.0 + high) || (advantage < 0.0 && ratio < 1.0 - low);
    if clipped {
        let bound = if advantage > 0.0 { 1.0 + high } else { 1.0 - low };
        return Surrogate { value: bound * advantage, slope: 0.0, clipped };
    }
    Surrogate { value: ratio * advantage, slope: ratio * advantage, clipped }
}

/// Logarithm of GSPO's ratio, `log s = (1 / |y|) sum_t (x_t - o_t)`; 0 for no tokens.
///
/// GSPO (arXiv:2507.18071 Eq. 7): the geometric mean of the token ratios. `d(log s)/dx_t = 1 / |y|`, so every token
/// of the trajectory gets the same share of the slope.
pub fn sequence_log_ratio(log_ratios: &[f64]) -> f64 {
    if log_ratios.is_empty() { 0.0 } else { log_ratios.iter().sum::<f64>() / log_ratios.len() as f64 }
}

/// The k3 estimate `exp(y - x) - (y - x) - 1` of a divergence, and its derivative `1 - exp(y - x)` with respect to `x`.
///
/// Schulman, *Approximating KL Divergence* (2020), as in GRPO (arXiv:2402.03300 Eq. 4). For tokens sampled with
/// log-probability `x` its mean is the divergence of the sampling policy from the one that gives them `y`. Never
/// negative, and 0 where they agree.
pub fn k3(log_prob: f64, other: f64) -> (f64, f64) {
    let difference = other - log_prob;
    (difference.exp_m1() - difference, -difference.exp_m1())
}

/// The importance weight between sampler and trainer, `v = min(exp(p - o), bound)`; a constant for the gradient.
///
/// Truncated importance sampling (Yao et al. 2025, *Your Efficient RL Framework Secretly Brings You Off-Policy RL
/// Training*): `o` is the sampler's log-probability of the token and `p` the trainer's before the first update of the
/// batch. The ratio is then taken against `p`, so that the clipping bounds what the updates change and `v` corrects
/// what the sampler computed differently.
pub fn truncated_weight(proximal: f64, behaviour: f64, bound: f64) -> f64 {
    (proximal - behaviour).exp().min(bound)
}

/// The weight `w` of every token of each trajectory, from the trajectories' numbers of sampled tokens.
///
/// - token mean, DAPO (arXiv:2503.14476 §3.3): `1 / sum_i |y_i|`
/// - sequence mean, GRPO (arXiv:2402.03300 Eq. 3): `1 / (N |y_i|)`
/// - constant, Dr. GRPO (arXiv:2503.20783): `1 / (N constant)`
///
/// `N` counts the trajectories that have sampled tokens; the others have nothing to weigh and get 0.
pub fn token_weights(aggregation: LossAggregation, constant: f64, counts: &[usize]) -> Vec<f64> {
    let sequences = counts.iter().filter(|&&count| count > 0).count() as f64;
    let tokens: usize = counts.iter().sum();
    let weight = |&count: &usize| match (count, aggregation) {
        (0, _) => 0.0,
        (_, LossAggregation::TokenMean) => 1.0 / tokens as f64,
        (_, LossAggregation::SequenceMean) => 1.0 / (sequences * count as f64),
        (_, LossAggregation::Constant) => 1.0 / (sequences * constant),
    };
    counts.iter().map(weight).collect()
}

/// Whether a trajectory is in the loss.
///
/// Overlong filtering of DAPO (arXiv:2503.14476 §3.4): a trajectory that a limit cut off says nothing about its
/// rules, so with `mask_truncated` it is left out, of the sums and of what they are divided by.
pub fn trains_on(truncated: bool, mask_truncated: bool) -> bool {
    !(truncated && mask_truncated)
}

/// What the loss of one trajectory depends on besides its scores. All lists have one entry for each sampled token.
#[derive(Clone, Copy, Debug)]
pub struct SequenceTerms<'a> {
    /// The trajectory's advantage.
    pub advantage: f64,
    /// Weight of each token ([`token_weights`]).
    pub weight: f64,
    /// The sampler's log-probabilities, nats.
    pub behaviour: &'a [f32],
    /// The trainer's log-probabilities before the first update of the batch, if the importance weight is on.
    pub proximal: Option<&'a [f32]>,
    /// The frozen first policy's log-probabilities, if the KL term is on.
    pub reference: Option<&'a [f32]>,
}

/// The loss of one trajectory and what is reported of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SequenceValue {
    /// Its part of the minibatch's loss.
    pub loss: f64,
    /// Sampled tokens.
    pub count: usize,
    /// Tokens whose surrogate is clipped.
    pub clipped_count: usize,
    /// Sum over tokens of the k3 estimate of the divergence from the reference, nats.
    pub reference_kl: f64,
    /// Sum over tokens of the entropy, nats.
    pub entropy: f64,
    /// The largest ratio; 0 for no tokens.
    pub max_ratio: f64,
}

impl SequenceValue {
    /// Adds another trajectory's part.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.count += other.count;
        self.clipped_count += other.clipped_count;
        self.reference_kl += other.reference_kl;
        self.entropy += other.entropy;
        self.max_ratio = nan_max(self.max_ratio, other.max_ratio);
    }
}

/// The loss of one trajectory (the formula at the head of this file), and its gradient with respect to every
/// log-probability and entropy, which is written over `out`.
///
/// With [`RatioKind::Sequence`] the ratio is shared, and the slope of each token's term reaches all tokens through the
/// mean: `dL/dx_j` gets `(1 / |y|) sum_t w v_t (-slope)`. KL and entropy stay terms of single tokens.
pub fn sequence_objective(
    settings: &Loss,
    terms: &SequenceTerms<'_>,
    scores: &[TokenScore],
    out: &mut [TokenGradient],
) -> SequenceValue {
    let old = terms.proximal.unwrap_or(terms.behaviour);
    let log_ratios: Vec<f64> =
        scores.iter().zip(old).map(|(score, &old)| f64::from(score.log_prob) - f64::from(old)).collect();
    let shared = (settings.ratio == RatioKind::Sequence).then(|| sequence_log_ratio(&log_ratios));
    let mut value = SequenceValue::default();
    let mut shared_slope = 0.0; // of the loss in the shared log-ratio
    for (index, ((score, &log_ratio), gradient)) in scores.iter().zip(&log_ratios).zip(out.iter_mut()).enumerate() {
        let ratio = shared.unwrap_or(log_ratio).exp();
        let surrogate = clipped_surrogate(ratio, terms.advantage, settings.clip_low, settings.clip_high);
        let importance = terms.proximal.map_or(1.0, |proximal| {
            let (proximal, behaviour) = (f64::from(proximal[index]), f64::from(terms.behaviour[index]));
            truncated_weight(proximal, behaviour, settings.max_importance_weight)
        });
        let (reference_kl, kl_slope) =
            terms.reference.map_or((0.0, 0.0), |reference| k3(f64::from(score.log_prob), f64::from(reference[index])));
        let entropy = f64::from(score.entropy);

        value.loss += terms.weight
            * (settings.kl_coefficient * reference_kl
                - importance * surrogate.value
                - settings.entropy_coefficient * entropy);
        let slope = -terms.weight * importance * surrogate.slope;
        let own_slope = if shared.is_some() { 0.0 } else { slope };
        shared_slope += slope;
        *gradient = TokenGradient {
            log_prob: (own_slope + terms.weight * settings.kl_coefficient * kl_slope) as f32,
            entropy: (-terms.weight * settings.entropy_coefficient) as f32,
        };

        value.count += 1;
        value.clipped_count += usize::from(surrogate.clipped);
        value.reference_kl += reference_kl;
        value.entropy += entropy;
        value.max_ratio = nan_max(value.max_ratio, ratio);
    }
    if shared.is_some() {
        let share = shared_slope / scores.len() as f64;
        for gradient in out {
            gradient.log_prob = (f64::from(gradient.log_prob) + share) as f32;
        }
    }
    value
}

/// The larger number; not a number if one of them is not, which `f64::max` would hide.
pub(super) fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
