//! Causal attention of one sequence, forward against its cache and backward over all its rows. Scores are held for a block of
//! query rows at a time, never for all.

use super::cache::{BLOCK, LayerCache};
use super::kernels::{HeadWidths, Rotary, dot, exponentials, maximum};
use super::matmul::{LANES, Operand, Packing, Product, SmallProduct, multiply, sized};
use crate::policy::DecoderConfig;

/// Query rows whose scores are held at a time.
pub(super) const BLOCK_ROWS: usize = 48;

/// Sizes of the heads and of a row of queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) count: usize,
    pub(super) kv_count: usize,
    pub(super) dim: usize,
}

impl Heads {
    pub(super) fn of(config: &DecoderConfig) -> Self {
        Self { count: config.head_count, kv_count: config.kv_head_count, dim: config.head_dim }
    }

    /// Width of the queries of a row.
    pub(super) fn query_width(self) -> usize {
        self.count * self.dim
    }

    /// Width of the keys, or of the values, of a row.
    pub(super) fn kv_width(self) -> usize {
        self.kv_count * self.dim
    }

    /// Width of a row of queries, keys and values.
    pub(super) fn row_width(self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }

    /// Where queries and keys lie in a row.
    pub(super) fn norm_widths(self) -> HeadWidths {
        HeadWidths { queries: self.query_width(), keys: self.kv_width(), stride: self.row_width() }
    }

