//! One batch to new weights: minibatches, the exact objective of each, clipping by global norm, AdamW steps, and the
//! figures that the run reports. Holds only counters; weights and moments are the decoder's.

use super::batch::expect_length;
use super::loss::{SequenceTerms, SequenceValue, k3, nan_max, sequence_objective, token_weights, trains_on};
use super::{Batch, BatchItem, Error, learning_rate};
use crate::config::{Loss, Optimizer};
use crate::policy::{AdamWStep, Decoder, Sequence, SequenceLoss, TokenGradient, TokenScore};
use crate::seed::Seed;

/// Skipped updates in a row after which [`Learner::update`] gives up.
pub const MAX_CONSECUTIVE_SKIPS: u64 = 3;

/// Keeps the quotient of the clipping finite; the constant of PyTorch's `clip_grad_norm_`.
const NORM_EPSILON: f64 = 1e-6;

/// What a checkpoint must hold of a learner; the moments are tensors of the decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LearnerState {
    /// Optimizer steps taken since the run's start.
    pub updates: u64,
    /// Updates skipped in a row so far.
    pub skips_in_a_row: u64,
    /// Updates skipped since the run's start.
    pub skipped: u64,
}

/// What an update depends on besides its batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateContext {
    /// The iteration, from 1.
    pub iteration: u64,
    /// Iterations of the whole run; the learning rate ends its curve there.
    pub iterations: u64,
    /// Divides the logits; the sampler's, so that ratios start at 1.
    pub temperature: f32,
    /// Most tokens that one pass takes, so that a large minibatch fits in memory; gradients add up over passes. At
    /// least one trajectory is taken. 0 takes a minibatch at once.
    pub max_pass_tokens: usize,
    /// Shuffles the trajectories.
    pub seed: Seed,
}

/// Figures of one call of [`Learner::update`]. Means are not a number where there is nothing to average; skipped
/// updates are in no figure but `skipped`, the token counts, and the comparison of sampler and trainer.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateStats {
    /// Mean over the updates taken of the minibatch's loss, before the step.
    pub loss: f64,
    /// Mean over the updates taken of the gradient's L2 norm, before clipping.
    pub grad_norm: f64,
    /// Share of the tokens whose surrogate was clipped, over all updates taken.
    pub clip_fraction: f64,
    /// Mean entropy of the tokens' distributions over all updates taken, nats.
    pub entropy: f64,
    /// Divergence of the sampler from the trainer: the mean k3 estimate, `E_o[exp(x - o) - (x - o) - 1]`, over the
    /// tokens scored before the first step, nats. Those are the first minibatch's, or all with the importance weight
    /// on. It is 0 up to rounding unless the two compute different probabilities.
    pub kl_rollout_train: f64,
    /// The largest distance from 1 of the probability ratio between trainer and sampler, of a token, over the same
    /// tokens.
    pub ratio_deviation: f64,
    /// The largest ratio of the objective over all updates taken (of a sequence, if it is taken over sequences).
    pub ratio_max: f64,
    /// Mean k3 estimate of the divergence from the reference over all updates taken, nats; `None` without a KL term.
    pub kl_reference: Option<f64>,
    /// Tokens of the sequences that went forward and backward, prompts included, over all passes.
    pub tokens: usize,
    /// Sampled tokens among them.
    pub target_tokens: usize,
    /// Optimizer steps taken.
    pub updates: u64,
    /// Updates skipped because the loss or the gradient was not finite.
    pub skipped: u64,
    /// Learning rate of the last step; 0 if none was taken.
    pub learning_rate: f64,
}

/// Trains a decoder on batches.
#[derive(Clone, Debug)]
pub struct Learner {
    loss: Loss,
    optimizer: Optimizer,
    state: LearnerState,
}

/// One trajectory with everything that its loss needs.
struct Example<'a> {
    sequence: Sequence<'a>,
    item: BatchItem<'a>,
    proximal: Option<Vec<f32>>,
    reference: Option<Vec<f32>>,
}

/// The loss of the sequences of one pass.
struct Objective<'a> {
    settings: &'a Loss,
    terms: Vec<SequenceTerms<'a>>,
}

