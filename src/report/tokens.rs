//! Token ids as text, from the tokenizer that a run's newest checkpoint holds. Byte-level vocabularies (`GPT-2`'s, which the
//! tiny model and most open models use) are turned back into bytes; others are shown as they are.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::checkpoint;

/// The text of ids; without a tokenizer, the ids.
#[derive(Debug, Default)]
pub(super) struct TokenTexts {
    vocabulary: HashMap<u64, String>,
    special: HashMap<u64, String>,
    is_byte_level: bool,
}

impl TokenTexts {
    /// The texts of a run's tokenizer, if a checkpoint holds one that can be read.
    pub(super) fn of_run(run: &Path) -> Self {
        let path = checkpoint::find(run).map(|folder| folder.join("tokenizer.json"));
        let text = path.and_then(|path| checkpoint::read_text(&path).ok());
        text.and_then(|text| serde_json::from_str(&text).ok()).map_or_else(Self::default, |value| Self::new(&value))
    }

    fn new(tokenizer: &Value) -> Self {
        let mut texts = Self::default();
        let entries = tokenizer.pointer("/model/vocab").and_then(Value::as_object);
        let id_first = |(text, id): (&String, &Value)| Some((id.as_u64()?, text.clone()));
        texts.vocabulary.extend(entries.into_iter().flatten().filter_map(id_first));
        for added in tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            if let (Some(id), Some(text)) = (added["id"].as_u64(), added["content"].as_str()) {
                texts.special.insert(id, text.to_owned());
            }
        }
        texts.is_byte_level = tokenizer.get("decoder").is_some_and(|decoder| decoder.to_string().contains("ByteLevel"));
        texts
    }

    /// The text of some ids together, since a character may be several tokens.
    pub(super) fn text(&self, ids: &[u64]) -> String {
        let mut bytes = Vec::new();
        for id in ids {
            match (self.special.get(id), self.vocabulary.get(id)) {
                (Some(text), _) => bytes.extend_from_slice(text.as_bytes()),
                (None, Some(text)) if self.is_byte_level => text.chars().for_each(|c| push_byte(&mut bytes, c)),
                (None, Some(text)) => bytes.extend_from_slice(text.replace('\u{2581}', " ").as_bytes()),
                (None, None) => bytes.extend_from_slice(format!("[{id}]").as_bytes()),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The byte that a character of a byte-level vocabulary stands for: printable Latin-1 is itself, the others are numbered
/// from U+0100 on in their order.
fn push_byte(bytes: &mut Vec<u8>, c: char) {
    let is_itself = |code: u32| matches!(code, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code if is_itself(code) => bytes.push(code as u8),
        code @ 0x100..=0x143 => {
            let nth = (0..=255_u8).filter(|&byte| !is_itself(byte.into())).nth((code - 0x100) as usize);
            bytes.extend(nth);
        }
        _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_tokens_become_text_and_unknown_ids_stay_numbers() {
        let texts = TokenTexts::new(&serde_json::json!({
            "added_tokens": [{"id": 9, "content": "<|end|>"}],
            "decoder": {"type": "ByteLevel"},
            "model": {"vocab": {"a": 0, "Ġb": 1, "Ã": 2, "¤": 3, "Ċ": 4}},
        }));
        assert_eq!(texts.text(&[0, 1, 2, 3, 4, 9, 77]), "a bä\n<|end|>[77]");
        assert_eq!(TokenTexts::default().text(&[5]), "[5]");
    }
}
