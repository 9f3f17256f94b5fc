//! Which inputs of an adapter are left out in a training pass. Every choice is a function of the draw, the projection, the
//! tokens up to the row, and the column: it is the same for sequences computed alone or together, by either backend, in the
//! forward pass and when that is computed again.

use super::Projection;
use crate::seed::mix;

/// What dropout does in one training pass (arXiv:1207.0580): an input of `A` counts 0 with probability `rate`, else
/// `1 / (1 - rate)` times.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Dropout {
    /// The share of hashes below which an input is left out.
    threshold: u32,
    kept: f32,
    seed: u64,
}

impl Dropout {
    /// `None` for a rate of 0.
    pub(in crate::policy) fn new(rate: f64) -> Option<Self> {
        let threshold = (rate * f64::from(u32::MAX)) as u32;
        (threshold > 0).then_some(Self { threshold, kept: (1.0 / (1.0 - rate)) as f32, seed: 0 })
    }

    /// Makes another draw.
    pub(in crate::policy) fn draw(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// A key for every token of a sequence, of it and of those before it.
    pub(in crate::policy) fn keys(tokens: &[u32]) -> impl Iterator<Item = u64> {
        tokens.iter().scan(0, |key, &token| {
            *key = mix(*key ^ (u64::from(token) + 1));
            Some(*key)
        })
    }

    /// What the inputs of a projection's `A` are multiplied by, `[keys, columns]`.
    pub(in crate::policy) fn factors(
        &self,
        (layer, projection): (usize, Projection),
        keys: &[u64],
        columns: usize,
        out: &mut [f32],
    ) {
        let place = mix(self.seed ^ mix((layer * Projection::ALL.len() + projection as usize) as u64 + 1));
        for (row, &key) in out.chunks_exact_mut(columns).zip(keys) {
            let start = mix(place ^ key);
            for (pair, index) in row.chunks_mut(2).zip(0_u64..) {
                let hash = mix(start.wrapping_add(index));
                for (value, bits) in pair.iter_mut().zip([hash as u32, (hash >> 32) as u32]) {
                    *value = if bits < self.threshold { 0.0 } else { self.kept };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_is_left_out_is_the_rate_and_the_mean_stays() {
        let mut dropout = Dropout::new(0.3).expect("a rate");
        let keys: Vec<u64> = Dropout::keys(&[5; 400]).collect();
        let mut seen = Vec::new();
        for (seed, place) in [(1, (0, Projection::Query)), (2, (0, Projection::Query)), (1, (3, Projection::Down))] {
            dropout.draw(seed);
            let mut factors = vec![0.0; 400 * 251];
            dropout.factors(place, &keys, 251, &mut factors);
            let mean = factors.iter().map(|&value| f64::from(value)).sum::<f64>() / factors.len() as f64;
            // Five standard deviations of the mean of so many draws.
            assert!((mean - 1.0).abs() < 5.0 * (0.3_f64 / 0.7 / factors.len() as f64).sqrt(), "{mean}");
            assert!(factors.chunks(251).all(|row| row.contains(&0.0)) && factors.contains(&(1.0 / 0.7)));
            seen.push(factors);
        }
        // Two draws agree where chance has it: 0.7² + 0.3² = 0.58.
        for pair in [(0, 1), (0, 2), (1, 2)] {
            let alike = seen[pair.0].iter().zip(&seen[pair.1]).filter(|(a, b)| a == b).count() as f64 / 100_400.0;
            assert!((alike - 0.58).abs() < 0.01, "{alike}");
        }
        assert!(Dropout::new(0.0).is_none());
    }

    #[test]
    fn keys_know_all_tokens_before() {
        let keys = |tokens: &[u32]| Dropout::keys(tokens).collect::<Vec<_>>();
        assert_eq!(keys(&[1, 2, 3])[..2], keys(&[1, 2, 9])[..2]);
        assert_ne!(keys(&[1, 2, 3])[2], keys(&[2, 1, 3])[2]);
        assert_ne!(keys(&[0, 0])[0], keys(&[0, 0])[1]);
    }
}
