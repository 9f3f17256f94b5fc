//! The policy: a trainable decoder, its cache, weights in and out, tokenizer, sampling and constrained decoding. Sits
//! under [`crate::rollout`], which samples with it, and [`crate::train`], which updates it; knows nothing of games.
//!
//! candle-nn's fused `rms_norm`, `rope`, `softmax_last_dim`, `layer_norm` and `sdpa` drop gradients without an error:
//! none of them may be used here.

mod adapter; // low-rank adapters: settings, names, first values, merging
mod candle_decoder; // differentiable candle operations: CUDA, and the oracle in tests
mod config; // the shape of a model, as Hugging Face's config.json writes it
mod constraint; // a trie over the token spellings of the legal answers
mod cpu; // hand-written forward and backward on the CPU
mod decoder; // what a decoder does, whichever backend computes it
mod gguf; // llama.cpp's files, in and out
mod hub; // models by their name on the Hugging Face Hub
mod inputs; // checks of what callers hand in, the same for every backend
mod sampling; // from logits to a token
mod tokenizer; // text to token ids and back
mod weights; // random initialization, safetensors in and out

use std::path::PathBuf;

pub use adapter::{AdapterConfig, Projection};
pub use candle_decoder::CandleDecoder;
pub use config::{DecoderConfig, Family, RopeScaling};
pub use constraint::AnswerTrie;
pub use cpu::{CpuDecoder, MemoryPlan, StepSize, rollout_memory, training_memory};
pub use decoder::{
    AdamWStep, Chunk, Decoder, NamedTensor, Sequence, SequenceLoss, Target, TensorKind, TokenGradient, TokenScore,
};
pub use gguf::{GgufType, read_gguf, write_gguf};
pub use hub::{HubError, HubEvent, HubName, fetch_model};
pub use sampling::{Sampled, Sampling, sample};
pub use tokenizer::{TextTokenizer, Tokenizer};
pub use weights::{initial_weights, read_adapter, read_safetensors, read_weights, write_adapter, write_safetensors};

/// The room's failures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A size, name or index does not fit.
    #[error("`{name}`: expected {expected}, found {found}")]
    Shape {
        /// What does not fit.
        name: String,
        /// What fits.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The tensor backend failed.
    #[error("the tensor backend failed: {message}")]
    Tensor {
        /// The backend's words.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("cannot access `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is there but does not hold what it should.
    #[error("`{path}` is not usable: {message}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// Keys and values of one sequence. Cloning it shares nothing and costs its bytes.
#[derive(Clone, Debug)]
pub struct KvCache(CacheStorage);

#[derive(Clone, Debug)]
enum CacheStorage {
    Cpu(cpu::CpuCache),
    Candle(candle_decoder::CandleCache),
}

impl KvCache {
    /// Tokens held.
    pub fn len(&self) -> usize {
        match &self.0 {
            CacheStorage::Cpu(cache) => cache.len(),
            CacheStorage::Candle(cache) => cache.len(),
        }
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
