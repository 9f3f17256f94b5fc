//! Rows of tokens through the layers. The tokens of several sequences form one matrix for the products with weights; only
//! attention looks at each sequence apart, against its own cache. Serves sampling, scoring and training alike; the last
//! projection is in [`super::head`].

use rayon::prelude::*;

use super::adapter::{AdapterScratch, Through, leave_out};
use super::attention::{AttentionScratch, BLOCK_ROWS, Heads, attend};
use super::cache::{CpuCache, LayerCache};
use super::kernels::{add_scaled, norm_heads, rms_norm, swiglu};
use super::matmul::{Packing, Rows, sized};
use super::model::{Joint, Model};

/// Rows of a part of element-wise work, and elements from which parts go to several threads.
const PART_ROWS: usize = 4;
const MIN_PARALLEL: usize = 1 << 13;
/// Multiply-adds (about 20 us) from which attention is divided over threads.
const MIN_PARALLEL_ATTENTION: usize = 1 << 20;

/// New tokens of one sequence.
pub(super) struct Span<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) cache: &'a mut CpuCache,
}

impl Span<'_> {
    /// Tokens before them, in a cache that holds them already or not yet.
    fn start(&self, is_again: bool) -> usize {
        if is_again { self.cache.len() - self.tokens.len() } else { self.cache.len() }
    }
}

/// What a layer computes on its way, `[rows, ..]` each. What is quickly computed again from these is not kept.
#[derive(Debug, Default)]
pub(super) struct LayerActivations {
    /// The residual stream on entry.
    pub(super) input: Vec<f32>,
    /// Queries and keys as projected, before their heads are normalized; kept only where they are.
    pub(super) projected: Vec<f32>,
    /// Queries, keys and values; queries and keys turned to their positions.
    pub(super) qkv: Vec<f32>,
    /// What the heads attended to.
    pub(super) attended: Vec<f32>,
    /// The residual stream between attention and feed-forward.
    pub(super) middle: Vec<f32>,
    /// Gate and up projections.
    pub(super) gate_up: Vec<f32>,
    /// Keys and values, `[rows, 2 kv width]`, where the rest is not kept.
    pub(super) known: Vec<f32>,
}

/// What a forward pass leaves behind for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing.
    #[default]
    Nothing,
    /// The input of each layer, with keys and values: [`forward_again`] computes the rest (arXiv:1604.06174).
    Inputs,
    /// All of [`LayerActivations`].
    All,
}

/// Whose output is asked of the last layer. All rows have keys and values there, which nobody else needs more of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nobody's: other rows follow, which need keys and values.
    Nobody,
    /// That of the last row of each span; no other rows are left in the residual stream.
    #[default]
    Ends,
    /// That of these rows, in ascending order. The others in the residual stream mean nothing.
    Rows(Vec<usize>),
}

/// What goes through the rest of the last layer if these are some of the rows.
#[derive(Debug, Default)]
pub(super) struct AskedRows {
    /// `[rows, hidden]`.
    pub(super) hidden: Vec<f32>,
    /// `[rows, query width]`.
    pub(super) attended: Vec<f32>,
    /// As [`Workspace::keys`].
    pub(super) keys: Vec<u64>,
}

/// Copies rows of `width` values to one after the other.
pub(super) fn gather(from: &[f32], rows: &[usize], width: usize, to: &mut Vec<f32>) {
    to.clear();
    for row in rows {
        to.extend_from_slice(&from[row * width..][..width]);
    }
}

/// Copies rows of `width` values back to where they were.
pub(super) fn scatter(from: &[f32], rows: &[usize], width: usize, to: &mut [f32]) {
    for (row, values) in rows.iter().zip(from.chunks_exact(width)) {
        to[row * width..][..width].copy_from_slice(values);
    }
}

