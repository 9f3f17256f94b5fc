//! A GGUF file read: the shape, the weights (dequantized to `f32`) and the tokenizer of a model, with its chat template. What
//! comes out is what a folder in Hugging Face's layout would give.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value as Metadata};
use serde_json::{Value, json};

use super::names::{CONTROL, ROPE_FACTORS, UNUSED, USER_DEFINED, file_name, pre_tokenizer_of};
use crate::policy::tokenizer::{GENERATION, SETTINGS, TOKENIZER};
use crate::policy::{DecoderConfig, Error, Family, NamedTensor, RopeScaling, TextTokenizer, Tokenizer};

/// The model of a GGUF file.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Format`] for a damaged file, an architecture or tokenizer that this version
/// does not have, or tensors that do not fit.
pub fn read_gguf(path: &Path) -> Result<(DecoderConfig, Vec<NamedTensor>, Tokenizer), Error> {
    let file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let mut reader = BufReader::new(file);
    let refuse = |message: String| Error::Format { path: path.to_owned(), message };
    let content = Content::read(&mut reader).map_err(|error| refuse(error.to_string()))?;
    let header = Header(&content.metadata);
    let mut config = shape(&header, &content).map_err(refuse)?;
    let mut tensor = |name: &str| -> Result<Vec<f32>, Error> {
        content
            .tensor(&mut reader, name, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1())
            .map_err(|error| refuse(format!("tensor `{name}`: {error}")))
    };
    if content.tensor_infos.contains_key(ROPE_FACTORS) {
        config.rope_scaling = llama3_scaling(&config, &tensor(ROPE_FACTORS)?).map_err(refuse)?;
    }
    config.validate().map_err(|error| refuse(error.to_string()))?;
    let mut weights = Vec::new();
    for (name, shape) in config.parameters() {
        let mut data = tensor(&file_name(&name))?;
        if data.len() != shape.iter().product::<usize>() {
            return Err(refuse(format!("tensor `{}` has {} values, not {shape:?}", file_name(&name), data.len())));
        }
        // Llama's files order the rows of each head for rotations of neighbours; the decoder rotates halves.
        if header.text("general.architecture") == Some("llama")
            && (name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight"))
        {
            data = halves(&data, config.head_dim, shape[1]);
        }
        weights.push(NamedTensor { name, shape, data });
    }
    let files = tokenizer_files(&header).map_err(refuse)?;
    let tokenizer = TextTokenizer::new(path, files, config.vocab_size)?;
    Ok((config, weights, Tokenizer::Text(Arc::new(tokenizer))))
}

/// Metadata by key.
struct Header<'a>(&'a HashMap<String, Metadata>);

