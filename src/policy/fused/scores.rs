//! Log-probabilities of targets and entropies from logits, and the gradient of the logits, for a block of rows at a time.

use candle_core::{DType, Result, Tensor, bail};

use super::operation::{Argument, Input, Launch, Operation, Spec, int, run, suffix};

/// Threads of a row.
const THREADS: usize = 512;

/// The targets of some rows of logits.
///
/// # Shapes
/// - `ids`: `[rows]`, `u32`: the target of each row
/// - `ends`: `[rows + 1]`, `u32`: row `i` allows the ids from `ends[i]` to `ends[i + 1]` of `allowed`, or all if these are none
/// - `allowed`: `[..]`, `u32`; at least one element
#[derive(Clone, Debug)]
pub struct TokenTargets {
    /// The targets.
    pub ids: Tensor,
    /// Where the ids that rows allow begin and end.
    pub ends: Tensor,
    /// The ids that rows allow.
    pub allowed: Tensor,
}

impl TokenTargets {
    /// Targets with the ids that each was drawn among, ascending, or `None` for all.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn new(targets: &[(u32, Option<&[u32]>)], device: &candle_core::Device) -> Result<Self> {
        let mut allowed: Vec<u32> = Vec::new();
        let mut ends = vec![0];
        for (_, ids) in targets {
            allowed.extend(ids.iter().copied().flatten());
            ends.push(allowed.len() as u32);
        }
        if allowed.is_empty() {
            allowed.push(0);
        }
        let ids: Vec<u32> = targets.iter().map(|(id, _)| *id).collect();
        Ok(Self {
            ids: Tensor::new(ids, device)?,
            ends: Tensor::new(ends, device)?,
            allowed: Tensor::new(allowed, device)?,
        })
    }
}

/// What the logits of some rows say of their targets, `[rows]` in `f32` each.
#[derive(Clone, Debug)]
pub struct TokenDistributions {
    /// Log-probabilities of the targets under `softmax(logits / temperature)` over the allowed ids, nats.
    pub log_probs: Tensor,
    /// Entropies of that distribution, nats.
    pub entropies: Tensor,
    /// `log(sum(exp(logits / temperature)))` over the allowed ids.
    pub log_sums: Tensor,
}

/// Scores of the targets of `logits`; no gradient flows, see [`token_scores_backward`].
///
/// # Shapes
/// - `logits`: `[rows, vocab]`, `f32`
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn token_scores(logits: &Tensor, targets: &TokenTargets, temperature: f32) -> Result<TokenDistributions> {
    let found = run(&TokenScores { temperature }, &[logits, &targets.ids, &targets.ends, &targets.allowed])?;
    let [log_probs, entropies, log_sums] = <[Tensor; 3]>::try_from(found).map_err(|_| missing())?;
    Ok(TokenDistributions { log_probs, entropies, log_sums })
}

fn missing() -> candle_core::Error {
    candle_core::Error::Msg("an output is missing".to_owned())
}

/// The gradient of the logits from those of the log-probabilities and the entropies.
///
/// # Shapes
/// - `logits`: as for [`token_scores`]; `of_log_probs`, `of_entropies`: `[rows]`, `f32`
/// - returns the shape of `logits` in `to`, the type of what it is multiplied with: `f32`, `bf16` or `f16`
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn token_scores_backward(
    logits: &Tensor,
    targets: &TokenTargets,
    temperature: f32,
    distributions: &TokenDistributions,
    (of_log_probs, of_entropies): (&Tensor, &Tensor),
    to: DType,
) -> Result<Tensor> {
    let TokenTargets { ids, ends, allowed } = targets;
    let TokenDistributions { log_sums, entropies, .. } = distributions;
    let inputs = [logits, ids, ends, allowed, log_sums, entropies, of_log_probs, of_entropies];
    run(&TokenScoresBackward { temperature, to }, &inputs)?.pop().ok_or_else(missing)
}

/// `[rows, vocab]`, and that the inputs fit together.
fn sizes(inputs: &[Spec]) -> Result<(usize, usize)> {
    let [rows, vocab] = inputs[0].dims[..] else { bail!("logits of {:?}", inputs[0]) };
    let of_rows = |spec: &Spec, count: usize| spec.dims == [count];
    let tables = of_rows(&inputs[1], rows) && of_rows(&inputs[2], rows + 1);
    if inputs[0].dtype != DType::F32 || !tables || inputs[1..4].iter().any(|spec| spec.dtype != DType::U32) {
        bail!("scores of {inputs:?}");
    }
    if inputs[4..].iter().any(|spec| !of_rows(spec, rows) || spec.dtype != DType::F32) {
        bail!("gradients of scores of {inputs:?}");
    }
    Ok((rows, vocab))
}