impl SequenceLoss for Objective<'_> {
    fn gradient(&self, index: usize, scores: &[TokenScore], out: &mut [TokenGradient]) {
        sequence_objective(self.settings, &self.terms[index], scores, out);
    }
}

/// Sums over passes, from which [`UpdateStats`] are made.
#[derive(Default)]
struct Totals {
    sums: SequenceValue, // of the updates taken
    grad_norm: f64,
    tokens: usize,
    target_tokens: usize,
    updates: u64,
    skipped: u64,
    learning_rate: f64,
    agreement: Agreement,
}

/// How far the trainer's log-probabilities are from the sampler's.
#[derive(Default)]
struct Agreement {
    divergence: f64,
    deviation: f64,
    tokens: usize,
}

impl Agreement {
    fn add(&mut self, scores: &[TokenScore], behaviour: &[f32]) {
        for (score, &old) in scores.iter().zip(behaviour) {
            let (current, old) = (f64::from(score.log_prob), f64::from(old));
            self.divergence += k3(old, current).0;
            self.deviation = nan_max(self.deviation, (current - old).exp_m1().abs());
        }
        self.tokens += scores.len();
    }
}

impl Learner {
    /// A learner that has taken no step.
    pub fn new(loss: &Loss, optimizer: &Optimizer) -> Self {
        Self { loss: loss.clone(), optimizer: optimizer.clone(), state: LearnerState::default() }
    }

    /// Goes on with other settings.
    pub fn change_settings(&mut self, loss: &Loss, optimizer: &Optimizer) {
        self.loss.clone_from(loss);
        self.optimizer.clone_from(optimizer);
    }

    /// The counters, for a checkpoint.
    pub fn state(&self) -> LearnerState {
        self.state
    }

    /// Goes on from stored counters.
    pub fn restore(&mut self, state: LearnerState) {
        self.state = state;
    }

    /// Trains on the batch: `epochs` passes in a random order, one optimizer step for each minibatch.
    ///
    /// Trajectories without sampled tokens, and truncated ones with `loss.mask_truncated`, are left out first. What
    /// each token weighs depends on token counts only, so it is known before the pass and the gradient is that of the
    /// whole minibatch, however it is split into passes. An update whose loss or gradient is not finite is skipped
    /// and counted.
    ///
    /// # Errors
    /// [`Error::NotFinite`] after [`MAX_CONSECUTIVE_SKIPS`] skipped updates in a row, counted across calls
    /// (the count then starts anew, for a run that resumes); [`Error::MissingReference`] if the KL term is on without
    /// a reference; [`Error::Length`] if log-probabilities or scores do not match their targets; [`Error::Policy`]
    /// from the decoder.
    pub fn update(
        &mut self,
        policy: &mut dyn Decoder,
        reference: Option<&dyn Decoder>,
        batch: &Batch<'_>,
        context: &UpdateContext,
    ) -> Result<UpdateStats, Error> {
        let mut totals = Totals::default();
        policy.set_gradient_checkpointing(self.optimizer.gradient_checkpointing);
        let examples = self.examples(policy, reference, batch, context, &mut totals.agreement)?;
        let minibatch = if self.optimizer.minibatch == 0 { examples.len() } else { self.optimizer.minibatch };
        policy.clear_gradients()?;
        for epoch in 0..self.optimizer.epochs {
            let mut order: Vec<&Example<'_>> = examples.iter().collect();
            context.seed.child("epoch", epoch as u64).stream().shuffle(&mut order);
            for examples in order.chunks(minibatch.max(1)) {
                self.minibatch(policy, examples, context, &mut totals)?;
            }
        }
        Ok(self.stats(&totals))
    }

