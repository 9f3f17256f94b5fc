//! Scores and gradients of sequences. A tree of sequences (see [`crate::policy::tree`]) is one task's work from its first embedding to
//! its last gradient, so only running trees hold activations; gradients go to a fixed number of shards, summed in a fixed
//! order.
//!
//! Rows that sequences share go forward once, and backward once after all that follows them: their keys and values then have
//! the sum of the gradients that every later row sent back, which is all that later rows know of them.

use std::cmp::Reverse;

use super::adapter::{AdapterScratch, Through, adapted_backward};
use super::attention::{Attended, Prefix, attend_backward};
use super::cache::CpuCache;
use super::forward::{
    Asked, Keep, LayerActivations, Span, Workspace, activate, forward, forward_again, gather, scatter,
};
use super::gradients::Gradients;
use super::head::{HeadScratch, Targets, head_backward, head_scores};
use super::kernels::{add_scaled, norm_heads_backward, rms_norm, rms_norm_backward, swiglu_backward};
use super::matmul::{Operand, Packing, Product, multiply, sized};
use super::model::{Joint, Model};
use crate::policy::adapter::Dropout;
use crate::policy::tree::{Node, in_runs, needed_tokens};
use crate::policy::{Sequence, SequenceLoss, TokenGradient, TokenScore};

/// Gradients (1 GiB of them) that may exist at once beside the accumulated ones.
const MAX_SHARD_VALUES: usize = 1 << 28;
/// More shards would balance no better and cost memory.
const MAX_SHARDS: usize = 16;
/// Rows of sequences with a common beginning that go through the layers together: enough for products to be worth their
/// packing, few enough that their activations do not matter.
const LEAF_ROWS: usize = 256;

/// Everything a running tree needs besides the weights; kept from call to call.
#[derive(Debug, Default)]
pub(super) struct TreeWorkspace {
    /// The common beginnings from the root down.
    trunks: Vec<Part>,
    /// Sequences' own tokens.
    leaves: Part,
    path: Path,
    head: HeadScratch,
    backward: BackwardBuffers,
}

/// Rows that went forward together.
#[derive(Debug, Default)]
struct Part {
    /// One a sequence.
    caches: Vec<CpuCache>,
    forward: Workspace,
}

/// Keys and values of the tokens from the root to where a task is, and their gradients: a layer's are `[tokens, 2 kv width]`.
#[derive(Debug, Default)]
struct Path {
    layers: Vec<PathLayer>,
}

#[derive(Debug, Default)]
struct PathLayer {
    known: Vec<f32>,
    gradient: Vec<f32>,
}

impl Path {
    /// Appends the rows that just went forward.
    fn extend(&mut self, model: &Model, rows: usize, activations: &[LayerActivations]) {
        let heads = model.heads;
        self.layers.resize_with(model.config.layer_count, PathLayer::default);
        for (layer, activations) in self.layers.iter_mut().zip(activations) {
            // Where only the inputs of layers are kept, these are kept apart.
            layer.known.extend_from_slice(&activations.known);
            if activations.known.is_empty() {
                for row in activations.qkv.chunks_exact(heads.row_width()).take(rows) {
                    layer.known.extend_from_slice(&row[heads.query_width()..]);
                }
            }
            layer.gradient.resize(layer.known.len(), 0.0);
        }
    }

    /// Forgets all tokens from `length` on.
    fn truncate(&mut self, model: &Model, length: usize) {
        for layer in &mut self.layers {
            layer.known.truncate(length * 2 * model.heads.kv_width());
            layer.gradient.truncate(length * 2 * model.heads.kv_width());
        }
    }
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
    /// Of the rows that the last layer was asked for: the gradient of the residual stream, and of what their heads attended to.
    asked: Vec<f32>,
    asked_attended: Vec<f32>,
    /// Gradients of frozen vectors, which nobody reads.
    unused: Vec<f32>,
}

/// How many shards of gradients a call uses: by the sizes alone, so that sums do not depend on the machine.
pub(super) fn shard_count(parameter_count: usize, sequence_count: usize) -> usize {
    (MAX_SHARD_VALUES / parameter_count).clamp(2, MAX_SHARDS).min(sequence_count)
}

