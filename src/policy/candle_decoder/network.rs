//! The network that rows of tokens go through: weights, what rows attend to, products, the last projection. The layers are in
//! [`super::layer`].

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{D, DType, Device, Result, Tensor};

use super::backward::{EMBEDDING, FINAL_NORM};
use super::quantized::QuantizedMatrices;
use super::weights::{AllWeights, Joined};
use crate::policy::adapter::Dropout;
use crate::policy::fused::{self, AttentionLayout, NewHeads, PageShape, PagedRows, Stretch};
use crate::policy::tree::Node;
use crate::policy::{DecoderConfig, Projection, Sequence};

/// The weights by Hugging Face name, and tables that depend on the configuration only.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub(super) config: &'a DecoderConfig,
    /// With the adapter's tensors under their names.
    pub(super) weights: AllWeights<'a>,
    pub(super) rotary: &'a Rotary,
    pub(super) adapter: Option<Adapted<'a>>,
    /// Matrices that stay as their file has them, in place of `weights`.
    pub(super) quantized: Option<&'a QuantizedMatrices>,
    /// Whether a backward pass follows, which asks for what attention keeps.
    #[cfg(feature = "flash-attn")]
    pub(super) is_trained: bool,
}

/// What the network needs to know of an adapter beside its tensors.
#[derive(Clone, Copy)]
pub(super) struct Adapted<'a> {
    /// What `B A` is multiplied by.
    pub(super) scale: f64,
    /// Lengths of the rows of `W + s B A`, `[out]`, by the matrix' name; empty unless lengths are trained apart.
    pub(super) lengths: &'a BTreeMap<String, Tensor>,
    /// What a training pass leaves out, and what it knows the rows by.
    pub(super) left_out: Option<(&'a Dropout, &'a [u64])>,
}

/// Cosines and sines of the rotary positions, `[max_positions, 1, head_dim / 2]` in `f32`.
#[derive(Debug)]
pub(super) struct Rotary {
    cosines: Tensor,
    sines: Tensor,
}

impl Rotary {
    pub(super) fn new(config: &DecoderConfig, device: &Device) -> Result<Self> {
        let half = config.head_dim / 2;
        let frequencies = config.rotary_frequencies();
        let angles: Vec<f64> = (0..config.max_positions)
            .flat_map(|position| frequencies.iter().map(move |&frequency| f64::from(position as f32 * frequency)))
            .collect();
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| function(angle) as f32).collect();
            Tensor::from_vec(values, (config.max_positions, 1, half), device)
        };
        Ok(Self { cosines: table(f64::cos)?, sines: table(f64::sin)? })
    }

    /// Turns `[rows, heads, head_dim]`, and a bias that is added to it first, to these positions, `[rows]`.
    pub(super) fn turn(&self, x: &Tensor, bias: Option<&Tensor>, positions: &Tensor) -> Result<Tensor> {
        let tables = (&self.cosines, &self.sines);
        match bias {
            Some(bias) => fused::rotate_biased(x, bias, positions, tables),
            None => fused::rotate(x, positions, tables),
        }
    }

    /// Turns queries and keys of a sampling pass, writes keys and values to their pages, and returns the queries.
    pub(super) fn write(
        &self,
        heads: (NewHeads<'_>, Option<[&Tensor; 3]>),
        paged: &Paged,
        layer: usize,
    ) -> Result<Tensor> {
        fused::write_rows(heads, (&paged.slabs, paged.shape), layer, &paged.rows, (&self.cosines, &self.sines))
    }

    /// Turns back: the gradient of [`Rotary::turn`].
    pub(super) fn turn_back(&self, x: &Tensor, positions: &Tensor) -> Result<Tensor> {
        fused::rotate_back(x, positions, (&self.cosines, &self.sines))
    }
}

/// The rows of a sampling pass, and the pages that they are added to.
pub(super) struct Paged {
    pub(super) slabs: Vec<Tensor>,
    pub(super) shape: PageShape,
    pub(super) rows: PagedRows,
    /// The last row of each span, if there are others.
    pub(super) ends: Option<PagedRows>,
}

/// The rows of some trees of sequences ([`crate::policy::tree`]), one after the other and without padding.
pub(super) struct Pack {
    pub(super) tokens: Vec<u32>,
    pub(super) segments: Vec<Segment>,
    /// What dropout knows the rows by.
    pub(super) keys: Vec<u64>,
    /// The rows' positions in their sequences, `[rows]`.
    pub(super) positions: Tensor,
    pub(super) layout: AttentionLayout,
}

