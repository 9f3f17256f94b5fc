//! What a trainable decoder does, whichever backend computes it: extend cached sequences (sampling), score sequences,
//! accumulate gradients of a loss over the scores, take an optimizer step, give its tensors in and out by name.
//!
//! Two implementations, both with a hand-written forward and backward: [`super::cpu`], and [`super::candle_decoder`] on candle
//! tensors by [`super::fused`] operations (CUDA, and the oracle of the first in tests). A model that is only sampled from, such as a
//! quantized one, has [`Inference`] alone.

use std::sync::Arc;

use candle_core::Tensor;

use crate::config::OptimizerStates;

use super::{AdapterConfig, DecoderConfig, Error, KvCache, Logits};

/// Tokens to append to one cached sequence.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Keys and values of what the sequence holds so far; grows by `tokens`.
    pub cache: &'a mut KvCache,
    /// The tokens to append, at least one.
    pub tokens: &'a [u32],
}

/// One sampled token of a sequence that is scored or trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Position of the sampled token in the sequence, from 1; it is predicted by the row before it.
    pub position: u32,
    /// The token ids it was sampled among, ascending, or `None` for the whole vocabulary.
    pub allowed: Option<Arc<[u32]>>,
}

/// A sequence with the tokens of it that are scored.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// All tokens.
    pub tokens: &'a [u32],
    /// The scored positions, ascending.
    pub targets: &'a [Target],
}

/// What the decoder says of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenScore {
    /// Log-probability of the token under the distribution `softmax(logits / temperature)` over the allowed ids, nats.
    pub log_prob: f32,
    /// Entropy of that distribution, nats.
    pub entropy: f32,
}

/// Gradient of the loss with respect to a [`TokenScore`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenGradient {
    /// dL/d(log-probability).
    pub log_prob: f32,
    /// dL/d(entropy).
    pub entropy: f32,
}

/// A loss that is a function of the scores of one sequence at a time.
pub trait SequenceLoss: Sync {
    /// Writes the gradient for every target of sequence `index` (counted in the call's slice). `out` starts at zero and
    /// has the length of `scores`.
    fn gradient(&self, index: usize, scores: &[TokenScore], out: &mut [TokenGradient]);
}

/// One step of AdamW (arXiv:1711.05101): decay is decoupled, both moments are corrected for their start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay; not applied to vectors (norms, biases).
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// Factor on every gradient (clipping by global norm).
    pub gradient_scale: f64,
    /// How the moments are stored. Only the CPU decoder has them in 8 bits; the other one fails.
    pub states: OptimizerStates,
}

/// One of the tensors kept for each parameter. Of a decoder with an adapter, only the adapter is trained: gradients and moments
/// are those of its tensors, and bear their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorKind {
    /// The weights; under an adapter those that it was put on, which never change.
    Weight,
    /// The tensors of the adapter; none without one.
    Adapter,
    /// The gradients accumulated since the last step.
    Gradient,
    /// Adam's first moment.
    FirstMoment,
    /// Adam's second moment.
    SecondMoment,
}

/// A tensor on its way in or out.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The parameter's Hugging Face name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// The shape; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub data: Vec<f32>,
}

/// What sampling needs of a model.
pub trait Inference: Send + Sync {
    /// The shape of the model.
    fn config(&self) -> &DecoderConfig;

    /// Where it computes, as users name it: `cpu`, `cuda:0`.
    fn device(&self) -> String {
        "cpu".to_owned()
    }

    /// An empty cache.
    fn new_cache(&self) -> KvCache;

    /// Bytes that the first `count` tokens of a sequence take at most.
    fn first_growth(&self, count: usize) -> usize {
        self.new_cache().growth(count)
    }

