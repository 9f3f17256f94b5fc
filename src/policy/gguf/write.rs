//! A GGUF file from a model: llama.cpp's names, its order of rows, and the tokenizer as metadata. What cannot be said in such a
//! file is refused before anything is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::{Map, Value};

use super::bytes::{Meta, TensorInfo, write_header, write_tensor};
use super::names::{CONTROL, NORMAL, PRE_TOKENIZERS, ROPE_FACTORS, UNUSED, USER_DEFINED, file_name, pre_tokenizer_of};
use crate::policy::tokenizer::{SETTINGS, TEMPLATE, TOKENIZER};
use crate::policy::{DecoderConfig, Error, Family, NamedTensor, RopeScaling, Tokenizer};

/// How matrices are stored. Vectors (norms, biases) are always in 32 bits, as llama.cpp has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
    /// 8 bits and a scale for each 32 values; 16 bits for matrices whose rows cannot be divided so.
    Q8,
}

impl GgufType {
    /// llama.cpp's number for a file of this type, in `general.file_type`.
    fn of_file(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8 => 7,
        }
    }

    /// The type of a tensor of this shape, and its number in the format.
    fn of_tensor(self, shape: &[usize]) -> (GgmlDType, u32) {
        match (self, shape) {
            (Self::F32, _) | (_, [_]) => (GgmlDType::F32, 0),
            (Self::Q8, [_, width]) if width % 32 == 0 => (GgmlDType::Q8_0, 8),
            _ => (GgmlDType::F16, 1),
        }
    }
}

/// Writes a model to a GGUF file. The file appears complete or not at all.
///
/// # Errors
/// [`Error::Format`] for a tokenizer that this version cannot describe in such a file; [`Error::Io`] if it cannot be
/// written; [`Error::Shape`] for weights that do not fit the model.
pub fn write_gguf(
    path: &Path,
    kind: GgufType,
    (config, weights): (&DecoderConfig, &[NamedTensor]),
    tokenizer: &Tokenizer,
    name: &str,
) -> Result<(), Error> {
    let refuse = |message: String| Error::Format { path: path.to_owned(), message };
    crate::policy::inputs::check_tensors(&config.parameters(), weights)?;
    let mut metadata = shape(config, kind, name);
    metadata.extend(vocabulary(tokenizer, config.vocab_size).map_err(refuse)?);
    let by_name: BTreeMap<&str, &NamedTensor> = weights.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut tensors: Vec<(String, NamedTensor)> = Vec::new();
    if let Some(factors) = rope_factors(config) {
        tensors.push((ROPE_FACTORS.to_owned(), factors));
    }
    let infos = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
        .chain(config.parameters().into_iter().map(|(name, shape)| (file_name(&name), shape)))
        .map(|(name, shape)| {
            let (dtype, number) = kind.of_tensor(&shape);
            let blocks = shape.iter().product::<usize>() / dtype.block_size();
            TensorInfo { name, shape, kind: number, size: (blocks * dtype.type_size()) as u64 }
        })
        .collect::<Vec<_>>();
    let mut file_name = path.file_name().unwrap_or_default().to_owned();
    file_name.push(".partial");
    let beside = path.with_file_name(file_name);
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut out = BufWriter::new(File::create(&beside).map_err(failed)?);
    write_header(&mut out, &metadata, &infos).map_err(failed)?;
    for (_, tensor) in &tensors {
        write_tensor(&mut out, stored(tensor, tensor.data.clone(), kind)?).map_err(failed)?;
    }
    for (name, _) in config.parameters() {
        // All were found when they were checked.
        let Some(tensor) = by_name.get(name.as_str()) else { continue };
        let is_rotated = name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight");
        let data = if is_rotated && architecture(config) == "llama" {
            pairs(&tensor.data, config.head_dim, tensor.shape[1])
        } else {
            tensor.data.clone()
        };
        write_tensor(&mut out, stored(tensor, data, kind)?).map_err(failed)?;
    }
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

/// The bytes of a tensor in its type.
fn stored(tensor: &NamedTensor, data: Vec<f32>, kind: GgufType) -> Result<Vec<u8>, Error> {
    let (dtype, _) = kind.of_tensor(&tensor.shape);
    let values = Tensor::from_vec(data, tensor.shape.as_slice(), &Device::Cpu)?;
    Ok(QTensor::quantize(&values, dtype)?.data()?.into_owned())
}

/// llama.cpp's name of the family. Mistral's models are Llama's there.
fn architecture(config: &DecoderConfig) -> &'static str {
    match config.family {
        Family::Llama | Family::Mistral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
    }
}