/// Rows of a pack that follow each other in every sequence that they belong to.
pub(super) struct Segment {
    pub(super) rows: Range<usize>,
    /// The rows of the tokens before them, from the first on.
    pub(super) before: Vec<Range<usize>>,
    /// Tokens before them.
    pub(super) start: usize,
    /// The sequence that they are the end of, if they are the end of one.
    pub(super) sequence: Option<usize>,
}

impl Pack {
    /// The rows of these trees of `sequences`, for a network that computes in `dtype`.
    pub(super) fn new(trees: &[Node], sequences: &[Sequence<'_>], dtype: DType, device: &Device) -> Result<Self> {
        let (mut tokens, mut segments, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for tree in trees {
            lay_out(tree, &[], sequences, (&mut tokens, &mut segments, &mut keys));
        }
        let positions = segments.iter().flat_map(|segment| segment.start..segment.start + segment.rows.len());
        let positions = Tensor::new(positions.map(|position| position as u32).collect::<Vec<_>>(), device)?;
        let stretch = |segment: &Segment| Stretch { rows: segment.rows.clone(), before: segment.before.clone() };
        let layout = AttentionLayout::new(&segments.iter().map(stretch).collect::<Vec<_>>(), dtype, device)?;
        Ok(Self { tokens, segments, keys, positions, layout })
    }
}

/// Appends a node and all below it.
fn lay_out(
    node: &Node,
    before: &[Range<usize>],
    sequences: &[Sequence<'_>],
    (tokens, segments, keys): (&mut Vec<u32>, &mut Vec<Segment>, &mut Vec<u64>),
) {
    let rows = tokens.len()..tokens.len() + node.range.len();
    let known = &sequences[node.sequence].tokens[..node.range.end];
    tokens.extend(&known[node.range.start..]);
    keys.extend(Dropout::keys(known).skip(node.range.start));
    let sequence = node.children.is_empty().then_some(node.sequence);
    segments.push(Segment { rows: rows.clone(), before: before.to_vec(), start: node.range.start, sequence });
    let before = [before, &[rows]].concat();
    for child in &node.children {
        lay_out(child, &before, sequences, (tokens, segments, keys));
    }
}

impl Network<'_> {
    /// The joined matrices of a layer, unless an adapter or other types take them apart.
    pub(super) fn joined(&self, layer: usize) -> Option<&Joined> {
        self.weights.trained.joined(layer).filter(|_| self.trains_all())
    }

    pub(super) fn weight(&self, name: &str) -> Result<&Tensor> {
        let missing = || candle_core::Error::Msg(format!("no weight `{name}`"));
        self.weights.get(name).ok_or_else(missing)
    }

    /// `x W^T`, with the adapter on `W` if there is one: `f (x W^T + s (x A^T) B^T)`.
    pub(super) fn linear(&self, x: &Tensor, layer: usize, projection: Projection) -> Result<Tensor> {
        let name = &format!("{}.weight", projection.path(layer));
        if let Some(quantized) = self.quantized {
            return quantized.multiply(x, name);
        }
        let weight = self.weight(name)?;
        let plain = multiply(x, &weight.t()?)?;
        let Some(adapted) = self.adapter else { return Ok(plain) };
        let path = name.trim_end_matches(".weight");
        let Some(a) = self.weights.get(&format!("{path}.lora_A.weight")) else { return Ok(plain) };
        let b = self.weight(&format!("{path}.lora_B.weight"))?;
        let factors = self.kept_factors(x, layer, projection)?;
        let kept = factors.map_or_else(|| Ok(x.clone()), |factors| x * factors)?;
        let product = (plain + (multiply(&multiply(&kept, &a.t()?)?, &b.t()?)? * adapted.scale)?)?;
        match (self.weights.get(&format!("{path}.lora_magnitude_vector")), adapted.lengths.get(name)) {
            (Some(magnitude), Some(lengths)) => product.broadcast_mul(&(magnitude / lengths)?),
            _ => Ok(product),
        }
    }

    /// What dropout multiplies the inputs `x` of an adapter with, the same shape.
    pub(super) fn kept_factors(&self, x: &Tensor, layer: usize, projection: Projection) -> Result<Option<Tensor>> {
        let Some((dropout, keys)) = self.adapter.and_then(|adapted| adapted.left_out) else { return Ok(None) };
        let columns = x.dim(1)?;
        let mut factors = vec![0.0; keys.len() * columns];
        dropout.factors((layer, projection), keys, columns, &mut factors);
        Ok(Some(Tensor::from_vec(factors, (keys.len(), columns), x.device())?.to_dtype(x.dtype())?))
    }

    /// Whether all weights are trained, and no adapter.
    pub(super) fn trains_all(&self) -> bool {
        self.adapter.is_none()
    }

    /// `x / sqrt(mean(x^2) + eps) * weight`, computed in `f32`.
    pub(super) fn rms_norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        fused::rms_norm(x, self.weight(name)?, self.epsilon())
    }

    pub(super) fn epsilon(&self) -> f32 {
        self.config.rms_norm_eps as f32
    }

    /// The residual stream before the first layer, `[rows, hidden]`, from the tokens, `[rows]`.
    pub(super) fn embed(&self, tokens: &Tensor) -> Result<Tensor> {
        match self.quantized {
            Some(quantized) => quantized.embed(tokens),
            None => self.weight(EMBEDDING)?.index_select(tokens, 0),
        }
    }

    /// The norm after the last layer.
    pub(super) fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.rms_norm(x, FINAL_NORM)
    }

