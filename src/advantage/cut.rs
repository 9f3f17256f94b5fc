//! Which groups the filter will drop whatever their unfinished episodes bring, so that these need not be played on. What is kept, and
//! all that is learned from it, stays the same to the bit, on a CPU and as long as the same scripts are in service.

use crate::config::{self, FilterKind};
use crate::rollout::{Group, GroupProgress};

use super::filter::wanted;
use super::{MIN_STD, standard_deviation};

/// The share of the range of rewards by which bounds are parted before they count as different, as sums round.
const MARGIN: f64 = 1e-7;

/// Decides about groups while they are played.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// The share of the groups that the filter keeps, if it ranks them.
    ratio: Option<f64>,
    /// What no reward lies outside of, if that is known.
    range: Option<(f64, f64)>,
}

impl Cut {
    /// What the settings ask for; `None` if nothing is to be cut.
    pub fn new(settings: &config::Filter) -> Option<Self> {
        let range = match settings.reward_range[..] {
            [low, high] => Some((low, high)),
            _ => None,
        };
        let ratio = (settings.kind == FilterKind::RewardStd).then_some(settings.ratio);
        settings.cut.then_some(Self { ratio, range })
    }

    /// For each group, whether the filter drops it however the members end that are still playing. They may also be lost. A reward
    /// outside of the range shows that the range says nothing, so only groups that will have fewer than two members are then
    /// dropped.
    ///
    /// A group is dropped if enough others are above it for sure: those whose standard deviation, were all their open rewards at
    /// the mean, is above its own with every open reward at one end of the range, where variance is largest.
    pub fn decided(&self, groups: &[GroupProgress]) -> Vec<bool> {
        let is_small = |group: &GroupProgress| group.rewards.len() + group.running < 2;
        let mut decided: Vec<bool> = groups.iter().map(is_small).collect();
        let (Some(ratio), Some((low, high))) = (self.ratio, self.range) else { return decided };
        if groups.iter().flat_map(|group| &group.rewards).any(|reward| !(low..=high).contains(reward)) {
            return decided;
        }
        let margin = MARGIN * (high - low);
        let least: Vec<f64> = groups.iter().map(least_spread).collect();
        let wanted = wanted(ratio, groups.len());
        for (group, decided) in groups.iter().zip(&mut decided).filter(|(group, _)| group.running > 0) {
            let most = most_spread(group, low, high) + margin;
            *decided |= least.iter().filter(|&&least| least > most && least >= MIN_STD).count() >= wanted;
        }
        decided
    }

    /// A trajectory whose reward lies outside of the range, with its reward.
    pub fn outside<'a>(&self, groups: &'a [Group]) -> Option<(&'a str, f64)> {
        let (low, high) = self.range?;
        let mut all = groups.iter().flat_map(|group| &group.trajectories);
        let found = all.find(|trajectory| !(low..=high).contains(&trajectory.reward))?;
        Some((&found.id, found.reward))
    }
}

/// The least standard deviation that a group can end with: `sqrt(S / (n - 1))`, where `S` are the squared deviations of the rewards that
/// are known and `n` counts all members.
fn least_spread(group: &GroupProgress) -> f64 {
    let known = group.rewards.len();
    if group.is_cut || known < 2 {
        return 0.0;
    }
    let squares = standard_deviation(&group.rewards).powi(2) * (known - 1) as f64;
    (squares / (known + group.running - 1) as f64).sqrt()
}