/// Divides trees over shards so that the longest shard is short: largest tree first, each to the shard with the least so far.
/// Within a shard the order of the call is kept.
pub(super) fn assign(trees: Vec<Node>, shard_count: usize) -> Vec<Vec<Node>> {
    let mut trees: Vec<(usize, Node)> = trees.into_iter().enumerate().collect();
    trees.sort_by_key(|(_, tree)| Reverse(tree.rows()));
    let mut shards: Vec<(usize, Vec<(usize, Node)>)> = Vec::new();
    shards.resize_with(shard_count, Default::default);
    for (index, tree) in trees {
        if let Some((load, members)) = shards.iter_mut().min_by_key(|(load, _)| *load) {
            *load += tree.rows();
            members.push((index, tree));
        }
    }
    let sorted = |(_, mut members): (usize, Vec<(usize, Node)>)| {
        members.sort_unstable_by_key(|(index, _)| *index);
        members.into_iter().map(|(_, tree)| tree).collect()
    };
    shards.into_iter().map(sorted).collect()
}

/// Scores by the number of the sequence.
pub(super) type Scored = Vec<(usize, Vec<TokenScore>)>;

/// What scoring the targets of some sequences needs to know.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) model: &'a Model,
    pub(super) sequences: &'a [Sequence<'a>],
    pub(super) temperature: f32,
}

/// What training adds to it.
pub(super) struct Learning<'a> {
    pub(super) loss: &'a dyn SequenceLoss,
    pub(super) gradients: Gradients<'a>,
    /// What the forward pass keeps.
    pub(super) keep: Keep,
}

/// What a pass keeps for its gradients, if there will be any.
fn keep_of(learning: Option<&Learning<'_>>) -> Keep {
    learning.map_or(Keep::Nothing, |learning| learning.keep)
}

