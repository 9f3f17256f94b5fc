//! [`CandleDecoder`]: the implementation of [`Decoder`] over candle tensors. Weights, gradients and moments are `f32`; with
//! another dtype the network computes with rounded copies, remade after every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, DType, Device, Result as TensorResult, Tensor};

use super::extend::{extend, extend_by_drawn};
use super::network::{Adapted, Network, Pack, Rotary};
use super::open::free_bytes;
use super::pages::{CandleCache, PagePool};
use super::weights::{AllWeights, Weights};
use crate::config::OptimizerStates;
use crate::policy::adapter::Dropout;
use crate::policy::fused::{Parameter, adamw, square_sum};
use crate::policy::tree::{in_runs, trees};
use crate::policy::{
    AdamWStep, AdapterConfig, CacheStorage, Chunk, Decoder, DecoderConfig, Error, Inference, InferenceAhead, KvCache,
    Logits, NamedTensor, Sequence, SequenceLoss, TensorKind, TokenScore, inputs,
};

/// Rows that go through the layers together, unless a single sequence has more. On a device as many as a group of 16 with a few turns
/// has, whose prompt then goes through once.
const PACK_ROWS: usize = 4096;
const DEVICE_PACK_ROWS: usize = 12_288;

/// A decoder on a candle device.
#[derive(Debug)]
pub struct CandleDecoder {
    config: DecoderConfig,
    device: Device,
    dtype: DType,
    rotary: Rotary,
    adapter: Option<AdapterConfig>,
    /// The weights under an adapter, in `dtype`; none without one.
    frozen: Weights,
    /// What is trained, as the network computes with it, in `dtype`.
    rounded: Weights,
    /// What is trained, in `f32`, as are the next three. Gradients and moments are missing as long as they are zero.
    weights: BTreeMap<String, Tensor>,
    gradients: BTreeMap<String, Tensor>,
    first_moments: BTreeMap<String, Tensor>,
    second_moments: BTreeMap<String, Tensor>,
    /// What training leaves out of the adapter's inputs.
    dropout: Option<Dropout>,
    /// Whether activations are computed again though there is room for them.
    gradient_checkpointing: bool,
    /// Lengths of the rows of adapted matrices, if the adapter trains lengths.
    lengths: BTreeMap<String, Tensor>,
    /// Keys and values of sequences that are sampled.
    pool: Arc<PagePool>,
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // A backtrace may follow the first line.
        Self::Tensor { message: error.to_string().lines().next().unwrap_or_default().to_owned() }
    }
}

impl CandleDecoder {
    /// A decoder with these weights that computes on `device` in `dtype`, one of `F32`, `F16` and `BF16`
    /// (a CPU only rounds to the latter two, and is not sampled from in `BF16`).
    ///
    /// # Errors
    /// [`Error::Shape`] for another dtype, sizes that do not fit together or tensors that do not fit them;
    /// [`Error::Tensor`] if the device has no room.
    pub fn new(config: DecoderConfig, weights: &[NamedTensor], device: Device, dtype: DType) -> Result<Self, Error> {
        Self::of(config, weights, None, device, dtype)
    }

    /// A decoder with these weights, which stay, and an adapter on them, which is trained.
    ///
    /// # Errors
    /// As [`CandleDecoder::new`].
    pub fn with_adapter(
        config: DecoderConfig,
        weights: &[NamedTensor],
        adapter: (AdapterConfig, &[NamedTensor]),
        device: Device,
        dtype: DType,
    ) -> Result<Self, Error> {
        Self::of(config, weights, Some(adapter), device, dtype)
    }

