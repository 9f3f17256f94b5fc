//! A model whose matrices stay quantized as a GGUF file has them, at an eighth of the memory of `f32` or so. It is sampled from
//! and never trained. candle multiplies with rows that it quantizes to 8 bits, so logits are near those of the same weights
//! in `f32`, not equal to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Device, Module as _, Result as TensorResult, Tensor};

use super::backward::EMBEDDING;
use super::decoder::name_of;
use super::extend::{extend, extend_by_drawn};
use super::network::{Network, Rotary};
use super::pages::{CandleCache, PagePool};
use super::weights::{AllWeights, Weights};
use crate::policy::{CacheStorage, Chunk, DecoderConfig, Error, Inference, InferenceAhead, KvCache, Logits, inputs};

/// Matrices by Hugging Face name.
#[derive(Debug)]
pub(super) struct QuantizedMatrices {
    products: BTreeMap<String, QMatMul>,
    embedding: Arc<QTensor>,
}

impl QuantizedMatrices {
    /// `x W^T`, in `f32`.
    pub(super) fn multiply(&self, x: &Tensor, name: &str) -> TensorResult<Tensor> {
        let missing = || candle_core::Error::Msg(format!("no weight `{name}`"));
        self.products.get(name).ok_or_else(missing)?.forward(&x.contiguous()?)
    }

    /// Rows of the embedding, in `f32`.
    pub(super) fn embed(&self, tokens: &Tensor) -> TensorResult<Tensor> {
        self.embedding.embedding(tokens)
    }
}

/// A quantized model to sample from.
#[derive(Debug)]
pub struct QuantizedDecoder {
    config: DecoderConfig,
    device: Device,
    rotary: Rotary,
    matrices: QuantizedMatrices,
    /// Norms and biases, in `f32`.
    vectors: Weights,
    pool: Arc<PagePool>,
}

impl QuantizedDecoder {
    /// A decoder with these weights, which lie on `device` already.
    ///
    /// # Errors
    /// [`Error::Shape`] for sizes that do not fit together or tensors that do not fit them; [`Error::Tensor`] if the device
    /// has no room.
    pub fn new(config: DecoderConfig, tensors: &BTreeMap<String, Arc<QTensor>>, device: Device) -> Result<Self, Error> {
        config.validate()?;
        let mut vectors = Weights::new(DType::F32);
        let mut products = BTreeMap::new();
        for (name, shape) in config.parameters() {
            let tensor = tensors.get(&name).filter(|tensor| tensor.shape().dims() == shape);
            let Some(tensor) = tensor else {
                let found =
                    tensors.get(&name).map_or("no such tensor".to_owned(), |tensor| format!("{:?}", tensor.shape()));
                return Err(Error::Shape { expected: format!("{shape:?}"), found, name });
            };
            if shape.len() == 1 {
                vectors.set(&name, &tensor.dequantize(&device)?)?;
            } else if name != EMBEDDING || config.tied_embeddings {
                products.insert(name, QMatMul::from_arc(Arc::clone(tensor))?);
            }
        }
        let missing = || inputs::missing(EMBEDDING);
        let embedding = tensors.get(EMBEDDING).map(Arc::clone).ok_or_else(missing)?;
        let rotary = Rotary::new(&config, &device)?;
        let pool = PagePool::new(&config, &device, DType::F32);
        Ok(Self { config, device, rotary, matrices: QuantizedMatrices { products, embedding }, vectors, pool })
    }

    fn network(&self) -> Network<'_> {
        Network {
            config: &self.config,
            weights: AllWeights { trained: &self.vectors, frozen: &self.vectors },
            rotary: &self.rotary,
            adapter: None,
            quantized: Some(&self.matrices),
            #[cfg(feature = "flash-attn")]
            is_trained: false,
        }
    }
}

impl Inference for QuantizedDecoder {
    fn config(&self) -> &DecoderConfig {
        &self.config
    }

    fn device(&self) -> String {
        name_of(&self.device)
    }

    fn new_cache(&self) -> KvCache {
        KvCache(CacheStorage::Candle(CandleCache::new(&self.pool)))
    }

    fn extend(&self, chunks: &mut [Chunk<'_>]) -> Result<Vec<f32>, Error> {
        self.extend_in_place(chunks)?.into_host()
    }

    fn extend_in_place(&self, chunks: &mut [Chunk<'_>]) -> Result<Logits, Error> {
        extend(&self.network(), chunks, &self.pool)
    }

    fn ahead(&self) -> Option<&dyn InferenceAhead> {
        (!self.pool.device().is_cpu()).then_some(self)
    }
}

impl InferenceAhead for QuantizedDecoder {
    fn extend_by_drawn(&self, caches: &mut [&mut KvCache], tokens: &Tensor) -> Result<Logits, Error> {
        extend_by_drawn(&self.network(), caches, tokens, &self.pool)
    }
}
