//! The backward pass of packed sequences, layer by layer: the forward pass keeps the input of each layer only and a layer is
//! computed again when its turn comes (gradient checkpointing, arXiv:1604.06174), so that what candle records is never more
//! than one layer. The last projection goes in blocks of rows with its gradient in closed form, so that the logits of a
//! whole sequence never exist at once.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{D, DType, Result, Tensor, Var};

use super::network::{Context, Network, Pack, Segment};
use crate::policy::{Sequence, SequenceLoss, Target, TokenGradient, TokenScore};

/// Logits held at a time (64 MiB a copy), but at least `MIN_ROWS` rows of them.
const MAX_LOGITS: usize = 1 << 24;
const MIN_ROWS: usize = 16;

/// Gradients by name, in `f32`.
pub(super) type Gradients = BTreeMap<String, Tensor>;

/// Weights to take sequences through the network with.
pub(super) struct Pass<'a> {
    /// Weights through which nothing is recorded.
    pub(super) plain: Network<'a>,
    /// The same, recorded in those that are trained.
    pub(super) recorded: Network<'a>,
    /// The trained variables.
    pub(super) variables: &'a BTreeMap<String, Var>,
}

/// What the last projection says of a block of targets.
struct Block {
    /// The targets, counted in the sequence.
    range: Range<usize>,
    /// The normalized residual stream, `[targets, hidden]`.
    rows: Tensor,
    log_probs: Tensor,
    entropy: Tensor,
    chosen: Tensor,
}

impl Pass<'_> {
    /// Scores the targets of the sequences of a pack and adds the gradients of `loss`, if there is one, to `gradients`.
    pub(super) fn train(
        &self,
        (pack, sequences): (&Pack, &[Sequence<'_>]),
        (temperature, loss): (f32, Option<&dyn SequenceLoss>),
        gradients: &mut Gradients,
    ) -> Result<Vec<(usize, Vec<TokenScore>)>> {
        // Forward: the input of each layer, `[rows, hidden]`, and the stream after the last one.
        let mut inputs = Vec::with_capacity(self.plain.config.layer_count);
        let mut x = self.plain.embed(&pack.tokens)?;
        for layer in 0..self.plain.config.layer_count {
            let next = self.plain.layer(layer, &x, &mut Context::Packed(pack))?;
            let input = std::mem::replace(&mut x, next);
            if loss.is_some() {
                inputs.push(input);
            }
        }
        let mut back = x.zeros_like()?.to_dtype(DType::F32)?; // [rows, hidden]
        let mut has_gradient = false;
        let mut all = Vec::new();
        for segment in &pack.segments {
            let Some(index) = segment.sequence else { continue };
            let targets = Targets { sequence: &sequences[index], segment };
            let (scores, part) = self.sequence(index, targets, &x, (temperature, loss), gradients)?;
            all.push((index, scores));
            if let Some(StreamGradient { rows, values }) = part {
                back = back.index_add(&rows, &values.to_dtype(DType::F32)?, 0)?;
                has_gradient = true;
            }
        }
        if !has_gradient {
            return Ok(all);
        }
        let mut back = back.to_dtype(x.dtype())?;
        drop(x);
        for (layer, input) in inputs.into_iter().enumerate().rev() {
            let input = Var::from_tensor(&input)?;
            let output = self.recorded.layer(layer, input.as_tensor(), &mut Context::Packed(pack))?;
            // The gradient of `sum(output * back)` with respect to the output is `back`.
            let found = (output * &back)?.sum_all()?.backward()?;
            let prefix = format!("model.layers.{layer}.");
            for (name, var) in self.variables.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
            {
                if let Some(gradient) = found.get(var.as_tensor()) {
                    add(gradients, Some((name.clone(), gradient.clone())))?;
                }
            }
            back = match found.get(input.as_tensor()) {
                Some(gradient) => gradient.detach(),
                None => back.zeros_like()?,
            };
        }
        if let Some(var) = self.variables.get(EMBEDDING) {
            let sum = match gradients.remove(EMBEDDING) {
                Some(sum) => sum,
                None => var.as_tensor().zeros_like()?.to_dtype(DType::F32)?.detach(),
            };
            let ids = Tensor::new(&*pack.tokens, back.device())?;
            gradients.insert(EMBEDDING.to_owned(), sum.index_add(&ids, &back.to_dtype(DType::F32)?, 0)?.detach());
        }
        Ok(all)
    }

    /// Scores one sequence from the stream after the last layer; with a gradient of the loss also that of the stream.
    fn sequence(
        &self,
        index: usize,
        targets: Targets<'_>,
        x: &Tensor,
        (temperature, loss): (f32, Option<&dyn SequenceLoss>),
        gradients: &mut Gradients,
    ) -> Result<(Vec<TokenScore>, Option<StreamGradient>)> {
        let count = targets.sequence.targets.len();
        // Scores first, as the loss takes those of the whole sequence.
        let block_rows = (MAX_LOGITS / self.plain.config.vocab_size).max(MIN_ROWS);
        let ranges: Vec<_> =
            (0..count).step_by(block_rows).map(|first| first..(first + block_rows).min(count)).collect();
        let mut scores = Vec::with_capacity(count);
        let mut only = None;
        for range in &ranges {
            let block = self.head(targets, range.clone(), x, temperature)?;
            scores.extend(block.scores()?);
            only = Some(block).filter(|_| ranges.len() == 1);
        }
        let mut wanted = vec![TokenGradient::default(); scores.len()];
        if let Some(loss) = loss {
            loss.gradient(index, &scores, &mut wanted);
        }
        if wanted.iter().all(|gradient| *gradient == TokenGradient::default()) {
            return Ok((scores, None));
        }
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            // A single block still stands from the forward pass.
            let block = match only.take() {
                Some(block) => block,
                None => self.head(targets, range.clone(), x, temperature)?,
            };
            let part = self.head_backward(&block, &wanted[range.clone()], temperature, gradients)?;
            let (part, norm) = self.norm_backward(&x.index_select(&targets.rows(range, x)?, 0)?, &part)?;
            add(gradients, norm)?;
            parts.push(part);
        }
        Ok((scores, Some(StreamGradient { rows: targets.rows(0..count, x)?, values: Tensor::cat(&parts, 0)? })))
    }

    /// The last norm and projection of some targets.
    fn head(&self, targets: Targets<'_>, range: Range<usize>, x: &Tensor, temperature: f32) -> Result<Block> {
        let rows = x.index_select(&targets.rows(range.clone(), x)?, 0)?; // [targets, hidden]
        let rows = self.plain.final_norm(&rows)?;
        let distributions = self.plain.distributions(targets.sequence, range.clone(), &rows, temperature)?;
        let (log_probs, chosen, entropy) = distributions;
        Ok(Block { range, rows, log_probs, entropy, chosen })
    }

    /// From the gradients of scores to that of the normalized rows, `[targets, hidden]`; adds that of the projection. With
    /// `z = logits / T`: `dL/dz_j = dL/dlogp ([j = y] - p_j) - dL/dH p_j (log p_j + H)`.
    fn head_backward(
        &self,
        block: &Block,
        wanted: &[TokenGradient],
        temperature: f32,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let device = block.rows.device();
        let column = |value: fn(&TokenGradient) -> f32| {
            Tensor::from_vec(wanted.iter().map(value).collect::<Vec<_>>(), (wanted.len(), 1), device)
        };
        let (of_log_prob, of_entropy) = (column(|g| g.log_prob)?, column(|g| g.entropy)?);
        let pull = block.log_probs.broadcast_add(&block.entropy.unsqueeze(1)?)?.broadcast_mul(&of_entropy)?;
        let pull = pull.broadcast_add(&of_log_prob)?; // [targets, vocab]
        let logits = (block.log_probs.exp()? * pull)?.neg()?;
        let logits = (logits.scatter_add(&block.chosen, &of_log_prob, 1)? / f64::from(temperature))?;
        let logits = logits.to_dtype(block.rows.dtype())?;
        debug_assert_eq!(block.range.len(), wanted.len());
        let head = self.plain.head_name();
        if self.variables.contains_key(head) {
            add(gradients, Some((head.to_owned(), logits.t()?.matmul(&block.rows)?)))?;
        }
        logits.matmul(self.plain.weight(head)?)
    }

    /// Backward of the last norm: the gradient of its input, `[targets, hidden]`, and that of its weight if it is trained.
    fn norm_backward(&self, rows: &Tensor, back: &Tensor) -> Result<(Tensor, Option<(String, Tensor)>)> {
        let rows = Var::from_tensor(rows)?;
        let normalized = self.recorded.final_norm(rows.as_tensor())?;
        let found = (normalized * back)?.sum_all()?.backward()?;
        let weight = self.variables.get(FINAL_NORM).and_then(|var| found.get(var.as_tensor()));
        let weight = weight.map(|gradient| (FINAL_NORM.to_owned(), gradient.clone()));
        let gradient =
            found.get(rows.as_tensor()).map_or_else(|| rows.zeros_like(), |gradient| Ok(gradient.clone()))?;
        Ok((gradient.detach(), weight))
    }
}

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const FINAL_NORM: &str = "model.norm.weight";

