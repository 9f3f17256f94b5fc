//! A GGUF file read: the shape, the weights (in `f32`, or as they are) and the tokenizer of a model, with its chat template.
//! Apart from quantized weights, what comes out is what a folder in Hugging Face's layout would give.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value as Metadata};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use serde_json::{Value, json};

use super::names::{CONTROL, ROPE_FACTORS, UNUSED, USER_DEFINED, file_name, pre_tokenizer_of};
use crate::policy::tokenizer::{GENERATION, SETTINGS, TOKENIZER};
use crate::policy::{
    DecoderConfig, Error, Family, NamedTensor, QuantizedDecoder, RopeScaling, TextTokenizer, Tokenizer,
};

/// The model of a GGUF file, to train: its weights in `f32`.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Format`] for a damaged file, an architecture or tokenizer that this version
/// does not have, or tensors that do not fit.
pub fn read_gguf(path: &Path) -> Result<(DecoderConfig, Vec<NamedTensor>, Tokenizer), Error> {
    let mut opened = Opened::new(path)?;
    let mut weights = Vec::new();
    for (name, shape) in opened.config.parameters() {
        let data = opened.values(&file_name(&name))?;
        if data.len() != shape.iter().product::<usize>() {
            let message = format!("tensor `{}` has {} values, not {shape:?}", file_name(&name), data.len());
            return Err(opened.refuse(message));
        }
        let data = if opened.is_paired(&name) { halves(&data, opened.config.head_dim, shape[1]) } else { data };
        weights.push(NamedTensor { name, shape, data });
    }
    let tokenizer = opened.tokenizer()?;
    Ok((opened.config, weights, tokenizer))
}

/// The model of a GGUF file, to sample from: its matrices stay as they are.
///
/// # Errors
/// As [`read_gguf`]; [`Error::Tensor`] if the device has no room.
pub fn read_quantized(path: &Path, device: &Device) -> Result<(QuantizedDecoder, Tokenizer), Error> {
    let mut opened = Opened::new(path)?;
    let mut tensors = BTreeMap::new();
    for (name, shape) in opened.config.parameters() {
        let tensor = opened.tensor(&file_name(&name))?;
        if tensor.shape().dims() != shape {
            let message = format!("tensor `{}` is {:?}, not {shape:?}", file_name(&name), tensor.shape());
            return Err(opened.refuse(message));
        }
        let bytes = tensor.data()?;
        let bytes = if opened.is_paired(&name) {
            // A row is a whole number of blocks.
            Cow::Owned(halves(&bytes, opened.config.head_dim, bytes.len() / shape[0]))
        } else {
            bytes
        };
        let storage = QStorage::from_data(bytes, device, tensor.dtype())?;
        tensors.insert(name, Arc::new(QTensor::new(storage, shape)?));
    }
    let tokenizer = opened.tokenizer()?;
    Ok((QuantizedDecoder::new(opened.config, &tensors, device.clone())?, tokenizer))
}

/// Whether sampling on the CPU is better done with the matrices as they are: candle has fast products for them, or widening
/// them would take more than 4 GiB.
///
/// # Errors
/// As [`read_gguf`].
pub fn prefers_quantized(path: &Path) -> Result<bool, Error> {
    let opened = Opened::new(path)?;
    let (mut fast, mut all) = (0, 0);
    for (name, shape) in opened.config.parameters().into_iter().filter(|(_, shape)| shape.len() == 2) {
        let Some(info) = opened.content.tensor_infos.get(&file_name(&name)) else { continue };
        let size: usize = shape.iter().product();
        all += size;
        if FAST_TYPES.contains(&info.ggml_dtype) && shape[1].is_multiple_of(FAST_WIDTH) {
            fast += size;
        }
    }
    Ok(fast * 10 >= all * 9 || 2 * size_of::<f32>() * opened.config.parameter_count() > MAX_WIDENED)
}

