//! The shape of a decoder, and its form in Hugging Face's `config.json` (`LlamaForCausalLM`). Read by both backends and by
//! [`super::weights`]; holds no weights and no setting of a run.

use std::fmt::Display;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

/// The one architecture of this version: pre-normalized decoder with grouped-query attention, rotary positions (halves,
/// not pairs), `SwiGLU` and no biases, as in Llama (arXiv:2302.13971).
const ARCHITECTURE: &str = "LlamaForCausalLM";

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layer_count: usize,
    /// Query heads a layer.
    pub head_count: usize,
    /// Key and value heads a layer; divides `head_count`.
    pub kv_head_count: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMS norms.
    pub rms_norm_eps: f64,
    /// Whether the last projection is the embedding matrix.
    pub tied_embeddings: bool,
    /// The longest sequence.
    pub max_positions: usize,
}

/// The fields of `config.json` that decide how the model computes.
#[derive(Deserialize)]
struct HuggingFaceConfig {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Value,
    #[serde(default)]
    rope_parameters: Value,
    rms_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
}

/// What [`DecoderConfig::to_hugging_face`] writes, in this order.
#[derive(Serialize)]
struct HuggingFaceOutput {
    architectures: [&'static str; 1],
    model_type: &'static str,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    hidden_act: &'static str,
    rope_theta: f64,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    tie_word_embeddings: bool,
    attention_bias: bool,
    mlp_bias: bool,
    torch_dtype: &'static str,
}

impl DecoderConfig {
    /// A model of about a million parameters that learns small games on a CPU within minutes.
    pub fn tiny(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            hidden_size: 192,
            intermediate_size: 768,
            layer_count: 2,
            head_count: 6,
            kv_head_count: 2,
            head_dim: 32,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tied_embeddings: true,
            max_positions: 4096,
        }
    }

