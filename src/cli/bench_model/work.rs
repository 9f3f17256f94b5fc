//! How many bytes and operations a measurement needs at least: what a floor of its time is made of.

use crate::policy::DecoderConfig;

/// Sizes of a model that decide about its work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Weights that a row is multiplied with in the layers.
    layers: f64,
    /// Those of them in the last layer that only rows with logits need: all but those of keys and values.
    last: f64,
    /// Count of layers.
    count: f64,
    /// Weights of the last projection.
    head: f64,
    /// Multiply-adds of attention, a row and a position that it sees: scores and weighted values.
    attention: f64,
    /// Values of keys and values a position.
    cache: f64,
    /// All weights.
    parameters: f64,
    /// Bytes of a number.
    width: f64,
}

impl Work {
    pub(super) fn of(config: &DecoderConfig, width: usize) -> Self {
        let (queries, keys) = (config.head_count * config.head_dim, config.kv_head_count * config.head_dim);
        let hidden = config.hidden_size;
        let layer = hidden * (2 * queries + 2 * keys) + 3 * hidden * config.intermediate_size;
        Self {
            layers: (layer * config.layer_count) as f64,
            last: (layer - 2 * hidden * keys) as f64,
            count: config.layer_count as f64,
            head: (hidden * config.vocab_size) as f64,
            attention: (2 * queries * config.layer_count) as f64,
            cache: (2 * keys * config.layer_count) as f64,
            parameters: config.parameter_count() as f64,
            width: width as f64,
        }
    }

    /// Floating-point operations of `rows` rows that see `positions` positions together, `heads` of them up to the logits.
    pub(super) fn operations(&self, rows: f64, positions: f64, heads: f64) -> f64 {
        2.0 * (rows * self.layers + positions * self.attention + heads * self.head)
    }

    /// Floating-point operations of sampling for `texts` texts with `count` new tokens each behind `start` others: keys and values of
    /// all, and logits after the last ones, which alone go through the whole last layer.
    pub(super) fn sampling(&self, texts: f64, start: usize, count: usize) -> f64 {
        let (rows, positions) = (texts * count as f64, texts * seen(start, count));
        let (spared, unseen) = (rows - texts, positions - texts * (start + count) as f64);
        self.operations(rows, positions, texts) - 2.0 * (spared * self.last + unseen * self.attention / self.count)
    }

    /// Bytes that one pass reads: every weight once, and keys and values of so many positions.
    pub(super) fn bytes(&self, positions: f64) -> f64 {
        (self.layers + self.head + positions * self.cache) * self.width
    }

    /// Bytes of an optimizer step in `f32`: reads weight, gradient and two moments, writes weight and moments.
    pub(super) fn step_bytes(&self) -> f64 {
        7.0 * 4.0 * self.parameters
    }
}

/// The sum of `start + 1 ..= start + count`: positions that the rows of a prompt see together.
pub(super) fn seen(start: usize, count: usize) -> f64 {
    let (start, count) = (start as f64, count as f64);
    count * start + count * (count + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_what_a_hand_count_gives() {
        let config = DecoderConfig::tiny(260);
        let work = Work::of(&config, 4);
        // A layer: q and o 192x192, k and v 64x192, gate, up and down 192x768.
        assert_eq!(work.layers, 2.0 * f64::from(2 * 192 * 192 + 2 * 64 * 192 + 3 * 192 * 768));
        assert_eq!(work.operations(1.0, 10.0, 1.0), 2.0 * (work.layers + 10.0 * 768.0 + 192.0 * 260.0));
        // The first two of three tokens behind two others leave out q, o and the feed-forward of the second layer, and what they see there.
        let spared = 2.0 * f64::from(2 * 192 * 192 + 3 * 192 * 768) + (3.0 + 4.0) * 384.0;
        assert_eq!(work.sampling(1.0, 2, 3), work.operations(3.0, 12.0, 1.0) - 2.0 * spared);
        assert_eq!(work.sampling(5.0, 9, 1), work.operations(5.0, 50.0, 5.0));
        assert_eq!(work.bytes(3.0), (work.layers + 192.0 * 260.0 + 3.0 * 256.0) * 4.0);
        assert_eq!((seen(0, 3), seen(4, 2)), (6.0, 11.0));
    }
}
