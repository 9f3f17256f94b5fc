//! Low-rank adapters: which projections of a decoder carry one, the names and shapes of its tensors, their first values, and
//! how they are added to the weights. Plain arithmetic on named tensors; both backends train them in their own way.
//!
//! `LoRA` (arXiv:2106.09685): a projection `W` becomes `W' = W + s B A` with `A` `[rank, in]`, `B` `[out, rank]` and
//! `s = alpha / rank`; only `A` and `B` are trained. `DoRA` (arXiv:2402.09353, equation 5) trains a length `m` for each
//! row besides: `W'' = m W' / |W'|`, row by row, where no gradient flows through `|W'|` (section 4.3).

mod dropout; // which inputs are left out in a training pass
mod peft; // the settings as PEFT's `adapter_config.json` has them

pub(super) use dropout::Dropout;
pub(super) use peft::PREFIX;

use super::{DecoderConfig, Error, NamedTensor, inputs};
use crate::config::{Lora, LoraTarget};
use crate::seed::Seed;

/// A projection of a layer that may carry an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Projection {
    /// Queries of the attention.
    Query,
    /// Keys of the attention.
    Key,
    /// Values of the attention.
    Value,
    /// From the heads back to the residual stream.
    Output,
    /// The gate of the feed-forward layer.
    Gate,
    /// What the gate lets through.
    Up,
    /// From the feed-forward layer back to the residual stream.
    Down,
}

impl Projection {
    /// All, in the order of the forward pass.
    pub const ALL: [Self; 7] = [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The name that settings and PEFT have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The projection of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.name() == name)
    }

    /// Its Hugging Face name in a layer, without `.weight`.
    pub fn path(self, layer: usize) -> String {
        let block = match self {
            Self::Query | Self::Key | Self::Value | Self::Output => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("model.layers.{layer}.{block}.{}", self.name())
    }

    /// Rows and columns of its matrix, `[out, in]`.
    pub fn shape(self, config: &DecoderConfig) -> [usize; 2] {
        let (queries, keys) = (config.head_count * config.head_dim, config.kv_head_count * config.head_dim);
        match self {
            Self::Query => [queries, config.hidden_size],
            Self::Key | Self::Value => [keys, config.hidden_size],
            Self::Output => [config.hidden_size, queries],
            Self::Gate | Self::Up => [config.intermediate_size, config.hidden_size],
            Self::Down => [config.hidden_size, config.intermediate_size],
        }
    }
}

/// The settings of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The product `B A` counts `alpha / rank` times (`alpha / sqrt(rank)` with `root_scaling`).
    pub alpha: f64,
    /// Which projections of every layer carry one, in the order of [`Projection::ALL`], each once.
    pub targets: Vec<Projection>,
    /// Whether the length of each row is trained apart from its direction (`DoRA`).
    pub dora: bool,
    /// Whether the product is divided by the root of the rank only (rank-stabilized `LoRA`, arXiv:2312.03732).
    pub root_scaling: bool,
    /// The probability with which training leaves out an input of `A`, below 1.
    pub dropout: f64,
}

/// The names of the tensors of one adapted projection.
pub(super) struct AdapterNames {
    pub(super) a: String,
    pub(super) b: String,
    pub(super) magnitude: String,
}

impl AdapterNames {
    pub(super) fn of(projection: Projection, layer: usize) -> Self {
        let path = projection.path(layer);
        Self {
            a: format!("{path}.lora_A.weight"),
            b: format!("{path}.lora_B.weight"),
            magnitude: format!("{path}.lora_magnitude_vector"),
        }
    }
}

impl AdapterConfig {
    /// The adapter that the settings of a run ask for; `None` where all weights are trained.
    pub fn of(settings: &Lora) -> Option<Self> {
        let projection = |target: &LoraTarget| match target {
            LoraTarget::QProj => Projection::Query,
            LoraTarget::KProj => Projection::Key,
            LoraTarget::VProj => Projection::Value,
            LoraTarget::OProj => Projection::Output,
            LoraTarget::GateProj => Projection::Gate,
            LoraTarget::UpProj => Projection::Up,
            LoraTarget::DownProj => Projection::Down,
        };
        let mut targets: Vec<Projection> = settings.targets.iter().map(projection).collect();
        targets.sort_unstable();
        targets.dedup();
        let &Lora { rank, alpha, dora, root_scaling, dropout, .. } = settings;
        (rank > 0).then_some(Self { rank, alpha, targets, dora, root_scaling, dropout })
    }

    /// In words, as settings name its parts.
    pub fn describe(&self) -> String {
        let kind = if self.dora { "DoRA" } else { "LoRA" };
        let targets: Vec<&str> = self.targets.iter().map(|target| target.name()).collect();
        let scaling = if self.root_scaling { ", root_scaling" } else { "" };
        format!("{kind}, rank {}, alpha {}{scaling}, on {}", self.rank, self.alpha, targets.join(", "))
    }

