//! Draws tokens where the logits lie: what crosses to the device are a number and the allowed ids of each draw, what comes back are a
//! token and its log-probability.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::operation::{Argument, Input, Launch, Operation, Spec, int, run, suffix};
use super::pages::missing;
use super::tables::Tables;
use crate::policy::sampling::{Sampled, Sampling, draw};

/// Threads of a draw, and ids that are summed up together, as in `kernels/sample.cu`.
const THREADS: usize = 512;
const BLOCK: usize = 256;
/// The count of allowed ids that stands for all.
const EVERY_ID: u32 = u32::MAX;
/// Bits of a uniform number.
const NUMBER_BITS: u32 = 53;

/// A token to draw.
#[derive(Clone, Copy, Debug)]
pub struct TokenDraw<'a> {
    /// The row of logits.
    pub row: usize,
    /// The ids that are drawn among, ascending; `None` for all.
    pub allowed: Option<&'a [u32]>,
    /// A uniform number in `[0, 1)` with 53 bits.
    pub number: f64,
}

/// A token for each draw, as [`crate::policy::sample`] draws it; `None` where no logit is finite. Several may be of one row.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`, `f32`, `bf16` or `f16`
///
/// # Errors
/// If a row is not there, or the backend fails.
pub fn sample_tokens(logits: &Tensor, draws: &[TokenDraw<'_>], sampling: &Sampling) -> Result<Vec<Option<Sampled>>> {
    draw_tokens(logits, draws, sampling)?.finish()
}

/// Tokens that are being drawn.
#[derive(Debug)]
pub struct DrawnTokens {
    tokens: Tensor,
    found: Found,
}

/// Tokens and log-probabilities, `[draws, 2]`.
#[derive(Debug)]
enum Found {
    Here(Tensor),
    #[cfg(feature = "cuda")]
    Coming(super::host_copy::HostCopy),
}

impl DrawnTokens {
    /// The tokens where the logits lie, `[draws]`, `u32`. Where no logit is finite, the first one that is allowed.
    pub fn tokens(&self) -> &Tensor {
        &self.tokens
    }

    /// The tokens, once they are drawn; `None` where no logit is finite. The only wait for the device in a step of a rollout.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn finish(self) -> Result<Vec<Option<Sampled>>> {
        let found = match self.found {
            Found::Here(found) => found.flatten_all()?.to_vec1::<f32>()?,
            #[cfg(feature = "cuda")]
            Found::Coming(copy) => copy.finish()?,
        };
        let sampled = |pair: &[f32; 2]| {
            let [token, log_prob] = *pair;
            (log_prob < f32::INFINITY || log_prob.is_nan()).then_some(Sampled { token: token.to_bits(), log_prob })
        };
        Ok(found.as_chunks().0.iter().map(sampled).collect())
    }
}

