//! Keys and values of one sequence on the CPU, laid out for the products of [`super::attention`].

use super::matmul::LANES;
use crate::policy::DecoderConfig;

/// Positions whose values of one head stand together.
pub(super) const VALUE_BLOCK: usize = 32;

/// Keys and values of all layers of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct CpuCache {
    pub(super) layers: Vec<LayerCache>,
    length: usize,
}

/// Keys and values of one layer, in blocks of positions: sampling one token reads all of it once from front to back, which
/// is what memory is fastest at. The last block is filled up with zeros.
#[derive(Clone, Debug)]
pub(super) struct LayerCache {
    /// `[positions / LANES, kv heads, head_dim, LANES]`: the scores of `LANES` positions come out of one panel.
    keys: Vec<f32>,
    /// `[positions / VALUE_BLOCK, kv heads, head_dim / LANES, VALUE_BLOCK, LANES]`, both quotients rounded up.
    values: Vec<f32>,
    kv_heads: usize,
    head_dim: usize,
}

impl CpuCache {
    pub(super) fn new(config: &DecoderConfig) -> Self {
        let layer = LayerCache {
            keys: Vec::new(),
            values: Vec::new(),
            kv_heads: config.kv_head_count,
            head_dim: config.head_dim,
        };
        Self { layers: vec![layer; config.layer_count], length: 0 }
    }

    /// Tokens held.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether the cache was made for a model of this shape.
    pub(super) fn fits(&self, config: &DecoderConfig) -> bool {
        self.layers.len() == config.layer_count
            && self
                .layers
                .iter()
                .all(|layer| (layer.kv_heads, layer.head_dim) == (config.kv_head_count, config.head_dim))
    }

    /// Notes that every layer got `count` more positions.
    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }

    /// Forgets the sequence, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.length = 0;
        for layer in &mut self.layers {
            layer.keys.clear();
            layer.values.clear();
        }
    }
}

impl LayerCache {
    /// Appends a position: `keys` and `values` are `[kv heads, head_dim]`, keys already turned to their position.
    pub(super) fn push(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        let lane = position % LANES;
        if lane == 0 {
            self.keys.resize(self.keys.len() + self.kv_heads * self.head_dim * LANES, 0.0);
        }
        let block = &mut self.keys[position / LANES * self.kv_heads * self.head_dim * LANES..];
        for (slot, &key) in block[lane..].iter_mut().step_by(LANES).zip(keys) {
            *slot = key;
        }
        let slot = position % VALUE_BLOCK;
        if slot == 0 {
            self.values.resize(self.values.len() + self.kv_heads * self.groups() * VALUE_BLOCK * LANES, 0.0);
        }
        for (kv_head, values) in values.chunks_exact(self.head_dim).enumerate() {
            for (group, values) in values.chunks(LANES).enumerate() {
                let start = self.value_panel_start(position / VALUE_BLOCK, kv_head, group) + slot * LANES;
                self.values[start..start + values.len()].copy_from_slice(values);
            }
        }
    }

    /// Keys of `LANES` positions for one head, `[head_dim, LANES]`.
    pub(super) fn key_panel(&self, panel: usize, kv_head: usize) -> &[f32] {
        let size = self.head_dim * LANES;
        &self.keys[(panel * self.kv_heads + kv_head) * size..][..size]
    }

    /// `LANES` columns of the values of one head for a block of positions, `[VALUE_BLOCK, LANES]`.
    pub(super) fn value_panel(&self, block: usize, kv_head: usize, group: usize) -> &[f32] {
        &self.values[self.value_panel_start(block, kv_head, group)..][..VALUE_BLOCK * LANES]
    }

    fn value_panel_start(&self, block: usize, kv_head: usize, group: usize) -> usize {
        ((block * self.kv_heads + kv_head) * self.groups() + group) * VALUE_BLOCK * LANES
    }

    /// Groups of `LANES` columns of a head.
    pub(super) fn groups(&self) -> usize {
        self.head_dim.div_ceil(LANES)
    }
}
