//! The last norm and projection: from the residual stream of target rows to scores, and from the gradient of the scores back
//! to the stream. Full logits exist for a block of rows only; a target with few allowed ids needs only theirs.
//!
//! With `z = logits / T` over the allowed ids and `p = softmax(z)`: log-probability `z_y - logsumexp(z)`, entropy
//! `H = -sum p log p`, and `dL/dz_j = dL/dlogp ([j = y] - p_j) - dL/dH p_j (log p_j + H)`.

use super::gradients::Gradients;
use super::kernels::{add_scaled, exponential_sums, maximum, rms_norm, rms_norm_backward};
use super::matmul::{LANES, Operand, Packing, Product, Rows, multiply, sized};
use super::model::Model;
use crate::policy::{Sequence, Target, TokenGradient, TokenScore};

/// Logits held at a time (16 MiB), but at least `MIN_ROWS` rows of them.
pub(super) const MAX_LOGITS: usize = 1 << 22;
pub(super) const MIN_ROWS: usize = 16;
/// A target is computed id by id if its allowed ids are fewer than the vocabulary divided by this.
const SPARSE_RATIO: usize = 8;

/// Buffers of the head.
#[derive(Debug, Default)]
pub(super) struct HeadScratch {
    /// The residual stream of the target rows, `[targets, hidden]`.
    rows: Vec<f32>,
    /// Normalized, `[targets, hidden]`.
    normalized: Vec<f32>,
    normalized_gradient: Vec<f32>,
    rows_gradient: Vec<f32>,
    /// Logits of a block of rows, `[rows, vocab]`; later their gradients.
    logits: Vec<f32>,
    /// The normalized rows behind `logits`.
    block_rows: Vec<f32>,
    block_gradient: Vec<f32>,
    /// Logits of one target's allowed ids.
    compact: Vec<f32>,
    log_sums: Vec<LogSum>,
}

/// `logsumexp` of a target in two parts, to take logarithms of probabilities later.
#[derive(Clone, Copy, Debug)]
struct LogSum {
    maximum: f32,
    log: f32,
}

/// Scales logits by `1 / temperature` and takes the log-probability of element `chosen` and the entropy.
fn score(logits: &mut [f32], chosen: usize, temperature: f32) -> (TokenScore, LogSum) {
    let top = maximum(logits);
    let factor = 1.0 / temperature;
    for value in logits.iter_mut() {
        *value = (*value - top) * factor;
    }
    let (sum, weighted) = exponential_sums(logits);
    let log = sum.ln();
    let score = TokenScore { log_prob: logits[chosen] - log, entropy: log - weighted / sum };
    (score, LogSum { maximum: top, log })
}

/// Replaces logits by the gradient with respect to them.
fn score_gradient(
    logits: &mut [f32],
    chosen: usize,
    temperature: f32,
    (score, log_sum, gradient): (TokenScore, LogSum, TokenGradient),
) {
    let factor = 1.0 / temperature;
    for value in logits.iter_mut() {
        let log_prob = (*value - log_sum.maximum) * factor - log_sum.log;
        let pull = gradient.log_prob + gradient.entropy * (log_prob + score.entropy);
        *value = -super::kernels::fast_exp(log_prob) * pull * factor;
    }
    logits[chosen] += gradient.log_prob * factor;
}

/// The targets of one sequence together with its tokens.
#[derive(Clone, Copy)]
pub(super) struct Targets<'a> {
    sequence: Sequence<'a>,
    /// Tokens before the first row.
    start: usize,
    temperature: f32,
}

impl<'a> Targets<'a> {
    /// Of a sequence whose rows begin after `start` tokens; none of these predicts a target.
    pub(super) fn new(sequence: Sequence<'a>, start: usize, temperature: f32) -> Self {
        Self { sequence, start, temperature }
    }

    /// The rows that predict targets, in ascending order.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> {
        self.sequence.targets.iter().map(|target| self.row(target))
    }

    /// The row that predicts a target.
    fn row(&self, target: &Target) -> usize {
        target.position as usize - 1 - self.start
    }

    fn token(&self, target: &Target) -> u32 {
        self.sequence.tokens[target.position as usize]
    }

    /// Where the sampled token stands among the allowed ids, or in the vocabulary.
    fn chosen(&self, target: &Target) -> usize {
        let token = self.token(target);
        match &target.allowed {
            // The inputs were checked: the token is among them.
            Some(allowed) => allowed.partition_point(|&id| id < token),
            None => token as usize,
        }
    }

    /// The indices of the targets that need all logits, and of those that need few.
    fn divide(&self, vocab_size: usize) -> (Vec<usize>, Vec<usize>) {
        let is_sparse =
            |target: &Target| target.allowed.as_ref().is_some_and(|allowed| allowed.len() * SPARSE_RATIO < vocab_size);
        (0..self.sequence.targets.len()).partition(|&index| !is_sparse(&self.sequence.targets[index]))
    }
}

