//! Scores and gradients of whole sequences. A sequence is one task's work from its first embedding to its last gradient, so
//! only running sequences hold activations; gradients go to a fixed number of shards, summed in a fixed order.

use std::cmp::Reverse;

use super::adapter::{AdapterScratch, adapted_backward};
use super::attention::{Attended, attend_backward};
use super::cache::CpuCache;
use super::forward::{LayerActivations, Span, Workspace, forward};
use super::gradients::Gradients;
use super::head::{HeadScratch, Targets, head_backward, head_scores};
use super::kernels::{add_scaled, norm_heads_backward, rms_norm_backward, swiglu_backward};
use super::matmul::{Operand, Packing, Product, multiply, sized};
use super::model::{Joint, Model};
use crate::policy::{Sequence, SequenceLoss, TokenGradient, TokenScore};

/// Gradients (1 GiB of them) that may exist at once beside the accumulated ones.
const MAX_SHARD_VALUES: usize = 1 << 28;
/// More shards would balance no better and cost memory.
const MAX_SHARDS: usize = 16;

/// Everything a running sequence needs besides the weights; kept from call to call.
#[derive(Debug)]
pub(super) struct SequenceWorkspace {
    cache: CpuCache,
    forward: Workspace,
    head: HeadScratch,
    backward: BackwardBuffers,
}

#[derive(Debug, Default)]
struct BackwardBuffers {
    /// Gradient of the residual stream, `[rows, hidden]`.
    hidden: Vec<f32>,
    normalized: Vec<f32>,
    attended: Vec<f32>,
    qkv: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    adapter: AdapterScratch,
    /// Gradients of frozen vectors, which nobody reads.
    unused: Vec<f32>,
}

impl SequenceWorkspace {
    pub(super) fn new(model: &Model) -> Self {
        Self {
            cache: CpuCache::new(&model.config),
            forward: Workspace::default(),
            head: HeadScratch::default(),
            backward: BackwardBuffers::default(),
        }
    }
}

/// How many shards of gradients a call uses: by the sizes alone, so that sums do not depend on the machine.
pub(super) fn shard_count(parameter_count: usize, sequence_count: usize) -> usize {
    (MAX_SHARD_VALUES / parameter_count).clamp(2, MAX_SHARDS).min(sequence_count)
}

/// Divides sequences over shards so that the longest shard is short: longest sequence first, each to the shard with the
/// least so far. Within a shard the order of the call is kept.
pub(super) fn assign(sequences: &[Sequence<'_>], shard_count: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&index| Reverse(sequences[index].tokens.len()));
    let mut shards = vec![(0, Vec::new()); shard_count];
    for index in order {
        if let Some((load, members)) = shards.iter_mut().min_by_key(|(load, _)| *load) {
            *load += sequences[index].tokens.len();
            members.push(index);
        }
    }
    let sorted = |(_, mut members): (usize, Vec<usize>)| {
        members.sort_unstable();
        members
    };
    shards.into_iter().map(sorted).collect()
}

/// The tokens whose rows matter: a token after the last target's row changes no score.
fn needed_tokens<'a>(sequence: &Sequence<'a>) -> &'a [u32] {
    let count = sequence.targets.last().map_or(0, |target| target.position as usize);
    &sequence.tokens[..count]
}

/// Scores the targets of one sequence.
pub(super) fn score_sequence(
    model: &Model,
    sequence: Sequence<'_>,
    temperature: f32,
    workspace: &mut SequenceWorkspace,
    keep: bool,
) -> Vec<TokenScore> {
    let tokens = needed_tokens(&sequence);
    if tokens.is_empty() {
        return Vec::new();
    }
    workspace.cache.clear();
    let span = Span { tokens, cache: &mut workspace.cache };
    forward(model, &mut [span], keep, &mut workspace.forward);
    head_scores(model, Targets::new(sequence, temperature), &workspace.forward.hidden, &mut workspace.head)
}

