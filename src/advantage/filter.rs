//! Which groups are kept for the update. Looks at rewards only; the dropped groups still count in the metrics.

use super::{GroupFilter, MIN_STD, standard_deviation};
use crate::rollout::Group;

/// Keeps every group of at least two trajectories.
#[derive(Clone, Copy, Debug)]
pub struct KeepAll;

impl GroupFilter for KeepAll {
    fn keep(&self, groups: &[Group]) -> Vec<bool> {
        groups.iter().map(|group| !group.is_cut && group.trajectories.len() >= 2).collect()
    }
}

/// Keeps the groups whose rewards have the highest standard deviation ([`keep_highest`]).
#[derive(Clone, Copy, Debug)]
pub struct RewardStd {
    /// The share of the groups that is kept.
    pub ratio: f64,
}

impl GroupFilter for RewardStd {
    fn keep(&self, groups: &[Group]) -> Vec<bool> {
        let spreads: Vec<f64> = groups
            .iter()
            .map(|group| {
                if group.is_cut {
                    return 0.0;
                }
                let rewards: Vec<f64> = group.trajectories.iter().map(|trajectory| trajectory.reward).collect();
                standard_deviation(&rewards)
            })
            .collect();
        keep_highest(&spreads, self.ratio)
    }
}

/// For each group, whether its standard deviation is among the `max(1, floor(ratio * groups))` highest; the earlier of
/// two equal ones goes first.
///
/// Trajectory filtering of StarPO-S (RAGEN, arXiv:2504.20073), which GIFT takes over with a ratio of 0.25. Departure:
/// a group without spread (below [`MIN_STD`], or not a number) is never kept, since its advantages are all zero, so
/// fewer groups than the ratio asks for may be left, or none.
pub fn keep_highest(spreads: &[f64], ratio: f64) -> Vec<bool> {
    let wanted = wanted(ratio, spreads.len());
    let mut order: Vec<usize> = (0..spreads.len()).filter(|&index| spreads[index] >= MIN_STD).collect();
    order.sort_by(|&a, &b| spreads[b].total_cmp(&spreads[a])); // stable: ties stay in the order of the groups
    let mut keep = vec![false; spreads.len()];
    for index in order.into_iter().take(wanted) {
        keep[index] = true;
    }
    keep
}

/// How many of so many groups are kept at most.
pub(super) fn wanted(ratio: f64, count: usize) -> usize {
    // 0.29 * 100 is 28.999999999999996: a product that is whole but for rounding counts as whole.
    ((ratio * count as f64 + 1e-9).floor() as usize).max(1)
}