    /// The trajectories in the loss, scored by the reference and by the policy itself where the objective asks for it.
    fn examples<'a>(
        &self,
        policy: &dyn Decoder,
        reference: Option<&dyn Decoder>,
        batch: &Batch<'a>,
        context: &UpdateContext,
        agreement: &mut Agreement,
    ) -> Result<Vec<Example<'a>>, Error> {
        let mut examples = Vec::new();
        for &item in &batch.items {
            expect_length("old_log_probs", item.targets.len(), item.old_log_probs.len())?;
            let Some(last) = item.targets.last() else { continue };
            if trains_on(item.truncated, self.loss.mask_truncated) {
                // What follows the last sampled token predicts nothing.
                let end = (last.position as usize + 1).min(item.tokens.len());
                let sequence = Sequence { tokens: &item.tokens[..end], targets: item.targets };
                examples.push(Example { sequence, item, proximal: None, reference: None });
            }
        }
        if self.loss.kl_coefficient > 0.0 {
            let reference = reference.ok_or(Error::MissingReference)?;
            let scores = score_all(reference, &sequences_of(&examples), context)?;
            for (example, scores) in examples.iter_mut().zip(scores) {
                example.reference = Some(log_probs(&scores));
            }
        }
        if self.scores_apart(policy) {
            let scores = score_all(policy, &sequences_of(&examples), context)?;
            for (example, scores) in examples.iter_mut().zip(scores) {
                agreement.add(&scores, example.item.old_log_probs);
                example.proximal = (self.loss.max_importance_weight > 0.0).then(|| log_probs(&scores));
            }
        }
        Ok(examples)
    }

    /// Whether trainer and sampler are compared in a pass of its own: because its scores are wanted before the first update,
    /// or because those of a training pass have dropout in them.
    fn scores_apart(&self, policy: &dyn Decoder) -> bool {
        self.loss.max_importance_weight > 0.0 || policy.adapter().is_some_and(|adapter| adapter.dropout > 0.0)
    }

    /// One minibatch: forward and backward in passes that fit, then a step or a skip.
    fn minibatch(
        &mut self,
        policy: &mut dyn Decoder,
        examples: &[&Example<'_>],
        context: &UpdateContext,
        totals: &mut Totals,
    ) -> Result<(), Error> {
        let counts: Vec<usize> = examples.iter().map(|example| example.item.targets.len()).collect();
        let weights = token_weights(self.loss.aggregation, self.loss.constant, &counts);
        let compares = totals.updates == 0 && !self.scores_apart(policy);
        policy.draw_dropout(context.seed.child("dropout", totals.updates + totals.skipped).value());
        let lengths: Vec<usize> = examples.iter().map(|example| example.sequence.tokens.len()).collect();
        let mut sums = SequenceValue::default();
        for range in passes(&lengths, context.max_pass_tokens) {
            let objective = Objective {
                settings: &self.loss,
                terms: range.clone().map(|index| examples[index].terms(weights[index])).collect(),
            };
            let examples = &examples[range];
            let sequences: Vec<Sequence<'_>> = examples.iter().map(|example| example.sequence).collect();
            let scores = policy.accumulate(&sequences, context.temperature, &objective)?;
            expect_length("scores", sequences.len(), scores.len())?;
            for ((example, terms), scores) in examples.iter().zip(&objective.terms).zip(&scores) {
                expect_length("scores", example.item.targets.len(), scores.len())?;
                let mut gradients = vec![TokenGradient::default(); scores.len()];
                sums.merge(&sequence_objective(&self.loss, terms, scores, &mut gradients));
                totals.tokens += example.sequence.tokens.len();
                totals.target_tokens += scores.len();
                if compares {
                    totals.agreement.add(scores, example.item.old_log_probs);
                }
            }
        }
        self.step_or_skip(policy, &sums, context, totals)
    }

    /// Takes the optimizer step of an accumulated minibatch, or forgets it if it is not finite.
    fn step_or_skip(
        &mut self,
        policy: &mut dyn Decoder,
        sums: &SequenceValue,
        context: &UpdateContext,
        totals: &mut Totals,
    ) -> Result<(), Error> {
        let norm = policy.gradient_norm()?;
        if !sums.loss.is_finite() || !norm.is_finite() {
            policy.clear_gradients()?;
            totals.skipped += 1;
            self.state.skipped += 1;
            self.state.skips_in_a_row += 1;
            if self.state.skips_in_a_row >= MAX_CONSECUTIVE_SKIPS {
                let what = if sums.loss.is_finite() { "gradient" } else { "loss" };
                let count = std::mem::take(&mut self.state.skips_in_a_row);
                return Err(Error::NotFinite { count, what });
            }
            return Ok(());
        }
        let settings = &self.optimizer;
        let update = self.state.updates + 1;
        let rate = learning_rate(settings, update, context.iteration, context.iterations);
        policy.step(&AdamWStep {
            learning_rate: rate,
            beta1: settings.beta1,
            beta2: settings.beta2,
            epsilon: settings.epsilon,
            weight_decay: settings.weight_decay,
            step: update,
            gradient_scale: clip_scale(norm, settings.max_gradient_norm),
            states: settings.states,
        })?;
        self.state.updates = update;
        self.state.skips_in_a_row = 0;
        totals.updates += 1;
        totals.sums.merge(sums);
        totals.grad_norm += norm;
        totals.learning_rate = rate;
        Ok(())
    }

    fn stats(&self, totals: &Totals) -> UpdateStats {
        let (sums, updates) = (&totals.sums, totals.updates as f64);
        let tokens = sums.count as f64; // 0 / 0 is not a number on purpose: nothing was averaged
        UpdateStats {
            loss: sums.loss / updates,
            grad_norm: totals.grad_norm / updates,
            clip_fraction: sums.clipped_count as f64 / tokens,
            entropy: sums.entropy / tokens,
            kl_rollout_train: totals.agreement.divergence / totals.agreement.tokens as f64,
            ratio_deviation: totals.agreement.deviation,
            ratio_max: sums.max_ratio,
            kl_reference: (self.loss.kl_coefficient > 0.0).then(|| sums.reference_kl / tokens),
            tokens: totals.tokens,
            target_tokens: totals.target_tokens,
            updates: totals.updates,
            skipped: totals.skipped,
            learning_rate: totals.learning_rate,
        }
    }
}

