//! The sizes of models that benchmarks name, as their published `config.json` has them.

use crate::policy::{DecoderConfig, Family, RopeScaling, Tokenizer};

/// The names.
pub(super) const NAMES: [&str; 5] = ["tiny", "smollm2", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b"];

/// The sizes under one of the [`NAMES`].
pub(super) fn config(name: &str) -> DecoderConfig {
    let qwen = |hidden, intermediate, layers, heads, kv_heads, vocab, tied| DecoderConfig {
        family: Family::Qwen2,
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: intermediate,
        layer_count: layers,
        head_count: heads,
        kv_head_count: kv_heads,
        head_dim: hidden / heads,
        rope_theta: 1e6,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-6,
        tied_embeddings: tied,
        max_positions: 4096,
    };
    match name {
        // HuggingFaceTB/SmolLM2-135M-Instruct
        "smollm2" => DecoderConfig {
            family: Family::Llama,
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            layer_count: 30,
            head_count: 9,
            kv_head_count: 3,
            head_dim: 64,
            rope_theta: 1e5,
            rope_scaling: RopeScaling::None,
            rms_norm_eps: 1e-5,
            tied_embeddings: true,
            max_positions: 4096,
        },
        // Qwen/Qwen2.5-0.5B-Instruct, -1.5B-Instruct, -7B-Instruct
        "qwen2.5-0.5b" => qwen(896, 4864, 24, 14, 2, 151_936, true),
        "qwen2.5-1.5b" => qwen(1536, 8960, 28, 12, 2, 151_936, true),
        "qwen2.5-7b" => qwen(3584, 18_944, 28, 28, 4, 152_064, false),
        _ => DecoderConfig::tiny(Tokenizer::Bytes.vocabulary_size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that the models are named after, from their cards.
    #[test]
    fn shapes_have_the_published_numbers_of_parameters() {
        let millions = |name| (config(name).parameter_count() as f64 / 1e6).round() as usize;
        assert_eq!(NAMES.map(millions), [1, 135, 494, 1544, 7616]);
        assert!(NAMES.iter().all(|name| config(name).validate().is_ok()));
    }
}
