//! [`CandleDecoder`]: the implementation of [`Decoder`] over candle tensors. Weights, gradients and moments are `f32`; with
//! another dtype the network computes with rounded copies, remade after every step.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result as TensorResult, Tensor, Var};

use super::network::{CandleCache, Network, Rotary, Span};
use crate::policy::{
    AdamWStep, CacheStorage, Chunk, Decoder, DecoderConfig, Error, KvCache, NamedTensor, Sequence, SequenceLoss,
    TensorKind, TokenGradient, TokenScore, inputs,
};

/// A decoder on a candle device.
#[derive(Debug)]
pub struct CandleDecoder {
    config: DecoderConfig,
    device: Device,
    dtype: DType,
    rotary: Rotary,
    /// What the network computes with, in `dtype`.
    variables: BTreeMap<String, Var>,
    /// In `f32`, as are the next three. Gradients and moments are missing as long as they are zero.
    weights: BTreeMap<String, Tensor>,
    gradients: BTreeMap<String, Tensor>,
    first_moments: BTreeMap<String, Tensor>,
    second_moments: BTreeMap<String, Tensor>,
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor { message: error.to_string() }
    }
}

impl CandleDecoder {
    /// A decoder with these weights that computes on `device` in `dtype`, one of `F32`, `BF16` and `F16` (candle multiplies
    /// matrices of the last two on CUDA only).
    ///
    /// # Errors
    /// [`Error::Shape`] for another dtype, sizes that do not fit together or tensors that do not fit them;
    /// [`Error::Tensor`] if the device has no room.
    pub fn new(config: DecoderConfig, weights: &[NamedTensor], device: Device, dtype: DType) -> Result<Self, Error> {
        config.validate()?;
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
            let expected = "`F32`, `BF16` or `F16`".to_owned();
            return Err(Error::Shape { name: "dtype".to_owned(), expected, found: format!("`{dtype:?}`") });
        }
        inputs::check_tensors(&config, weights)?;
        let weights = on_device(weights, &device)?;
        let rounded =
            |(name, tensor): (&String, &Tensor)| Ok((name.clone(), Var::from_tensor(&tensor.to_dtype(dtype)?)?));
        Ok(Self {
            rotary: Rotary::new(&config, &device)?,
            variables: weights.iter().map(rounded).collect::<TensorResult<_>>()?,
            weights,
            gradients: BTreeMap::new(),
            first_moments: BTreeMap::new(),
            second_moments: BTreeMap::new(),
            config,
            device,
            dtype,
        })
    }

    /// The weights as the network takes them; only if `recorded` do gradients flow to them.
    fn network_weights(&self, recorded: bool) -> BTreeMap<String, Tensor> {
        let tensor = |var: &Var| if recorded { var.as_tensor().clone() } else { var.as_detached_tensor() };
        self.variables.iter().map(|(name, var)| (name.clone(), tensor(var))).collect()
    }

    fn network<'a>(&'a self, weights: &'a BTreeMap<String, Tensor>) -> Network<'a> {
        Network { config: &self.config, weights, rotary: &self.rotary }
    }

    /// Copies the weights to the variables.
    fn refresh(&self) -> TensorResult<()> {
        self.variables
            .iter()
            .filter_map(|(name, var)| Some((var, self.weights.get(name)?)))
            // `set` refuses a tensor that shares the variable's storage, hence the copy.
            .try_for_each(|(var, weight)| var.set(&weight.to_dtype(self.dtype)?.copy()?))
    }

    /// The spans behind chunks, with copies of their caches (tensors are shared and never changed in place).
    fn spans<'a>(&self, chunks: &[Chunk<'a>]) -> Result<Vec<Span<'a>>, Error> {
        let span = |chunk: &Chunk<'a>| match &chunk.cache.0 {
            CacheStorage::Candle(cache) if cache.fits(&self.config, &self.device, self.dtype) => {
                Ok(Span { tokens: chunk.tokens, cache: cache.clone() })
            }
            _ => Err(inputs::foreign_cache()),
        };
        chunks.iter().map(span).collect()
    }

    /// Adds the gradients of one sequence to the accumulated ones.
    fn add_gradients(&mut self, loss: &Tensor) -> TensorResult<()> {
        let found = loss.backward()?;
        for (name, var) in &self.variables {
            let Some(gradient) = found.get(var.as_tensor()) else { continue };
            let gradient = gradient.to_dtype(DType::F32)?;
            let sum = match self.gradients.get(name) {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            };
            self.gradients.insert(name.clone(), sum.detach());
        }
        Ok(())
    }
}

fn on_device(tensors: &[NamedTensor], device: &Device) -> TensorResult<BTreeMap<String, Tensor>> {
    let copy = |tensor: &NamedTensor| {
        Ok((tensor.name.clone(), Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), device)?))
    };
    tensors.iter().map(copy).collect()
}

fn to_scores((log_probs, entropies): &(Tensor, Tensor)) -> TensorResult<Vec<TokenScore>> {
    let pairs = log_probs.to_vec1()?.into_iter().zip(entropies.to_vec1()?);
    Ok(pairs.map(|(log_prob, entropy)| TokenScore { log_prob, entropy }).collect())
}

/// `sum(scores * gradients)`, whose gradients with respect to the scores are the given ones.
fn surrogate((log_probs, entropies): &(Tensor, Tensor), gradients: &[TokenGradient]) -> TensorResult<Tensor> {
    let constant = |value: fn(&TokenGradient) -> f32| {
        Tensor::new(gradients.iter().map(value).collect::<Vec<_>>(), log_probs.device())
    };
    let from_log_probs = (log_probs * constant(|gradient| gradient.log_prob)?)?.sum_all()?;
    from_log_probs + (entropies * constant(|gradient| gradient.entropy)?)?.sum_all()?
}