impl Block {
    fn scores(&self) -> Result<Vec<TokenScore>> {
        let log_probs = self.log_probs.gather(&self.chosen, D::Minus1)?.flatten_all()?.to_vec1()?;
        let pairs = log_probs.into_iter().zip(self.entropy.to_vec1()?);
        Ok(pairs.map(|(log_prob, entropy)| TokenScore { log_prob, entropy }).collect())
    }
}

/// The gradient of the stream after the last layer in the rows that predict a sequence's targets.
struct StreamGradient {
    rows: Tensor,
    /// `[targets, hidden]`.
    values: Tensor,
}

/// A sequence, and the segment of a pack that it ends in.
#[derive(Clone, Copy)]
struct Targets<'a> {
    sequence: &'a Sequence<'a>,
    segment: &'a Segment,
}

impl Targets<'_> {
    /// The rows of the pack that predict some targets.
    fn rows(&self, range: Range<usize>, x: &Tensor) -> Result<Tensor> {
        let row =
            |target: &Target| (self.segment.rows.start + target.position as usize - 1 - self.segment.start) as u32;
        Tensor::new(self.sequence.targets[range].iter().map(row).collect::<Vec<_>>(), x.device())
    }
}

/// Adds a gradient to the accumulated one.
fn add(gradients: &mut Gradients, gradient: Option<(String, Tensor)>) -> Result<()> {
    let Some((name, gradient)) = gradient else { return Ok(()) };
    let gradient = gradient.to_dtype(DType::F32)?;
    let sum = match gradients.remove(&name) {
        Some(sum) => (sum + gradient)?,
        None => gradient,
    };
    gradients.insert(name, sum.detach());
    Ok(())
}
