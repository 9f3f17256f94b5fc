//! The trajectories that an update trains on, borrowed from the groups that a rollout returned. Plain data.

use super::Error;
use crate::policy::Target;
use crate::rollout::Group;

/// One trajectory with its advantage.
#[derive(Clone, Copy, Debug)]
pub struct BatchItem<'a> {
    /// All tokens: observations, answers, special tokens.
    pub tokens: &'a [u32],
    /// The sampled tokens, ascending.
    pub targets: &'a [Target],
    /// Log-probability of each target under the behaviour policy, nats.
    pub old_log_probs: &'a [f32],
    /// The advantage, the same for every target.
    pub advantage: f32,
    /// Whether a limit ended the trajectory.
    pub truncated: bool,
}

/// What one call of [`super::Learner::update`] trains on.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    /// The trajectories, in the order of their groups and members.
    pub items: Vec<BatchItem<'a>>,
}

impl<'a> Batch<'a> {
    /// The trajectories of the kept groups, with one list of advantages for each group, kept or not.
    ///
    /// # Errors
    /// [`Error::Length`] if a list does not match the groups, the members of one, or a trajectory's targets.
    pub fn from_groups(groups: &'a [Group], keep: &[bool], advantages: &[Vec<f32>]) -> Result<Self, Error> {
        expect_length("keep", groups.len(), keep.len())?;
        expect_length("advantages", groups.len(), advantages.len())?;
        let mut items = Vec::new();
        for ((group, _), advantages) in groups.iter().zip(keep).zip(advantages).filter(|((_, keep), _)| **keep) {
            expect_length("advantages", group.trajectories.len(), advantages.len())?;
            for (trajectory, &advantage) in group.trajectories.iter().zip(advantages) {
                expect_length("log_probs", trajectory.targets.len(), trajectory.log_probs.len())?;
                items.push(BatchItem {
                    tokens: &trajectory.tokens,
                    targets: &trajectory.targets,
                    old_log_probs: &trajectory.log_probs,
                    advantage,
                    truncated: trajectory.truncated,
                });
            }
        }
        Ok(Self { items })
    }

    /// How many tokens the policy sampled in all trajectories together.
    pub fn target_count(&self) -> usize {
        self.items.iter().map(|item| item.targets.len()).sum()
    }
}

pub(super) fn expect_length(name: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Length { name, expected, found }) }
}