    /// The name of the last projection.
    pub(super) fn head_name(&self) -> &'static str {
        if self.config.tied_embeddings { EMBEDDING } else { "lm_head.weight" }
    }

    /// The last projection: `[rows, hidden]` to logits `[rows, vocab]` in F32.
    pub(super) fn projected(&self, hidden: &Tensor) -> Result<Tensor> {
        if let Some(quantized) = self.quantized {
            return quantized.multiply(hidden, self.head_name());
        }
        fused::product(hidden, &self.weight(self.head_name())?.t()?, DType::F32)
    }
}

/// A product in the type of its factors.
pub(super) fn multiply(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    fused::product(left, right, left.dtype())
}

/// Causal attention of every segment of a pack to itself and to what stands before it, for heads of a width that no kernel has.
///
/// # Shapes
/// - `queries`: `[rows, heads, head_dim]`, `keys` and `values`: `[rows, kv heads, head_dim]`, turned
/// - returns `[rows, heads * head_dim]`
pub(super) fn attend_packed(pack: &Pack, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    let by_head = |x: &Tensor| x.transpose(0, 1)?.contiguous(); // [heads, rows, head_dim]
    let (queries, keys, values) = (by_head(queries)?, by_head(keys)?, by_head(values)?);
    let mut parts = Vec::with_capacity(pack.segments.len());
    for segment in &pack.segments {
        let part = |x: &Tensor, rows: &Range<usize>| x.narrow(1, rows.start, rows.len());
        let seen = |x: &Tensor| {
            let ranges = segment.before.iter().chain([&segment.rows]);
            Tensor::cat(&ranges.map(|rows| part(x, rows)).collect::<Result<Vec<_>>>()?, 1)
        };
        parts.push(attend(&part(&queries, &segment.rows)?.contiguous()?, &seen(&keys)?, &seen(&values)?)?);
    }
    Tensor::cat(&parts, 0)
}

/// Causal attention of the newest rows of one sequence.
///
/// # Shapes
/// - `queries`: `[heads, rows, head_dim]`; `keys`, `values`: `[kv heads, positions, head_dim]`
/// - returns `[rows, heads * head_dim]`
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    let (heads, rows, dim) = queries.dims3()?;
    let (kv_heads, positions, _) = keys.dims3()?;
    let group = heads / kv_heads;
    // The heads of a group stand beside each other, so they share one product with their keys.
    let queries = queries.reshape((kv_heads, group * rows, dim))?;
    let scores = queries.matmul(&keys.transpose(1, 2)?.contiguous()?)?.to_dtype(DType::F32)?;
    let scores = (scores * (1.0 / (dim as f64).sqrt()))?.reshape((heads, rows, positions))?;
    let start = positions - rows;
    let hidden = |row: usize, position: usize| if position > start + row { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..rows).flat_map(|row| (0..positions).map(move |position| hidden(row, position))).collect();
    let mask = Tensor::from_vec(mask, (rows, positions), queries.device())?;
    let log_weights = log_softmax(&scores.broadcast_add(&mask)?)?;
    let weights = log_weights.exp()?.to_dtype(values.dtype())?.reshape((kv_heads, group * rows, positions))?;
    let attended = weights.matmul(values)?.reshape((heads, rows, dim))?;
    attended.transpose(0, 1)?.contiguous()?.reshape((rows, heads * dim))
}

/// `x - logsumexp(x)` over the last dimension.
fn log_softmax(x: &Tensor) -> Result<Tensor> {
    // The maximum cancels in the result, so no gradient need flow through it.
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}