impl Pass<'_> {
    /// Scores the targets of all sequences of a tree.
    pub(super) fn score(&self, tree: &Node, workspace: &mut TreeWorkspace, scored: &mut Scored) {
        self.visit(tree, 0, &mut None, workspace, scored);
    }

    /// Scores the targets of all sequences of a tree and adds the gradients of the loss.
    pub(super) fn train(
        &self,
        tree: &Node,
        learning: Learning<'_>,
        workspace: &mut TreeWorkspace,
        scored: &mut Scored,
    ) {
        self.visit(tree, 0, &mut Some(learning), workspace, scored);
    }

    /// A node and all below it. Returns whether any gradient came from there.
    fn visit(
        &self,
        node: &Node,
        depth: usize,
        learning: &mut Option<Learning<'_>>,
        workspace: &mut TreeWorkspace,
        scored: &mut Scored,
    ) -> bool {
        if node.children.is_empty() {
            return self.leaves(&[node], depth, learning, workspace, scored);
        }
        let model = self.model;
        let tokens = &self.sequences[node.sequence].tokens[node.range.clone()];
        let cache = self.cache_after(node.range.start, depth, workspace);
        if workspace.trunks.len() == depth {
            workspace.trunks.push(Part::default());
        }
        let trunk = &mut workspace.trunks[depth];
        trunk.caches.clear();
        trunk.caches.push(cache);
        self.key_rows(&[node], learning.is_some(), &mut trunk.forward.keys);
        let span = Span { tokens, cache: &mut trunk.caches[0] };
        forward(model, &mut [span], (keep_of(learning.as_ref()), Asked::Nobody), &mut trunk.forward);
        if learning.is_some() {
            workspace.path.extend(model, tokens.len(), &trunk.forward.layers);
        }

        let (leaves, branches): (Vec<&Node>, Vec<&Node>) =
            node.children.iter().partition(|child| child.children.is_empty());
        let mut has_gradient = false;
        for run in in_runs(&leaves, LEAF_ROWS) {
            has_gradient |= self.leaves(run, depth + 1, learning, workspace, scored);
        }
        for branch in branches {
            has_gradient |= self.visit(branch, depth + 1, learning, workspace, scored);
        }
        if let Some(learning) = learning {
            if has_gradient {
                sized(&mut workspace.backward.hidden, tokens.len() * model.config.hidden_size).fill(0.0);
                let TreeWorkspace { trunks, path, backward, .. } = workspace;
                let rows = Backward { starts: &[0, tokens.len()], prefix: node.range.start, is_trunk: true };
                backward_pass(model, rows, tokens, (&mut trunks[depth], path), &mut learning.gradients, backward);
            }
            workspace.path.truncate(model, node.range.start);
        }
        has_gradient
    }

    /// What dropout knows the rows of these nodes by; nothing where it leaves out nothing.
    fn key_rows(&self, nodes: &[&Node], is_training: bool, keys: &mut Vec<u64>) {
        keys.clear();
        if is_training && self.model.adapter.as_ref().is_some_and(|adapter| adapter.dropout.is_some()) {
            for node in nodes {
                let tokens = &self.sequences[node.sequence].tokens[..node.range.end];
                keys.extend(Dropout::keys(tokens).skip(node.range.start));
            }
        }
    }

    /// A cache of the tokens before `start`, which the trunk above `depth` computed.
    fn cache_after(&self, start: usize, depth: usize, workspace: &TreeWorkspace) -> CpuCache {
        match depth.checked_sub(1).and_then(|above| workspace.trunks.get(above)?.caches.first()) {
            Some(cache) => cache.prefix(start),
            None => CpuCache::new(&self.model.config),
        }
    }

    /// Sequences that follow the same tokens, each with rows of its own.
    fn leaves(
        &self,
        nodes: &[&Node],
        depth: usize,
        learning: &mut Option<Learning<'_>>,
        workspace: &mut TreeWorkspace,
        scored: &mut Scored,
    ) -> bool {
        let (model, width) = (self.model, self.model.config.hidden_size);
        let start = nodes[0].range.start;
        if start == 0 {
            // The memory of the last sequence serves again.
            workspace.leaves.caches.resize_with(1, || CpuCache::new(&model.config));
            workspace.leaves.caches[0].clear();
        } else {
            let cache = self.cache_after(start, depth, workspace);
            workspace.leaves.caches.clear();
            workspace.leaves.caches.resize(nodes.len(), cache);
        }
        let TreeWorkspace { leaves, path, head, backward, .. } = workspace;
        self.key_rows(nodes, learning.is_some(), &mut leaves.forward.keys);
        let own = |node: &Node| &needed_tokens(&self.sequences[node.sequence])[node.range.clone()];
        let spans = nodes.iter().zip(&mut leaves.caches).map(|(node, cache)| Span { tokens: own(node), cache });
        let mut starts = vec![0];
        let mut predicting = Vec::new();
        for node in nodes {
            let first = starts.last().copied().unwrap_or(0);
            starts.push(first + node.range.len());
            let targets = Targets::new(self.sequences[node.sequence], start, self.temperature);
            predicting.extend(targets.rows().map(|row| first + row));
        }
        let keep = (keep_of(learning.as_ref()), Asked::Rows(predicting));
        forward(model, &mut spans.collect::<Vec<_>>(), keep, &mut leaves.forward);

        let mut has_gradient = false;
        let rows: usize = nodes.iter().map(|node| node.range.len()).sum();
        let hidden_gradient = sized(&mut backward.hidden, if learning.is_some() { rows * width } else { 0 });
        for (node, pair) in nodes.iter().zip(starts.windows(2)) {
            let sequence = self.sequences[node.sequence];
            let range = pair[0] * width..pair[1] * width;
            let targets = Targets::new(sequence, start, self.temperature);
            let scores = head_scores(model, targets, &leaves.forward.hidden[range.clone()], head);
            if let Some(Learning { loss, gradients, .. }) = learning {
                let mut score_gradients = vec![TokenGradient::default(); scores.len()];
                loss.gradient(node.sequence, &scores, &mut score_gradients);
                let hidden_gradient = &mut hidden_gradient[range];
                if score_gradients.iter().all(|gradient| *gradient == TokenGradient::default()) {
                    hidden_gradient.fill(0.0);
                } else {
                    let scratch = (&mut *head, &mut leaves.forward.packing, &mut backward.unused);
                    head_backward(model, targets, (&scores, &score_gradients), hidden_gradient, gradients, scratch);
                    has_gradient = true;
                }
            }
            scored.push((node.sequence, scores));
        }
        // Groups without an advantage are common late in training: their sequences cost no backward pass.
        if let Some(learning) = learning.as_mut().filter(|_| has_gradient) {
            let tokens: Vec<u32> = nodes.iter().flat_map(|node| own(node)).copied().collect();
            let rows = Backward { starts: &starts, prefix: start, is_trunk: false };
            backward_pass(model, rows, &tokens, (leaves, path), &mut learning.gradients, backward);
        }
        if start > 0 {
            // The trunk's blocks must be its own again before they are written to.
            leaves.caches.clear();
        }
        has_gradient
    }
}

/// Which rows go backward together.
#[derive(Clone, Copy)]
struct Backward<'a> {
    /// Where the rows of each sequence begin, and the end of the last.
    starts: &'a [usize],
    /// Tokens before each of them.
    prefix: usize,
    /// Whether others follow, which left gradients of keys and values on the path, and no target is among the rows.
    is_trunk: bool,
}

impl Backward<'_> {
    fn count(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }
}

