//! The weights of the decoder in one flat vector, where each parameter lies in it, and the packed copies that the forward
//! pass multiplies with.

use std::collections::BTreeMap;
use std::ops::Range;

use super::adapter::Adapter;
use super::attention::Heads;
use super::kernels::Rotary;
use super::matmul::Panels;
use crate::policy::{AdapterConfig, DecoderConfig, Error, NamedTensor, inputs};

/// One parameter's place in the flat vectors of weights, gradients and moments.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// Parameters one after the other in a flat vector.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) list: Vec<Place>,
    pub(super) total: usize,
}

impl Places {
    /// Lays them out in the order given.
    pub(super) fn new(parameters: Vec<(String, Vec<usize>)>) -> Self {
        let mut total = 0;
        let place = |(name, shape): (String, Vec<usize>)| {
            let start = total;
            total += shape.iter().product::<usize>();
            Place { name, shape, range: start..total }
        };
        let list = parameters.into_iter().map(place).collect();
        Self { list, total }
    }

    /// Copies of the parts of `flat`, sorted by name.
    pub(super) fn split(&self, flat: &[f32]) -> Vec<NamedTensor> {
        let part = |place: &Place| NamedTensor {
            name: place.name.clone(),
            shape: place.shape.clone(),
            data: flat[place.range.clone()].to_vec(),
        };
        let mut tensors: Vec<_> = self.list.iter().map(part).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }

    /// The flat vector made of `tensors`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a name is missing, unknown, given twice or has another shape.
    pub(super) fn join(&self, tensors: &[NamedTensor]) -> Result<Vec<f32>, Error> {
        let expected: Vec<_> = self.list.iter().map(|place| (place.name.clone(), place.shape.clone())).collect();
        inputs::check_tensors(&expected, tensors)?;
        let by_name: BTreeMap<&str, &NamedTensor> =
            tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut flat = vec![0.0; self.total];
        for place in &self.list {
            if let Some(tensor) = by_name.get(place.name.as_str()) {
                flat[place.range.clone()].copy_from_slice(&tensor.data);
            }
        }
        Ok(flat)
    }

    /// The ranges of matrices, ascending: the only ones that weight decay applies to.
    pub(super) fn matrices(&self) -> Vec<Range<usize>> {
        self.list.iter().filter(|place| place.shape.len() == 2).map(|place| place.range.clone()).collect()
    }
}

/// The matrices of a layer that are multiplied together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    Qkv,
    AttentionOut,
    GateUp,
    Down,
}

impl Joint {
    const ALL: [Self; 4] = [Self::Qkv, Self::AttentionOut, Self::GateUp, Self::Down];
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

impl LayerPlaces {
    /// The matrices of a product.
    pub(super) fn joint(&self, joint: Joint) -> Range<usize> {
        match joint {
            Joint::Qkv => &self.qkv,
            Joint::AttentionOut => &self.attention_out,
            Joint::GateUp => &self.gate_up,
            Joint::Down => &self.down,
        }
        .clone()
    }
}

/// Places of all parameters, in the order of [`DecoderConfig::parameters`].
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) places: Places,
    pub(super) embedding: Range<usize>,
    pub(super) layers: Vec<LayerPlaces>,
    pub(super) final_norm: Range<usize>,
    /// The last projection; the embedding if they are tied.
    pub(super) head: Range<usize>,
}

