//! Role-conditioned advantages as in SPIRAL: a running mean of the rewards for each list of games and seats, so that a
//! seat that usually wins is not praised for winning. Its state goes into checkpoints.

use std::collections::BTreeMap;

use super::group_relative::mean;
use super::{AdvantageEstimator, Error, EstimatorState, comparable_rewards};
use crate::rollout::{Group, Trajectory};

/// `A = R - b` with one running mean `b` for each [`role_key`].
///
/// Role-conditioned advantage estimation of SPIRAL (arXiv:2506.24119): `b <- a b + (1 - a) R` for each trajectory,
/// then `A = R - b`. Three departures, so that neither order nor group size biases an advantage: a group is measured
/// against the mean from before it; its `n` rewards then count as `n` times their mean,
/// `b <- a^n b + (1 - a^n) mean(R)`; and the first group of a role starts its running mean at its own mean instead
/// of 0.
#[derive(Clone, Debug)]
pub struct RoleBaseline {
    decay: f64,
    baselines: BTreeMap<String, f64>,
}

impl RoleBaseline {
    /// An estimator that has seen no reward; `decay` is `a` above, the share that the old mean keeps for each
    /// trajectory.
    pub fn new(decay: f64) -> Self {
        Self { decay, baselines: BTreeMap::new() }
    }
}

impl AdvantageEstimator for RoleBaseline {
    fn advantages(&mut self, group: &Group) -> Result<Vec<f32>, Error> {
        let rewards = comparable_rewards(group)?;
        // Members share seats, but one whose context ran out lists fewer of them: it belongs to the longest one's role.
        let Some(fullest) = group.trajectories.iter().max_by_key(|trajectory| trajectory.stages.len()) else {
            return Ok(Vec::new());
        };
        let group_mean = mean(&rewards);
        let baseline = self.baselines.entry(role_key(fullest)).or_insert(group_mean);
        let advantages = rewards.iter().map(|reward| (reward - *baseline) as f32).collect();
        let kept = self.decay.powi(rewards.len() as i32);
        *baseline = kept * *baseline + (1.0 - kept) * group_mean;
        Ok(advantages)
    }

    fn state(&self) -> EstimatorState {
        EstimatorState { baselines: self.baselines.clone() }
    }

    fn restore(&mut self, state: EstimatorState) {
        self.baselines = state.baselines;
    }
}

/// The games and seats of a trajectory, such as `matrix:1 tictactoe:2`.
pub fn role_key(trajectory: &Trajectory) -> String {
    let roles: Vec<_> = trajectory.stages.iter().map(|stage| format!("{}:{}", stage.game, stage.seat)).collect();
    roles.join(" ")
}