/// Buffers of a pass, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// The residual stream, `[rows, hidden]`.
    pub(super) hidden: Vec<f32>,
    /// One entry a layer as far as they are kept for the backward pass, and one for the layer at work.
    pub(super) layers: Vec<LayerActivations>,
    /// What the last forward pass kept.
    kept: Keep,
    /// What was asked of its last layer.
    asked: Asked,
    pub(super) asked_rows: AskedRows,
    /// The input of a product, normalized, `[rows, hidden]`.
    pub(super) normalized: Vec<f32>,
    /// `silu(gate) * up`, `[rows, inner]`.
    pub(super) activated: Vec<f32>,
    pub(super) attention: AttentionScratch,
    pub(super) packing: Packing,
    /// What dropout knows the rows by; empty where nothing is left out.
    pub(super) keys: Vec<u64>,
    pub(super) adapter: AdapterScratch,
}

impl Workspace {
    /// Where a layer's activations are, once they were kept or computed again.
    pub(super) fn slot(&self, model: &Model, layer: usize) -> usize {
        if self.kept == Keep::All { layer } else { model.config.layer_count }
    }

    /// The rows whose output was asked for, if these are not all of a layer.
    pub(super) fn asked(&self, model: &Model, layer: usize) -> Option<&[usize]> {
        match &self.asked {
            Asked::Rows(rows) if layer + 1 == model.config.layer_count => Some(rows),
            _ => None,
        }
    }
}