    /// Query heads that share a key head.
    fn group(self) -> usize {
        self.count / self.kv_count
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Query rows that share a key head: rows of one head, or heads of one row.
#[derive(Clone, Copy)]
struct QueryBlock {
    rows: usize,
    /// Distance between the rows.
    stride: usize,
    kv_head: usize,
    /// Positions that the first row sees, and how many more each further row sees.
    visible: usize,
    visible_step: usize,
}

impl QueryBlock {
    fn visible_of(&self, row: usize) -> usize {
        self.visible + row * self.visible_step
    }

    /// Positions that the last row sees.
    fn visible_most(&self) -> usize {
        self.visible_of(self.rows - 1)
    }

    /// Distance between rows of scores.
    fn score_stride(&self) -> usize {
        self.visible_most().next_multiple_of(LANES)
    }

    /// Scores with `LANES` positions, not yet scaled.
    fn score_panel(&self, heads: Heads, panel: usize, queries: &[f32], cache: LayerCache<'_>, scores: &mut [f32]) {
        let product = SmallProduct {
            rows: self.rows,
            depth: heads.dim,
            strides: [self.stride, LANES, self.score_stride()],
            columns: LANES,
            accumulate: false,
        };
        product.run(queries, cache.key_panel(panel, self.kv_head), &mut scores[panel * LANES..]);
    }

    /// Scores to weights: `softmax(scores / sqrt(head_dim))` over the visible positions, 0 behind them.
    fn softmax(&self, heads: Heads, scores: &mut [f32]) {
        for (row, scores) in scores.chunks_exact_mut(self.score_stride()).take(self.rows).enumerate() {
            let (seen, hidden) = scores.split_at_mut(self.visible_of(row));
            let top = maximum(seen);
            let sum = exponentials(seen, top, heads.scale());
            let factor = 1.0 / sum;
            for value in seen {
                *value *= factor;
            }
            hidden.fill(0.0);
        }
    }

    /// Adds a block of positions to the weighted sum of values; the first block overwrites.
    fn add_values(
        &self,
        heads: Heads,
        (block, weights): (usize, &[f32]),
        cache: LayerCache<'_>,
        (out, out_stride): (&mut [f32], usize),
    ) {
        let start = block * BLOCK;
        for group in 0..cache.groups() {
            let product = SmallProduct {
                rows: self.rows,
                depth: BLOCK.min(self.visible_most() - start),
                strides: [self.score_stride(), LANES, out_stride],
                columns: LANES.min(heads.dim - group * LANES),
                accumulate: block > 0,
            };
            let panel = cache.value_panel(block, self.kv_head, group);
            product.run(&weights[start..], panel, &mut out[group * LANES..]);
        }
    }
}

/// Attention of the newest rows of one sequence, whose keys and values are in the cache already.
///
/// # Shapes
/// - `rows`: `[count, row width]`, queries turned to their positions; the last row is the newest position
/// - `out`: `[count, query width]`
pub(super) fn attend(
    heads: Heads,
    (rows, count): (&[f32], usize),
    (cache, length): (LayerCache<'_>, usize),
    out: &mut [f32],
    scores: &mut Vec<f32>,
) {
    if count == 1 {
        attend_one(heads, rows, (cache, length), out, scores);
        return;
    }
    let (width, out_width) = (heads.row_width(), heads.query_width());
    for head in 0..heads.count {
        for start in (0..count).step_by(BLOCK_ROWS) {
            let block = QueryBlock {
                rows: BLOCK_ROWS.min(count - start),
                stride: width,
                kv_head: head / heads.group(),
                visible: length - count + start + 1,
                visible_step: 1,
            };
            weigh(heads, block, &rows[start * width + head * heads.dim..], cache, scores);
            let out = &mut out[start * out_width + head * heads.dim..];
            for index in 0..block.visible_most().div_ceil(BLOCK) {
                block.add_values(heads, (index, scores), cache, (out, out_width));
            }
        }
    }
}

/// [`attend`] for one row, with the same bits: all heads go through the cache together, from front to back.
fn attend_one(
    heads: Heads,
    row: &[f32],
    (cache, length): (LayerCache<'_>, usize),
    out: &mut [f32],
    scores: &mut Vec<f32>,
) {
    let group = heads.group();
    let block = |kv_head| QueryBlock { rows: group, stride: heads.dim, kv_head, visible: length, visible_step: 0 };
    let stride = block(0).score_stride();
    let scores = sized(scores, heads.count * stride);
    for panel in 0..stride / LANES {
        for kv_head in 0..heads.kv_count {
            let queries = &row[kv_head * group * heads.dim..];
            block(kv_head).score_panel(heads, panel, queries, cache, &mut scores[kv_head * group * stride..]);
        }
    }
    for kv_head in 0..heads.kv_count {
        block(kv_head).softmax(heads, &mut scores[kv_head * group * stride..]);
    }
    for index in 0..length.div_ceil(BLOCK) {
        for kv_head in 0..heads.kv_count {
            let weights = &scores[kv_head * group * stride..];
            let out = &mut out[kv_head * group * heads.dim..];
            block(kv_head).add_values(heads, (index, weights), cache, (out, heads.dim));
        }
    }
}

/// The attention weights of a block, `[rows, score_stride]`.
fn weigh(heads: Heads, block: QueryBlock, queries: &[f32], cache: LayerCache<'_>, scores: &mut Vec<f32>) {
    let scores = sized(scores, block.rows * block.score_stride());
    for panel in 0..block.score_stride() / LANES {
        block.score_panel(heads, panel, queries, cache, scores);
    }
    block.softmax(heads, scores);
}

/// Buffers of [`attend_backward`].
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    /// Attention weights of a block.
    pub(super) weights: Vec<f32>,
    score_gradients: Vec<f32>,
}

/// What the forward pass of one sequence left behind.
#[derive(Clone, Copy)]
pub(super) struct Attended<'a> {
    /// Queries, keys (both turned) and values, `[rows, row width]`.
    pub(super) rows: &'a [f32],
    /// The result, `[rows, query width]`.
    pub(super) out: &'a [f32],
    /// The cache after the pass.
    pub(super) cache: LayerCache<'a>,
    /// Rows.
    pub(super) count: usize,
}

/// Keys and values of the positions before the rows, and what they get of the gradient: `[count, 2 kv width]` both, keys
/// turned to their positions.
pub(super) struct Prefix<'a> {
    pub(super) known: &'a [f32],
    pub(super) gradient: &'a mut [f32],
    pub(super) count: usize,
}

/// Backward of [`attend`] for the rows after `prefix`, down to queries and keys before they were turned. The keys and values
/// of the rows themselves get what they `received` from later rows as well; without `out_gradient` that is all there is.
///
/// With `P` the weights: `dV = P^T dO`, `dS = P * (dO V^T - rowsum(dO * O))`, `dQ = dS K / sqrt(d)`, `dK = dS^T Q / sqrt(d)`.
///
/// # Shapes
/// - `out_gradient`: `[rows, query width]`; `received`: `[rows, 2 kv width]` or empty
/// - `gradient`: `[rows, row width]`, overwritten
pub(super) fn attend_backward(
    heads: Heads,
    rotary: &Rotary,
    (forward, out_gradient, received): (Attended<'_>, Option<&[f32]>, &[f32]),
    prefix: &mut Prefix<'_>,
    gradient: &mut [f32],
    (scratch, packing): (&mut AttentionScratch, &mut Packing),
) {
    let width = heads.row_width();
    gradient.fill(0.0);
    for (row, received) in gradient.chunks_exact_mut(width).zip(received.chunks_exact(2 * heads.kv_width())) {
        row[heads.query_width()..].copy_from_slice(received);
    }
    if let Some(out_gradient) = out_gradient {
        for head in 0..heads.count {
            for start in (0..forward.count).step_by(BLOCK_ROWS) {
                let block = QueryBlock {
                    rows: BLOCK_ROWS.min(forward.count - start),
                    stride: width,
                    kv_head: head / heads.group(),
                    visible: prefix.count + start + 1,
                    visible_step: 1,
                };
                let place = (head, start, block);
                block_backward(heads, place, forward, prefix, out_gradient, gradient, (scratch, packing));
            }
        }
    }
    for (position, row) in (prefix.count..).zip(gradient.chunks_exact_mut(width)) {
        rotary.turn(row, heads.count + heads.kv_count, position, true);
    }
}

fn block_backward(
    heads: Heads,
    (head, start, block): (usize, usize, QueryBlock),
    forward: Attended<'_>,
    prefix: &mut Prefix<'_>,
    out_gradient: &[f32],
    gradient: &mut [f32],
    (scratch, packing): (&mut AttentionScratch, &mut Packing),
) {
    let (width, out_width, stride) = (heads.row_width(), heads.query_width(), block.score_stride());
    let (rows, before) = (block.rows, prefix.count);
    let (visible, own) = (block.visible_most(), block.visible_most() - before);
    let query_place = start * width + head * heads.dim;
    let key_place = heads.query_width() + block.kv_head * heads.dim;
    let value_place = key_place + heads.kv_width();
    let out_place = start * out_width + head * heads.dim;
    let (prefix_width, prefix_key) = (2 * heads.kv_width(), block.kv_head * heads.dim);
    let prefix_value = prefix_key + heads.kv_width();
    let queries = &forward.rows[query_place..];
    weigh(heads, block, queries, forward.cache, &mut scratch.weights);

    let out_gradient = Operand::new(&out_gradient[out_place..], out_width);
    let to_row = Product { rows: own, columns: heads.dim, depth: rows, out_stride: width, accumulate: true };
    let to_prefix = Product { rows: before, out_stride: prefix_width, ..to_row };
    let weights = |from: usize| Operand::transposed(&scratch.weights[from..], stride);
    multiply(to_row, weights(before), out_gradient, &mut gradient[value_place..], packing);
    if before > 0 {
        multiply(to_prefix, weights(0), out_gradient, &mut prefix.gradient[prefix_value..], packing);
    }

    let scores = sized(&mut scratch.score_gradients, rows * stride);
    let product = Product { rows, columns: own, depth: heads.dim, out_stride: stride, accumulate: false };
    let values = Operand::transposed(&forward.rows[value_place..], width);
    multiply(product, out_gradient, values, &mut scores[before..], packing);
    if before > 0 {
        let values = Operand::transposed(&prefix.known[prefix_value..], prefix_width);
        multiply(Product { columns: before, ..product }, out_gradient, values, scores, packing);
    }
    for (row, scores) in scores.chunks_exact_mut(stride).take(rows).enumerate() {
        let out = &forward.out[out_place + row * out_width..][..heads.dim];
        let common = dot(out, &out_gradient.row(row)[..heads.dim]);
        let weights = &scratch.weights[row * stride..][..visible];
        for (score, &weight) in scores.iter_mut().zip(weights) {
            *score = weight * (*score - common) * heads.scale();
        }
    }

    let product = Product { rows, columns: heads.dim, depth: own, out_stride: width, accumulate: false };
    let keys = Operand::new(&forward.rows[key_place..], width);
    let query_gradient = &mut gradient[query_place..];
    multiply(product, Operand::new(&scores[before..], stride), keys, query_gradient, packing);
    if before > 0 {
        let product = Product { depth: before, accumulate: true, ..product };
        let keys = Operand::new(&prefix.known[prefix_key..], prefix_width);
        multiply(product, Operand::new(scores, stride), keys, query_gradient, packing);
    }
    let queries = Operand::new(queries, width);
    multiply(to_row, Operand::transposed(&scores[before..], stride), queries, &mut gradient[key_place..], packing);
    if before > 0 {
        let scores = Operand::transposed(scores, stride);
        multiply(to_prefix, scores, queries, &mut prefix.gradient[prefix_key..], packing);
    }
}