impl Header<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Metadata::String(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<f64> {
        number(self.0.get(key)?)
    }

    fn list(&self, key: &str) -> Option<&[Metadata]> {
        match self.0.get(key)? {
            Metadata::Array(list) => Some(list),
            _ => None,
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, String> {
        let list = self.list(key).ok_or_else(|| format!("the file lacks the list `{key}`"))?;
        let mut texts = Vec::with_capacity(list.len());
        for value in list {
            match value {
                Metadata::String(text) => texts.push(text.as_str()),
                other => return Err(format!("`{key}` holds {other:?}, which is no text")),
            }
        }
        Ok(texts)
    }
}

fn number(value: &Metadata) -> Option<f64> {
    match *value {
        Metadata::F32(value) => Some(f64::from(value)),
        Metadata::F64(value) => Some(value),
        Metadata::I8(value) => Some(f64::from(value)),
        Metadata::I16(value) => Some(f64::from(value)),
        Metadata::I32(value) => Some(f64::from(value)),
        Metadata::I64(value) => Some(value as f64),
        _ => value.to_u64().or_else(|_| value.to_u32().map(u64::from)).ok().map(|value| value as f64),
    }
}

fn shape(header: &Header<'_>, content: &Content) -> Result<DecoderConfig, String> {
    let architecture = header.text("general.architecture").unwrap_or_default();
    let family = match architecture {
        "llama" => Family::Llama,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        other => {
            return Err(format!("architecture `{other}` is not supported; this version has `llama`, `qwen2`, `qwen3`"));
        }
    };
    let optional = |key: &str| header.number(&format!("{architecture}.{key}"));
    let needed = |key: &str| optional(key).ok_or_else(|| format!("the file lacks the number `{architecture}.{key}`"));
    if let Some(kind) = header.text(&format!("{architecture}.rope.scaling.type"))
        && kind != "none"
        && kind != "linear"
    {
        return Err(format!("rotary positions of type `{kind}` are not supported"));
    }
    let rope_scaling = match optional("rope.scaling.factor") {
        Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
        _ => RopeScaling::None,
    };
    if needed("expert_count").is_ok_and(|count| count > 0.0) {
        return Err("mixtures of experts are not supported".to_owned());
    }
    let embedding = content.tensor_infos.get("token_embd.weight").ok_or("the file lacks `token_embd.weight`")?;
    let (hidden_size, head_count) = (needed("embedding_length")? as usize, needed("attention.head_count")? as usize);
    let head_dim = optional("attention.key_length").map_or(hidden_size / head_count.max(1), |size| size as usize);
    if optional("rope.dimension_count").is_some_and(|size| size as usize != head_dim) {
        return Err("heads that are rotated in part are not supported".to_owned());
    }
    Ok(DecoderConfig {
        family,
        vocab_size: embedding.shape.dims().first().copied().unwrap_or(0),
        hidden_size,
        intermediate_size: needed("feed_forward_length")? as usize,
        layer_count: needed("block_count")? as usize,
        head_count,
        kv_head_count: optional("attention.head_count_kv").map_or(head_count, |count| count as usize),
        head_dim,
        rope_theta: optional("rope.freq_base").map_or(10_000.0, shortest),
        rope_scaling,
        rms_norm_eps: shortest(needed("attention.layer_norm_rms_epsilon")?),
        tied_embeddings: !content.tensor_infos.contains_key("output.weight"),
        max_positions: needed("context_length")? as usize,
    })
}

/// The file has `f32`: 1e-5 is meant, not 9.999999747378752e-6.
fn shortest(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

/// Llama 3's settings, which the file gives only by their effect.
fn llama3_scaling(config: &DecoderConfig, factors: &[f32]) -> Result<RopeScaling, String> {
    let plain = DecoderConfig { rope_scaling: RopeScaling::None, ..config.clone() }.rotary_frequencies();
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max)).round();
    let scaling = RopeScaling::Llama3 {
        factor,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_positions: 8192.0,
    };
    let scaled = DecoderConfig { rope_scaling: scaling, ..config.clone() }.rotary_frequencies();
    let fits = factors.len() == plain.len()
        && plain
            .iter()
            .zip(&scaled)
            .zip(factors)
            .all(|((plain, scaled), factor)| (plain / factor - scaled).abs() <= 1e-4 * scaled.abs());
    if fits { Ok(scaling) } else { Err(format!("`{ROPE_FACTORS}` is not Llama 3's stretching of rotary positions")) }
}

/// The rows of each head from pairs (`0, half, 1, half + 1, …` as they lie) to halves.
fn halves(data: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let row_of = |row: usize| {
        let (head, within) = (row / head_dim, row % head_dim);
        head * head_dim + 2 * (within % half) + within / half
    };
    (0..data.len() / width).flat_map(|row| &data[row_of(row) * width..][..width]).copied().collect()
}

/// Hugging Face's files of the tokenizer that the metadata describe.
fn tokenizer_files(header: &Header<'_>) -> Result<Vec<(String, Vec<u8>)>, String> {
    let kind = header.text("tokenizer.ggml.model").unwrap_or_default();
    if kind != "gpt2" {
        return Err(format!(
            "its tokenizer is of kind `{kind}`; this version rebuilds `gpt2` (byte-level BPE) from a GGUF file. Load the \
             model from a folder in Hugging Face's layout instead"
        ));
    }
    let pre_tokenizer = header.text("tokenizer.ggml.pre").unwrap_or_default();
    let (normalizer, pre_tokenizer, whole_words) = pre_tokenizer_of(pre_tokenizer)?;
    let tokens = header.texts("tokenizer.ggml.tokens")?;
    let kinds: Vec<u64> = header
        .list("tokenizer.ggml.token_type")
        .unwrap_or_default()
        .iter()
        .map(|kind| number(kind).unwrap_or(0.0) as u64)
        .collect();
    let kind = |id: usize| kinds.get(id).copied().unwrap_or(1);
    let vocabulary: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| kind(*id) != UNUSED)
        .map(|(id, token)| ((*token).to_owned(), id.into()))
        .collect();
    let added: Vec<Value> = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| [CONTROL, USER_DEFINED].contains(&kind(*id)))
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": kind(id) == CONTROL})
        })
        .collect();
    let merges = header.texts("tokenizer.ggml.merges")?;
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_words,
                  "vocab": vocabulary, "merges": merges},
    });
    let id = |name: &str| header.number(&format!("tokenizer.ggml.{name}_token_id")).map(|id| id as usize);
    let mut settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
    });
    for (field, name) in
        [("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"), ("unk_token", "unknown")]
    {
        if let Some(token) = id(name).and_then(|id| tokens.get(id)) {
            settings[field] = json!(token);
        }
    }
    if let Some(template) = header.text("tokenizer.chat_template") {
        settings["chat_template"] = json!(template);
    }
    let mut ends: Vec<usize> = ["eos", "eot", "eom"].into_iter().filter_map(id).collect();
    ends.dedup();
    let mut files = vec![(TOKENIZER, tokenizer), (SETTINGS, settings)];
    if !ends.is_empty() {
        files.push((GENERATION, json!({"eos_token_id": ends, "do_sample": true})));
    }
    Ok(files.into_iter().map(|(name, content)| (name.to_owned(), format!("{content:#}\n").into_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as llama.cpp's converter writes it: names, the order of rows, metadata.
    #[test]
    fn a_file_gives_the_weights_and_the_tokenizer_that_went_in() {
        use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
        let config = DecoderConfig {
            hidden_size: 32,
            intermediate_size: 64,
            head_count: 4,
            kv_head_count: 2,
            head_dim: 8,
            tied_embeddings: false,
            ..DecoderConfig::tiny(5)
        };
        let weights = crate::policy::initial_weights(&config, crate::seed::Seed::new(1));
        // From halves to pairs: the row of half `h` at `i` of its head goes to `2 i + h`.
        let pairs = |data: &[f32], width: usize| {
            let mut moved = data.to_vec();
            for (row, values) in data.chunks(width).enumerate() {
                let (head, within) = (row / 8, row % 8);
                let to = head * 8 + 2 * (within % 4) + within / 4;
                moved[to * width..][..width].copy_from_slice(values);
            }
            moved
        };
        let tensors: Vec<(String, QTensor)> = weights
            .iter()
            .map(|tensor| {
                let is_rotated = tensor.name.contains("q_proj") || tensor.name.contains("k_proj");
                let data = if is_rotated { pairs(&tensor.data, 32) } else { tensor.data.clone() };
                let values = candle_core::Tensor::from_vec(data, tensor.shape.as_slice(), &Device::Cpu).unwrap();
                (file_name(&tensor.name), QTensor::quantize(&values, GgmlDType::F32).unwrap())
            })
            .collect();
        let text = |text: &str| Metadata::String(text.to_owned());
        let texts = |list: &[&str]| Metadata::Array(list.iter().map(|item| text(item)).collect());
        let metadata = [
            ("general.architecture", text("llama")),
            ("llama.block_count", Metadata::U32(2)),
            ("llama.embedding_length", Metadata::U32(32)),
            ("llama.feed_forward_length", Metadata::U32(64)),
            ("llama.attention.head_count", Metadata::U32(4)),
            ("llama.attention.head_count_kv", Metadata::U32(2)),
            ("llama.attention.layer_norm_rms_epsilon", Metadata::F32(1e-5)),
            ("llama.context_length", Metadata::U32(4096)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", texts(&["a", "b", "ab", "<|end|>", "[unused]"])),
            ("tokenizer.ggml.token_type", Metadata::Array([1, 1, 1, 3, 5].map(Metadata::I32).to_vec())),
            ("tokenizer.ggml.merges", texts(&["a b"])),
            ("tokenizer.ggml.eos_token_id", Metadata::U32(3)),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let metadata: Vec<(&str, &Metadata)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        let (read, found, tokenizer) = read_gguf(&path).unwrap();
        assert_eq!(read, config);
        assert_eq!(found, weights);
        assert_eq!(tokenizer.encode("abba<|end|>"), [2, 1, 0, 3]);
        assert_eq!(tokenizer.decode(&[2, 1, 0, 3]), "abba");
        assert_eq!(tokenizer.ends(), [3]);
        let cut = std::fs::read(&path).unwrap();
        std::fs::write(&path, &cut[..cut.len() / 2]).unwrap();
        assert!(matches!(read_gguf(&path), Err(Error::Format { .. })));
    }

    #[test]
    fn rows_of_a_head_go_from_pairs_to_halves() {
        // Two heads of four rows, one value a row: the file has them as 0, 2, 1, 3.
        assert_eq!(halves(&[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0], 4, 1), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn numbers_are_what_was_meant() {
        assert_eq!(shortest(f64::from(1e-5_f32)), 1e-5);
        assert_eq!(shortest(500_000.0), 500_000.0);
    }

    #[test]
    fn llama3_is_recognized_by_its_factors() {
        let config = DecoderConfig { head_dim: 64, rope_theta: 500_000.0, ..DecoderConfig::tiny(9) };
        let rope_scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192.0,
        };
        let scaled = DecoderConfig { rope_scaling, ..config.clone() }.rotary_frequencies();
        let factors: Vec<f32> = config.rotary_frequencies().iter().zip(scaled).map(|(a, b)| a / b).collect();
        assert_eq!(llama3_scaling(&config, &factors), Ok(rope_scaling));
        assert!(llama3_scaling(&config, &[2.0; 32]).is_err());
    }
}