impl Example<'_> {
    fn terms(&self, weight: f64) -> SequenceTerms<'_> {
        SequenceTerms {
            advantage: f64::from(self.item.advantage),
            weight,
            behaviour: self.item.old_log_probs,
            proximal: self.proximal.as_deref(),
            reference: self.reference.as_deref(),
        }
    }
}

/// The factor that brings a gradient of this norm down to `max`; 1 if it is below or `max` is 0. As PyTorch's
/// `clip_grad_norm_`: `min(1, max / (norm + 1e-6))`.
fn clip_scale(norm: f64, max: f64) -> f64 {
    if max > 0.0 { (max / (norm + NORM_EPSILON)).min(1.0) } else { 1.0 }
}

fn sequences_of<'a>(examples: &[Example<'a>]) -> Vec<Sequence<'a>> {
    examples.iter().map(|example| example.sequence).collect()
}

/// Scores of all sequences, in passes that fit.
fn score_all(
    decoder: &dyn Decoder,
    sequences: &[Sequence<'_>],
    context: &UpdateContext,
) -> Result<Vec<Vec<TokenScore>>, Error> {
    let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens.len()).collect();
    let mut all = Vec::with_capacity(sequences.len());
    for range in passes(&lengths, context.max_pass_tokens) {
        all.extend(decoder.score(&sequences[range], context.temperature)?);
    }
    expect_length("scores", sequences.len(), all.len())?;
    for (sequence, scores) in sequences.iter().zip(&all) {
        expect_length("scores", sequence.targets.len(), scores.len())?;
    }
    Ok(all)
}

fn log_probs(scores: &[TokenScore]) -> Vec<f32> {
    scores.iter().map(|score| score.log_prob).collect()
}

/// Splits sequences of these lengths, in order, into ranges of at most `max` tokens (0: no bound) and at least one
/// sequence.
fn passes(lengths: &[usize], max: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (index, &length) in lengths.iter().enumerate() {
        if index > start && max > 0 && tokens + length > max {
            ranges.push(start..index);
            (start, tokens) = (index, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        ranges.push(start..lengths.len());
    }
    ranges
}
