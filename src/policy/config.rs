//! The shape of a decoder, and its form in Hugging Face's `config.json`. Read by both backends and by [`super::weights`];
//! holds no weights and no setting of a run.

use std::fmt::Display;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

/// The families of models that the decoder computes: pre-normalized, with grouped-query attention, rotary positions
/// (halves, not pairs) and `SwiGLU`, as in Llama (arXiv:2302.13971). They differ in what stands between the projections of
/// queries, keys and values and the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 1 to 3, `SmolLM` and `SmolLM2`, the tiny model: nothing.
    Llama,
    /// Mistral: nothing; sliding windows are read as a shorter context.
    Mistral,
    /// Qwen2 and Qwen2.5: a bias on queries, keys and values.
    Qwen2,
    /// Qwen3: an RMS norm over each head of the queries and keys.
    Qwen3,
}

impl Family {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// The name in the field `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The name in the field `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// How rotary frequencies are stretched for contexts longer than those of pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// They are not.
    None,
    /// All are divided by the factor (arXiv:2306.15595).
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided by the factor, short ones are kept, and those between are blended.
    Llama3 {
        /// Division of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original_positions / low_frequency_factor` are long.
        low_frequency_factor: f64,
        /// Wavelengths below `original_positions / high_frequency_factor` are short.
        high_frequency_factor: f64,
        /// Positions of pre-training.
        original_positions: f64,
    },
}

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The family, which decides about biases and norms of queries and keys.
    pub family: Family,
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
    /// Stretching of the rotary frequencies.
    pub rope_scaling: RopeScaling,
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
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_scaling: Option<Value>,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    tie_word_embeddings: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention_bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mlp_bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sliding_window: Option<Value>,
    torch_dtype: &'static str,
}

impl DecoderConfig {
    /// A model of about a million parameters that learns small games on a CPU within minutes.
    pub fn tiny(vocab_size: usize) -> Self {
        Self {
            family: Family::Llama,
            vocab_size,
            hidden_size: 192,
            intermediate_size: 768,
            layer_count: 2,
            head_count: 6,
            kv_head_count: 2,
            head_dim: 32,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            rms_norm_eps: 1e-5,
            tied_embeddings: true,
            max_positions: 4096,
        }
    }

    /// Whether the projections of queries, keys and values have biases.
    pub fn has_qkv_bias(&self) -> bool {
        self.family == Family::Qwen2
    }

    /// Whether each head of the queries and keys is normalized before it is turned to its position.
    pub fn has_qk_norm(&self) -> bool {
        self.family == Family::Qwen3
    }

