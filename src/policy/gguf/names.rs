//! What both directions know of llama.cpp's files: names of tensors, kinds of tokens, and how text is cut before merges.

use serde_json::{Value, json};

/// Kinds of tokens in `tokenizer.ggml.token_type`.
pub(super) const NORMAL: u64 = 1;
pub(super) const CONTROL: u64 = 3;
pub(super) const USER_DEFINED: u64 = 4;
pub(super) const UNUSED: u64 = 5;

/// Frequencies of Llama 3's stretched rotary positions, divided out; only some files have them.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The ways of cutting text that [`pre_tokenizer_of`] knows.
pub(super) const PRE_TOKENIZERS: [&str; 4] = ["smollm", "gpt-2", "qwen2", "llama-bpe"];

/// llama.cpp's name of a parameter.
pub(super) fn file_name(name: &str) -> String {
    const PARTS: [(&str, &str); 11] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
        "model.norm.weight" => return "output_norm.weight".to_owned(),
        "lm_head.weight" => return "output.weight".to_owned(),
        _ => {}
    }
    let name = name.replace("model.layers.", "blk.");
    let part = PARTS.into_iter().find(|(ours, _)| name.contains(ours));
    part.map_or_else(|| name.clone(), |(ours, theirs)| name.replace(ours, theirs))
}

/// How the text is cut before merges, by llama.cpp's name: normalizer, pre-tokenizer, and whether a word that is a token is
/// taken whole. As in the `tokenizer.json` of the models that the names stand for.
pub(super) fn pre_tokenizer_of(name: &str) -> Result<(Value, Value, bool), String> {
    let split = |digits: &str| {
        format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let sequence =
        |first: Value, use_regex: bool| json!({"type": "Sequence", "pretokenizers": [first, byte_level(use_regex)]});
    let by_pattern = |digits: &str| {
        let split =
            json!({"type": "Split", "pattern": {"Regex": split(digits)}, "behavior": "Isolated", "invert": false});
        sequence(split, false)
    };
    match name {
        "smollm" => Ok((Value::Null, sequence(json!({"type": "Digits", "individual_digits": true}), true), false)),
        "gpt-2" => Ok((Value::Null, byte_level(true), false)),
        "qwen2" => Ok((json!({"type": "NFC"}), by_pattern(r"\p{N}"), false)),
        "llama-bpe" => Ok((Value::Null, by_pattern(r"\p{N}{1,3}"), true)),
        other => Err(format!(
            "its tokenizer cuts text in the way `{other}`; this version has `smollm`, `gpt-2`, `qwen2` and `llama-bpe`. Load \
             the model from a folder in Hugging Face's layout instead"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{DecoderConfig, Family};

    #[test]
    fn every_parameter_has_a_name_of_llama_cpp() {
        for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
            let config = DecoderConfig { family, tied_embeddings: false, ..DecoderConfig::tiny(9) };
            for (name, _) in config.parameters() {
                let name = file_name(&name);
                assert!(["blk.", "token_embd", "output"].iter().any(|start| name.starts_with(start)), "{name}");
                assert!(!name.contains("proj") && !name.contains("layernorm") && !name.contains("self_attn"), "{name}");
            }
        }
        assert_eq!(file_name("model.layers.3.self_attn.k_proj.bias"), "blk.3.attn_k.bias");
    }

    #[test]
    fn every_way_of_cutting_text_is_known_by_its_name() {
        let all = PRE_TOKENIZERS.map(|name| pre_tokenizer_of(name).expect("known"));
        assert!((1..all.len()).all(|index| !all[..index].contains(&all[index])));
    }
}