/// What candle 0.11 multiplies on the CPU about as fast as [`super::super::CpuDecoder`] does in `f32` (three times as fast for a
/// single sequence): these types, where rows are multiples of this. Of others, 16 rows take four to eight times as long.
const FAST_TYPES: [GgmlDType; 3] = [GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q8_0];
const FAST_WIDTH: usize = 256;
/// Weights and their packed copies: models of half a billion parameters.
const MAX_WIDENED: usize = 4 << 30;

/// A file whose metadata were read.
struct Opened<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    content: Content,
    config: DecoderConfig,
}

impl<'a> Opened<'a> {
    fn new(path: &'a Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let mut reader = BufReader::new(file);
        let refuse = |message: String| Error::Format { path: path.to_owned(), message };
        let content = Content::read(&mut reader).map_err(|error| refuse(damaged(&error)))?;
        let config = shape(&Header(&content.metadata), &content).map_err(refuse)?;
        let mut opened = Self { path, reader, content, config };
        if opened.content.tensor_infos.contains_key(ROPE_FACTORS) {
            let factors = opened.values(ROPE_FACTORS)?;
            opened.config.rope_scaling = llama3_scaling(&opened.config, &factors).map_err(refuse)?;
        }
        opened.config.validate().map_err(|error| refuse(error.to_string()))?;
        Ok(opened)
    }

    fn refuse(&self, message: String) -> Error {
        Error::Format { path: self.path.to_owned(), message }
    }

    fn tensor(&mut self, name: &str) -> Result<QTensor, Error> {
        let tensor = self.content.tensor(&mut self.reader, name, &Device::Cpu);
        tensor.map_err(|error| self.refuse(format!("tensor `{name}`: {}", damaged(&error))))
    }

    /// A tensor's values, row by row.
    fn values(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        let values = self.tensor(name)?.dequantize(&Device::Cpu).and_then(|tensor| tensor.flatten_all()?.to_vec1());
        values.map_err(|error| self.refuse(format!("tensor `{name}`: {}", damaged(&error))))
    }

    /// Whether the file orders the rows of each head for rotations of neighbours, as Llama's do: the decoder rotates halves.
    fn is_paired(&self, name: &str) -> bool {
        Header(&self.content.metadata).text("general.architecture") == Some("llama")
            && (name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight"))
    }

    fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let files = tokenizer_files(&Header(&self.content.metadata)).map_err(|message| self.refuse(message))?;
        let tokenizer = TextTokenizer::new(self.path, files, self.config.vocab_size)?;
        Ok(Tokenizer::Text(Arc::new(tokenizer)))
    }
}