/// Scores the targets of sequence `index` and adds the gradients of `loss` to `gradient`.
pub(super) fn train_sequence(
    model: &Model,
    (index, sequence): (usize, Sequence<'_>),
    (temperature, loss): (f32, &dyn SequenceLoss),
    gradient: &mut [f32],
    workspace: &mut SequenceWorkspace,
) -> Vec<TokenScore> {
    let scores = score_sequence(model, sequence, temperature, workspace, true);
    let mut score_gradients = vec![TokenGradient::default(); scores.len()];
    loss.gradient(index, &scores, &mut score_gradients);
    // Groups without an advantage are common late in training: their sequences cost no backward pass.
    if score_gradients.iter().all(|gradient| *gradient == TokenGradient::default()) {
        return scores;
    }
    let SequenceWorkspace { cache, forward, head, backward } = workspace;
    let tokens = needed_tokens(&sequence);
    let hidden_size = model.config.hidden_size;
    let hidden = sized(&mut backward.hidden, tokens.len() * hidden_size);
    let targets = Targets::new(sequence, temperature);
    let mut gradients =
        if model.adapter.is_some() { Gradients::Adapter(gradient) } else { Gradients::Weights(gradient) };
    let scratch = (head, &mut forward.packing, &mut backward.unused);
    head_backward(model, targets, (&scores, &score_gradients), hidden, &mut gradients, scratch);
    for layer in (0..model.config.layer_count).rev() {
        layer_backward(model, (layer, tokens.len()), cache, &mut gradients, forward, backward);
    }
    let Some(embedding) = gradients.at(&model.layout.embedding) else { return scores };
    for (&token, row) in tokens.iter().zip(backward.hidden.chunks_exact(hidden_size)) {
        let place = &mut embedding[token as usize * hidden_size..][..hidden_size];
        place.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    scores
}

/// Both gradients of `y = x W^T`: `dx = dy W` to `input_gradient`, and `dW += dy^T x` to `weight_gradient`.
///
/// # Shapes
/// - `output_gradient`: `[rows, out]`; `input`: `[rows, in]`; `weight`: `[out, in]`
fn linear_backward(
    rows: usize,
    (input, weight, output_gradient): (&[f32], &[f32], &[f32]),
    (input_gradient, weight_gradient): (&mut [f32], &mut [f32]),
    packing: &mut Packing,
) {
    let columns = input_gradient.len() / rows;
    let outputs = weight.len() / columns;
    let product = Product { rows, columns, depth: outputs, out_stride: columns, accumulate: false };
    let left = Operand::new(output_gradient, outputs);
    multiply(product, left, Operand::new(weight, columns), input_gradient, packing);
    let product = Product { rows: outputs, columns, depth: rows, out_stride: columns, accumulate: true };
    let left = Operand::transposed(output_gradient, outputs);
    multiply(product, left, Operand::new(input, columns), weight_gradient, packing);
}

/// Backward through one of a layer's products, with an adapter on it or without.
fn joint_backward(
    model: &Model,
    (layer, joint): (usize, Joint),
    (rows, input, output_gradient): (usize, &[f32], &[f32]),
    input_gradient: &mut [f32],
    (gradients, scratch, packing): (&mut Gradients<'_>, &mut AdapterScratch, &mut Packing),
) {
    if let Some(adapter) = &model.adapter {
        let known = (rows, input, output_gradient);
        let scratch = (gradients, scratch, packing);
        adapted_backward((model, adapter), (layer, joint), known, input_gradient, scratch);
        return;
    }
    let place = model.layout.layers[layer].joint(joint);
    let Some(weight_gradient) = gradients.at(&place) else { return };
    let known = (input, model.at(&place), output_gradient);
    linear_backward(rows, known, (input_gradient, weight_gradient), packing);
}

/// Backward through one layer: `buffers.hidden` goes from the gradient of its output to that of its input.
fn layer_backward(
    model: &Model,
    (index, rows): (usize, usize),
    cache: &CpuCache,
    gradients: &mut Gradients<'_>,
    workspace: &mut Workspace,
    buffers: &mut BackwardBuffers,
) {
    let (heads, inner, hidden_size) = (model.heads, model.config.intermediate_size, model.config.hidden_size);
    let places = &model.layout.layers[index];
    let Workspace { layers, attention, packing, .. } = workspace;
    let layer: &LayerActivations = &layers[index];
    let BackwardBuffers { hidden, normalized, attended, qkv, gate_up, activated, adapter, unused } = buffers;
    let hidden = sized(hidden, rows * hidden_size);

    let activated = sized(activated, rows * inner);
    let known = (rows, &layer.activated[..], &*hidden);
    joint_backward(model, (index, Joint::Down), known, activated, (gradients, adapter, packing));
    let gate_up = sized(gate_up, rows * 2 * inner);
    swiglu_backward(&layer.gate_up, inner, activated, gate_up);
    let normalized = sized(normalized, rows * hidden_size);
    let known = (rows, &layer.mlp_input[..], &*gate_up);
    joint_backward(model, (index, Joint::GateUp), known, normalized, (gradients, adapter, packing));
    let norm = (&layer.middle[..rows * hidden_size], model.at(&places.mlp_norm), model.eps);
    rms_norm_backward(norm, normalized, hidden, gradients.vector(&places.mlp_norm, unused));

    let attended = sized(attended, rows * heads.query_width());
    let known = (rows, &layer.attended[..], &*hidden);
    joint_backward(model, (index, Joint::AttentionOut), known, attended, (gradients, adapter, packing));
    let qkv = sized(qkv, rows * heads.row_width());
    let forward = Attended { rows: &layer.qkv, out: &layer.attended, cache: cache.layer(index), count: rows };
    attend_backward(heads, &model.rotary, forward, attended, qkv, (attention, packing));
    if !places.query_norm.is_empty() {
        // Both norms lie beside each other, the queries' first.
        let both = gradients.vector(&(places.query_norm.start..places.key_norm.end), unused);
        let (query_gradient, key_gradient) = both.split_at_mut(places.query_norm.len());
        let norms = (model.at(&places.query_norm), model.at(&places.key_norm));
        let widths = heads.norm_widths();
        let known = (&layer.projected[..], norms, model.eps);
        norm_heads_backward(known, widths, qkv, (query_gradient, key_gradient));
    }
    if let Some(bias) = gradients.at(&places.qkv_bias).filter(|bias| !bias.is_empty()) {
        qkv.chunks_exact(heads.row_width()).for_each(|row| add_scaled(bias, 1.0, row));
    }
    let known = (rows, &layer.attention_input[..], &*qkv);
    joint_backward(model, (index, Joint::Qkv), known, normalized, (gradients, adapter, packing));
    let norm = (&layer.input[..rows * hidden_size], model.at(&places.attention_norm), model.eps);
    rms_norm_backward(norm, normalized, hidden, gradients.vector(&places.attention_norm, unused));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_balanced_and_hold_every_sequence_once() {
        let tokens = vec![0; 100];
        let lengths = [100, 3, 50, 50, 7, 90, 100, 1];
        let sequences: Vec<_> =
            lengths.iter().map(|&length| Sequence { tokens: &tokens[..length], targets: &[] }).collect();
        let shards = assign(&sequences, 4);
        let mut all: Vec<usize> = shards.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
        let loads: Vec<usize> = shards.iter().map(|shard| shard.iter().map(|&index| lengths[index]).sum()).collect();
        assert!(loads.iter().all(|load| (90..=101).contains(load)), "{loads:?}");
    }

    #[test]
    fn shards_fit_the_memory_and_the_work() {
        assert_eq!(shard_count(1_000_000, 64), 16);
        assert_eq!(shard_count(1_000_000, 3), 3);
        assert_eq!(shard_count(134_515_008, 64), 2);
        assert_eq!(shard_count(2_000_000_000, 1), 1);
    }
}
