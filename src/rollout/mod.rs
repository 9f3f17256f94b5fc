//! Plays many episodes at once with one policy and returns trajectories as plain data. Sits between [`crate::game`] and
//! [`crate::policy`], which it joins, and [`crate::advantage`] and [`crate::train`], which use what it returns.
//!
//! Episodes enter and leave the batch at any token: each pass of the loop lets the episodes that wait for their rules go on
//! while it takes one step of the model for those that wait for a token. What several trajectories have in common is computed
//! once.

mod play; // the loop: rules and models at once, until all is played
mod score; // finished episodes, by seat of the policy
mod slot; // one episode while it is played
mod types; // what a rollout returns

use crate::config::{AnswerFormat, Constrain, ObservationKind};
use crate::game::{GameDef, Nest, RewardScript, Seat};
use crate::opponent::stop_rule;
use crate::policy::{AnswerRules, Decoder, Sampling, Tokenizer};
use crate::seed::Seed;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use play::play;
pub use types::{Culprit, Group, GroupProgress, StageRecord, Trajectory, TurnRecord, Voided};

/// One game of a group's trajectories.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// The version that every member plays.
    pub game: Arc<GameDef>,
    /// Seed of the episode, shared by the members.
    pub seed: Seed,
    /// The learner's seat.
    pub seat: Seat,
    /// The episode's number in an evaluation, from 1; none in training.
    pub number: Option<u64>,
}

/// What the members of a group play.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// The games in order.
    pub stages: Vec<StagePlan>,
    /// Seed of the members' own streams: sampling and opponents.
    pub seed: Seed,
    /// Number of members.
    pub members: usize,
    /// First part of the trajectories' ids.
    pub id: String,
}

/// Says of each planned group whether it is decided.
pub type Decided<'a> = &'a (dyn Fn(&[GroupProgress]) -> Vec<bool> + Sync);

/// The policy and everything else that a rollout shares.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    /// The model.
    pub decoder: &'a dyn Decoder,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Who plays the other seats.
    pub opponents: &'a crate::opponent::Opponents,
    /// The joint reward of nested trajectories.
    pub nest: &'a Nest,
    /// The reward of an episode; without one, the learner's score plus the penalties.
    pub reward: Option<&'a RewardScript>,
    /// For each planned group, whether nothing that its members still play can matter; they are then cut short. It is asked when
    /// members have finished.
    pub decided: Option<Decided<'a>>,
    /// Set from outside to stop the rollout.
    pub interrupt: &'a AtomicBool,
    /// Time since some fixed moment; only reported, never used to decide.
    pub clock: fn() -> Duration,
}

/// How to play.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutSettings {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Whether answers are sampled among the legal ones.
    pub constrain: Constrain,
    /// Which text the policy sees.
    pub observation: ObservationKind,
    /// How an answer is read.
    pub format: AnswerFormat,
    /// Whether a free answer ends where its format is complete.
    pub stop: bool,
    /// Most sampled tokens a turn.
    pub max_new_tokens: usize,
    /// Most tokens a trajectory.
    pub max_context: usize,
    /// Most tokens that one forward pass takes.
    pub max_batch_tokens: usize,
    /// Most bytes of keys and values of all trajectories together; 0: no bound.
    pub max_cache_bytes: usize,
    /// Added for an answer that is not in the answer format.
    pub format_penalty: f64,
    /// Added for an answer that the rules refuse.
    pub illegal_penalty: f64,
}

impl RolloutSettings {
    /// How the policy's answers are sampled.
    fn answer_rules(&self) -> AnswerRules {
        AnswerRules {
            sampling: self.sampling,
            max_new_tokens: self.max_new_tokens,
            max_context: self.max_context,
            max_batch_tokens: self.max_batch_tokens,
            max_cache_bytes: self.max_cache_bytes,
            stop: if self.stop { stop_rule(self.format) } else { None },
        }
    }
}

/// What a rollout took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RolloutStats {
    /// Tokens that went through the model: prompts once each, and answers.
    pub model_tokens: usize,
    /// Tokens that did not have to, because another trajectory had begun alike.
    pub shared_tokens: usize,
    /// Trajectories whose keys and values were dropped to make room.
    pub preempted: usize,
    /// Tokens that the policy sampled.
    pub sampled_tokens: usize,
    /// Answers of opponents that are language models.
    pub opponent_answers: usize,
    /// Those of them that could not be played.
    pub opponent_invalid: usize,
    /// Time in rules and opponents that the model had to wait for.
    pub env: Duration,
    /// Time of all threads together in rules and scripted opponents, whether a model waited or not.
    pub scripts: Duration,
    /// Time altogether.
    pub total: Duration,
}

/// The room's failures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rollout was stopped from outside; nothing of it is kept.
    #[error("the rollout was interrupted")]
    Interrupted,
    /// The policy failed.
    #[error("the policy failed in a rollout")]
    Policy(#[from] crate::policy::Error),
    /// An opponent cannot play any more, in any episode.
    #[error("{0}")]
    Opponent(Box<crate::diag::Diagnostic>),
    /// The nest gave no order of games.
    #[error("{0}")]
    Nest(Box<crate::diag::Diagnostic>),
}