    fn of(
        config: DecoderConfig,
        weights: &[NamedTensor],
        adapter: Option<(AdapterConfig, &[NamedTensor])>,
        device: Device,
        dtype: DType,
    ) -> Result<Self, Error> {
        config.validate()?;
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
            let expected = "`F32`, `BF16` or `F16`".to_owned();
            return Err(Error::Shape { name: "dtype".to_owned(), expected, found: format!("`{dtype:?}`") });
        }
        inputs::check_tensors(&config.parameters(), weights)?;
        let mut model = Weights::of_model(&config, dtype, &device)?;
        let (frozen, rounded, trained) = match &adapter {
            Some((adapter, tensors)) => {
                adapter.validate(&config)?;
                inputs::check_tensors(&adapter.parameters(&config), tensors)?;
                set_all(&mut model, weights, &device)?;
                (model, Weights::new(dtype), *tensors)
            }
            None => (Weights::new(dtype), model, weights),
        };
        let mut decoder = Self {
            rotary: Rotary::new(&config, &device)?,
            weights: on_device(trained, &device)?,
            rounded,
            gradient_checkpointing: false,
            dropout: adapter.as_ref().and_then(|(adapter, _)| Dropout::new(adapter.dropout)),
            adapter: adapter.map(|(adapter, _)| adapter),
            frozen,
            gradients: BTreeMap::new(),
            first_moments: BTreeMap::new(),
            second_moments: BTreeMap::new(),
            lengths: BTreeMap::new(),
            pool: PagePool::new(&config, &device, dtype),
            config,
            device,
            dtype,
        };
        decoder.refresh()?;
        Ok(decoder)
    }

    /// Takes the lengths of the rows of `W + s B A` anew, for an adapter that trains them apart.
    fn measure_rows(&mut self) -> TensorResult<()> {
        let Some(adapter) = self.adapter.as_ref().filter(|adapter| adapter.dora) else { return Ok(()) };
        for layer in 0..self.config.layer_count {
            for target in &adapter.targets {
                let path = target.path(layer);
                let name = format!("{path}.weight");
                let part = |part: &str| self.weights.get(&format!("{path}.{part}.weight"));
                let (Some(weight), Some(a), Some(b)) = (self.frozen.get(&name), part("lora_A"), part("lora_B")) else {
                    continue;
                };
                let whole = (weight.to_dtype(DType::F32)? + (b.matmul(a)? * f64::from(adapter.scale()))?)?;
                // A row of zeros stays one, and must not become NaN.
                let lengths = whole.sqr()?.sum(D::Minus1)?.sqrt()?.clamp(f32::MIN_POSITIVE, f32::MAX)?;
                self.lengths.insert(name, lengths.to_dtype(self.dtype)?);
            }
        }
        Ok(())
    }

    /// Where it computes.
    #[cfg(feature = "nccl")]
    pub(super) fn place(&self) -> &Device {
        &self.device
    }

    /// The accumulated gradients of all that is trained, by name, zeros where there were none; they are changed in place.
    #[cfg(feature = "nccl")]
    pub(super) fn whole_gradients(&mut self) -> Result<Vec<Tensor>, Error> {
        for (name, weight) in &self.weights {
            if !self.gradients.contains_key(name) {
                self.gradients.insert(name.clone(), weight.zeros_like()?);
            }
        }
        Ok(self.gradients.values().cloned().collect())
    }

    /// Bytes that gradients will take which are not there yet.
    fn missing_gradient_bytes(&self, gradients: &BTreeMap<String, Tensor>) -> usize {
        let missing = self.weights.iter().filter(|(name, _)| !gradients.contains_key(*name));
        missing.map(|(_, weight)| weight.elem_count() * size_of::<f32>()).sum()
    }

    /// Every trained tensor with its shape.
    fn trained(&self) -> Vec<(String, Vec<usize>)> {
        self.adapter.as_ref().map_or_else(|| self.config.parameters(), |adapter| adapter.parameters(&self.config))
    }

    /// The network; `keys` are those of the rows of a training pass.
    fn network<'a>(&'a self, keys: Option<&'a [u64]>) -> Network<'a> {
        let adapted = |adapter: &AdapterConfig| Adapted {
            scale: f64::from(adapter.scale()),
            lengths: &self.lengths,
            left_out: self.dropout.as_ref().zip(keys),
        };
        let adapter = self.adapter.as_ref().map(adapted);
        Network {
            config: &self.config,
            weights: AllWeights { trained: &self.rounded, frozen: &self.frozen },
            rotary: &self.rotary,
            adapter,
            quantized: None,
            #[cfg(feature = "flash-attn")]
            is_trained: keys.is_some(),
        }
    }

    /// Does `work` on sequences, packed without padding, and returns the scores of each.
    fn in_packs(
        &self,
        sequences: &[Sequence<'_>],
        mut work: impl FnMut(&Pack) -> Result<Vec<(usize, Vec<TokenScore>)>, Error>,
    ) -> Result<Vec<Vec<TokenScore>>, Error> {
        let mut scores = vec![Vec::new(); sequences.len()];
        let rows = if self.device.is_cpu() { PACK_ROWS } else { DEVICE_PACK_ROWS };
        for pack in in_runs(&trees(sequences, 1, rows), rows) {
            for (index, found) in work(&Pack::new(pack, sequences, self.dtype, &self.device)?)? {
                scores[index] = found;
            }
        }
        Ok(scores)
    }

    /// Rounds what is trained anew.
    fn refresh(&mut self) -> TensorResult<()> {
        self.weights.iter().try_for_each(|(name, weight)| self.rounded.set(name, weight))?;
        self.measure_rows()
    }
}