    /// Every parameter with its Hugging Face name and its shape, in the order of the forward pass. Matrices are
    /// `[out, in]`.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden_size;
        let (queries, keys) = (self.head_count * self.head_dim, self.kv_head_count * self.head_dim);
        let mut list = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        for layer in 0..self.layer_count {
            let mut add = |name: &str, shape: &[usize]| {
                list.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
            };
            add("input_layernorm", &[hidden]);
            add("self_attn.q_proj", &[queries, hidden]);
            add("self_attn.k_proj", &[keys, hidden]);
            add("self_attn.v_proj", &[keys, hidden]);
            add("self_attn.o_proj", &[hidden, queries]);
            add("post_attention_layernorm", &[hidden]);
            add("mlp.gate_proj", &[self.intermediate_size, hidden]);
            add("mlp.up_proj", &[self.intermediate_size, hidden]);
            add("mlp.down_proj", &[hidden, self.intermediate_size]);
        }
        list.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tied_embeddings {
            list.push(("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]));
        }
        list
    }

    /// The number of trained numbers.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the first setting that does not.
    pub fn validate(&self) -> Result<(), Error> {
        // Far above any model and far below where products of three sizes overflow.
        const MAX_SIZE: usize = 1 << 20;
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layer_count),
            ("num_attention_heads", self.head_count),
            ("num_key_value_heads", self.kv_head_count),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_positions),
        ];
        for (name, size) in sizes {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(shape_error(name, format!("a number from 1 to {MAX_SIZE}"), size));
            }
        }
        if self.layer_count > 4096 {
            return Err(shape_error("num_hidden_layers", "at most 4096".to_owned(), self.layer_count));
        }
        if !self.head_count.is_multiple_of(self.kv_head_count) {
            let expected = format!("a divisor of `num_attention_heads`, {}", self.head_count);
            return Err(shape_error("num_key_value_heads", expected, self.kv_head_count));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(shape_error("head_dim", "an even number".to_owned(), self.head_dim));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(shape_error("rope_theta", "a positive number".to_owned(), self.rope_theta));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return Err(shape_error("rms_norm_eps", "a number that is not negative".to_owned(), self.rms_norm_eps));
        }
        Ok(())
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is not text; otherwise as [`DecoderConfig::from_hugging_face`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Error::Format { path: path.to_owned(), message: error.to_string() })?;
        Self::from_hugging_face(&text, path)
    }

    /// Understands the text of a Hugging Face `config.json`; `path` is only for the message.
    ///
    /// # Errors
    /// [`Error::Format`] for text that is not such a file, an architecture other than `LlamaForCausalLM`, one of its
    /// variants that this decoder does not compute (biases, scaled rotary positions, another activation), or sizes that do
    /// not fit together.
    pub fn from_hugging_face(text: &str, path: &Path) -> Result<Self, Error> {
        let refuse = |message: String| Error::Format { path: path.to_owned(), message };
        // The architecture is looked at first: another one may well lack the fields read below.
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if let Some(found) = foreign_architecture(&raw) {
            return Err(refuse(format!("architecture `{found}` is not supported; this version has `{ARCHITECTURE}`")));
        }
        let file: HuggingFaceConfig =
            serde_json::from_value(Value::Object(raw)).map_err(|error| refuse(error.to_string()))?;
        if let Some(problem) = unsupported_variant(&file) {
            return Err(refuse(problem));
        }
        let head_count = file.num_attention_heads;
        // Transformers 5 moved the base into `rope_parameters`; its default, like that of 4, is 10000.
        let nested_theta = file.rope_parameters.get("rope_theta").and_then(Value::as_f64);
        let config = Self {
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            layer_count: file.num_hidden_layers,
            head_count,
            kv_head_count: file.num_key_value_heads.unwrap_or(head_count),
            head_dim: file.head_dim.unwrap_or(file.hidden_size / head_count.max(1)),
            rope_theta: nested_theta.or(file.rope_theta).unwrap_or(10_000.0),
            rms_norm_eps: file.rms_norm_eps.unwrap_or(1e-6),
            tied_embeddings: file.tie_word_embeddings.unwrap_or(false),
            max_positions: file.max_position_embeddings.unwrap_or(2048),
        };
        config.validate().map_err(|error| refuse(error.to_string()))?;
        Ok(config)
    }

    /// The text of a Hugging Face `config.json`, which [`DecoderConfig::from_hugging_face`] reads back unchanged.
    pub fn to_hugging_face(&self) -> String {
        let output = HuggingFaceOutput {
            architectures: [ARCHITECTURE],
            model_type: "llama",
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.layer_count,
            num_attention_heads: self.head_count,
            num_key_value_heads: self.kv_head_count,
            head_dim: self.head_dim,
            hidden_act: "silu",
            rope_theta: self.rope_theta,
            rms_norm_eps: self.rms_norm_eps,
            max_position_embeddings: self.max_positions,
            tie_word_embeddings: self.tied_embeddings,
            attention_bias: false,
            mlp_bias: false,
            torch_dtype: "float32",
        };
        // Plain numbers and strings always serialize; an empty object would be refused on reading.
        let mut text = serde_json::to_string_pretty(&output).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn shape_error(name: &str, expected: String, found: impl Display) -> Error {
    Error::Shape { name: name.to_owned(), expected, found: found.to_string() }
}

/// The name of the architecture if it is not ours; files without any name are taken for ours.
fn foreign_architecture(raw: &Map<String, Value>) -> Option<String> {
    let named = raw.get("architectures").and_then(Value::as_array).and_then(|list| list.first());
    match (named.and_then(Value::as_str), raw.get("model_type").and_then(Value::as_str)) {
        (Some(ARCHITECTURE), _) | (None, Some("llama") | None) => None,
        (Some(other), _) | (None, Some(other)) => Some(other.to_owned()),
    }
}

/// What the file asks for beyond the plain architecture.
fn unsupported_variant(file: &HuggingFaceConfig) -> Option<String> {
    // Named in the struct so that a wrong type is reported; their values were judged before.
    let _ = (&file.architectures, &file.model_type);
    let scaling_kind = |value: &Value| {
        let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str);
        kind.filter(|&kind| kind != "default").map(str::to_owned)
    };
    if let Some(kind) = scaling_kind(&file.rope_scaling).or_else(|| scaling_kind(&file.rope_parameters)) {
        return Some(format!("rotary positions of type `{kind}` are not supported, only `default`"));
    }
    match file.hidden_act.as_deref() {
        None | Some("silu") => {}
        Some(other) => return Some(format!("`hidden_act` = `{other}` is not supported, only `silu`")),
    }
    let biases = [("attention_bias", file.attention_bias), ("mlp_bias", file.mlp_bias)];
    let (name, _) = biases.into_iter().find(|(_, value)| *value == Some(true))?;
    Some(format!("`{name}` = `true` is not supported"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DecoderConfig, String> {
        DecoderConfig::from_hugging_face(text, Path::new("config.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn tiny_has_about_a_million_parameters() {
        let config = DecoderConfig::tiny(260);
        config.validate().expect("the sizes fit");
        assert_eq!(config.parameter_count(), 1_132_224);
    }

    #[test]
    fn a_written_config_reads_back_the_same() {
        let config = DecoderConfig { rope_theta: 500_000.0, tied_embeddings: false, ..DecoderConfig::tiny(99) };
        assert_eq!(parse(&config.to_hugging_face()), Ok(config));
    }

    #[test]
    fn smollm2_and_nested_rope_parameters_are_understood() {
        let smol = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_hidden_layers": 30,
            "num_key_value_heads": 3, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 100000,
            "tie_word_embeddings": true, "vocab_size": 49152, "max_position_embeddings": 8192}"#;
        let config = parse(smol).expect("a Llama");
        assert_eq!((config.parameter_count(), config.head_dim), (134_515_008, 64));
        let nested = smol.replace("\"rope_theta\": 100000", "\"rope_parameters\": {\"rope_theta\": 5.0}");
        assert!((parse(&nested).expect("a Llama").rope_theta - 5.0).abs() < 1e-12);
    }

    #[test]
    fn other_models_are_refused_by_name() {
        let qwen = r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}"#;
        let expected = "`config.json` is not usable: architecture `Qwen2ForCausalLM` is not supported; \
                        this version has `LlamaForCausalLM`";
        assert_eq!(parse(qwen), Err(expected.to_owned()));
        // Heads of its own, since the replacements below name them.
        let tiny = DecoderConfig { head_count: 4, kv_head_count: 2, ..DecoderConfig::tiny(99) }.to_hugging_face();
        for (from, to, word) in [
            ("\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias"),
            ("\"silu\"", "\"gelu\"", "gelu"),
            ("\"rope_theta\"", "\"rope_scaling\": {\"type\": \"linear\"}, \"rope_theta\"", "linear"),
            ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "divisor"),
            ("\"num_attention_heads\": 4", "\"num_attention_heads\": 0", "num_attention_heads"),
            ("\"vocab_size\": 99", "\"vocab_size\": -1", "invalid value"),
        ] {
            let message = parse(&tiny.replace(from, to)).expect_err("refused");
            assert!(message.contains(word), "{message}");
        }
    }
}
