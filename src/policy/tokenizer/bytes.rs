//! The built-in tokenizer of the tiny model: each byte is its own id, and four special tokens are added. Its Hugging Face
//! files make other programs read it the same way.

use serde_json::json;

/// Marks the start of an observation.
const OBSERVATION: u32 = 257;
/// Ends an observation; the policy's answer follows.
const ANSWER: u32 = 258;
/// Ends an answer; the policy samples it.
pub(super) const END: u32 = 259;
/// Special tokens by id.
const SPECIAL: [(u32, &str); 4] =
    [(256, "<|pad|>"), (OBSERVATION, "<|observation|>"), (ANSWER, "<|answer|>"), (END, "<|end|>")];
/// Rounded up to a multiple of 8, so that rows of logits fill whole vector registers.
pub(super) const VOCABULARY: usize = 264;

/// The ids of a text.
pub(super) fn encode(text: &str) -> Vec<u32> {
    ids(text).collect()
}

/// As [`encode`], one by one.
pub(super) fn ids(text: &str) -> impl Iterator<Item = u32> {
    text.bytes().map(u32::from)
}

/// The text of some ids; special and unused ids are left out, bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The tokens that put an observation before the policy and leave it to answer.
pub(super) fn prompt(observation: &str) -> Vec<u32> {
    let mut tokens = vec![OBSERVATION];
    tokens.extend(encode(observation));
    tokens.push(ANSWER);
    tokens
}

/// A readable form of one token.
pub(super) fn token_text(token: u32) -> String {
    SPECIAL.iter().find(|(id, _)| *id == token).map_or_else(|| decode(&[token]), |(_, name)| (*name).to_owned())
}

/// The tokenizer's files in Hugging Face's layout, as name and content.
pub(super) fn files() -> Vec<(&'static str, String)> {
    let special: Vec<_> = SPECIAL
        .iter()
        .map(|(id, name)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..=255_u8).map(|byte| (printable(byte).to_string(), u32::from(byte).into())).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocabulary, "merges": []},
    });
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|pad|>", "eos_token": "<|end|>",
        "clean_up_tokenization_spaces": false, "model_max_length": 4096,
    });
    [("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)]
        .into_iter()
        .map(|(name, content)| (name, format!("{content:#}\n")))
        .collect()
}

/// The character that stands for a byte in byte-level BPE vocabularies (GPT-2): printable bytes stand for themselves,
/// the others are moved to 256 and up.
fn printable(byte: u8) -> char {
    let stands_for_itself = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if stands_for_itself(byte) {
        return char::from(byte);
    }
    let moved = (0..byte).filter(|&other| !stands_for_itself(other)).count() as u32;
    char::from_u32(256 + moved).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_and_special_tokens_are_dropped() {
        let text = "x.o äß\n";
        let prompt = prompt(text);
        assert_eq!(prompt.len(), text.len() + 2);
        assert_eq!(decode(&prompt), text);
    }

    #[test]
    fn printable_characters_are_distinct_and_as_in_gpt2() {
        let all: std::collections::BTreeSet<_> = (0..=255).map(printable).collect();
        assert_eq!(all.len(), 256);
        // Known from GPT-2's vocabulary: space is U+0120, newline U+010A.
        assert_eq!((printable(b' '), printable(b'\n'), printable(b'a')), ('\u{120}', '\u{10a}', 'a'));
    }
}