    /// The rotary frequencies, `[head_dim / 2]`, in radians a position: `theta^(-2i / head_dim)`, stretched as
    /// [`DecoderConfig::rope_scaling`] says. Rounded to `f32` at the same places as in PyTorch: at position 4000 the
    /// difference would show.
    pub fn rotary_frequencies(&self) -> Vec<f32> {
        let dim = self.head_dim as f64;
        let plain = (0..self.head_dim / 2).map(|i| (1.0 / self.rope_theta.powf(2.0 * i as f64 / dim)) as f32);
        match self.rope_scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor as f32).collect(),
            RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => plain
                .map(|frequency| {
                    let frequency = f64::from(frequency);
                    let wavelength = std::f64::consts::TAU / frequency;
                    let stretched = frequency / factor;
                    let scaled = if wavelength > original_positions / low_frequency_factor {
                        stretched
                    } else if wavelength < original_positions / high_frequency_factor {
                        frequency
                    } else {
                        let share = (original_positions / wavelength - low_frequency_factor)
                            / (high_frequency_factor - low_frequency_factor);
                        (1.0 - share) * stretched + share * frequency
                    };
                    scaled as f32
                })
                .collect(),
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
                list.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[hidden]);
            add("self_attn.q_proj.weight", &[queries, hidden]);
            add("self_attn.k_proj.weight", &[keys, hidden]);
            add("self_attn.v_proj.weight", &[keys, hidden]);
            if self.has_qkv_bias() {
                add("self_attn.q_proj.bias", &[queries]);
                add("self_attn.k_proj.bias", &[keys]);
                add("self_attn.v_proj.bias", &[keys]);
            }
            if self.has_qk_norm() {
                add("self_attn.q_norm.weight", &[self.head_dim]);
                add("self_attn.k_norm.weight", &[self.head_dim]);
            }
            add("self_attn.o_proj.weight", &[hidden, queries]);
            add("post_attention_layernorm.weight", &[hidden]);
            add("mlp.gate_proj.weight", &[self.intermediate_size, hidden]);
            add("mlp.up_proj.weight", &[self.intermediate_size, hidden]);
            add("mlp.down_proj.weight", &[hidden, self.intermediate_size]);
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
        let factors = match self.rope_scaling {
            RopeScaling::None => vec![],
            RopeScaling::Linear { factor } => vec![factor],
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_positions,
            } => {
                vec![factor, low, high - low, original_positions]
            }
        };
        if let Some(factor) = factors.into_iter().find(|factor| !(factor.is_finite() && *factor > 0.0)) {
            return Err(shape_error("rope_scaling", "positive factors, the high above the low".to_owned(), factor));
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
    /// [`Error::Format`] for text that is not such a file, an architecture that is no [`Family`], a variant of one that
    /// this decoder does not compute (other biases, other scalings of rotary positions, another activation), or sizes that
    /// do not fit together.
    pub fn from_hugging_face(text: &str, path: &Path) -> Result<Self, Error> {
        let refuse = |message: String| Error::Format { path: path.to_owned(), message };
        // The architecture is looked at first: another one may well lack the fields read below.
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let family = family(&raw).map_err(|found| {
            let known = Family::ALL.map(|family| format!("`{}`", family.architecture())).join(", ");
            refuse(format!("architecture `{found}` is not supported; this version has {known}"))
        })?;
        let file: HuggingFaceConfig =
            serde_json::from_value(Value::Object(raw)).map_err(|error| refuse(error.to_string()))?;
        if let Some(problem) = unsupported_variant(&file) {
            return Err(refuse(problem));
        }
        let rope_scaling = rope_scaling(&file).map_err(refuse)?;
        let head_count = file.num_attention_heads;
        // Transformers 5 moved the base into `rope_parameters`; its default, like that of 4, is 10000.
        let nested_theta = file.rope_parameters.get("rope_theta").and_then(Value::as_f64);
        let max_positions = file.max_position_embeddings.unwrap_or(2048);
        // Within a sliding window, attention is what it is without one. The Qwen families name windows that they do not use.
        let window = match family {
            Family::Llama => None,
            Family::Mistral => file.sliding_window,
            Family::Qwen2 | Family::Qwen3 => file.sliding_window.filter(|_| file.use_sliding_window == Some(true)),
        };
        let config = Self {
            family,
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            layer_count: file.num_hidden_layers,
            head_count,
            kv_head_count: file.num_key_value_heads.unwrap_or(head_count),
            head_dim: file.head_dim.unwrap_or(file.hidden_size / head_count.max(1)),
            rope_theta: nested_theta.or(file.rope_theta).unwrap_or(10_000.0),
            rope_scaling,
            rms_norm_eps: file.rms_norm_eps.unwrap_or(1e-6),
            tied_embeddings: file.tie_word_embeddings.unwrap_or(false),
            max_positions: window.map_or(max_positions, |window| window.min(max_positions)),
        };
        config.validate().map_err(|error| refuse(error.to_string()))?;
        Ok(config)
    }

    /// The text of a Hugging Face `config.json`, which [`DecoderConfig::from_hugging_face`] reads back unchanged.
    pub fn to_hugging_face(&self) -> String {
        let output = HuggingFaceOutput {
            architectures: [self.family.architecture()],
            model_type: self.family.model_type(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.layer_count,
            num_attention_heads: self.head_count,
            num_key_value_heads: self.kv_head_count,
            head_dim: self.head_dim,
            hidden_act: "silu",
            rope_theta: self.rope_theta,
            rope_scaling: self.rope_scaling.to_hugging_face(),
            rms_norm_eps: self.rms_norm_eps,
            max_position_embeddings: self.max_positions,
            tie_word_embeddings: self.tied_embeddings,
            // Qwen2 has no such field; its biases go by its name.
            attention_bias: (self.family != Family::Qwen2 && self.family != Family::Mistral).then_some(false),
            mlp_bias: (self.family == Family::Llama).then_some(false),
            // Left out, Mistral's would be 4096.
            sliding_window: (self.family == Family::Mistral).then_some(Value::Null),
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

impl RopeScaling {
    fn to_hugging_face(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Linear { factor } => Some(serde_json::json!({ "rope_type": "linear", "factor": factor })),
            Self::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
                Some(serde_json::json!({
                    "rope_type": "llama3", "factor": factor, "low_freq_factor": low_frequency_factor,
                    "high_freq_factor": high_frequency_factor,
                    "original_max_position_embeddings": original_positions as u64,
                }))
            }
        }
    }
}

/// The family that the file names, or the name that is none; files without any name are taken for Llama.
fn family(raw: &Map<String, Value>) -> Result<Family, String> {
    let named =
        raw.get("architectures").and_then(Value::as_array).and_then(|list| list.first()).and_then(Value::as_str);
    let kind = raw.get("model_type").and_then(Value::as_str);
    let found = Family::ALL.into_iter().find(|family| match named {
        Some(named) => named == family.architecture(),
        None => kind.unwrap_or("llama") == family.model_type(),
    });
    found.ok_or_else(|| named.or(kind).unwrap_or_default().to_owned())
}

/// The scaling of rotary positions, or why it is not supported.
fn rope_scaling(file: &HuggingFaceConfig) -> Result<RopeScaling, String> {
    // Transformers 5 moved it into `rope_parameters`.
    let kind = |value: &Value| value.get("rope_type").or_else(|| value.get("type"))?.as_str().map(str::to_owned);
    let given = [&file.rope_scaling, &file.rope_parameters].into_iter().find_map(|value| Some((value, kind(value)?)));
    let Some((value, kind)) = given else { return Ok(RopeScaling::None) };
    let number = |name: &str| {
        let found = value.get(name).and_then(Value::as_f64);
        found.ok_or_else(|| format!("rotary positions of type `{kind}` lack the number `{name}`"))
    };
    match kind.as_str() {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_frequency_factor: number("low_freq_factor")?,
            high_frequency_factor: number("high_freq_factor")?,
            original_positions: number("original_max_position_embeddings")?,
        }),
        _ => Err(format!("rotary positions of type `{kind}` are not supported, only `default`, `linear` and `llama3`")),
    }
}

