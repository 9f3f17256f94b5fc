//! Turns kept trajectories with advantages into new weights: the objective and its gradient in closed form,
//! minibatches, schedule, one optimizer step a minibatch. Sits between [`crate::advantage`] and the checkpoints; the
//! tensors stay behind [`crate::policy::Decoder`], which carries the gradients of this room's scores back to the
//! weights.
//!
//! The method is StarPO with DAPO's changes, as GIFT (arXiv:2601.05633) uses it: clip-higher, token-mean loss, no KL
//! term, an entropy bonus. Departures: the log-probabilities that the sampler stored are the old ones of the ratio,
//! so the first update of a batch needs no pass of its own and `kl/rollout_train` shows at every step that sampler
//! and trainer agree; with `loss.max_importance_weight` above 0 the trainer scores the batch once more first, and the
//! two roles of the old policy are told apart (see [`truncated_weight`]).

mod batch; // the trajectories that an update trains on
mod learner; // minibatches, clipping, optimizer steps, figures
mod loss; // every part of the objective with its equation
mod schedule; // the learning rate

pub use batch::{Batch, BatchItem};
pub use learner::{Learner, LearnerState, MAX_CONSECUTIVE_SKIPS, UpdateContext, UpdateStats};
pub use loss::{
    SequenceTerms, SequenceValue, Surrogate, clipped_surrogate, k3, sequence_log_ratio, sequence_objective,
    token_weights, trains_on, truncated_weight,
};
pub use schedule::learning_rate;

use crate::policy;

/// The room's failures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The decoder failed.
    #[error(transparent)]
    Policy {
        /// The decoder's error.
        #[from]
        source: policy::Error,
    },
    /// Two lists that belong together have different lengths.
    #[error("`{name}`: expected {expected} entries, found {found}")]
    Length {
        /// The list.
        name: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The objective has a KL term but nothing to measure the divergence from.
    #[error("`loss.kl_coefficient` is above 0, but there is no reference policy")]
    MissingReference,
    /// Update after update had a loss or gradient that is not finite. All of them were skipped, so the weights are
    /// those of the last good update and worth a checkpoint; the run should stop after it.
    #[error("{count} updates in a row were skipped: the {what} was not finite; lower `optimizer.learning_rate`")]
    NotFinite {
        /// How many.
        count: u64,
        /// `loss` or `gradient`, in the last of them.
        what: &'static str,
    },
}

#[cfg(test)]
mod fake; // a decoder that is a table of logits, for the tests of this room
#[cfg(test)]
mod tests;
