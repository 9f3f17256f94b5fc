//! From logits to a token: temperature, constraint, top-k, top-p and min-p, in this order.

use super::cpu::fast_exp;
use crate::seed::Stream;

/// Ids whose weights are summed up together when a whole vocabulary is sampled from.
const BLOCK: usize = 256;
/// Partial sums kept side by side.
const WIDTH: usize = 16;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f32,
    /// Keep only this many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens whose probabilities sum to this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less probable than this times the most probable one; 0 keeps all.
    pub min_p: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

impl Sampling {
    /// Whether the most probable token is taken.
    pub(super) fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    /// Whether improbable tokens are left out.
    fn cuts(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0
    }

    /// What logits are multiplied with.
    pub(super) fn scale(&self) -> f32 {
        if self.is_greedy() { 1.0 } else { 1.0 / self.temperature }
    }
}

/// A sampled token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The token id.
    pub token: u32,
    /// Its log-probability under `softmax(logits / temperature)` over the allowed ids, before top-k, top-p and min-p cut
    /// anything (the same distribution that training scores), nats. With temperature 0, under `softmax(logits)`.
    pub log_prob: f32,
}

impl Sampled {
    /// What is taken where no logit is finite.
    pub(super) fn impossible(allowed: Option<&[u32]>) -> Self {
        Self { token: allowed.and_then(|ids| ids.first().copied()).unwrap_or(0), log_prob: 0.0 }
    }
}

/// Draws a token from `logits` (`[vocab]`), among `allowed` (ascending ids) if given. Not-finite logits count as
/// impossible; if none is finite the first allowed token is taken.
pub fn sample(logits: &[f32], allowed: Option<&[u32]>, sampling: &Sampling, stream: &mut Stream) -> Sampled {
    draw(logits, allowed, sampling, || stream.float()).unwrap_or_else(|| Sampled::impossible(allowed))
}

/// As [`sample`] with a uniform number below 1, which is asked for only if it decides; `None` if no logit is finite.
pub(super) fn draw(
    logits: &[f32],
    allowed: Option<&[u32]>,
    sampling: &Sampling,
    number: impl FnOnce() -> f64,
) -> Option<Sampled> {
    let greedy = sampling.is_greedy();
    if !greedy && !sampling.cuts() && allowed.is_none() && logits.len() > BLOCK {
        return draw_from_all(logits, 1.0 / sampling.temperature, number);
    }
    let scale = sampling.scale();
    let scaled = |id: u32| {
        let logit = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        (id, if logit.is_finite() { logit * scale } else { f32::NEG_INFINITY })
    };
    let mut candidates: Vec<(u32, f32)> = match allowed {
        Some(ids) => ids.iter().map(|&id| scaled(id)).collect(),
        None => (0..logits.len() as u32).map(scaled).collect(),
    };
    let highest = candidates.iter().map(|c| c.1).fold(f32::NEG_INFINITY, f32::max);
    if !highest.is_finite() {
        return None;
    }
    let log_sum = highest + candidates.iter().map(|c| (c.1 - highest).exp()).sum::<f32>().ln();
    truncate(&mut candidates, log_sum, sampling);
    let chosen = if greedy {
        candidates.iter().copied().fold(candidates[0], |best, c| if c.1 > best.1 { c } else { best })
    } else {
        let total: f64 = candidates.iter().map(|c| f64::from(c.1 - highest).exp()).sum();
        let mut left = number() * total;
        let mut chosen = candidates[0];
        for candidate in &candidates {
            let weight = f64::from(candidate.1 - highest).exp();
            if weight > 0.0 {
                chosen = *candidate;
                if left < weight {
                    break;
                }
                left -= weight;
            }
        }
        chosen
    };
    Some(Sampled { token: chosen.0, log_prob: chosen.1 - log_sum })
}

/// [`draw`] among all ids without cuts, in two passes over the logits and one over a block: nothing is stored, as reading
/// a large vocabulary more often would take longer than the model does for a row.
fn draw_from_all(logits: &[f32], scale: f32, number: impl FnOnce() -> f64) -> Option<Sampled> {
    let scaled = |logit: f32| if logit.is_finite() { logit * scale } else { f32::NEG_INFINITY };
    let mut lanes = [f32::NEG_INFINITY; WIDTH];
    let (blocks, rest) = logits.as_chunks::<WIDTH>();
    for block in blocks {
        for j in 0..WIDTH {
            let value = scaled(block[j]);
            lanes[j] = if value > lanes[j] { value } else { lanes[j] };
        }
    }
    let highest = rest.iter().map(|&logit| scaled(logit)).chain(lanes).fold(f32::NEG_INFINITY, f32::max);
    if !highest.is_finite() {
        return None;
    }
    let weight = |logit: f32| fast_exp(scaled(logit) - highest);
    let block_sum = |block: &[f32]| {
        let (parts, rest) = block.as_chunks::<WIDTH>();
        let mut sums = [0.0_f32; WIDTH];
        for part in parts {
            for j in 0..WIDTH {
                sums[j] += weight(part[j]);
            }
        }
        sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() + rest.iter().map(|&x| f64::from(weight(x))).sum::<f64>()
    };
    let sums: Vec<f64> = logits.chunks(BLOCK).map(block_sum).collect();
    let total: f64 = sums.iter().sum();
    let mut left = number() * total;
    // Rounding may leave something over at the end: then it is the last block that has any weight.
    let mut chosen = sums.iter().rposition(|&sum| sum > 0.0).unwrap_or(0);
    for (index, &sum) in sums.iter().enumerate().take(chosen) {
        if left < sum {
            chosen = index;
            break;
        }
        left -= sum;
    }
    let mut token = chosen * BLOCK;
    for (id, &logit) in logits.iter().enumerate().skip(chosen * BLOCK).take(BLOCK) {
        let weight = f64::from(weight(logit));
        if weight > 0.0 {
            token = id;
            if left < weight {
                break;
            }
            left -= weight;
        }
    }
    Some(Sampled { token: token as u32, log_prob: scaled(logits[token]) - (highest + total.ln() as f32) })
}