/// What the file asks for beyond what its family has here.
fn unsupported_variant(file: &HuggingFaceConfig) -> Option<String> {
    // Named in the struct so that a wrong type is reported; their values were judged before.
    let _ = (&file.architectures, &file.model_type);
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
    fn every_family_is_read_and_written_with_its_parameters() {
        let rope_scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192.0,
        };
        for family in Family::ALL {
            let config = DecoderConfig { family, rope_scaling, ..DecoderConfig::tiny(99) };
            assert_eq!(parse(&config.to_hugging_face()), Ok(config.clone()));
            let has = |part: &str| config.parameters().iter().any(|(name, _)| name.ends_with(part));
            assert_eq!(has("layers.1.self_attn.v_proj.bias"), family == Family::Qwen2);
            assert_eq!(has("layers.1.self_attn.k_norm.weight"), family == Family::Qwen3);
        }
    }

    #[test]
    fn windows_shorten_the_context_where_they_are_used() {
        let text = |kind: &str, more: &str| {
            let text = DecoderConfig::tiny(99).to_hugging_face().replace("LlamaForCausalLM", kind);
            text.replace("\"vocab_size\"", &format!("\"sliding_window\": 100, {more} \"vocab_size\""))
        };
        let positions = |kind, more| parse(&text(kind, more)).expect("supported").max_positions;
        assert_eq!(positions("MistralForCausalLM", ""), 100);
        assert_eq!(positions("Qwen2ForCausalLM", ""), 4096);
        assert_eq!(positions("Qwen2ForCausalLM", "\"use_sliding_window\": true,"), 100);
        assert_eq!(positions("LlamaForCausalLM", ""), 4096);
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let plain = DecoderConfig { rope_theta: 500_000.0, head_dim: 64, ..DecoderConfig::tiny(99) };
        let rope_scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192.0,
        };
        let scaled = DecoderConfig { rope_scaling, ..plain.clone() };
        let ratio: Vec<f32> =
            plain.rotary_frequencies().iter().zip(scaled.rotary_frequencies()).map(|(a, b)| a / b).collect();
        assert!(ratio[0] == 1.0 && (ratio[31] - 32.0).abs() < 1e-4, "{ratio:?}");
        assert!(ratio.is_sorted() && ratio.iter().any(|&ratio| ratio > 1.1 && ratio < 31.0), "{ratio:?}");
    }

    #[test]
    fn other_models_are_refused_by_name() {
        let gemma = r#"{"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3"}"#;
        let expected = "`config.json` is not usable: architecture `Gemma3ForCausalLM` is not supported; this version has \
                        `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM`, `Qwen3ForCausalLM`";
        assert_eq!(parse(gemma), Err(expected.to_owned()));
        // Heads of its own, since the replacements below name them.
        let tiny = DecoderConfig { head_count: 4, kv_head_count: 2, ..DecoderConfig::tiny(99) }.to_hugging_face();
        for (from, to, word) in [
            ("\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias"),
            ("\"silu\"", "\"gelu\"", "gelu"),
            ("\"rope_theta\"", "\"rope_scaling\": {\"type\": \"yarn\"}, \"rope_theta\"", "yarn"),
            ("\"rope_theta\"", "\"rope_scaling\": {\"type\": \"linear\"}, \"rope_theta\"", "lack the number `factor`"),
            ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "divisor"),
            ("\"num_attention_heads\": 4", "\"num_attention_heads\": 0", "num_attention_heads"),
            ("\"vocab_size\": 99", "\"vocab_size\": -1", "invalid value"),
        ] {
            let message = parse(&tiny.replace(from, to)).expect_err("refused");
            assert!(message.contains(word), "{message}");
        }
    }
}