fn launch(kernel: String, temperature: f32, inputs: &[Spec], outputs: usize) -> Result<Vec<Launch>> {
    let (rows, vocab) = sizes(inputs)?;
    let tensors = (0..inputs.len()).map(Argument::Input).chain((0..outputs).map(Argument::Output));
    let numbers = [int(vocab)?, Argument::Float(1.0 / temperature)];
    Ok(vec![Launch {
        file: "scores",
        kernel,
        grid: [rows, 1, 1],
        block: [THREADS, 1],
        shared_bytes: 0,
        arguments: tensors.chain(numbers).collect(),
    }])
}

/// Calls `visit` for each row with its number, its logits over the temperature and the ids that count.
fn for_each_row(inputs: &[Input<'_>], temperature: f32, mut visit: impl FnMut(usize, &[f32], &[u32])) {
    let vocab = inputs[0].spec.dims[1];
    let all: Vec<u32> = (0..vocab as u32).collect();
    let inverse = 1.0 / temperature;
    for (row, logits) in inputs[0].floats.chunks_exact(vocab).enumerate() {
        let range = inputs[2].ids[row] as usize..inputs[2].ids[row + 1] as usize;
        let ids = if range.is_empty() { &all } else { &inputs[3].ids[range] };
        let scaled: Vec<f32> = logits.iter().map(|logit| logit * inverse).collect();
        visit(row, &scaled, ids);
    }
}

/// The operation of [`token_scores`]: inputs `logits`, `ids`, `ends` and `allowed`; outputs log-probabilities, entropies and
/// log-sum-exps.
#[derive(Debug)]
pub struct TokenScores {
    /// What logits are divided by.
    pub temperature: f32,
}

impl Operation for TokenScores {
    fn name(&self) -> &'static str {
        "token-scores"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (rows, _) = sizes(inputs)?;
        Ok(vec![Spec { dims: vec![rows], dtype: DType::F32 }; 3])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        launch("token_scores".to_owned(), self.temperature, inputs, 3)
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let mut outputs = vec![Vec::new(); 3];
        for_each_row(inputs, self.temperature, |row, logits, ids| {
            let values = || ids.iter().map(|&id| logits[id as usize]);
            let top = values().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = values().map(|value| (value - top).exp()).sum();
            let weighted: f32 = values().map(|value| (value - top).exp() * (value - top)).sum();
            outputs[0].push(logits[inputs[1].ids[row] as usize] - top - sum.ln());
            outputs[1].push(sum.ln() - weighted / sum);
            outputs[2].push(top + sum.ln());
        });
        Ok(outputs)
    }
}

/// The operation of [`token_scores_backward`]: inputs those of [`TokenScores`], log-sum-exps, entropies, and the gradients of
/// log-probabilities and entropies; output the gradient of the logits.
#[derive(Debug)]
pub struct TokenScoresBackward {
    /// What logits are divided by.
    pub temperature: f32,
    /// The type of the gradient.
    pub to: DType,
}

impl Operation for TokenScoresBackward {
    fn name(&self) -> &'static str {
        "token-scores-backward"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        sizes(inputs)?;
        Ok(vec![inputs[0].to(self.to)])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        launch(format!("token_scores_backward_{}", suffix(self.to)?), self.temperature, inputs, 1)
    }

    /// With `z = logits / T`: `dL/dz_j = dL/dlogp ([j = y] - p_j) - dL/dH p_j (log p_j + H)` where `j` is allowed, else 0.
    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let mut gradients = vec![0.0; inputs[0].floats.len()];
        let vocab = inputs[0].spec.dims[1];
        for_each_row(inputs, self.temperature, |row, logits, ids| {
            let value = |input: usize| inputs[input].floats[row];
            let (log_sum, entropy, of_log_prob, of_entropy) = (value(4), value(5), value(6), value(7));
            let out = &mut gradients[row * vocab..][..vocab];
            for &id in ids {
                let log_prob = logits[id as usize] - log_sum;
                let pull = log_prob.exp() * (of_log_prob + of_entropy * (log_prob + entropy));
                let own = if id == inputs[1].ids[row] { of_log_prob } else { 0.0 };
                out[id as usize] = (own - pull) / self.temperature;
            }
        });
        Ok(vec![gradients])
    }
}
