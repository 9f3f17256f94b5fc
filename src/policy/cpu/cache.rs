//! Keys and values of one sequence on the CPU, laid out for the products of [`super::attention`] and cut into blocks of
//! positions that sequences with the same beginning share.

use std::sync::Arc;

use super::matmul::LANES;
use crate::policy::DecoderConfig;

/// Positions of a block; the values of one head for them stand together.
pub(super) const BLOCK: usize = 32;
/// Panels of keys in a block.
const KEY_PANELS: usize = BLOCK / LANES;

/// Keys and values of all layers of one sequence. A clone shares every block; a block that several sequences hold is
/// copied when one of them writes to it, which can only be the last.
#[derive(Clone, Debug)]
pub(crate) struct CpuCache {
    /// Each the parts of all layers for `BLOCK` positions.
    blocks: Vec<Arc<Vec<f32>>>,
    shape: CacheShape,
    length: usize,
}

/// The sizes that decide how a block is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheShape {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl CacheShape {
    fn of(config: &DecoderConfig) -> Self {
        Self { layers: config.layer_count, kv_heads: config.kv_head_count, head_dim: config.head_dim }
    }

    /// Values of the keys of one layer in a block: `[KEY_PANELS, kv heads, head_dim, LANES]`, so that the scores of `LANES`
    /// positions come out of one panel.
    fn key_size(self) -> usize {
        self.kv_heads * self.head_dim * BLOCK
    }

    /// Values of the values of one layer in a block: `[kv heads, groups, BLOCK, LANES]`.
    fn value_size(self) -> usize {
        self.kv_heads * self.groups() * LANES * BLOCK
    }

    fn layer_size(self) -> usize {
        self.key_size() + self.value_size()
    }

    /// Groups of `LANES` columns of a head, the last filled up with zeros.
    fn groups(self) -> usize {
        self.head_dim.div_ceil(LANES)
    }
}

impl CpuCache {
    pub(super) fn new(config: &DecoderConfig) -> Self {
        Self { blocks: Vec::new(), shape: CacheShape::of(config), length: 0 }
    }

    /// Tokens held.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The blocks, each with what tells it from others, and their size in bytes.
    pub(crate) fn blocks(&self) -> (impl Iterator<Item = usize>, usize) {
        (self.blocks.iter().map(|block| Arc::as_ptr(block) as usize), self.block_bytes())
    }

    fn block_bytes(&self) -> usize {
        self.shape.layers * self.shape.layer_size() * size_of::<f32>()
    }

    /// Bytes that `count` more positions take at most.
    pub(crate) fn growth(&self, count: usize) -> usize {
        let added = (self.length + count).div_ceil(BLOCK) - self.length.div_ceil(BLOCK);
        let is_copied = !self.length.is_multiple_of(BLOCK)
            && self.blocks.get(self.length / BLOCK).is_some_and(|block| Arc::strong_count(block) > 1);
        (added + usize::from(is_copied)) * self.block_bytes()
    }

    /// The first `length` positions, shared with this cache.
    pub(crate) fn prefix(&self, length: usize) -> Self {
        let length = length.min(self.length);
        Self { blocks: self.blocks[..length.div_ceil(BLOCK)].to_vec(), shape: self.shape, length }
    }

    /// Whether the cache was made for a model of this shape.
    pub(super) fn fits(&self, config: &DecoderConfig) -> bool {
        self.shape == CacheShape::of(config)
    }

    /// Makes room for `count` more positions that no other cache sees.
    pub(super) fn reserve(&mut self, count: usize) {
        if let Some(block) = self.blocks.get_mut(self.length / BLOCK) {
            Arc::make_mut(block);
        }
        let needed = (self.length + count).div_ceil(BLOCK);
        let size = self.shape.layers * self.shape.layer_size();
        while self.blocks.len() < needed {
            self.blocks.push(Arc::new(vec![0.0; size]));
        }
    }