/// A device as users name it.
pub(super) fn name_of(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

fn upload(tensor: &NamedTensor, device: &Device) -> TensorResult<Tensor> {
    Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), device)
}

fn on_device(tensors: &[NamedTensor], device: &Device) -> TensorResult<BTreeMap<String, Tensor>> {
    tensors.iter().map(|tensor| Ok((tensor.name.clone(), upload(tensor, device)?))).collect()
}

fn set_all(weights: &mut Weights, tensors: &[NamedTensor], device: &Device) -> TensorResult<()> {
    tensors.iter().try_for_each(|tensor| weights.set(&tensor.name, &upload(tensor, device)?))
}

impl Inference for CandleDecoder {
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
        extend(&self.network(None), chunks, &self.pool)
    }

    fn ahead(&self) -> Option<&dyn InferenceAhead> {
        (!self.device.is_cpu()).then_some(self)
    }
}

impl InferenceAhead for CandleDecoder {
    fn extend_by_drawn(&self, caches: &mut [&mut KvCache], tokens: &Tensor) -> Result<Logits, Error> {
        extend_by_drawn(&self.network(None), caches, tokens, &self.pool)
    }
}

impl Decoder for CandleDecoder {
    fn adapter(&self) -> Option<&AdapterConfig> {
        self.adapter.as_ref()
    }

    fn set_gradient_checkpointing(&mut self, is_on: bool) {
        self.gradient_checkpointing = is_on;
    }

    fn draw_dropout(&mut self, seed: u64) {
        if let Some(dropout) = &mut self.dropout {
            dropout.draw(seed);
        }
    }

