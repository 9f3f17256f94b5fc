//! The form of a [`DecoderConfig`] in Hugging Face's `config.json`: what is read, what is refused, what is written.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DecoderConfig, Family, RopeScaling};
use crate::policy::Error;

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
