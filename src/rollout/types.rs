//! What a rollout returns: plain data, all that an update, a log or another program needs. No tensors, no episodes.

use std::sync::Arc;

use crate::policy::Target;
use crate::seed::Seed;

/// One observation and one answer of one seat.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TurnRecord {
    /// The seat, from 1.
    pub seat: u32,
    /// What the seat was shown; empty for opponents that are not language models.
    pub observation: String,
    /// The whole text of the answer.
    pub answer: String,
    /// What was played, as read from the answer.
    pub action: String,
    /// Whether the rules took the action.
    pub legal: bool,
    /// Whether the answer was in the answer format.
    pub well_formed: bool,
    /// Penalty of this turn.
    pub reward: f64,
}

/// One game of a trajectory: the whole trajectory, or one stage of a nest.
#[derive(Clone, Debug, PartialEq)]
pub struct StageRecord {
    /// The game's name.
    pub game: String,
    /// Version of its script.
    pub version: String,
    /// Seed of its episode, shared by the group.
    pub seed: Seed,
    /// The learner's seat, from 1.
    pub seat: u32,
    /// Who sat in each seat: `self` for the policy, else a `SPEC`, or `league:NAME`.
    pub players: Vec<String>,
    /// The turns of all seats, in order.
    pub turns: Vec<TurnRecord>,
    /// Scores by seat; zeros if a limit or an illegal answer ended the episode.
    pub scores: Vec<f64>,
    /// Reward of the learner, penalties included.
    pub reward: f64,
    /// Whether the learner succeeded.
    pub success: bool,
    /// Whether a limit ended it.
    pub truncated: bool,
    /// Tokens of the learner's observations.
    pub prompt_count: usize,
    /// Tokens that the policy sampled.
    pub sampled_count: usize,
}

/// One seat's turns in one episode (or nest of episodes), with tokens, mask and log-probabilities; gets one reward and
/// one advantage.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// Unique in the run: `step-group-member`, and `-seatN` (in a nest `-stageM-seatN`) for a further seat.
    pub id: String,
    /// Its group, counted in the iteration.
    pub group: usize,
    /// Its number in the group.
    pub member: usize,
    /// Whether the policy took this seat beside the one that was planned for it (self-play). Such a seat is a trajectory
    /// of its stage alone, also in a nest, with a context and a reward of its own.
    pub is_further: bool,
    /// The games, in order; one unless nested.
    pub stages: Vec<StageRecord>,
    /// All tokens: observations, answers, special tokens.
    pub tokens: Vec<u32>,
    /// The tokens that the policy sampled, ascending, with the ids each was sampled among. Tokens that the constraint
    /// left no choice are not sampled and not listed.
    pub targets: Vec<Target>,
    /// Log-probability of each target under the behaviour policy, nats.
    pub log_probs: Vec<f32>,
    /// Reward of the trajectory.
    pub reward: f64,
    /// Whether every stage succeeded.
    pub success: bool,
    /// Whether a limit ended one of its episodes or the context was full.
    pub truncated: bool,
}

impl Trajectory {
    /// 1 where the policy sampled the token, by position.
    pub fn policy_mask(&self) -> Vec<u8> {
        let mut mask = vec![0; self.tokens.len()];
        for target in &self.targets {
            if let Some(entry) = mask.get_mut(target.position as usize) {
                *entry = 1;
            }
        }
        mask
    }
}

/// The script that an episode was lost to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Culprit {
    /// A game's script, or its own player in another seat.
    Game(String),
    /// The nest's joint reward.
    Nest,
    /// The reward script.
    Reward,
    /// An opponent in this game, whose script is not to blame.
    Opponent(String),
}

/// An episode that was lost to a fault of a script or an opponent: it leaves its group and is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Voided {
    /// The game that was played.
    pub game: String,
    /// The script at fault.
    pub culprit: Culprit,
    /// What happened.
    pub problem: Arc<crate::diag::Diagnostic>,
}

/// The trajectories that share stages, task seeds, seats, script versions and policy version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The games in order.
    pub games: Vec<String>,
    /// The members that were played to an end.
    pub trajectories: Vec<Trajectory>,
    /// The members that were lost.
    pub voided: Vec<Voided>,
    /// Whether members were cut short, as the group was decided. Such a group is not trained on.
    pub is_cut: bool,
}

/// How far a group has come while it is played.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupProgress {
    /// Rewards of the members that were played to an end.
    pub rewards: Vec<f64>,
    /// Members that are still playing. Those that were lost are in neither figure.
    pub running: usize,
    /// Whether the group was cut short before.
    pub is_cut: bool,
}