    fn score(&self, sequences: &[Sequence<'_>], temperature: f32) -> Result<Vec<Vec<TokenScore>>, Error> {
        inputs::check_sequences(&self.config, sequences, temperature)?;
        let network = self.network(None);
        self.in_packs(sequences, |pack| {
            Ok(network.train((pack, sequences), (temperature, None), 0, &mut BTreeMap::new())?)
        })
    }

    fn accumulate(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        loss: &dyn SequenceLoss,
    ) -> Result<Vec<Vec<TokenScore>>, Error> {
        inputs::check_sequences(&self.config, sequences, temperature)?;
        let mut gradients = std::mem::take(&mut self.gradients);
        let scores = self.in_packs(sequences, |pack| {
            let network = self.network(Some(&*pack.keys));
            let free = if self.gradient_checkpointing { Some(0) } else { free_bytes(&self.device)? };
            // Most of it: a layer in the making and the logits need the rest. A CPU, which is there to check devices, has no end.
            let room =
                free.map_or(usize::MAX, |free| free.saturating_sub(self.missing_gradient_bytes(&gradients)) / 10 * 7);
            Ok(network.train((pack, sequences), (temperature, Some(loss)), room, &mut gradients)?)
        });
        self.gradients = gradients;
        scores
    }

    fn gradient_norm(&self) -> Result<f64, Error> {
        Ok(square_sum(&self.gradients.values().collect::<Vec<_>>())?.sqrt())
    }

    fn clear_gradients(&mut self) -> Result<(), Error> {
        self.gradients.clear();
        Ok(())
    }

    fn step(&mut self, step: &AdamWStep) -> Result<(), Error> {
        if step.states != OptimizerStates::F32 {
            let (expected, found) = ("`f32` on this device".to_owned(), "`8bit`".to_owned());
            return Err(Error::Shape { name: "optimizer.states".to_owned(), expected, found });
        }
        let or_zeros = |moments: &BTreeMap<String, Tensor>, (name, weight): (&String, &Tensor)| {
            moments.get(name).map_or_else(|| weight.zeros_like(), |tensor| Ok(tensor.clone()))
        };
        let mut parameters = Vec::with_capacity(self.weights.len());
        for (name, weight) in &self.weights {
            parameters.push(Parameter {
                weight: weight.clone(),
                gradient: self.gradients.get(name).cloned(),
                first: or_zeros(&self.first_moments, (name, weight))?,
                second: or_zeros(&self.second_moments, (name, weight))?,
                copy: self.rounded.get(name).ok_or_else(|| inputs::missing(name))?.clone(),
            });
        }
        adamw(&mut parameters, step)?;
        for ((name, weight), parameter) in self.weights.iter_mut().zip(parameters) {
            *weight = parameter.weight;
            self.first_moments.insert(name.clone(), parameter.first);
            self.second_moments.insert(name.clone(), parameter.second);
        }
        self.gradients.clear();
        Ok(self.measure_rows()?)
    }

    fn tensors(&self, kind: TensorKind) -> Result<Vec<NamedTensor>, Error> {
        let (names, from) = match kind {
            TensorKind::Weight if self.adapter.is_some() => (self.config.parameters(), self.frozen.by_name()),
            TensorKind::Adapter if self.adapter.is_none() => return Ok(Vec::new()),
            TensorKind::Weight | TensorKind::Adapter => (self.trained(), &self.weights),
            TensorKind::Gradient => (self.trained(), &self.gradients),
            TensorKind::FirstMoment => (self.trained(), &self.first_moments),
            TensorKind::SecondMoment => (self.trained(), &self.second_moments),
        };
        let mut names = names;
        names.sort();
        let named = |(name, shape): (String, Vec<usize>)| {
            let data = match from.get(&name) {
                Some(tensor) => tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
                None => vec![0.0; shape.iter().product()],
            };
            Ok(NamedTensor { name, shape, data })
        };
        names.into_iter().map(named).collect()
    }

    fn set_tensors(&mut self, kind: TensorKind, tensors: &[NamedTensor]) -> Result<(), Error> {
        let under_adapter = kind == TensorKind::Weight && self.adapter.is_some();
        let expected = match kind {
            TensorKind::Weight => self.config.parameters(),
            TensorKind::Adapter if self.adapter.is_none() => Vec::new(),
            _ => self.trained(),
        };
        inputs::check_tensors(&expected, tensors)?;
        if under_adapter {
            set_all(&mut self.frozen, tensors, &self.device)?;
            return Ok(self.measure_rows()?);
        }
        let copies = on_device(tensors, &self.device)?;
        match kind {
            TensorKind::Adapter if self.adapter.is_none() => {}
            TensorKind::Weight | TensorKind::Adapter => {
                self.weights = copies;
                self.refresh()?;
            }
            TensorKind::Gradient => self.gradients = copies,
            TensorKind::FirstMoment => self.first_moments = copies,
            TensorKind::SecondMoment => self.second_moments = copies,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Target, TokenGradient, initial_weights};
    use crate::seed::Seed;

    struct Sum;

    impl SequenceLoss for Sum {
        fn gradient(&self, _index: usize, _scores: &[TokenScore], out: &mut [TokenGradient]) {
            for gradient in out {
                gradient.log_prob = 1.0;
            }
        }
    }

    /// Room for the activations of no layer, of one and of all.
    #[test]
    fn what_is_kept_changes_no_bit() {
        let config = DecoderConfig { layer_count: 3, ..DecoderConfig::tiny(20) };
        let weights = initial_weights(&config, Seed::new(1));
        let decoder = CandleDecoder::new(config, &weights, Device::Cpu, DType::F32).unwrap();
        let tokens = [3_u32, 1, 4, 1, 5, 9, 2, 6];
        let targets: Vec<Target> = (4..8).map(|position| Target { position, allowed: None }).collect();
        let sequences = [Sequence { tokens: &tokens, targets: &targets }];
        let pack = Pack::new(&trees(&sequences, 1, 100), &sequences, DType::F32, &Device::Cpu).unwrap();
        let network = decoder.network(Some(&*pack.keys));
        let layer = network.activation_bytes(pack.tokens.len(), DType::F32);
        let gradients = |room: usize| -> Vec<Vec<f32>> {
            let mut gradients = BTreeMap::new();
            network.train((&pack, &sequences), (1.0, Some(&Sum)), room, &mut gradients).unwrap();
            gradients.values().map(|gradient| gradient.flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        let [none, one, all] = [0, layer, usize::MAX].map(gradients);
        assert!(none.iter().flatten().any(|&value| value != 0.0));
        assert!(none == one && one == all);
    }
}
