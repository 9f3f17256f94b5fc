//! The weights as the network computes with them: by name, and joined where the same rows are multiplied with several.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

use crate::policy::fused::overwrite;
use crate::policy::{DecoderConfig, Projection};

/// Matrices of a layer that take the same rows, one below the other, as one product is faster than several: all of them are narrow.
#[derive(Debug)]
pub(super) struct Joined {
    /// Of queries, keys and values, `[(heads + 2 kv_heads) head_dim, hidden]`.
    pub(super) heads: Tensor,
    /// Of the gate and of what it lets through, `[2 intermediate, hidden]`.
    pub(super) gate: Tensor,
}

/// Weights in one type on one device. Their memory stays where it is when they change.
#[derive(Debug)]
pub(super) struct Weights {
    dtype: DType,
    by_name: BTreeMap<String, Tensor>,
    /// By layer; those of `by_name` are parts of these. Empty if there are others than a whole model's.
    joined: Vec<Joined>,
}

impl Weights {
    /// No weights yet.
    pub(super) fn new(dtype: DType) -> Self {
        Self { dtype, by_name: BTreeMap::new(), joined: Vec::new() }
    }

    /// Room for the matrices of a model that are joined; zeros until they are set.
    pub(super) fn of_model(config: &DecoderConfig, dtype: DType, device: &Device) -> Result<Self> {
        let mut weights = Self::new(dtype);
        let (queries, keys) = (config.head_count * config.head_dim, config.kv_head_count * config.head_dim);
        for layer in 0..config.layer_count {
            let mut join = |parts: &[(Projection, usize)]| {
                let rows = parts.iter().map(|(_, rows)| rows).sum::<usize>();
                let all = Tensor::zeros((rows, config.hidden_size), dtype, device)?;
                let mut start = 0;
                for (projection, rows) in parts {
                    let name = format!("{}.weight", projection.path(layer));
                    weights.by_name.insert(name, all.narrow(0, start, *rows)?);
                    start += rows;
                }
                Ok::<Tensor, candle_core::Error>(all)
            };
            let heads = join(&[(Projection::Query, queries), (Projection::Key, keys), (Projection::Value, keys)])?;
            let inner = config.intermediate_size;
            let gate = join(&[(Projection::Gate, inner), (Projection::Up, inner)])?;
            weights.joined.push(Joined { heads, gate });
        }
        Ok(weights)
    }

    /// Sets a weight to the rounded numbers of a tensor of its shape.
    pub(super) fn set(&mut self, name: &str, values: &Tensor) -> Result<()> {
        if let Some(weight) = self.by_name.get(name) {
            return overwrite(weight, values);
        }
        // Never the memory of `values`, which may change.
        let own = if values.dtype() == self.dtype { values.copy()? } else { values.to_dtype(self.dtype)? };
        self.by_name.insert(name.to_owned(), own);
        Ok(())
    }

    /// The weight of a name.
    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name)
    }

    /// All weights by name.
    pub(super) fn by_name(&self) -> &BTreeMap<String, Tensor> {
        &self.by_name
    }

    /// The joined matrices of a layer, if there are any.
    pub(super) fn joined(&self, layer: usize) -> Option<&Joined> {
        self.joined.get(layer)
    }
}

/// All weights of a network: what is trained, before what stays.
#[derive(Clone, Copy)]
pub(super) struct AllWeights<'a> {
    pub(super) trained: &'a Weights,
    pub(super) frozen: &'a Weights,
}

impl<'a> AllWeights<'a> {
    /// The weight of a name.
    pub(super) fn get(self, name: &str) -> Option<&'a Tensor> {
        self.trained.get(name).or_else(|| self.frozen.get(name))
    }
}
