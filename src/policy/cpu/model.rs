//! The weights of the decoder in one flat vector, where each parameter lies in it, and the packed copies that the forward
//! pass multiplies with.

use std::ops::Range;

use super::attention::Heads;
use super::kernels::Rotary;
use super::matmul::Panels;
use crate::policy::{DecoderConfig, Error, NamedTensor, inputs};

/// One parameter's place in the flat vectors of weights, gradients and moments.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// Places of a layer's parameters. Parameters that are used in one product lie beside each other.
#[derive(Clone, Debug)]
pub(super) struct LayerPlaces {
    pub(super) attention_norm: Range<usize>,
    /// Queries, keys and values.
    pub(super) qkv: Range<usize>,
    /// Their biases; empty in families without.
    pub(super) qkv_bias: Range<usize>,
    /// The norms of the heads of queries and of keys; empty in families without.
    pub(super) query_norm: Range<usize>,
    pub(super) key_norm: Range<usize>,
    pub(super) attention_out: Range<usize>,
    pub(super) mlp_norm: Range<usize>,
    pub(super) gate_up: Range<usize>,
    pub(super) down: Range<usize>,
}

/// Places of all parameters, in the order of [`DecoderConfig::parameters`].
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    pub(super) embedding: Range<usize>,
    pub(super) layers: Vec<LayerPlaces>,
    pub(super) final_norm: Range<usize>,
    /// The last projection; the embedding if they are tied.
    pub(super) head: Range<usize>,
    pub(super) total: usize,
}

impl Layout {
    fn new(config: &DecoderConfig) -> Self {
        let mut total = 0;
        let place = |(name, shape): (String, Vec<usize>)| {
            let start = total;
            total += shape.iter().product::<usize>();
            Place { name, shape, range: start..total }
        };
        let places: Vec<Place> = config.parameters().into_iter().map(place).collect();
        // The order is embedding, the parameters of each layer, final norm, and the head if it is not tied.
        let embedding = places[0].range.clone();
        let (bias, norm) = (config.has_qkv_bias(), config.has_qk_norm());
        let a_layer = 9 + if bias { 3 } else { 0 } + if norm { 2 } else { 0 };
        let layer = |places: &[Place]| {
            let span = |first: usize, last: usize| places[first].range.start..places[last].range.end;
            let norms = if bias { 7 } else { 4 };
            let rest = a_layer - 5;
            LayerPlaces {
                attention_norm: span(0, 0),
                qkv: span(1, 3),
                qkv_bias: if bias { span(4, 6) } else { 0..0 },
                query_norm: if norm { span(norms, norms) } else { 0..0 },
                key_norm: if norm { span(norms + 1, norms + 1) } else { 0..0 },
                attention_out: span(rest, rest),
                mlp_norm: span(rest + 1, rest + 1),
                gate_up: span(rest + 2, rest + 3),
                down: span(rest + 4, rest + 4),
            }
        };
        let layers = places[1..=a_layer * config.layer_count].chunks_exact(a_layer).map(layer).collect();
        let final_norm = places[a_layer * config.layer_count + 1].range.clone();
        let head = places.get(a_layer * config.layer_count + 2).map_or(&embedding, |place| &place.range).clone();
        Self { places, embedding, layers, final_norm, head, total }
    }

    /// Copies of the parts of `flat`, sorted by name.
    pub(super) fn split(&self, flat: &[f32]) -> Vec<NamedTensor> {
        let part = |place: &Place| NamedTensor {
            name: place.name.clone(),
            shape: place.shape.clone(),
            data: flat[place.range.clone()].to_vec(),
        };
        let mut tensors: Vec<_> = self.places.iter().map(part).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }

    /// The flat vector made of `tensors`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a name is missing, unknown, given twice or has another shape.
    pub(super) fn join(&self, config: &DecoderConfig, tensors: &[NamedTensor]) -> Result<Vec<f32>, Error> {
        inputs::check_tensors(config, tensors)?;
        let mut flat = vec![0.0; self.total];
        for place in &self.places {
            if let Some(tensor) = tensors.iter().find(|tensor| tensor.name == place.name) {
                flat[place.range.clone()].copy_from_slice(&tensor.data);
            }
        }
        Ok(flat)
    }
}

/// Packed weights of a layer.
#[derive(Debug, Default)]
pub(super) struct LayerPanels {
    pub(super) qkv: Panels,
    pub(super) attention_out: Panels,
    pub(super) gate_up: Panels,
    pub(super) down: Panels,
}

/// The weights and all that the forward pass reads with them.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: DecoderConfig,
    pub(super) layout: Layout,
    pub(super) weights: Vec<f32>,
    pub(super) panels: Vec<LayerPanels>,
    pub(super) head: Panels,
    pub(super) rotary: Rotary,
    pub(super) heads: Heads,
    pub(super) eps: f32,
}

impl Model {
    /// # Errors
    /// [`Error::Shape`] for sizes that do not fit together or tensors that do not fit them.
    pub(super) fn new(config: DecoderConfig, tensors: &[NamedTensor]) -> Result<Self, Error> {
        config.validate()?;
        let layout = Layout::new(&config);
        let weights = layout.join(&config, tensors)?;
        let mut model = Self {
            panels: (0..config.layer_count).map(|_| LayerPanels::default()).collect(),
            head: Panels::default(),
            rotary: Rotary::new(&config.rotary_frequencies(), config.max_positions),
            heads: Heads::of(&config),
            eps: config.rms_norm_eps as f32,
            config,
            layout,
            weights,
        };
        model.repack();
        Ok(model)
    }

    /// The weights at a place.
    pub(super) fn at(&self, place: &Range<usize>) -> &[f32] {
        &self.weights[place.clone()]
    }

    /// Makes the packed copies again; to be called whenever the weights have changed.
    pub(super) fn repack(&mut self) {
        let config = &self.config;
        let hidden = config.hidden_size;
        for (panels, places) in self.panels.iter_mut().zip(&self.layout.layers) {
            panels.qkv.pack(&self.weights[places.qkv.clone()], hidden);
            panels.attention_out.pack(&self.weights[places.attention_out.clone()], self.heads.query_width());
            panels.gate_up.pack(&self.weights[places.gate_up.clone()], hidden);
            panels.down.pack(&self.weights[places.down.clone()], config.intermediate_size);
        }
        self.head.pack(&self.weights[self.layout.head.clone()], hidden);
    }
}