/// All layers backward, from the gradient of the residual stream in `buffers.hidden` down to the embedding.
fn backward_pass(
    model: &Model,
    rows: Backward<'_>,
    tokens: &[u32],
    (part, path): (&mut Part, &mut Path),
    gradients: &mut Gradients<'_>,
    buffers: &mut BackwardBuffers,
) {
    let Part { caches, forward } = part;
    let mut alone = PathLayer::default();
    for layer in (0..model.config.layer_count).rev() {
        let path = path.layers.get_mut(layer).unwrap_or(&mut alone);
        if forward.slot(model, layer) != layer {
            let ranges = rows.starts.windows(2).map(|pair| pair[0]..pair[1]);
            let spans = ranges.zip(&mut *caches).map(|(range, cache)| Span { tokens: &tokens[range], cache });
            forward_again(model, layer, &mut spans.collect::<Vec<_>>(), forward);
        }
        layer_backward(model, (layer, rows), (caches, path), gradients, forward, buffers);
    }
    let hidden_size = model.config.hidden_size;
    let Some(embedding) = gradients.at(&model.layout.embedding) else { return };
    for (&token, row) in tokens.iter().zip(buffers.hidden.chunks_exact(hidden_size)) {
        let place = &mut embedding[token as usize * hidden_size..][..hidden_size];
        place.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
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
    (through, output_gradient): (Through<'_>, &[f32]),
    input_gradient: &mut [f32],
    (gradients, scratch, packing): (&mut Gradients<'_>, &mut AdapterScratch, &mut Packing),
) {
    if let Some(adapter) = &model.adapter {
        let known = (through, output_gradient);
        let scratch = (gradients, scratch, packing);
        adapted_backward((model, adapter), (layer, joint), known, input_gradient, scratch);
        return;
    }
    let place = model.layout.layers[layer].joint(joint);
    let Some(weight_gradient) = gradients.at(&place) else { return };
    let known = (through.input, model.at(&place), output_gradient);
    linear_backward(through.rows, known, (input_gradient, weight_gradient), packing);
}

/// Backward through one layer: `buffers.hidden` goes from the gradient of its output to that of its input.
fn layer_backward(
    model: &Model,
    (index, rows): (usize, Backward<'_>),
    (caches, path): (&[CpuCache], &mut PathLayer),
    gradients: &mut Gradients<'_>,
    workspace: &mut Workspace,
    buffers: &mut BackwardBuffers,
) {
    let (heads, hidden_size, count) = (model.heads, model.config.hidden_size, rows.count());
    let places = &model.layout.layers[index];
    let slot = workspace.slot(model, index);
    // Of the last layer of a trunk only keys and values are read.
    let is_read = !rows.is_trunk || index + 1 < model.config.layer_count;
    let (width, out_width) = (heads.row_width(), heads.query_width());
    match workspace.asked(model, index).map(<[usize]>::to_vec) {
        Some(some) => asked_backward(model, (index, count), &some, gradients, workspace, buffers),
        None if is_read => {
            mlp_backward(model, (index, count), gradients, workspace, buffers);
            let Workspace { layers, packing, keys, adapter, .. } = &mut *workspace;
            let attended = sized(&mut buffers.attended, count * out_width);
            let hidden = sized(&mut buffers.hidden, count * hidden_size);
            let known = (Through { rows: count, keys, input: &layers[slot].attended }, &*hidden);
            joint_backward(model, (index, Joint::AttentionOut), known, attended, (gradients, adapter, packing));
        }
        None => {}
    }
    let Workspace { layers, normalized: input, attention, packing, keys, adapter, .. } = workspace;
    let layer: &LayerActivations = &layers[slot];
    let BackwardBuffers { hidden, normalized, attended, qkv, unused, .. } = buffers;
    let hidden = sized(hidden, count * hidden_size);
    let qkv = sized(qkv, count * width);
    let (prefix, own) = path.gradient.split_at_mut(rows.prefix * 2 * heads.kv_width());
    let mut prefix = Prefix { known: &path.known, gradient: prefix, count: rows.prefix };
    for (pair, cache) in rows.starts.windows(2).zip(caches) {
        let (first, count) = (pair[0], pair[1] - pair[0]);
        let (rows_of, out_of) = (&layer.qkv[first * width..], &layer.attended[first * out_width..]);
        let forward = Attended { rows: rows_of, out: out_of, cache: cache.layer(index), count };
        let out_gradient = is_read.then(|| &attended[first * out_width..]);
        let gradient = &mut qkv[first * width..][..count * width];
        let received = if rows.is_trunk { &*own } else { &[] };
        let known = (forward, out_gradient, received);
        attend_backward(heads, &model.rotary, known, &mut prefix, gradient, (attention, packing));
    }
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
    let normalized = sized(normalized, count * hidden_size);
    let norm = (&layer.input[..count * hidden_size], model.at(&places.attention_norm), model.eps);
    let input = sized(input, count * hidden_size);
    rms_norm(norm.0, norm.1, norm.2, input);
    let known = (Through { rows: count, keys, input }, &*qkv);
    joint_backward(model, (index, Joint::Qkv), known, normalized, (gradients, adapter, packing));
    rms_norm_backward(norm, normalized, hidden, gradients.vector(&places.attention_norm, unused));
}

/// Backward through the last layer down to what the heads attended to, for the rows alone whose output was asked for: others have no
/// gradient there.
fn asked_backward(
    model: &Model,
    (index, count): (usize, usize),
    some: &[usize],
    gradients: &mut Gradients<'_>,
    workspace: &mut Workspace,
    buffers: &mut BackwardBuffers,
) {
    let (hidden_size, out_width) = (model.config.hidden_size, model.heads.query_width());
    let slot = workspace.slot(model, index);
    gather(&buffers.hidden, some, hidden_size, &mut buffers.asked);
    gather(&workspace.layers[slot].attended, some, out_width, &mut workspace.asked_rows.attended);
    workspace.asked_rows.keys = some.iter().filter_map(|&row| workspace.keys.get(row).copied()).collect();
    std::mem::swap(&mut buffers.hidden, &mut buffers.asked);
    std::mem::swap(&mut workspace.keys, &mut workspace.asked_rows.keys);
    mlp_backward(model, (index, some.len()), gradients, workspace, buffers);
    let Workspace { packing, keys, adapter, asked_rows, .. } = &mut *workspace;
    let of_attended = sized(&mut buffers.asked_attended, some.len() * out_width);
    let known = (Through { rows: some.len(), keys, input: &asked_rows.attended }, &buffers.hidden[..]);
    joint_backward(model, (index, Joint::AttentionOut), known, of_attended, (gradients, adapter, packing));
    std::mem::swap(&mut buffers.hidden, &mut buffers.asked);
    std::mem::swap(&mut workspace.keys, &mut workspace.asked_rows.keys);
    scatter(&buffers.asked, some, hidden_size, &mut buffers.hidden);
    let attended = sized(&mut buffers.attended, count * out_width);
    attended.fill(0.0);
    scatter(of_attended, some, out_width, attended);
}

/// Backward through the feed-forward half of a layer.
fn mlp_backward(
    model: &Model,
    (index, rows): (usize, usize),
    gradients: &mut Gradients<'_>,
    workspace: &mut Workspace,
    buffers: &mut BackwardBuffers,
) {
    let (inner, hidden_size) = (model.config.intermediate_size, model.config.hidden_size);
    let places = &model.layout.layers[index];
    let slot = workspace.slot(model, index);
    let Workspace { layers, normalized: input, activated: product, packing, keys, adapter, .. } = workspace;
    let layer: &LayerActivations = &layers[slot];
    let BackwardBuffers { hidden, normalized, gate_up, activated, unused, .. } = buffers;
    let hidden = sized(hidden, rows * hidden_size);
    let activated = sized(activated, rows * inner);
    let product = sized(product, rows * inner);
    activate(&layer.gate_up[..rows * 2 * inner], inner, product);
    let known = (Through { rows, keys, input: product }, &*hidden);
    joint_backward(model, (index, Joint::Down), known, activated, (gradients, adapter, packing));
    let gate_up = sized(gate_up, rows * 2 * inner);
    swiglu_backward(&layer.gate_up, inner, activated, gate_up);
    let normalized = sized(normalized, rows * hidden_size);
    let norm = (&layer.middle[..rows * hidden_size], model.at(&places.mlp_norm), model.eps);
    let input = sized(input, rows * hidden_size);
    rms_norm(norm.0, norm.1, norm.2, input);
    let known = (Through { rows, keys, input }, &*gate_up);
    joint_backward(model, (index, Joint::GateUp), known, normalized, (gradients, adapter, packing));
    rms_norm_backward(norm, normalized, hidden, gradients.vector(&places.mlp_norm, unused));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_balanced_and_hold_every_tree_once() {
        let lengths = [100, 3, 50, 50, 7, 90, 100, 1];
        let tree = |(sequence, &length): (usize, &usize)| Node { range: 0..length, sequence, children: Vec::new() };
        let shards = assign(lengths.iter().enumerate().map(tree).collect(), 4);
        let mut all: Vec<usize> = shards.iter().flatten().map(|tree| tree.sequence).collect();
        assert!(shards.iter().all(|shard| shard.is_sorted_by_key(|tree| tree.sequence)));
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
        let loads: Vec<usize> = shards.iter().map(|shard| shard.iter().map(Node::rows).sum()).collect();
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