/// Applies top-k, top-p (arXiv:1904.09751) and min-p (arXiv:2407.01082); at least one candidate stays.
fn truncate(candidates: &mut Vec<(u32, f32)>, log_sum: f32, sampling: &Sampling) {
    if !sampling.cuts() {
        return;
    }
    // Ties keep the order of ids, so the cut is the same on every machine.
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if sampling.top_k > 0 {
        candidates.truncate(sampling.top_k);
    }
    if sampling.top_p < 1.0 {
        let mut mass = 0.0;
        let keep = candidates.iter().take_while(|c| {
            let inside = mass < sampling.top_p;
            mass += (c.1 - log_sum).exp();
            inside
        });
        let keep = keep.count().max(1);
        candidates.truncate(keep);
    }
    if sampling.min_p > 0.0 {
        let floor = candidates[0].1 + sampling.min_p.ln();
        candidates.retain(|c| c.1 >= floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn frequencies(logits: &[f32], allowed: Option<&[u32]>, sampling: &Sampling) -> Vec<f64> {
        let mut stream = Seed::new(3).stream();
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sample(logits, allowed, sampling, &mut stream).token as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn tokens_are_drawn_by_their_probabilities_and_log_probabilities_say_so() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
        let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / 0.7).exp()).collect();
        let total: f64 = weights[0] + weights[1] + weights[3];
        let found = frequencies(&logits, Some(&[0, 1, 3]), &sampling);
        assert!(found[2] == 0.0, "a token outside the constraint was drawn");
        for id in [0, 1, 3] {
            assert!((found[id] - weights[id] / total).abs() < 0.015, "{found:?}");
        }
        let mut stream = Seed::new(4).stream();
        let drawn = sample(&logits, Some(&[0, 1, 3]), &sampling, &mut stream);
        let expected = (weights[drawn.token as usize] / total).ln();
        assert!((f64::from(drawn.log_prob) - expected).abs() < 1e-5);
    }

    /// A large vocabulary takes the short way, and one that is merely allowed as a whole does not.
    #[test]
    fn a_whole_vocabulary_is_sampled_as_the_list_of_its_ids_is() {
        let mut noise = Seed::new(8).stream();
        let mut logits: Vec<f32> = (0..1003).map(|_| noise.normal() as f32 * 1.5).collect();
        (logits[17], logits[600], logits[1002]) = (f32::NAN, f32::NEG_INFINITY, f32::INFINITY);
        let all: Vec<u32> = (0..1003).collect();
        let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
        let (mut short, mut long) = (Seed::new(9).stream(), Seed::new(9).stream());
        let mut ids = std::collections::BTreeSet::new();
        // Sums of other roundings part where a number falls between: of a thousand draws hardly one.
        let mut different = 0;
        for _ in 0..1000 {
            let found = sample(&logits, None, &sampling, &mut short);
            let expected = sample(&logits, Some(&all), &sampling, &mut long);
            if found.token != expected.token {
                different += 1;
                continue;
            }
            assert!((found.log_prob - expected.log_prob).abs() < 1e-5, "{found:?}, not {expected:?}");
            ids.insert(found.token);
        }
        assert!(different <= 2, "{different} draws differ");
        assert!(ids.len() > 50 && !ids.contains(&17) && !ids.contains(&600) && !ids.contains(&1002));
        assert_eq!(sample(&[f32::NAN; 1000], None, &sampling, &mut short), Sampled { token: 0, log_prob: 0.0 });
    }

    #[test]
    fn truncation_keeps_the_most_probable_tokens() {
        let logits = [3.0, 2.0, 1.0, 0.0];
        for sampling in [
            Sampling { top_k: 2, ..Sampling::default() },
            Sampling { top_p: 0.7, ..Sampling::default() },
            Sampling { min_p: 0.2, ..Sampling::default() },
        ] {
            let found = frequencies(&logits, None, &sampling);
            assert!(found[0] > found[1] && found[1] > 0.0 && found[2] == 0.0, "{sampling:?}: {found:?}");
        }
        assert!(
            (frequencies(&logits, None, &Sampling { temperature: 0.0, ..Sampling::default() })[0] - 1.0).abs() < 1e-9
        );
    }

    #[test]
    fn logits_that_are_not_finite_do_no_harm() {
        let mut stream = Seed::new(5).stream();
        let drawn = sample(&[f32::NAN, 1.0, f32::INFINITY], None, &Sampling::default(), &mut stream);
        assert_eq!(drawn.token, 1);
        assert_eq!(sample(&[f32::NAN; 3], Some(&[2]), &Sampling::default(), &mut stream).token, 2);
    }
}