    /// Notes that every layer got `count` more positions.
    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }

    /// Forgets the sequence, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// One layer, to read.
    pub(super) fn layer(&self, index: usize) -> LayerCache<'_> {
        LayerCache { blocks: &self.blocks, shape: self.shape, start: index * self.shape.layer_size() }
    }

    /// Writes a position of one layer, for which there is room: `keys` and `values` are `[kv heads, head_dim]`, keys
    /// already turned to their position.
    pub(super) fn put(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        let block = Arc::make_mut(&mut self.blocks[position / BLOCK]);
        let part = &mut block[layer * shape.layer_size()..][..shape.layer_size()];
        let (key_part, value_part) = part.split_at_mut(shape.key_size());
        let place = position % BLOCK;
        let panel = &mut key_part[place / LANES * shape.kv_heads * shape.head_dim * LANES..];
        for (slot, &key) in panel[place % LANES..].iter_mut().step_by(LANES).zip(keys) {
            *slot = key;
        }
        for (kv_head, values) in values.chunks_exact(shape.head_dim).enumerate() {
            for (group, values) in values.chunks(LANES).enumerate() {
                let start = ((kv_head * shape.groups() + group) * BLOCK + place) * LANES;
                value_part[start..start + values.len()].copy_from_slice(values);
            }
        }
    }
}

/// Keys and values of one layer, in blocks of positions: sampling one token reads all of a block's part once from front to
/// back, which is what memory is fastest at. What stands behind the newest position is finite and otherwise unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerCache<'a> {
    blocks: &'a [Arc<Vec<f32>>],
    shape: CacheShape,
    start: usize,
}

impl<'a> LayerCache<'a> {
    /// Keys of `LANES` positions for one head, `[head_dim, LANES]`.
    pub(super) fn key_panel(&self, panel: usize, kv_head: usize) -> &'a [f32] {
        let size = self.shape.head_dim * LANES;
        let place = self.start + (panel % KEY_PANELS * self.shape.kv_heads + kv_head) * size;
        &self.blocks[panel / KEY_PANELS][place..][..size]
    }

    /// `LANES` columns of the values of one head for a block of positions, `[BLOCK, LANES]`.
    pub(super) fn value_panel(&self, block: usize, kv_head: usize, group: usize) -> &'a [f32] {
        let place = self.start + self.shape.key_size() + (kv_head * self.shape.groups() + group) * BLOCK * LANES;
        &self.blocks[block][place..][..BLOCK * LANES]
    }

    /// Groups of `LANES` columns of a head.
    pub(super) fn groups(&self) -> usize {
        self.shape.groups()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(cache: &CpuCache, position: usize) -> (f32, f32) {
        let keys = cache.layer(1).key_panel(position / LANES, 1);
        let values = cache.layer(1).value_panel(position / BLOCK, 1, 0);
        (keys[position % LANES], values[position % BLOCK * LANES])
    }

    fn push(cache: &mut CpuCache, value: f32) {
        cache.reserve(1);
        for layer in 0..2 {
            cache.put(layer, cache.length, &[value; 64], &[-value; 64]);
        }
        cache.advance(1);
    }

    #[test]
    fn clones_share_blocks_until_they_are_written() {
        let mut first = CpuCache::new(&DecoderConfig::tiny(10));
        (0..40).for_each(|position| push(&mut first, position as f32));
        let mut second = first.prefix(37);
        let bytes = first.block_bytes();
        assert_eq!((first.growth(1), second.growth(1), second.growth(60)), (bytes, bytes, 3 * bytes));
        push(&mut second, 100.0);
        let (a, b): (Vec<_>, Vec<_>) = (first.blocks().0.collect(), second.blocks().0.collect());
        assert_eq!(a[0], b[0], "the full block is shared");
        assert_ne!(a[1], b[1], "the written one is a copy");
        assert_eq!((written(&first, 37), written(&second, 37)), ((37.0, -37.0), (100.0, -100.0)));
        assert_eq!((written(&second, 36), written(&second, 5)), ((36.0, -36.0), (5.0, -5.0)));
        assert_eq!((second.len(), second.growth(1)), (38, 0));
    }
}