/// Appends the tokens of every span to its cache and leaves the residual stream after the last layer in
/// `workspace.hidden`, where it is asked for, and what is to be kept in `workspace.layers`.
pub(super) fn forward(model: &Model, spans: &mut [Span<'_>], (keep, asked): (Keep, Asked), workspace: &mut Workspace) {
    let config = &model.config;
    let rows: usize = spans.iter().map(|span| span.tokens.len()).sum();
    let hidden_size = config.hidden_size;
    (workspace.kept, workspace.asked) = (keep, asked);
    workspace.layers.resize_with(config.layer_count + 1, LayerActivations::default);
    for span in spans.iter_mut() {
        span.cache.reserve(span.tokens.len());
    }
    let hidden = sized(&mut workspace.hidden, rows * hidden_size);
    let embedding = model.at(&model.layout.embedding);
    let tokens = spans.iter().flat_map(|span| span.tokens);
    for (row, &token) in hidden.chunks_exact_mut(hidden_size).zip(tokens) {
        row.copy_from_slice(&embedding[token as usize * hidden_size..][..hidden_size]);
    }
    for index in 0..config.layer_count {
        if keep != Keep::Nothing {
            let input = sized(&mut workspace.layers[index].input, rows * hidden_size);
            input.copy_from_slice(&workspace.hidden[..rows * hidden_size]);
        }
        layer_forward(model, (index, false), spans, workspace);
        let (kept, at_work) = workspace.layers.split_at_mut(config.layer_count);
        kept[index].known.clear();
        if keep == Keep::Inputs {
            let qkv = at_work[0].qkv.chunks_exact(model.heads.row_width()).take(rows);
            qkv.for_each(|row| kept[index].known.extend_from_slice(&row[model.heads.query_width()..]));
        }
    }
    for span in spans {
        span.cache.advance(span.tokens.len());
    }
}

/// Computes the activations of a layer again from its input. The caches hold the tokens of the spans.
pub(super) fn forward_again(model: &Model, layer: usize, spans: &mut [Span<'_>], workspace: &mut Workspace) {
    let Workspace { hidden, layers, .. } = workspace;
    let rows: usize = spans.iter().map(|span| span.tokens.len()).sum();
    let size = rows * model.config.hidden_size;
    let (kept, at_work) = layers.split_at_mut(model.config.layer_count);
    sized(hidden, size).copy_from_slice(&kept[layer].input[..size]);
    std::mem::swap(&mut at_work[0].input, &mut kept[layer].input);
    layer_forward(model, (layer, true), spans, workspace);
}

/// All rows through one layer: `workspace.hidden` goes from its input to its output. `is_again` says that the caches hold the
/// tokens already; the output is then left out.
fn layer_forward(model: &Model, (index, is_again): (usize, bool), spans: &mut [Span<'_>], workspace: &mut Workspace) {
    let (config, heads) = (&model.config, model.heads);
    let mut rows: usize = spans.iter().map(|span| span.tokens.len()).sum();
    let (hidden_size, width, inner) = (config.hidden_size, heads.row_width(), config.intermediate_size);
    let product = |rows, stride, accumulate| Rows { count: rows, stride, accumulate };
    let is_last = index + 1 == config.layer_count;
    let (places, panels) = (&model.layout.layers[index], &model.panels[index]);
    let slot = workspace.slot(model, index);
    let keeps = is_again || workspace.kept == Keep::All;
    let Workspace {
        hidden, layers, normalized, activated, attention, packing, keys, adapter, asked, asked_rows, ..
    } = workspace;
    let mut leave_out = |(rows, keys): (usize, &[u64]), joint: Joint, input: &[f32], output: &mut [f32]| {
        if let Some(adapted) = model.adapter.as_ref().filter(|_| !keys.is_empty()) {
            leave_out(adapted, (index, joint), Through { rows, keys, input }, output, (adapter, packing));
        }
    };
    let mut hidden = &mut hidden[..rows * hidden_size];
    let mut normalized = sized(normalized, rows * hidden_size);
    let layer = &mut layers[slot];
    rms_norm(hidden, model.at(&places.attention_norm), model.eps, normalized);
    let mut qkv = sized(&mut layer.qkv, rows * width);
    panels.qkv.multiply(product(rows, hidden_size, false), normalized, qkv);
    leave_out((rows, keys), Joint::Qkv, normalized, qkv);
    if !places.qkv_bias.is_empty() {
        let bias = model.at(&places.qkv_bias);
        qkv.chunks_exact_mut(width).for_each(|row| add_scaled(row, 1.0, bias));
    }
    if !places.query_norm.is_empty() {
        let widths = heads.norm_widths();
        let count = widths.queries + widths.keys;
        let projected = sized(&mut layer.projected, rows * count);
        for (row, projected) in qkv.chunks_exact(width).zip(projected.chunks_exact_mut(count)) {
            projected.copy_from_slice(&row[..count]);
        }
        let norms = (model.at(&places.query_norm), model.at(&places.key_norm));
        norm_heads(projected, norms, model.eps, widths, qkv);
    }
    let mut rest = &mut *qkv;
    for span in spans.iter_mut() {
        let (rows, later) = rest.split_at_mut(span.tokens.len() * width);
        append(model, (index, is_again), span, rows);
        rest = later;
    }
    if is_last && *asked == Asked::Nobody {
        return;
    }
    let only_ends = is_last && *asked == Asked::Ends;
    if only_ends {
        move_ends(spans, qkv, width);
        move_ends(spans, hidden, hidden_size);
        rows = spans.len();
        hidden = &mut hidden[..rows * hidden_size];
        normalized = &mut normalized[..rows * hidden_size];
        qkv = &mut qkv[..rows * width];
    }
    let queries = spans.iter().map(|span| {
        let (start, count) = (span.start(is_again), span.tokens.len());
        let (start, count) = if only_ends { (start + count - 1, 1) } else { (start, count) };
        Queries { cache: span.cache.layer(index), start, count }
    });
    let attended = sized(&mut layer.attended, rows * heads.query_width());
    attend_all(heads, queries, qkv, attended, &mut attention.weights);
    let (mut attended, mut stream, mut keys) = (&*attended, &mut *hidden, &keys[..]);
    let some = match asked {
        Asked::Rows(some) if is_last => Some(&some[..]),
        _ => None,
    };
    if let Some(some) = some {
        gather(attended, some, heads.query_width(), &mut asked_rows.attended);
        gather(stream, some, hidden_size, &mut asked_rows.hidden);
        asked_rows.keys.clear();
        asked_rows.keys.extend(some.iter().filter_map(|&row| keys.get(row)));
        rows = some.len();
        (attended, stream, keys) = (&asked_rows.attended, &mut asked_rows.hidden, &asked_rows.keys);
        normalized = &mut normalized[..rows * hidden_size];
    }
    if rows == 0 {
        return;
    }
    panels.attention_out.multiply(product(rows, heads.query_width(), true), attended, stream);
    leave_out((rows, keys), Joint::AttentionOut, attended, stream);
    if keeps {
        sized(&mut layer.middle, rows * hidden_size).copy_from_slice(stream);
    }
    rms_norm(stream, model.at(&places.mlp_norm), model.eps, normalized);
    let gate_up = sized(&mut layer.gate_up, rows * 2 * inner);
    panels.gate_up.multiply(product(rows, hidden_size, false), normalized, gate_up);
    leave_out((rows, keys), Joint::GateUp, normalized, gate_up);
    if is_again {
        return;
    }
    let activated = sized(activated, rows * inner);
    activate(gate_up, inner, activated);
    panels.down.multiply(product(rows, inner, true), activated, stream);
    leave_out((rows, keys), Joint::Down, activated, stream);
    if let Some(some) = some {
        scatter(&asked_rows.hidden, some, hidden_size, hidden);
    }
}

/// Moves the last row of each span to the front; a row's new place is never behind its old one.
fn move_ends(spans: &[Span<'_>], rows: &mut [f32], width: usize) {
    let mut end = 0;
    for (place, span) in spans.iter().enumerate() {
        end += span.tokens.len();
        rows.copy_within((end - 1) * width..end * width, place * width);
    }
}

/// `silu(gate) * up` of all rows.
pub(super) fn activate(gate_up: &[f32], inner: usize, activated: &mut [f32]) {
    let parts = activated.par_chunks_mut(PART_ROWS * inner).zip(gate_up.par_chunks(2 * PART_ROWS * inner));
    parts.with_min_len(MIN_PARALLEL.div_ceil(PART_ROWS * inner)).for_each(|(out, part)| swiglu(part, inner, out));
}

/// Rows of queries of one sequence.
struct Queries<'a> {
    cache: LayerCache<'a>,
    /// Tokens before the first of them.
    start: usize,
    count: usize,
}

/// Attention of all rows in one layer. They are cut into blocks, which are tasks if there is enough to do.
fn attend_all<'a>(
    heads: Heads,
    sequences: impl Iterator<Item = Queries<'a>>,
    qkv: &[f32],
    attended: &mut [f32],
    scores: &mut Vec<f32>,
) {
    let (width, out_width) = (heads.row_width(), heads.query_width());
    let mut tasks = Vec::new();
    let mut work = 0;
    let (mut rest, mut rest_out) = (qkv, attended);
    for Queries { cache, start: mut length, count: mut left } in sequences {
        while left > 0 {
            let count = left.min(BLOCK_ROWS);
            let (rows, later) = rest.split_at(count * width);
            let (out, later_out) = std::mem::take(&mut rest_out).split_at_mut(count * out_width);
            (rest, rest_out) = (later, later_out);
            (length, left) = (length + count, left - count);
            work += 2 * count * length * out_width;
            tasks.push(((rows, count), (cache, length), out));
        }
    }
    if work < MIN_PARALLEL_ATTENTION {
        for (rows, cache, out) in tasks {
            attend(heads, rows, cache, out, scores);
        }
        return;
    }
    let tasks = tasks.into_par_iter().with_max_len(1);
    tasks.for_each_init(Vec::new, |scores, (rows, cache, out)| attend(heads, rows, cache, out, scores));
}

/// Turns queries and keys of the new rows to their positions and appends keys and values to the cache of one layer, unless
/// it has them.
fn append(model: &Model, (layer, is_again): (usize, bool), span: &mut Span<'_>, qkv: &mut [f32]) {
    let heads = model.heads;
    let start = span.start(is_again);
    for (position, row) in (start..).zip(qkv.chunks_exact_mut(heads.row_width())) {
        model.rotary.turn(row, heads.count + heads.kv_count, position, false);
        if !is_again {
            let (keys, values) = row[heads.query_width()..].split_at(heads.kv_width());
            span.cache.put(layer, position, keys, values);
        }
    }
}