    /// Appends the tokens of every chunk to its cache and returns the logits after the last token of each chunk.
    /// The sequences may have any lengths and need not be related. The result does not depend on the number of threads.
    ///
    /// # Shapes
    /// - returns `[chunks, vocab]`, `f32`, row-major, not divided by any temperature; no gradient flows
    ///
    /// # Errors
    /// [`Error::Shape`] for a chunk without tokens, a token outside the vocabulary or a context longer than the model's.
    fn extend(&self, chunks: &mut [Chunk<'_>]) -> Result<Vec<f32>, Error>;

    /// As [`Inference::extend`], with the logits left where they are computed; tokens are drawn from them there.
    ///
    /// # Errors
    /// As [`Inference::extend`].
    fn extend_in_place(&self, chunks: &mut [Chunk<'_>]) -> Result<Logits, Error> {
        Ok(Logits::on_host(self.extend(chunks)?, self.config().vocab_size))
    }

    /// What goes on with tokens that the program has not seen yet, where that pays: a device would otherwise wait for the program at
    /// every token.
    fn ahead(&self) -> Option<&dyn InferenceAhead> {
        None
    }
}

/// Inference from tokens that lie where they were drawn.
pub trait InferenceAhead: Send + Sync {
    /// Appends to each cache the token that was drawn for it, and returns the logits after these.
    ///
    /// # Shapes
    /// - `tokens`: `[caches]`, `u32`, below the size of the vocabulary; returns `[caches, vocab]`
    ///
    /// # Errors
    /// As [`Inference::extend`].
    fn extend_by_drawn(&self, caches: &mut [&mut KvCache], tokens: &Tensor) -> Result<Logits, Error>;
}

/// A trainable decoder.
pub trait Decoder: Inference {
    /// The settings of the adapter that is trained; `None` where all weights are.
    fn adapter(&self) -> Option<&AdapterConfig> {
        None
    }

    /// The weights that the model computes with, sorted by name: the adapter is added to those that it was put on.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    fn merged_weights(&self) -> Result<Vec<NamedTensor>, Error> {
        let mut weights = self.tensors(TensorKind::Weight)?;
        if let Some(adapter) = self.adapter() {
            adapter.merge(self.config(), &mut weights, &self.tensors(TensorKind::Adapter)?)?;
        }
        Ok(weights)
    }

    /// Whether activations are computed again in the backward pass instead of being kept (arXiv:1604.06174). On a device, those
    /// that there is no room for always are.
    fn set_gradient_checkpointing(&mut self, _is_on: bool) {}

    /// Decides anew which inputs of the adapter the next calls of [`Decoder::accumulate`] leave out, where it has dropout.
    fn draw_dropout(&mut self, _seed: u64) {}

    /// Scores every target of every sequence without gradients; nothing is left out.
    ///
    /// # Errors
    /// As [`Inference::extend`]; also for targets that are not ascending, outside the sequence or not among their `allowed`.
    fn score(&self, sequences: &[Sequence<'_>], temperature: f32) -> Result<Vec<Vec<TokenScore>>, Error>;

    /// Scores every target and adds the gradients of `loss` to the accumulated ones. Returns the scores, which dropout
    /// changes.
    ///
    /// # Errors
    /// As [`Decoder::score`].
    fn accumulate(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        loss: &dyn SequenceLoss,
    ) -> Result<Vec<Vec<TokenScore>>, Error>;

    /// The L2 norm of all accumulated gradients; not finite if one of them is not.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    fn gradient_norm(&self) -> Result<f64, Error>;

    /// Forgets the accumulated gradients.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    fn clear_gradients(&mut self) -> Result<(), Error>;

    /// Takes one optimizer step with the accumulated gradients, then forgets them.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    fn step(&mut self, step: &AdamWStep) -> Result<(), Error>;

    /// A copy of the tensors of one kind, sorted by name. Moments are zero before the first step.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    fn tensors(&self, kind: TensorKind) -> Result<Vec<NamedTensor>, Error>;

    /// Replaces the tensors of one kind.
    ///
    /// # Errors
    /// [`Error::Shape`] if a name is missing, unknown or has another shape; then nothing is changed.
    fn set_tensors(&mut self, kind: TensorKind, tensors: &[NamedTensor]) -> Result<(), Error>;
}
