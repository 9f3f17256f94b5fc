//! The last norm and projection for all targets of a pack, in blocks of rows, so that their logits never exist at once.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::backward::{FINAL_NORM, Gradients, add_product};
use super::network::{Network, Pack, multiply};
use crate::policy::fused::{self, RowGroups, TokenDistributions, TokenTargets};
use crate::policy::{Sequence, TokenGradient, TokenScore};

/// Logits held at a time, but at least `MIN_ROWS` rows of them: 64 MiB on a CPU. On a device, 1 GiB: that many rows keep it busy
/// while it reads the vocabulary's matrix, and logits of a single block are not computed again.
const MAX_LOGITS: usize = 1 << 24;
const MAX_DEVICE_LOGITS: usize = 1 << 28;
const MIN_ROWS: usize = 16;

/// The targets of a pack, segment after segment.
pub(super) struct Head<'a, 'b> {
    network: &'a Network<'b>,
    temperature: f32,
    /// The sequences that end in the pack, with their targets counted in the pack.
    pub(super) sequences: Vec<(usize, Range<usize>)>,
    /// The rows that predict the targets, and the targets with the ids that they were drawn among.
    rows: Vec<u32>,
    targets: Vec<(u32, Option<&'a [u32]>)>,
    block_rows: usize,
    /// The only block, if there is one, from the forward pass.
    only: Option<Block>,
}

/// What the last projection says of some targets.
struct Block {
    /// The stream before the last norm and after it, `[targets, hidden]`.
    rows: Tensor,
    normalized: Tensor,
    /// `[targets, vocab]`, `f32`.
    logits: Tensor,
    targets: TokenTargets,
    distributions: TokenDistributions,
}

impl<'a, 'b> Head<'a, 'b> {
    pub(super) fn new(
        network: &'a Network<'b>,
        pack: &Pack,
        sequences: &'a [Sequence<'_>],
        temperature: f32,
        is_cpu: bool,
    ) -> Self {
        let (mut found, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for segment in &pack.segments {
            let Some(index) = segment.sequence else { continue };
            let sequence = &sequences[index];
            let first = rows.len();
            for target in sequence.targets {
                let position = target.position as usize;
                rows.push((segment.rows.start + position - 1 - segment.start) as u32);
                targets.push((sequence.tokens[position], target.allowed.as_deref()));
            }
            found.push((index, first..rows.len()));
        }
        let max_logits = if is_cpu { MAX_LOGITS } else { MAX_DEVICE_LOGITS };
        let block_rows = (max_logits / network.config.vocab_size).max(MIN_ROWS);
        Self { network, temperature, sequences: found, rows, targets, block_rows, only: None }
    }

    fn blocks(&self) -> Vec<Range<usize>> {
        let count = self.rows.len();
        (0..count).step_by(self.block_rows).map(|first| first..(first + self.block_rows).min(count)).collect()
    }

    /// Scores of all targets from the stream after the last layer, `[rows, hidden]`.
    pub(super) fn scores(&mut self, x: &Tensor) -> Result<Vec<TokenScore>> {
        let blocks = self.blocks();
        let (mut log_probs, mut entropies) = (Vec::new(), Vec::new());
        for range in &blocks {
            let block = self.block(range, x)?;
            log_probs.push(block.distributions.log_probs.clone());
            entropies.push(block.distributions.entropies.clone());
            self.only = Some(block).filter(|_| blocks.len() == 1);
        }
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        // One wait for the device for all of them.
        let columns = Tensor::stack(&[Tensor::cat(&log_probs, 0)?, Tensor::cat(&entropies, 0)?], 1)?;
        let pairs = columns.to_vec2::<f32>()?;
        Ok(pairs.into_iter().map(|pair| TokenScore { log_prob: pair[0], entropy: pair[1] }).collect())
    }

    /// The gradient of the stream, `[rows, hidden]`, from those of the scores; adds those of the projection and the norm.
    pub(super) fn backward(
        mut self,
        x: &Tensor,
        wanted: &[TokenGradient],
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let mut back = x.zeros_like()?.to_dtype(DType::F32)?;
        for range in self.blocks() {
            let wanted = &wanted[range.clone()];
            if wanted.iter().all(|gradient| *gradient == TokenGradient::default()) {
                continue;
            }
            let block = match self.only.take() {
                Some(block) => block,
                None => self.block(&range, x)?,
            };
            let part = self.block_backward(block, wanted, gradients)?;
            back = fused::add_rows(back, &part, &RowGroups::new(&self.rows[range], x.device())?)?;
        }
        back.to_dtype(x.dtype())
    }

    fn block(&self, range: &Range<usize>, x: &Tensor) -> Result<Block> {
        let network = self.network;
        let rows = x.index_select(&Tensor::new(&self.rows[range.clone()], x.device())?, 0)?; // [targets, hidden]
        let normalized = network.final_norm(&rows)?;
        let logits = network.projected(&normalized)?; // [targets, vocab]
        let targets = TokenTargets::new(&self.targets[range.clone()], x.device())?;
        let distributions = fused::token_scores(&logits, &targets, self.temperature)?;
        Ok(Block { rows, normalized, logits, targets, distributions })
    }

    /// The gradient of a block's rows of the stream.
    fn block_backward(&self, block: Block, wanted: &[TokenGradient], gradients: &mut Gradients) -> Result<Tensor> {
        let Block { rows, normalized, logits, targets, distributions } = block;
        let column =
            |value: fn(&TokenGradient) -> f32| Tensor::new(wanted.iter().map(value).collect::<Vec<_>>(), rows.device());
        let (of_log_probs, of_entropies) = (column(|g| g.log_prob)?, column(|g| g.entropy)?);
        let pair = (&of_log_probs, &of_entropies);
        let of_logits = fused::token_scores_backward(
            &logits,
            &targets,
            self.temperature,
            &distributions,
            pair,
            normalized.dtype(),
        )?; // [targets, vocab]
        drop(logits);
        let network = self.network;
        let head = network.head_name();
        if network.trains_all() {
            add_product(gradients, head, &of_logits.t()?, &normalized)?;
        }
        let back = multiply(&of_logits, network.weight(head)?)?;
        network.norm_backward(FINAL_NORM, &rows, &back, gradients)
    }
}