fn shape(config: &DecoderConfig, kind: GgufType, name: &str) -> Vec<(String, Meta)> {
    let architecture = architecture(config);
    let number = |value: usize| Meta::Number(value as u32);
    let mut metadata = vec![
        ("general.architecture".to_owned(), Meta::Text(architecture.to_owned())),
        ("general.name".to_owned(), Meta::Text(name.to_owned())),
        ("general.file_type".to_owned(), Meta::Number(kind.of_file())),
    ];
    let mut add = |key: &str, value: Meta| metadata.push((format!("{architecture}.{key}"), value));
    add("block_count", number(config.layer_count));
    add("context_length", number(config.max_positions));
    add("embedding_length", number(config.hidden_size));
    add("feed_forward_length", number(config.intermediate_size));
    add("attention.head_count", number(config.head_count));
    add("attention.head_count_kv", number(config.kv_head_count));
    add("attention.key_length", number(config.head_dim));
    add("attention.value_length", number(config.head_dim));
    add("attention.layer_norm_rms_epsilon", Meta::Float(config.rms_norm_eps as f32));
    add("rope.dimension_count", number(config.head_dim));
    add("rope.freq_base", Meta::Float(config.rope_theta as f32));
    add("vocab_size", number(config.vocab_size));
    if let RopeScaling::Linear { factor } = config.rope_scaling {
        add("rope.scaling.type", Meta::Text("linear".to_owned()));
        add("rope.scaling.factor", Meta::Float(factor as f32));
    }
    metadata
}

/// What Llama 3's frequencies are divided by, `[head_dim / 2]`.
fn rope_factors(config: &DecoderConfig) -> Option<NamedTensor> {
    if !matches!(config.rope_scaling, RopeScaling::Llama3 { .. }) {
        return None;
    }
    let plain = DecoderConfig { rope_scaling: RopeScaling::None, ..config.clone() }.rotary_frequencies();
    let data: Vec<f32> = plain.iter().zip(config.rotary_frequencies()).map(|(plain, scaled)| plain / scaled).collect();
    Some(NamedTensor { name: ROPE_FACTORS.to_owned(), shape: vec![data.len()], data })
}

/// The rows of each head from halves to pairs: llama.cpp rotates neighbours in Llama's models.
fn pairs(data: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let row_of = |row: usize| {
        let (head, within) = (row / head_dim, row % head_dim);
        head * head_dim + (within % 2) * half + within / 2
    };
    (0..data.len() / width).flat_map(|row| &data[row_of(row) * width..][..width]).copied().collect()
}

/// The tokenizer as metadata.
fn vocabulary(tokenizer: &Tokenizer, size: usize) -> Result<Vec<(String, Meta)>, String> {
    let files: BTreeMap<String, Vec<u8>> =
        tokenizer.files().into_iter().map(|(name, content)| (name.into_owned(), content.into_owned())).collect();
    let json = |name: &str| -> Result<Map<String, Value>, String> {
        let content = files.get(name).map_or(&b"{}"[..], Vec::as_slice);
        serde_json::from_slice(content).map_err(|error| format!("`{name}`: {error}"))
    };
    let (document, settings) = (json(TOKENIZER)?, json(SETTINGS)?);
    let model = document.get("model").cloned().unwrap_or_default();
    let kind = model["type"].as_str().unwrap_or_default();
    if kind != "BPE" || model["byte_fallback"] == true {
        let kind = if kind == "BPE" { "BPE with bytes as a last resort" } else { kind };
        return Err(format!(
            "its tokenizer is of kind `{kind}`; this version describes byte-level BPE in GGUF files. Export with `--format hf` \
             and convert the folder with llama.cpp's `convert_hf_to_gguf.py`"
        ));
    }
    let pre_tokenizer = pre_tokenizer(tokenizer, &document)?;
    let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED as i32; size];
    let mut put = |id: Option<u64>, text: &str, kind: u64| {
        if let Some(id) = id.map(|id| id as usize).filter(|&id| id < size) {
            text.clone_into(&mut tokens[id]);
            kinds[id] = kind as i32;
        }
    };
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        put(id.as_u64(), text, NORMAL);
    }
    for token in document.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
        put(token["id"].as_u64(), token["content"].as_str().unwrap_or_default(), kind);
    }
    let merge = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    };
    let merges = model["merges"].as_array().into_iter().flatten();
    let merges = merges.map(merge).collect::<Option<Vec<_>>>().ok_or("`merges` of `tokenizer.json` are no pairs")?;
    let text = |name: &str| {
        let value = settings.get(name)?;
        value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
    };
    let id = |text: &str| tokens.iter().position(|token| token == text).map(|id| Meta::Number(id as u32));
    let mut metadata = vec![
        ("model", Meta::Text("gpt2".to_owned())),
        ("pre", Meta::Text(pre_tokenizer.to_owned())),
        ("eos_token_id", Meta::Number(tokenizer.end())),
    ];
    for (key, name) in
        [("bos_token_id", "bos_token"), ("padding_token_id", "pad_token"), ("unknown_token_id", "unk_token")]
    {
        metadata.extend(text(name).and_then(|text| id(&text)).map(|id| (key, id)));
    }
    // Told by the settings, or by what is put before a text.
    let adds_first = match settings.get("add_bos_token").and_then(Value::as_bool) {
        Some(flag) => flag,
        None => text("bos_token").is_some_and(|bos| {
            document
                .get("post_processor")
                .is_some_and(|processor| processor.to_string().contains(&format!("\"{bos}\"")))
        }),
    };
    metadata.push(("add_bos_token", Meta::Flag(adds_first)));
    metadata.extend([
        ("tokens", Meta::Texts(tokens)),
        ("token_type", Meta::Kinds(kinds)),
        ("merges", Meta::Texts(merges)),
    ]);
    let mut metadata: Vec<(String, Meta)> =
        metadata.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    let template = match files.get(TEMPLATE) {
        Some(file) => Some(String::from_utf8_lossy(file).into_owned()),
        None => settings.get("chat_template").and_then(Value::as_str).map(str::to_owned),
    };
    metadata.extend(template.map(|template| ("tokenizer.chat_template".to_owned(), Meta::Text(template))));
    Ok(metadata)
}

