//! Every random stream of a run, derived from the run's seed. Uses nothing else of the crate; the only place that makes a
//! random generator.
//!
//! A [`Seed`] is a name, not a state: `seed.child("episode", 7)` is the same seed whoever asks and whenever, so a resumed
//! run needs no stored generator and threads cannot disturb each other.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Seeds are kept to 53 bits, so that JSON, TOML and Lua hold them exactly.
const SEED_BITS: u32 = 53;

/// The name of a random stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(u64);

impl Seed {
    /// The seed with this number, cut to 53 bits.
    pub const fn new(value: u64) -> Self {
        Self(value & ((1 << SEED_BITS) - 1))
    }

    /// The seed as a number, below 2^53.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The seed of a part of what this seed stands for: `index` counts the parts of one kind, `label` names the kind.
    #[must_use]
    pub fn child(self, label: &str, index: u64) -> Self {
        // FNV-1a over the label, then two rounds of SplitMix64's finalizer (Steele, Lea, Flood 2014).
        let hash = label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self::new(mix(mix(self.0 ^ hash).wrapping_add(index)))
    }

    /// A fresh generator at the start of this seed's stream.
    pub fn stream(self) -> Stream {
        Stream(ChaCha8Rng::seed_from_u64(self.0))
    }
}

/// A number that looks unrelated to this one, and is the same every time.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A generator of random numbers with the same sequence on every platform.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// A uniform integer in `low..=high`; `low` if the range is empty.
    pub fn int(&mut self, low: i64, high: i64) -> i64 {
        if high <= low {
            return low;
        }
        let span = high.wrapping_sub(low) as u64;
        if span == u64::MAX {
            return self.0.next_u64() as i64;
        }
        // Rejection keeps the draw unbiased: numbers past the last full multiple of the span are drawn again.
        let count = span + 1;
        let zone = u64::MAX - (u64::MAX - count + 1) % count;
        loop {
            let draw = self.0.next_u64();
            if draw <= zone {
                return low.wrapping_add((draw % count) as i64);
            }
        }
    }

    /// A uniform number in `[0, 1)` with 53 random bits.
    pub fn float(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A standard normal number (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.float()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.float()).cos()
    }

    /// A uniform index below `length`; 0 if `length` is 0.
    pub fn index(&mut self, length: usize) -> usize {
        self.int(0, length.saturating_sub(1) as i64) as usize
    }

    /// Puts the items in a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_differ_by_label_and_index_and_stay_in_53_bits() {
        let seed = Seed::new(u64::MAX);
        let children: std::collections::BTreeSet<_> =
            ["group", "member"].iter().flat_map(|label| (0..1000).map(move |index| seed.child(label, index))).collect();
        assert_eq!(children.len(), 2000);
        assert!(children.iter().all(|child| child.value() < 1 << 53));
    }

    #[test]
    fn integers_are_uniform_over_the_whole_range() {
        let mut stream = Seed::new(1).stream();
        let mut counts = [0_u32; 6];
        for _ in 0..60_000 {
            counts[stream.int(1, 6) as usize - 1] += 1;
        }
        // Five standard deviations of a binomial count with n = 60,000 and p = 1/6 are 457.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 457), "{counts:?}");
    }

    #[test]
    fn extreme_ranges_do_not_overflow() {
        let mut stream = Seed::new(2).stream();
        for _ in 0..100 {
            stream.int(i64::MIN, i64::MAX);
            assert!((5..=5).contains(&stream.int(5, 5)));
            assert!(stream.int(i64::MAX - 1, i64::MAX) >= i64::MAX - 1);
        }
    }
}
