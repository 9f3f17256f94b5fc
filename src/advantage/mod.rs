//! Turns the rewards of one group into one advantage per trajectory, and chooses the groups that are trained on. Sits
//! between [`crate::rollout`], which plays, and [`crate::train`], which updates; knows nothing of tokens or tensors.
//!
//! A new estimator is a new file here and one arm in [`build_estimator`]; a new filter one arm in [`build_filter`].

mod cut; // groups that are decided while they are played
mod filter; // drops groups without signal
mod group_relative; // GRPO and Dr. GRPO
mod role_baseline; // SPIRAL: one running mean per game and seat

use std::collections::BTreeMap;

use crate::config::{self, EstimatorKind, FilterKind};
use crate::rollout::Group;

pub use cut::Cut;
pub use filter::{KeepAll, RewardStd, keep_highest};
pub use group_relative::{Mean, MeanStd, group_relative, mean_relative, standard_deviation};
pub use role_baseline::{RoleBaseline, role_key};

/// Rewards closer together than this have no spread worth training on. It also catches what rounding leaves of equal
/// rewards: the mean of sixteen times 0.1 is not exactly 0.1.
pub const MIN_STD: f64 = 1e-8;

/// The room's failures.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The members of a group were not played with the same scripts, so their rewards cannot be compared.
    #[error("a group mixes scripts: `{first}` plays `{expected}`, `{second}` plays `{found}`")]
    MixedVersions {
        /// The first member.
        first: String,
        /// Its games and versions.
        expected: String,
        /// The first member that differs from it.
        second: String,
        /// The other's games and versions.
        found: String,
    },
    /// A reward is infinite or not a number.
    #[error("the reward of trajectory `{trajectory}` must be finite, found {reward}")]
    Reward {
        /// The trajectory.
        trajectory: String,
        /// Its reward.
        reward: f64,
    },
}

/// Rewards of one group to one advantage per trajectory.
pub trait AdvantageEstimator {
    /// The advantages of the group's trajectories, in their order.
    ///
    /// # Errors
    /// [`Error::MixedVersions`] if the members were not played with the same script versions, [`Error::Reward`] for a
    /// reward that is not finite. The estimator's state is then unchanged.
    fn advantages(&mut self, group: &Group) -> Result<Vec<f32>, Error>;

    /// What a checkpoint must hold to go on from here.
    fn state(&self) -> EstimatorState {
        EstimatorState::default()
    }

    /// Goes on from a stored state. Estimators without a state ignore it.
    fn restore(&mut self, _state: EstimatorState) {}
}

/// What an estimator carries from one iteration to the next; empty for those that look at one group only.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct EstimatorState {
    /// Running mean of the rewards by [`role_key`].
    pub baselines: BTreeMap<String, f64>,
}

/// The groups that are kept for the update.
pub trait GroupFilter {
    /// For each group, whether it is kept. A group of fewer than two trajectories is never kept, nor one that was cut short.
    fn keep(&self, groups: &[Group]) -> Vec<bool>;
}

/// The estimator that the settings name.
pub fn build_estimator(settings: &config::Advantage) -> Box<dyn AdvantageEstimator + Send> {
    match settings.estimator {
        EstimatorKind::MeanStd => Box::new(MeanStd),
        EstimatorKind::Mean => Box::new(Mean),
        EstimatorKind::Role => Box::new(RoleBaseline::new(settings.role_decay)),
    }
}

/// The filter that the settings name.
pub fn build_filter(settings: &config::Filter) -> Box<dyn GroupFilter + Send> {
    match settings.kind {
        FilterKind::None => Box::new(KeepAll),
        FilterKind::RewardStd => Box::new(RewardStd { ratio: settings.ratio }),
    }
}

/// The rewards of a group whose members may be compared.
fn comparable_rewards(group: &Group) -> Result<Vec<f64>, Error> {
    let Some(first) = group.trajectories.first() else { return Ok(Vec::new()) };
    for trajectory in &group.trajectories {
        // A member whose context ran out has fewer stages: those that both played must agree.
        let mut shared = first.stages.iter().zip(&trajectory.stages);
        if shared.any(|(a, b)| (&a.game, &a.version) != (&b.game, &b.version)) {
            let describe = |stages: &[crate::rollout::StageRecord]| -> String {
                stages.iter().map(|stage| format!("{}@{}", stage.game, stage.version)).collect::<Vec<_>>().join(" ")
            };
            return Err(Error::MixedVersions {
                first: first.id.clone(),
                expected: describe(&first.stages),
                second: trajectory.id.clone(),
                found: describe(&trajectory.stages),
            });
        }
        if !trajectory.reward.is_finite() {
            return Err(Error::Reward { trajectory: trajectory.id.clone(), reward: trajectory.reward });
        }
    }
    Ok(group.trajectories.iter().map(|trajectory| trajectory.reward).collect())
}

#[cfg(test)]
mod tests;