/// As [`sample_tokens`], without waiting for the tokens.
///
/// # Errors
/// As [`sample_tokens`].
pub fn draw_tokens(logits: &Tensor, draws: &[TokenDraw<'_>], sampling: &Sampling) -> Result<DrawnTokens> {
    let (rows, vocab) = logits.dims2()?;
    let is_wrong = |draw: &&TokenDraw<'_>| draw.row >= rows || draw.allowed.is_some_and(|ids| ids.len() > vocab);
    if let Some(draw) = draws.iter().find(is_wrong) {
        bail!("a draw from row {} of {rows}, with {vocab} ids", draw.row);
    }
    let device = logits.device();
    if draws.is_empty() {
        let tokens = Tensor::zeros(0, DType::U32, &candle_core::Device::Cpu)?;
        return Ok(DrawnTokens { found: Found::Here(tokens.to_dtype(DType::F32)?), tokens });
    }
    let [draws, allowed] = draw_tables(draws, device)?;
    let outputs = run(&SampleTokens { sampling: *sampling }, &[logits, &draws, &allowed])?;
    let [found, tokens] = <[Tensor; 2]>::try_from(outputs).map_err(|_| missing())?;
    let found = match device {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(device) => Found::Coming(super::host_copy::HostCopy::begin(device, &found)?),
        _ => Found::Here(found),
    };
    Ok(DrawnTokens { tokens, found })
}

/// The inputs `draws` and `allowed` of [`SampleTokens`].
///
/// # Errors
/// If the device has no room.
pub fn draw_tables(draws: &[TokenDraw<'_>], device: &candle_core::Device) -> Result<[Tensor; 2]> {
    let mut allowed: Vec<u32> = Vec::new();
    let mut rows = Vec::with_capacity(draws.len());
    for draw in draws {
        let number = (draw.number * (1_u64 << NUMBER_BITS) as f64) as u64;
        let count = draw.allowed.map_or(EVERY_ID, |ids| ids.len() as u32);
        rows.push([draw.row as u32, allowed.len() as u32, count, (number >> 32) as u32, number as u32]);
        allowed.extend(draw.allowed.unwrap_or_default());
    }
    let mut tables = Tables::default();
    tables.rows(&rows);
    tables.list(allowed);
    <[Tensor; 2]>::try_from(tables.upload(device)?).map_err(|_| missing())
}

/// The operation of [`sample_tokens`]: inputs `logits`, `draws`, `[draws, 5]`: row, first of the allowed ids, their count, the upper
/// and the lower bits of the number; and `allowed`. Outputs `[draws, 2]` in `f32`: the bits of the token, and its log-probability,
/// infinite where no logit is finite; and the tokens, `[draws]` in `u32`.
#[derive(Debug)]
pub struct SampleTokens {
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// `[draws, vocab]`, and that the inputs fit together.
fn sizes(inputs: &[Spec]) -> Result<(usize, usize)> {
    let ([_, vocab], [draws, 5]) = (&inputs[0].dims[..], &inputs[1].dims[..]) else { bail!("samples of {inputs:?}") };
    if inputs[1..].iter().any(|table| table.dtype != DType::U32) || inputs[2].dims.len() != 1 {
        bail!("samples of {inputs:?}");
    }
    Ok((*draws, *vocab))
}

impl Operation for SampleTokens {
    fn name(&self) -> &'static str {
        "sample-tokens"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (draws, _) = sizes(inputs)?;
        let tokens = Spec { dims: vec![draws], dtype: DType::U32 };
        Ok(vec![Spec { dims: vec![draws, 2], dtype: DType::F32 }, tokens])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (draws, vocab) = sizes(inputs)?;
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        let min_p_log = if min_p > 0.0 { min_p.ln() } else { f32::NEG_INFINITY };
        let tensors = (0..3).map(Argument::Input).chain([Argument::Output(0), Argument::Output(1)]);
        let numbers = [
            int(vocab)?,
            Argument::Float(self.sampling.scale()),
            int(usize::from(self.sampling.is_greedy()))?,
            int(top_k.min(vocab))?,
            Argument::Float(top_p),
            Argument::Float(min_p_log),
        ];
        // A sum in 64 bits and a maximum for each block of candidates; allowed ids are no more than all.
        let blocks = vocab.div_ceil(BLOCK);
        Ok(vec![Launch {
            file: "sample",
            kernel: format!("sample_{}", suffix(inputs[0].dtype)?),
            grid: [draws, 1, 1],
            block: [THREADS, 1],
            shared_bytes: blocks * (size_of::<f64>() + size_of::<f32>()),
            arguments: tensors.chain(numbers).collect(),
        }])
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let vocab = inputs[0].spec.dims[1];
        let sample = |row: &[u32]| {
            let logits = &inputs[0].floats[row[0] as usize * vocab..][..vocab];
            let allowed = (row[2] != EVERY_ID).then(|| &inputs[2].ids[row[1] as usize..][..row[2] as usize]);
            let number = (u64::from(row[3]) << 32 | u64::from(row[4])) as f64 / (1_u64 << NUMBER_BITS) as f64;
            match draw(logits, allowed, &self.sampling, || number) {
                Some(sampled) => [f32::from_bits(sampled.token), sampled.log_prob],
                None => [f32::from_bits(Sampled::impossible(allowed).token), f32::INFINITY],
            }
        };
        let found: Vec<[f32; 2]> = inputs[1].ids.par_chunks_exact(5).map(sample).collect();
        // Numbers of tokens are whole in 32 bits.
        let tokens = found.iter().map(|pair| pair[0].to_bits() as f32).collect();
        Ok(vec![found.into_flattened(), tokens])
    }
}