/// llama.cpp's name for how the tokenizer cuts text before merges.
fn pre_tokenizer(tokenizer: &Tokenizer, document: &Map<String, Value>) -> Result<&'static str, String> {
    // A byte is a token: there are no merges, and so it is the same wherever text is cut.
    if matches!(tokenizer, Tokenizer::Bytes) {
        return Ok("gpt-2");
    }
    let part = |name: &str| plain(document.get(name).unwrap_or(&Value::Null));
    let found = PRE_TOKENIZERS.into_iter().find(|name| {
        pre_tokenizer_of(name).is_ok_and(|(normalizer, cut, _)| {
            plain(&cut) == part("pre_tokenizer") && plain(&normalizer) == part("normalizer")
        })
    });
    found.ok_or_else(|| {
        format!(
            "its tokenizer cuts text in a way that this version has no name of llama.cpp for (it has {}). Export with \
             `--format hf` and convert the folder with llama.cpp's `convert_hf_to_gguf.py`",
            PRE_TOKENIZERS.map(|name| format!("`{name}`")).join(", ")
        )
    })
}

/// A part of `tokenizer.json` without what says nothing about where text is cut.
fn plain(part: &Value) -> Value {
    match part {
        Value::Object(fields) => {
            let told = |name: &str| !matches!(name, "trim_offsets" | "invert");
            fields.iter().filter(|(name, _)| told(name)).map(|(name, value)| (name.clone(), plain(value))).collect()
        }
        Value::Array(list) => list.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{initial_weights, read_gguf};
    use crate::seed::Seed;

    /// The stored chat tests bring a tokenizer; here the built-in one goes out, and its weights come back.
    #[test]
    fn rows_and_values_survive_in_every_family() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let rope_scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192.0,
        };
        for (family, rope_scaling, tied_embeddings) in [
            (Family::Llama, rope_scaling, true),
            (Family::Qwen2, RopeScaling::Linear { factor: 2.0 }, false),
            (Family::Qwen3, RopeScaling::None, true),
        ] {
            let config = DecoderConfig { family, rope_scaling, tied_embeddings, ..DecoderConfig::tiny(264) };
            let weights = initial_weights(&config, Seed::new(1));
            for (kind, tolerance) in [(GgufType::F32, 0.0), (GgufType::F16, 1e-3), (GgufType::Q8, 1e-2)] {
                write_gguf(&path, kind, (&config, &weights), &Tokenizer::Bytes, "tiny").unwrap();
                let (read, found, tokenizer) = read_gguf(&path).unwrap();
                assert_eq!(read, config);
                for (found, tensor) in found.iter().zip(&weights) {
                    let largest = tensor.data.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance * largest;
                    assert!(found.data.iter().zip(&tensor.data).all(close), "{}", found.name);
                }
                assert_eq!(tokenizer.encode("a b!"), Tokenizer::Bytes.encode("a b!"));
                assert_eq!(tokenizer.ends(), Tokenizer::Bytes.ends());
            }
        }
    }
}