/// The largest standard deviation that a group can end with, if all rewards lie between `low` and `high`. Variance is convex in each
/// reward, so it is largest with each open one at one of the ends; over how many are at the upper one it is a parabola.
fn most_spread(group: &GroupProgress, low: f64, high: f64) -> f64 {
    let width = high - low;
    let sum: f64 = group.rewards.iter().map(|reward| reward - low).sum();
    let squares: f64 = group.rewards.iter().map(|reward| (reward - low).powi(2)).sum();
    let mut most = 0.0_f64;
    // Some of the open ones may be lost.
    for open in 0..=group.running {
        let members = (group.rewards.len() + open) as f64;
        if members < 2.0 {
            continue;
        }
        let variance = |upper: f64| {
            let sum = sum + upper * width;
            (squares + upper * width * width - sum * sum / members) / (members - 1.0)
        };
        let best = (members / 2.0 - sum / width).clamp(0.0, open as f64);
        most = most.max(variance(best.floor())).max(variance(best.ceil()));
    }
    most.sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::advantage::keep_highest;

    fn playing(rewards: &[f64], running: usize) -> GroupProgress {
        GroupProgress { rewards: rewards.to_vec(), running, is_cut: false }
    }

    fn cut(ratio: f64, range: &[f64]) -> Cut {
        let settings = config::Filter { ratio, cut: true, reward_range: range.to_vec(), ..config::Filter::default() };
        Cut::new(&settings).unwrap()
    }

    #[test]
    fn a_group_is_dropped_once_it_cannot_reach_those_that_are_kept() {
        let done = playing(&[0.0, 0.0, 1.0, 1.0], 0);
        let hopeless = playing(&[1.0, 1.0, 1.0], 1); // at most 0.5, below 0.577
        let open = playing(&[1.0, 1.0], 2); // may end like the first
        assert_eq!(
            cut(0.25, &[0.0, 1.0]).decided(&[done.clone(), hopeless.clone(), open.clone()]),
            [false, true, false]
        );
        // Two are kept of four, and only one is above for sure.
        let four = [done.clone(), hopeless.clone(), open.clone(), open];
        assert_eq!(cut(0.5, &[0.0, 1.0]).decided(&four), [false; 4]);
        // A wider range lets the last member make up for all.
        assert_eq!(cut(0.25, &[-1.0, 1.0]).decided(&[done.clone(), hopeless.clone()]), [false, false]);
        assert_eq!(cut(0.25, &[]).decided(&[done, hopeless]), [false, false]);
    }

    #[test]
    fn a_group_of_one_is_dropped_by_every_filter() {
        let groups = [playing(&[], 1), playing(&[1.0], 0), playing(&[1.0], 1), playing(&[], 0)];
        let expected = [true, true, false, true];
        assert_eq!(cut(0.25, &[]).decided(&groups), expected);
        let all = config::Filter { kind: FilterKind::None, cut: true, ..config::Filter::default() };
        assert_eq!(Cut::new(&all).unwrap().decided(&groups), expected);
        assert_eq!(Cut::new(&config::Filter::default()), None);
    }

    #[test]
    fn a_reward_outside_of_the_range_ends_what_the_range_decides() {
        let groups = [playing(&[0.0, 1.5], 0), playing(&[1.0, 1.0, 1.0], 1)];
        assert_eq!(cut(0.5, &[0.0, 1.0]).decided(&groups), [false, false]);
        assert_eq!(cut(0.5, &[0.0, 1.5]).decided(&groups), [false, true]);
    }

    proptest! {
        /// However the open members end, the groups that were decided are not among those that are kept, and the others are kept
        /// as if nothing had been decided.
        #[test]
        fn what_is_decided_is_never_kept(
            groups in prop::collection::vec((prop::collection::vec(0..5_i32, 0..5), 0..4_usize), 1..6),
            ratio in prop::sample::select(vec![0.2, 0.25, 0.5, 0.7]),
            // Of each open member: its reward, or that it is lost.
            ends in prop::collection::vec(prop::option::weighted(0.8, prop::sample::select(vec![-0.5, 0.0, 0.1, 0.5, 1.5])), 24),
        ) {
            let reward = |&step: &i32| f64::from(step) * 0.5 - 0.5;
            let progress: Vec<GroupProgress> = groups
                .iter()
                .map(|(steps, running)| playing(&steps.iter().map(reward).collect::<Vec<_>>(), *running))
                .collect();
            let decided = cut(ratio, &[-0.5, 1.5]).decided(&progress);
            let mut ends = ends.iter();
            let spread = |group: &GroupProgress| {
                let open = ends.by_ref().take(group.running).flatten().copied();
                standard_deviation(&group.rewards.iter().copied().chain(open).collect::<Vec<_>>())
            };
            let spreads: Vec<f64> = progress.iter().map(spread).collect();
            let kept = keep_highest(&spreads, ratio);
            prop_assert!(!decided.iter().zip(&kept).any(|(decided, kept)| *decided && *kept), "{progress:?} {spreads:?}");
            let without: Vec<f64> = spreads.iter().zip(&decided).map(|(s, &cut)| if cut { 0.0 } else { *s }).collect();
            prop_assert_eq!(keep_highest(&without, ratio), kept);
        }
    }
}