impl Decoder for CandleDecoder {
    fn config(&self) -> &DecoderConfig {
        &self.config
    }

    fn device(&self) -> String {
        match self.device.location() {
            candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    fn new_cache(&self) -> KvCache {
        KvCache(CacheStorage::Candle(CandleCache::default()))
    }

    fn extend(&self, chunks: &mut [Chunk<'_>]) -> Result<Vec<f32>, Error> {
        inputs::check_chunks(&self.config, chunks)?;
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let mut spans = self.spans(chunks)?;
        let weights = self.network_weights(false);
        let network = self.network(&weights);
        let hidden = network.hidden(&mut spans)?;
        let ends = spans.iter().scan(0, |end, span| {
            *end += span.tokens.len() as u32;
            Some(*end - 1)
        });
        let last = hidden.index_select(&Tensor::new(ends.collect::<Vec<_>>(), &self.device)?, 0)?;
        let logits = network.logits(&last)?.flatten_all()?.to_vec1()?;
        for (chunk, span) in chunks.iter_mut().zip(spans) {
            chunk.cache.0 = CacheStorage::Candle(span.cache);
        }
        Ok(logits)
    }

    fn score(&self, sequences: &[Sequence<'_>], temperature: f32) -> Result<Vec<Vec<TokenScore>>, Error> {
        inputs::check_sequences(&self.config, sequences, temperature)?;
        let weights = self.network_weights(false);
        let network = self.network(&weights);
        let score = |sequence: &Sequence<'_>| {
            if sequence.targets.is_empty() {
                return Ok(Vec::new());
            }
            Ok(to_scores(&network.scores(sequence, temperature)?)?)
        };
        sequences.iter().map(score).collect()
    }

    fn accumulate(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        loss: &dyn SequenceLoss,
    ) -> Result<Vec<Vec<TokenScore>>, Error> {
        inputs::check_sequences(&self.config, sequences, temperature)?;
        let weights = self.network_weights(true);
        let mut all = Vec::with_capacity(sequences.len());
        for (index, sequence) in sequences.iter().enumerate() {
            if sequence.targets.is_empty() {
                all.push(Vec::new());
                continue;
            }
            let recorded = self.network(&weights).scores(sequence, temperature)?;
            let scores = to_scores(&recorded)?;
            let mut gradients = vec![TokenGradient::default(); scores.len()];
            loss.gradient(index, &scores, &mut gradients);
            if gradients.iter().any(|gradient| *gradient != TokenGradient::default()) {
                self.add_gradients(&surrogate(&recorded, &gradients)?)?;
            }
            all.push(scores);
        }
        Ok(all)
    }

    fn gradient_norm(&self) -> Result<f64, Error> {
        let square = |gradient: &Tensor| Ok(f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?));
        let squares = self.gradients.values().map(square).collect::<TensorResult<Vec<f64>>>()?;
        Ok(squares.iter().sum::<f64>().sqrt())
    }

    fn clear_gradients(&mut self) -> Result<(), Error> {
        self.gradients.clear();
        Ok(())
    }

    fn step(&mut self, step: &AdamWStep) -> Result<(), Error> {
        let power = i32::try_from(step.step).unwrap_or(i32::MAX);
        let first_correction = 1.0 - step.beta1.powi(power);
        let second_correction = 1.0 - step.beta2.powi(power);
        for (name, weight) in &mut self.weights {
            let or_zeros = |tensor: Option<Tensor>| tensor.map_or_else(|| weight.zeros_like(), Ok);
            let gradient = (or_zeros(self.gradients.remove(name))? * step.gradient_scale)?;
            let first = (or_zeros(self.first_moments.remove(name))? * step.beta1)?;
            let first = (first + (&gradient * (1.0 - step.beta1))?)?;
            let second = (or_zeros(self.second_moments.remove(name))? * step.beta2)?;
            let second = (second + (gradient.sqr()? * (1.0 - step.beta2))?)?;
            let root = ((&second / second_correction)?.sqrt()? + step.epsilon)?;
            let change = ((&first / root)? * (step.learning_rate / first_correction))?;
            // Vectors (norms, biases) do not decay.
            let decay = if weight.rank() == 2 { step.weight_decay } else { 0.0 };
            *weight = ((&*weight * (1.0 - step.learning_rate * decay))? - change)?;
            self.first_moments.insert(name.clone(), first);
            self.second_moments.insert(name.clone(), second);
        }
        self.gradients.clear();
        Ok(self.refresh()?)
    }

    fn tensors(&self, kind: TensorKind) -> Result<Vec<NamedTensor>, Error> {
        let from = match kind {
            TensorKind::Weight => &self.weights,
            TensorKind::Gradient => &self.gradients,
            TensorKind::FirstMoment => &self.first_moments,
            TensorKind::SecondMoment => &self.second_moments,
        };
        let mut parameters = self.config.parameters();
        parameters.sort();
        let named = |(name, shape): (String, Vec<usize>)| {
            let data = match from.get(&name) {
                Some(tensor) => tensor.flatten_all()?.to_vec1()?,
                None => vec![0.0; shape.iter().product()],
            };
            Ok(NamedTensor { name, shape, data })
        };
        parameters.into_iter().map(named).collect()
    }

    fn set_tensors(&mut self, kind: TensorKind, tensors: &[NamedTensor]) -> Result<(), Error> {
        inputs::check_tensors(&self.config, tensors)?;
        let copies = on_device(tensors, &self.device)?;
        match kind {
            TensorKind::Weight => {
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