    /// What the product `B A` is multiplied by.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.root_scaling { rank.sqrt() } else { rank }) as f32
    }

    /// Every tensor of the adapter with its name (PEFT's, without `base_model.model.` in front) and its shape, layer by
    /// layer.
    pub fn parameters(&self, config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
        let mut list = Vec::new();
        for layer in 0..config.layer_count {
            for &projection in &self.targets {
                let [outputs, inputs] = projection.shape(config);
                let names = AdapterNames::of(projection, layer);
                list.push((names.a, vec![self.rank, inputs]));
                list.push((names.b, vec![outputs, self.rank]));
                if self.dora {
                    list.push((names.magnitude, vec![outputs]));
                }
            }
        }
        list
    }

    /// The number of trained numbers.
    pub fn parameter_count(&self, config: &DecoderConfig) -> usize {
        self.parameters(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Checks that the settings make an adapter of this model.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the first setting that does not fit.
    pub fn validate(&self, config: &DecoderConfig) -> Result<(), Error> {
        let refuse = |name: &str, expected: &str, found: String| Error::Shape {
            name: name.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        // An `A` with more rows than columns has more numbers than the matrix that it is to spare.
        let narrowest = self.targets.iter().flat_map(|projection| projection.shape(config)).min();
        let Some(narrowest) = narrowest else {
            return Err(refuse("targets", "at least one projection", "none".to_owned()));
        };
        if self.rank == 0 || self.rank > narrowest {
            let expected = format!("from 1 to {narrowest}, the smallest side of the projections");
            return Err(refuse("rank", &expected, self.rank.to_string()));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(refuse("alpha", "a number above 0", self.alpha.to_string()));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(refuse("dropout", "a probability from 0 to below 1", self.dropout.to_string()));
        }
        if self.targets.windows(2).any(|pair| pair[0] >= pair[1]) {
            let names: Vec<_> = self.targets.iter().map(|target| target.name()).collect();
            return Err(refuse("targets", "each projection once, in the order of the layer", names.join(", ")));
        }
        Ok(())
    }

    /// The first values: `A` uniform in `±1 / sqrt(in)` as PEFT draws it (Kaiming with `a = sqrt(5)`), `B` zero, lengths
    /// those of the rows of the weights; so the adapted model is the given one. The same seed gives the same values.
    ///
    /// # Errors
    /// [`Error::Shape`] if the settings or the weights do not fit the model.
    pub fn initial(
        &self,
        config: &DecoderConfig,
        weights: &[NamedTensor],
        seed: Seed,
    ) -> Result<Vec<NamedTensor>, Error> {
        self.validate(config)?;
        inputs::check_tensors(&config.parameters(), weights)?;
        let mut tensors = Vec::new();
        for layer in 0..config.layer_count {
            for &projection in &self.targets {
                let [outputs, inputs] = projection.shape(config);
                let names = AdapterNames::of(projection, layer);
                let bound = 1.0 / (inputs as f64).sqrt();
                let mut stream = seed.child("adapter", tensors.len() as u64).stream();
                let uniform = (0..self.rank * inputs).map(|_| ((2.0 * stream.float() - 1.0) * bound) as f32).collect();
                tensors.push(NamedTensor { name: names.a, shape: vec![self.rank, inputs], data: uniform });
                let zeros = vec![0.0; outputs * self.rank];
                tensors.push(NamedTensor { name: names.b, shape: vec![outputs, self.rank], data: zeros });
                if self.dora {
                    let path = format!("{}.weight", projection.path(layer));
                    let matrix = weights.iter().find(|tensor| tensor.name == path);
                    let lengths = matrix.map(|matrix| matrix.data.chunks_exact(inputs).map(length).collect());
                    let data = lengths.unwrap_or_default();
                    tensors.push(NamedTensor { name: names.magnitude, shape: vec![outputs], data });
                }
            }
        }
        Ok(tensors)
    }

    /// Adds the adapter to the weights that it was trained on: what the adapted model computes with.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weights or the tensors do not fit the model; then nothing is changed.
    pub fn merge(
        &self,
        config: &DecoderConfig,
        weights: &mut [NamedTensor],
        tensors: &[NamedTensor],
    ) -> Result<(), Error> {
        self.validate(config)?;
        inputs::check_tensors(&config.parameters(), weights)?;
        inputs::check_tensors(&self.parameters(config), tensors)?;
        let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.data.as_slice());
        for layer in 0..config.layer_count {
            for &projection in &self.targets {
                let names = AdapterNames::of(projection, layer);
                let path = format!("{}.weight", projection.path(layer));
                let matrix = weights.iter_mut().find(|tensor| tensor.name == path);
                // All were found when they were checked.
                let (Some(matrix), Some(a), Some(b)) = (matrix, find(&names.a), find(&names.b)) else { continue };
                let [_, inputs] = projection.shape(config);
                add_product(&mut matrix.data, inputs, (a, b, self.rank), self.scale());
                if self.dora {
                    let magnitude = find(&names.magnitude).unwrap_or_default();
                    for (row, factor) in matrix.data.chunks_exact_mut(inputs).zip(magnitude) {
                        let factor = row_factor(*factor, length(row));
                        for value in row {
                            *value *= factor;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// `W += s B A`.
pub(super) fn add_product(weights: &mut [f32], inputs: usize, (a, b, rank): (&[f32], &[f32], usize), scale: f32) {
    for (row, b) in weights.chunks_exact_mut(inputs).zip(b.chunks_exact(rank)) {
        for (&b, a) in b.iter().zip(a.chunks_exact(inputs)) {
            let factor = scale * b;
            row.iter_mut().zip(a).for_each(|(sum, value)| *sum += factor * value);
        }
    }
}

/// The L2 length of a row, with the sum in `f64`.
pub(super) fn length(row: &[f32]) -> f32 {
    row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt() as f32
}

/// What a row of length `length` is multiplied by to have length `magnitude`; a row of zeros stays one.
pub(super) fn row_factor(magnitude: f32, length: f32) -> f32 {
    if length > 0.0 { magnitude / length } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::initial_weights;

    fn settings(dora: bool) -> AdapterConfig {
        let targets = vec![Projection::Query, Projection::Value, Projection::Down];
        AdapterConfig { rank: 4, alpha: 8.0, targets, dora, root_scaling: false, dropout: 0.0 }
    }

    #[test]
    fn a_fresh_adapter_changes_nothing() {
        let config = DecoderConfig::tiny(264);
        let weights = initial_weights(&config, Seed::new(1));
        for dora in [false, true] {
            let settings = settings(dora);
            let tensors = settings.initial(&config, &weights, Seed::new(2)).expect("it fits");
            let mut merged = weights.clone();
            settings.merge(&config, &mut merged, &tensors).expect("it fits");
            assert_eq!(merged, weights);
            let count: usize = tensors.iter().map(|tensor| tensor.data.len()).sum();
            assert_eq!(count, settings.parameter_count(&config));
            assert_eq!(tensors, settings.initial(&config, &weights, Seed::new(2)).expect("it fits"));
        }
    }

    /// With `|W'|` taken as it is, every row of the merged matrix has the trained length and the direction of `W + s B A`.
    #[test]
    fn merging_follows_the_definitions() {
        let config = DecoderConfig::tiny(264);
        let weights = initial_weights(&config, Seed::new(1));
        let settings = settings(true);
        let mut tensors = settings.initial(&config, &weights, Seed::new(2)).expect("it fits");
        let mut stream = Seed::new(3).stream();
        for tensor in &mut tensors {
            tensor.data.iter_mut().for_each(|value| *value += 0.1 * stream.normal() as f32);
        }
        let mut merged = weights.clone();
        settings.merge(&config, &mut merged, &tensors).expect("it fits");
        let name = "model.layers.1.mlp.down_proj";
        let find = |list: &[NamedTensor], name: &str| {
            list.iter().find(|tensor| tensor.name == name).expect("listed").data.clone()
        };
        let (before, after) = (find(&weights, &format!("{name}.weight")), find(&merged, &format!("{name}.weight")));
        let (a, b) =
            (find(&tensors, &format!("{name}.lora_A.weight")), find(&tensors, &format!("{name}.lora_B.weight")));
        let m = find(&tensors, &format!("{name}.lora_magnitude_vector"));
        for row in 0..192 {
            let plain: Vec<f64> = (0..768)
                .map(|column| {
                    let sum: f64 = (0..4).map(|r| f64::from(b[row * 4 + r]) * f64::from(a[r * 768 + column])).sum();
                    f64::from(before[row * 768 + column]) + 2.0 * sum
                })
                .collect();
            let size = plain.iter().map(|value| value * value).sum::<f64>().sqrt();
            for (found, plain) in after[row * 768..][..768].iter().zip(&plain) {
                assert!((f64::from(*found) - f64::from(m[row]) * plain / size).abs() < 1e-6);
            }
        }
        assert_eq!(
            find(&weights, "model.layers.0.mlp.up_proj.weight"),
            find(&merged, "model.layers.0.mlp.up_proj.weight")
        );
    }

    #[test]
    fn settings_that_make_no_adapter_are_refused() {
        let config = DecoderConfig::tiny(264);
        let refused = |settings: AdapterConfig, word: &str| {
            let message = settings.validate(&config).expect_err("refused").to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(AdapterConfig { rank: 0, ..settings(false) }, "rank");
        // Values have 64 rows.
        refused(AdapterConfig { rank: 65, ..settings(false) }, "from 1 to 64");
        refused(AdapterConfig { alpha: f64::NAN, ..settings(false) }, "alpha");
        refused(AdapterConfig { dropout: 1.0, ..settings(false) }, "below 1");
        refused(AdapterConfig { targets: Vec::new(), ..settings(false) }, "at least one");
        refused(AdapterConfig { targets: vec![Projection::Down, Projection::Query], ..settings(false) }, "order");
    }
}