/// Scores every target from the residual stream after the last layer, `[rows, hidden]`. `scratch` keeps what
/// [`head_backward`] needs.
pub(super) fn head_scores(
    model: &Model,
    targets: Targets,
    hidden: &[f32],
    scratch: &mut HeadScratch,
) -> Vec<TokenScore> {
    let width = model.config.hidden_size;
    let list = targets.sequence.targets;
    let rows = sized(&mut scratch.rows, list.len() * width);
    for (row, target) in rows.chunks_exact_mut(width).zip(list) {
        row.copy_from_slice(&hidden[targets.row(target) * width..][..width]);
    }
    let normalized = sized(&mut scratch.normalized, list.len() * width);
    rms_norm(rows, model.at(&model.layout.final_norm), model.eps, normalized);

    let mut scores = vec![TokenScore::default(); list.len()];
    scratch.log_sums.clear();
    scratch.log_sums.resize(list.len(), LogSum { maximum: 0.0, log: 0.0 });
    let (dense, sparse) = targets.divide(model.config.vocab_size);
    for &index in &sparse {
        let target = &list[index];
        sparse_logits(model, target, &scratch.normalized[index * width..][..width], &mut scratch.compact);
        let chosen = targets.chosen(target);
        (scores[index], scratch.log_sums[index]) = score(&mut scratch.compact, chosen, targets.temperature);
    }
    for block in dense.chunks(block_rows(model)) {
        dense_logits(model, block, scratch);
        for (&index, logits) in block.iter().zip(scratch.logits.chunks_exact_mut(model.config.vocab_size)) {
            let target = &list[index];
            let compact = &mut scratch.compact;
            compact.clear();
            match &target.allowed {
                Some(allowed) => compact.extend(allowed.iter().map(|&id| logits[id as usize])),
                None => compact.extend_from_slice(logits),
            }
            (scores[index], scratch.log_sums[index]) = score(compact, targets.chosen(target), targets.temperature);
        }
    }
    scores
}

/// Backward of [`head_scores`], right after it: writes the gradient of the residual stream to `hidden_gradient`,
/// `[rows, hidden]`, and adds those of the last norm and projection to `gradients` unless they are frozen.
pub(super) fn head_backward(
    model: &Model,
    targets: Targets,
    (scores, score_gradients): (&[TokenScore], &[TokenGradient]),
    hidden_gradient: &mut [f32],
    gradients: &mut Gradients<'_>,
    (scratch, packing, unused): (&mut HeadScratch, &mut Packing, &mut Vec<f32>),
) {
    let width = model.config.hidden_size;
    let vocab_size = model.config.vocab_size;
    let list = targets.sequence.targets;
    let count = list.len();
    let weights = model.at(&model.layout.head);
    sized(&mut scratch.normalized_gradient, count * width).fill(0.0);
    let (dense, sparse) = targets.divide(vocab_size);
    for &index in &sparse {
        let target = &list[index];
        let row = &scratch.normalized[index * width..][..width];
        let compact = &mut scratch.compact;
        sparse_logits(model, target, row, compact);
        let values = (scores[index], scratch.log_sums[index], score_gradients[index]);
        score_gradient(compact, targets.chosen(target), targets.temperature, values);
        let row_gradient = &mut scratch.normalized_gradient[index * width..][..width];
        let mut head_gradient = gradients.at(&model.layout.head);
        for (&id, &value) in target.allowed.iter().flat_map(|allowed| allowed.iter()).zip(compact.iter()) {
            let place = id as usize * width..(id as usize + 1) * width;
            add_scaled(row_gradient, value, &weights[place.clone()]);
            if let Some(gradient) = &mut head_gradient {
                add_scaled(&mut gradient[place], value, row);
            }
        }
    }
    let block_size = block_rows(model);
    for block in dense.chunks(block_size) {
        // A single block still stands from the forward pass.
        if dense.len() > block_size {
            dense_logits(model, block, scratch);
        }
        let logits = &mut scratch.logits[..block.len() * vocab_size];
        for (&index, logits) in block.iter().zip(logits.chunks_exact_mut(vocab_size)) {
            let target = &list[index];
            let values = (scores[index], scratch.log_sums[index], score_gradients[index]);
            let chosen = targets.chosen(target);
            if let Some(allowed) = &target.allowed {
                let compact = &mut scratch.compact;
                compact.clear();
                compact.extend(allowed.iter().map(|&id| logits[id as usize]));
                score_gradient(compact, chosen, targets.temperature, values);
                logits.fill(0.0);
                allowed.iter().zip(compact.iter()).for_each(|(&id, &value)| logits[id as usize] = value);
            } else {
                score_gradient(logits, chosen, targets.temperature, values);
            }
        }
        let back =
            Product { rows: block.len(), columns: width, depth: vocab_size, out_stride: width, accumulate: false };
        let block_gradient = sized(&mut scratch.block_gradient, block.len() * width);
        multiply(back, Operand::new(logits, vocab_size), Operand::new(weights, width), block_gradient, packing);
        for (&index, row) in block.iter().zip(block_gradient.chunks_exact(width)) {
            scratch.normalized_gradient[index * width..][..width].copy_from_slice(row);
        }
        let Some(head_gradient) = gradients.at(&model.layout.head) else { continue };
        let outer =
            Product { rows: vocab_size, columns: width, depth: block.len(), out_stride: width, accumulate: true };
        let rows = Operand::new(&scratch.block_rows, width);
        multiply(outer, Operand::transposed(logits, vocab_size), rows, head_gradient, packing);
    }
    let rows_gradient = sized(&mut scratch.rows_gradient, count * width);
    rows_gradient.fill(0.0);
    rms_norm_backward(
        (&scratch.rows[..count * width], model.at(&model.layout.final_norm), model.eps),
        &scratch.normalized_gradient[..count * width],
        rows_gradient,
        gradients.vector(&model.layout.final_norm, unused),
    );
    hidden_gradient.fill(0.0);
    for (row, target) in rows_gradient.chunks_exact(width).zip(list) {
        hidden_gradient[targets.row(target) * width..][..width].copy_from_slice(row);
    }
}

