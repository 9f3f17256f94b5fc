//! The policy: a trainable decoder, its cache, weights in and out, tokenizer, sampling and constrained decoding. Sits
//! under [`crate::rollout`], which samples with it, and [`crate::train`], which updates it; knows nothing of games.
//!
//! candle-nn's fused `rms_norm`, `rope`, `softmax_last_dim`, `layer_norm` and `sdpa` drop gradients without an error:
//! none of them may be used here.

mod adapter; // low-rank adapters: settings, names, first values, merging
mod batcher; // what the model computes together, and whose caches are kept
mod candle_decoder; // candle tensors and fused operations: CUDA, and the oracle in tests
mod config; // the shape of a model, as Hugging Face's config.json writes it
mod constraint; // a trie over the token spellings of the legal answers
mod cpu; // hand-written forward and backward on the CPU
mod decoder; // what a decoder does, whichever backend computes it
mod dialogue; // one player's side of an episode as tokens, sampled in batches
pub mod fused; // operations of the decoder that are one kernel each, with their gradients
mod gguf; // llama.cpp's files, in and out
mod hub; // models by their name on the Hugging Face Hub
mod inputs; // checks of what callers hand in, the same for every backend
mod logits; // of a pass, and tokens drawn from them
mod prefix_cache; // what a frozen model computed at earlier contexts
mod replicas; // one policy on several devices
mod sampling; // from logits to a token
mod tokenizer; // text to token ids and back
mod tree; // what several sequences begin with
mod weights; // random initialization, safetensors in and out

use std::collections::HashSet;
use std::path::PathBuf;

pub use adapter::{AdapterConfig, Projection};
pub use batcher::{BatchStats, Batcher, Lease, Pass, Request};
pub use candle_decoder::{CandleDecoder, QuantizedDecoder, open_cuda, reduction};
pub use config::{DecoderConfig, Family, RopeScaling};
pub use constraint::{AnswerTrie, Pieces};
pub use cpu::{CpuDecoder, MemoryPlan, StepSize, rollout_memory, training_memory};
pub use decoder::{
    AdamWStep, Chunk, Decoder, Inference, InferenceAhead, NamedTensor, Sequence, SequenceLoss, Target, TensorKind,
    TokenGradient, TokenScore,
};
pub use dialogue::{AnswerRules, Dialogue, StopRule, advance};
pub use gguf::{GgufType, prefers_quantized, read_gguf, read_quantized, write_gguf};
pub use hub::{HubError, HubEvent, HubName, fetch_model};
pub use logits::{Draw, Logits};
pub use prefix_cache::PrefixCache;
pub use replicas::{HostReduce, Reduce, ReplicatedDecoder};
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

/// Keys and values of one sequence. A clone costs next to nothing: what both hold is kept once until one of them grows.
#[derive(Clone, Debug)]
pub struct KvCache(CacheStorage);

#[derive(Clone, Debug)]
enum CacheStorage {
    Cpu(cpu::CpuCache),
    Candle(candle_decoder::CandleCache),
    /// With the number of the replica that it belongs to.
    Replica(usize, Box<KvCache>),
}

impl KvCache {
    /// Tokens held.
    pub fn len(&self) -> usize {
        match &self.0 {
            CacheStorage::Cpu(cache) => cache.len(),
            CacheStorage::Candle(cache) => cache.len(),
            CacheStorage::Replica(_, cache) => cache.len(),
        }
    }

    /// The first `length` tokens, kept once for both.
    #[must_use]
    pub fn prefix(&self, length: usize) -> Self {
        Self(match &self.0 {
            CacheStorage::Cpu(cache) => CacheStorage::Cpu(cache.prefix(length)),
            CacheStorage::Candle(cache) => CacheStorage::Candle(cache.prefix(length)),
            CacheStorage::Replica(replica, cache) => CacheStorage::Replica(*replica, Box::new(cache.prefix(length))),
        })
    }

    /// Bytes that `count` more tokens take at most.
    pub fn growth(&self, count: usize) -> usize {
        match &self.0 {
            CacheStorage::Cpu(cache) => cache.growth(count),
            CacheStorage::Candle(cache) => cache.growth(count),
            CacheStorage::Replica(_, cache) => cache.growth(count),
        }
    }

    /// Bytes of all these caches, what several hold counted once.
    pub fn total_bytes<'a>(caches: impl IntoIterator<Item = &'a Self>) -> usize {
        let mut seen = HashSet::new();
        caches.into_iter().map(|cache| cache.bytes_beside(&mut seen)).sum()
    }

    /// Bytes beside what is in `seen`, to which they are added.
    fn bytes_beside(&self, seen: &mut HashSet<usize>) -> usize {
        fn added(seen: &mut HashSet<usize>, (blocks, bytes): (impl Iterator<Item = usize>, usize)) -> usize {
            bytes * blocks.filter(|&block| seen.insert(block)).count()
        }
        match &self.0 {
            CacheStorage::Cpu(cache) => added(seen, cache.blocks()),
            CacheStorage::Candle(cache) => added(seen, cache.blocks()),
            CacheStorage::Replica(_, cache) => cache.bytes_beside(seen),
        }
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
