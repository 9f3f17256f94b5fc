//! How much memory the CPU decoder takes, from the sizes of its buffers: for planning, before anything is allocated.

use super::head::MAX_LOGITS;
use super::train::shard_count;
use crate::config::OptimizerStates;
use crate::policy::{AdapterConfig, DecoderConfig};

/// What the program takes beside the model, in bytes: its code, threads and tables.
const PROGRAM: usize = 16 << 20;

/// What a step trains on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSize {
    /// Sequences of a pass.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Threads that work at once.
    pub threads: usize,
    /// Whether activations are computed again instead of being kept.
    pub gradient_checkpointing: bool,
}

/// Peak memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// While the model is read and packed.
    pub loading: usize,
    /// The weights and their packed copies.
    pub weights: usize,
    /// Gradients and the optimizer's moments; 0 for a rollout.
    pub optimizer: usize,
    /// What passes keep: activations and logits, or keys and values.
    pub activations: usize,
}

impl MemoryPlan {
    /// The peak of the whole.
    pub fn peak(&self) -> usize {
        self.loading.max(self.weights + self.optimizer + self.activations) + PROGRAM
    }
}

const FLOAT: usize = size_of::<f32>();

/// Bytes of the weights, and of their packed copies: all matrices, and the last projection again where it is the embedding.
fn weights(config: &DecoderConfig) -> (usize, usize) {
    let matrices = config.parameters().into_iter().filter(|(name, shape)| shape.len() == 2 && !name.contains("embed"));
    let packed: usize = matrices.map(|(_, shape)| shape[0].next_multiple_of(16) * shape[1]).sum();
    let head = if config.tied_embeddings { config.vocab_size.next_multiple_of(16) * config.hidden_size } else { 0 };
    (FLOAT * config.parameter_count(), FLOAT * (packed + head))
}

/// Keys and values of a sequence, in bytes.
fn cache(config: &DecoderConfig, tokens: usize) -> usize {
    FLOAT * 2 * config.layer_count * config.kv_head_count * config.head_dim.next_multiple_of(16) * tokens
}

fn plan(config: &DecoderConfig, optimizer: usize, activations: usize) -> MemoryPlan {
    let (weights, packed) = weights(config);
    // Tensors as read beside the file's bytes, then beside both forms that the decoder holds.
    let loading = (2 * weights).max(2 * weights + packed);
    MemoryPlan { loading, weights: weights + packed, optimizer, activations }
}

/// The memory of sampling, all sequences at once.
pub fn rollout_memory(config: &DecoderConfig, size: StepSize) -> MemoryPlan {
    let logits = FLOAT * size.sequences * config.vocab_size;
    plan(config, 0, size.sequences * cache(config, size.tokens) + logits)
}

/// The memory of a training step in which every token is a target.
pub fn training_memory(
    config: &DecoderConfig,
    adapter: Option<&AdapterConfig>,
    states: OptimizerStates,
    size: StepSize,
) -> MemoryPlan {
    let trained = adapter.map_or_else(|| config.parameter_count(), |adapter| adapter.parameter_count(config));
    let shards = shard_count(trained, size.sequences);
    let moments = match states {
        OptimizerStates::F32 => 2 * FLOAT * trained,
        OptimizerStates::EightBit => 2 * trained,
    };
    // The adapter's values, and what the allocator keeps of the memory that reading took: about half, as measured. Where all
    // weights are trained, gradients and moments take its place.
    let values = adapter.map_or(0, |_| FLOAT * trained + weights(config).0 / 2);
    let optimizer = values + FLOAT * trained * (1 + shards) + moments;
    let running = shards.min(size.threads).max(1);
    plan(config, optimizer, running * pass(config, size))
}

/// What one running sequence holds: the activations of all layers, the gradients of one, keys and values, and the head.
fn pass(config: &DecoderConfig, StepSize { tokens, gradient_checkpointing, .. }: StepSize) -> usize {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.head_count * config.head_dim, config.kv_head_count * config.head_dim);
    let qkv = queries + 2 * keys;
    let normalized = if config.has_qk_norm() { queries + keys } else { 0 };
    // As `LayerActivations` has them, `Workspace` and `BackwardBuffers`.
    let layer = 2 * hidden + qkv + queries + normalized + 2 * inner;
    let layers = if gradient_checkpointing {
        config.layer_count * (hidden + 2 * keys) + layer
    } else {
        config.layer_count * layer
    };
    let backward = 3 * hidden + queries + qkv + 4 * inner;
    let head_rows = tokens.min((MAX_LOGITS / config.vocab_size).max(super::head::MIN_ROWS));
    let head = 4 * hidden * tokens + (config.vocab_size + 2 * hidden) * head_rows;
    let stream = hidden * tokens;
    FLOAT * (tokens * (layers + backward) + head + stream) + cache(config, tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Projection;

    #[test]
    fn adapters_and_small_states_take_less() {
        let config =
            DecoderConfig { hidden_size: 576, intermediate_size: 1536, layer_count: 30, ..DecoderConfig::tiny(49_152) };
        let size = StepSize { sequences: 8, tokens: 512, threads: 2, gradient_checkpointing: false };
        let adapter = AdapterConfig {
            rank: 16,
            alpha: 32.0,
            targets: Projection::ALL.to_vec(),
            dora: false,
            root_scaling: false,
            dropout: 0.0,
        };
        let full = training_memory(&config, None, OptimizerStates::F32, size);
        let narrow = training_memory(&config, None, OptimizerStates::EightBit, size);
        let lora = training_memory(&config, Some(&adapter), OptimizerStates::F32, size);
        let again =
            training_memory(&config, None, OptimizerStates::F32, StepSize { gradient_checkpointing: true, ..size });
        assert_eq!(full.optimizer, again.optimizer);
        assert!(again.activations * 3 < full.activations, "{again:?}, {full:?}");
        assert_eq!(full.optimizer - narrow.optimizer, 6 * config.parameter_count());
        assert!(lora.peak() < narrow.peak() && narrow.peak() < full.peak());
        assert!(rollout_memory(&config, size).peak() <= lora.peak());
    }
}