/// Rows whose full logits are held at a time.
fn block_rows(model: &Model) -> usize {
    (MAX_LOGITS / model.config.vocab_size).max(MIN_ROWS)
}

/// Full logits of the targets `block`, and their normalized rows beside each other.
fn dense_logits(model: &Model, block: &[usize], scratch: &mut HeadScratch) {
    let width = model.config.hidden_size;
    let rows = sized(&mut scratch.block_rows, block.len() * width);
    for (row, &index) in rows.chunks_exact_mut(width).zip(block) {
        row.copy_from_slice(&scratch.normalized[index * width..][..width]);
    }
    let logits = sized(&mut scratch.logits, block.len() * model.config.vocab_size);
    model.head.multiply(Rows { count: block.len(), stride: width, accumulate: false }, rows, logits);
}

/// Logits of the allowed ids of a target, bit for bit those of the full product.
fn sparse_logits(model: &Model, target: &Target, row: &[f32], compact: &mut Vec<f32>) {
    compact.clear();
    let mut current = (usize::MAX, [0.0; LANES]);
    for &id in target.allowed.iter().flat_map(|allowed| allowed.iter()) {
        let (panel, lane) = (id as usize / LANES, id as usize % LANES);
        if current.0 != panel {
            current = (panel, model.head.multiply_panel(row, panel));
        }
        compact.push(current.1[lane]);
    }
}

/// Logits of the whole vocabulary for rows of the residual stream: `[rows, hidden]` to `[rows, vocab]`.
pub(super) fn logits_of(model: &Model, rows: &[f32], logits: &mut [f32], scratch: &mut HeadScratch) {
    let width = model.config.hidden_size;
    let normalized = sized(&mut scratch.normalized, rows.len());
    rms_norm(rows, model.at(&model.layout.final_norm), model.eps, normalized);
    model.head.multiply(Rows { count: rows.len() / width, stride: width, accumulate: false }, normalized, logits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    /// Against the definitions in `f64`, and the gradient against central differences of them.
    #[test]
    fn scores_and_their_gradients_match_plain_loops() {
        let mut stream = Seed::new(1).stream();
        let logits: Vec<f32> = (0..37).map(|_| stream.normal() as f32 * 3.0).collect();
        let (chosen, temperature) = (11, 0.7);
        let plain = |logits: &[f64]| {
            let sum: f64 = logits.iter().map(|z| (z / temperature).exp()).sum();
            let log_probs: Vec<f64> = logits.iter().map(|z| z / temperature - sum.ln()).collect();
            (log_probs[chosen], -log_probs.iter().map(|log_prob| log_prob.exp() * log_prob).sum::<f64>())
        };
        let wide: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
        let (log_prob, entropy) = plain(&wide);
        let mut values = logits.clone();
        let (found, log_sum) = score(&mut values, chosen, temperature as f32);
        assert!((f64::from(found.log_prob) - log_prob).abs() < 2e-6, "{found:?}, not {log_prob}");
        assert!((f64::from(found.entropy) - entropy).abs() < 2e-6, "{found:?}, not {entropy}");

        let gradient = TokenGradient { log_prob: 0.8, entropy: -0.3 };
        let mut values = logits;
        score_gradient(&mut values, chosen, temperature as f32, (found, log_sum, gradient));
        for (index, value) in values.iter().enumerate() {
            let moved = |step: f64| {
                let mut logits = wide.clone();
                logits[index] += step;
                let (log_prob, entropy) = plain(&logits);
                0.8 * log_prob - 0.3 * entropy
            };
            let difference = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((f64::from(*value) - difference).abs() < 1e-6, "{index}: {value}, not {difference}");
        }
    }

    #[test]
    fn a_single_allowed_id_is_certain() {
        let (found, _) = score(&mut [3.5], 0, 0.3);
        assert_eq!(found, TokenScore { log_prob: 0.0, entropy: 0.0 });
    }
}