/// What is wrong with a file; candle's words may go on with a backtrace.
fn damaged(error: &candle_core::Error) -> String {
    let words = error.to_string();
    format!("{}; the file is damaged or was cut short", words.lines().next().unwrap_or_default())
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
fn halves<T: Copy>(data: &[T], head_dim: usize, width: usize) -> Vec<T> {
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
    use crate::policy::{Chunk, CpuDecoder, Inference};
    use candle_core::quantized::gguf_file;

    /// A file as llama.cpp's converter writes it: names, the order of rows, metadata. Vectors are never quantized.
    fn write(path: &Path, config: &DecoderConfig, weights: &[NamedTensor], matrices: GgmlDType) {
        let head_dim = config.head_dim;
        // From halves to pairs: the row of half `h` at `i` of its head goes to `2 i + h`.
        let pairs = |data: &[f32], width: usize| {
            let mut moved = data.to_vec();
            for (row, values) in data.chunks(width).enumerate() {
                let (head, within) = (row / head_dim, row % head_dim);
                let to = head * head_dim + 2 * (within % (head_dim / 2)) + within / (head_dim / 2);
                moved[to * width..][..width].copy_from_slice(values);
            }
            moved
        };
        let tensors: Vec<(String, QTensor)> = weights
            .iter()
            .map(|tensor| {
                let is_rotated = tensor.name.contains("q_proj") || tensor.name.contains("k_proj");
                let data = if is_rotated { pairs(&tensor.data, config.hidden_size) } else { tensor.data.clone() };
                let values = candle_core::Tensor::from_vec(data, tensor.shape.as_slice(), &Device::Cpu).unwrap();
                let dtype = if tensor.shape.len() == 2 { matrices } else { GgmlDType::F32 };
                (file_name(&tensor.name), QTensor::quantize(&values, dtype).unwrap())
            })
            .collect();
        let text = |text: &str| Metadata::String(text.to_owned());
        let texts = |list: &[&str]| Metadata::Array(list.iter().map(|item| text(item)).collect());
        let number = |number: usize| Metadata::U32(number as u32);
        let metadata = [
            ("general.architecture", text("llama")),
            ("llama.block_count", number(config.layer_count)),
            ("llama.embedding_length", number(config.hidden_size)),
            ("llama.feed_forward_length", number(config.intermediate_size)),
            ("llama.attention.head_count", number(config.head_count)),
            ("llama.attention.head_count_kv", number(config.kv_head_count)),
            ("llama.attention.layer_norm_rms_epsilon", Metadata::F32(1e-5)),
            ("llama.context_length", number(config.max_positions)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", texts(&["a", "b", "ab", "<|end|>", "[unused]"])),
            ("tokenizer.ggml.token_type", Metadata::Array([1, 1, 1, 3, 5].map(Metadata::I32).to_vec())),
            ("tokenizer.ggml.merges", texts(&["a b"])),
            ("tokenizer.ggml.eos_token_id", Metadata::U32(3)),
        ];
        let metadata: Vec<(&str, &Metadata)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
    }

    #[test]
    fn a_file_gives_the_weights_and_the_tokenizer_that_went_in() {
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        write(&path, &config, &weights, GgmlDType::F32);
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

    /// The logits of matrices that stay as they are, beside those of the same values in `f32`: only the rows that are
    /// multiplied are rounded (to 8 bits), so they differ by a hundredth or so. In parts and of several sequences at once.
    #[test]
    fn quantized_weights_give_nearly_the_logits_of_the_same_weights_in_f32() {
        use GgmlDType::{F16, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let config = DecoderConfig {
            hidden_size: 256,
            intermediate_size: 512,
            head_count: 4,
            kv_head_count: 2,
            head_dim: 64,
            ..DecoderConfig::tiny(5)
        };
        let mut weights = crate::policy::initial_weights(&config, crate::seed::Seed::new(1));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        for tied in [true, false] {
            let config = DecoderConfig { tied_embeddings: tied, ..config.clone() };
            if !tied {
                weights = crate::policy::initial_weights(&config, crate::seed::Seed::new(2));
            }
            for matrices in [F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
                write(&path, &config, &weights, matrices);
                let (_, widened, _) = read_gguf(&path).unwrap();
                let (quantized, tokenizer) = read_quantized(&path, &Device::Cpu).unwrap();
                assert_eq!(tokenizer.encode("abba"), [2, 1, 0]);
                let widened = CpuDecoder::new(config.clone(), &widened).unwrap();
                let (found, expected) = (logits(&quantized), logits(&widened));
                let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
                let apart: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
                let error = norm(&apart) / norm(&expected);
                assert!(error < if matrices == F16 { 1e-5 } else { 0.03 }, "{matrices:?}: {error}");
                assert!(matrices == F16 || error > 1e-6, "{matrices:?} was widened");
                assert_eq!(prefers_quantized(&path).unwrap(), [Q4K, Q6K, Q8_0].contains(&matrices), "{matrices:?}");
            }
        }
    }

    fn logits(decoder: &dyn Inference) -> Vec<f32> {
        let sequences: [&[u32]; 3] = [&[0, 1, 2, 3, 4, 0, 2], &[3], &[2, 2, 1, 0]];
        let mut caches = sequences.map(|_| decoder.new_cache());
        let mut all = Vec::new();
        for part in 0..4 {
            let chunks = caches.iter_mut().zip(sequences).filter_map(|(cache, tokens)| {
                let tokens = tokens.chunks(2).nth(part)?;
                Some(Chunk { cache, tokens })
            });
            all.extend(decoder.extend(&mut chunks.collect::<Vec<_>>()).unwrap());
        }
        all
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
