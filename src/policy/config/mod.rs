//! The shape of a decoder, and its form in Hugging Face's `config.json`. Read by both backends and by [`super::weights`];
//! holds no weights and no setting of a run.

mod hugging_face; // its form in Hugging Face's `config.json`

use std::fmt::Display;

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
}

fn shape_error(name: &str, expected: String, found: impl Display) -> Error {
    Error::Shape { name: name.to_owned(), expected, found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_has_about_a_million_parameters() {
        let config = DecoderConfig::tiny(260);
        config.validate().expect("the sizes fit");
        assert_eq!(config.parameter_count(), 1_132_224);
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
}