impl Layout {
    fn new(config: &DecoderConfig) -> Self {
        let all = Places::new(config.parameters());
        let places = &all.list;
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
        Self { embedding, layers, final_norm, head, places: all }
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

impl LayerPanels {
    /// The packed weights of a product.
    pub(super) fn joint(&self, joint: Joint) -> &Panels {
        match joint {
            Joint::Qkv => &self.qkv,
            Joint::AttentionOut => &self.attention_out,
            Joint::GateUp => &self.gate_up,
            Joint::Down => &self.down,
        }
    }

    fn joint_mut(&mut self, joint: Joint) -> &mut Panels {
        match joint {
            Joint::Qkv => &mut self.qkv,
            Joint::AttentionOut => &mut self.attention_out,
            Joint::GateUp => &mut self.gate_up,
            Joint::Down => &mut self.down,
        }
    }
}

/// The weights and all that the forward pass reads with them.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: DecoderConfig,
    pub(super) layout: Layout,
    /// Without the adapter.
    pub(super) weights: Vec<f32>,
    /// Trained in place of the weights where there is one.
    pub(super) adapter: Option<Adapter>,
    /// With the adapter.
    pub(super) panels: Vec<LayerPanels>,
    pub(super) head: Panels,
    pub(super) rotary: Rotary,
    pub(super) heads: Heads,
    pub(super) eps: f32,
}

impl Model {
    /// # Errors
    /// [`Error::Shape`] for sizes that do not fit together or tensors that do not fit them.
    pub(super) fn new(
        config: DecoderConfig,
        tensors: &[NamedTensor],
        adapter: Option<(AdapterConfig, &[NamedTensor])>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let layout = Layout::new(&config);
        let weights = layout.places.join(tensors)?;
        let adapter = adapter.map(|(settings, tensors)| Adapter::new(settings, &config, tensors)).transpose()?;
        let mut model = Self {
            panels: (0..config.layer_count).map(|_| LayerPanels::default()).collect(),
            head: Panels::default(),
            rotary: Rotary::new(&config.rotary_frequencies(), config.max_positions),
            heads: Heads::of(&config),
            eps: config.rms_norm_eps as f32,
            config,
            layout,
            weights,
            adapter,
        };
        model.repack();
        Ok(model)
    }

    /// The weights at a place.
    pub(super) fn at(&self, place: &Range<usize>) -> &[f32] {
        &self.weights[place.clone()]
    }

    /// The number of trained numbers.
    pub(super) fn trained_count(&self) -> usize {
        self.adapter.as_ref().map_or(self.layout.places.total, |adapter| adapter.places.total)
    }

    /// Where the trained numbers lie in the flat vectors of gradients and moments.
    pub(super) fn trained_places(&self) -> &Places {
        self.adapter.as_ref().map_or(&self.layout.places, |adapter| &adapter.places)
    }

    /// Makes the packed copies again; to be called whenever the weights have changed.
    pub(super) fn repack(&mut self) {
        self.repack_layers(|_, _| true);
        self.head.pack(&self.weights[self.layout.head.clone()], self.config.hidden_size);
    }

    /// Makes those again that an adapter changes; to be called whenever it has changed.
    pub(super) fn repack_adapted(&mut self) {
        let touched: Vec<[bool; 4]> = (0..self.config.layer_count)
            .map(|layer| {
                Joint::ALL.map(|joint| self.adapter.as_ref().is_some_and(|adapter| adapter.touches(layer, joint)))
            })
            .collect();
        self.repack_layers(|layer, joint| touched[layer][joint as usize]);
    }

    fn repack_layers(&mut self, which: impl Fn(usize, Joint) -> bool) {
        let mut merged = Vec::new();
        for (layer, (panels, places)) in self.panels.iter_mut().zip(&self.layout.layers).enumerate() {
            for joint in Joint::ALL.into_iter().filter(|&joint| which(layer, joint)) {
                let inputs = match joint {
                    Joint::Qkv | Joint::GateUp => self.config.hidden_size,
                    Joint::AttentionOut => self.heads.query_width(),
                    Joint::Down => self.config.intermediate_size,
                };
                let weights = &self.weights[places.joint(joint)];
                match &mut self.adapter {
                    Some(adapter) if adapter.touches(layer, joint) => {
                        merged.clear();
                        merged.extend_from_slice(weights);
                        adapter.merge(layer, joint, &mut merged, inputs);
                        panels.joint_mut(joint).pack(&merged, inputs);
                    }
                    _ => panels.joint_mut(joint).pack(weights, inputs),
                }
            }
        }
    }
}
