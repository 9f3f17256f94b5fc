//! The bytes that the tokens of a `tokenizer.json` spell, by the way in which it decodes them.

use serde_json::Value;

use super::super::Pieces;

/// How a vocabulary writes bytes as text.
enum Spelling {
    /// GPT-2's: a printable character for each byte (`ByteLevel`).
    ByteLevel,
    /// `SentencePiece`'s: `▁` for a space, `<0x0A>` for a byte that no other token has.
    Metaspace,
    /// Any other: what decoding the token alone gives.
    Decoded,
}

/// What each token that is not special spells.
pub(super) fn pieces(tokenizer: &tokenizers::Tokenizer) -> Pieces {
    let decoder = tokenizer.get_decoder().and_then(|decoder| serde_json::to_value(decoder).ok()).unwrap_or_default();
    let spelling = if has(&decoder, "ByteLevel") {
        Spelling::ByteLevel
    } else if has(&decoder, "Metaspace") || has(&decoder, "ByteFallback") {
        Spelling::Metaspace
    } else {
        Spelling::Decoded
    };
    // A decoder that strips spaces drops one before the answer; `Metaspace` does so for the space that it puts there.
    let drops_space = has(&decoder, "Strip") || has(&decoder, "Metaspace");
    let added = tokenizer.get_added_tokens_decoder();
    let plain = tokenizer.get_vocab(false).into_iter().filter(|(_, id)| !added.contains_key(id));
    let bytes = |(text, id): (String, u32)| {
        let bytes = match spelling {
            Spelling::ByteLevel => text.chars().map(byte_of).collect::<Option<Vec<u8>>>(),
            Spelling::Metaspace => {
                Some(fallback(&text).map_or_else(|| text.replace('▁', " ").into_bytes(), |byte| vec![byte]))
            }
            Spelling::Decoded => tokenizer.decode(&[id], true).ok().map(String::into_bytes),
        };
        Some((id, bytes?))
    };
    let mut list: Vec<(u32, Vec<u8>)> = plain.filter_map(bytes).collect();
    // A vocabulary has no order of its own.
    list.sort_unstable();
    Pieces::new(list, drops_space)
}

/// Whether the decoder, or one of a sequence, is of this type.
fn has(decoder: &Value, kind: &str) -> bool {
    decoder.get("type").and_then(Value::as_str) == Some(kind)
        || decoder.get("decoders").and_then(Value::as_array).is_some_and(|list| list.iter().any(|part| has(part, kind)))
}

/// The byte of a character of GPT-2's alphabet: printable ones of Latin-1 stand for themselves, the 68 others are moved
/// behind U+0100 in their order.
fn byte_of(character: char) -> Option<u8> {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(character) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|byte| is_itself(*byte)),
        code => (0..=u8::MAX).filter(|byte| !is_itself(*byte)).nth((code - 0x100) as usize),
    }
}

/// The byte of `<0x0A>`.
fn fallback(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_of_gpt2_is_read_back() {
        // The characters that tokenizers' own pre-tokenizer makes of bytes.
        for (character, byte) in
            [('a', b'a'), ('Ġ', b' '), ('Ċ', b'\n'), ('ĉ', b'\t'), ('Ā', 0), ('Ń', 0xAD), ('ÿ', 0xFF)]
        {
            assert_eq!(byte_of(character), Some(byte), "{character}");
        }
        assert_eq!(byte_of(' '), None);
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.iter().filter_map(|&character| byte_of(character)).collect();
        bytes.sort_unstable();
        assert!(bytes.iter().copied().eq(0..=u8::MAX));
    }

    #[test]
    fn bytes_that_no_token_has_are_read() {
        assert_eq!(
            [fallback("<0x0A>"), fallback("<0xff>"), fallback("<0x0>"), fallback("0x0A")],
            [Some(10), Some(255), None, None]
        );
    }
}
