//! One layer of a pass whose rows attend to each other, forward and backward. The backward pass is written out: candle's own begins every gradient with zeros and adds to
//! them, and turns the gradients of weights around one by one.

use candle_core::{DType, Result, Tensor, Var};

use super::backward::{Gradients, add, add_product};
use super::network::{Network, Pack, attend_packed, multiply};
use crate::policy::Projection;
use crate::policy::fused;

/// What a layer computes on the way, `[rows, ..]` each.
pub(super) struct Activations {
    /// The stream before the layer, and normalized.
    input: Tensor,
    normalized: Tensor,
    heads: Heads,
    attended: Tensor,
    /// The stream after attention, and normalized.
    stream: Tensor,
    normalized_stream: Tensor,
    gate: Tensor,
    up: Tensor,
    activated: Tensor,
    /// The stream after the layer.
    pub(super) output: Tensor,
}

/// What attention computes on the way, `[rows, heads or kv heads, head_dim]`.
struct Heads {
    /// Queries and keys before they are normalized, where they are.
    plain: Option<(Tensor, Tensor)>,
    /// Turned.
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    /// What the fused attention keeps for its backward pass.
    log_sums: Option<Tensor>,
}

pub(super) fn name(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}.weight")
}

pub(super) const INPUT_NORM: &str = "input_layernorm";
pub(super) const STREAM_NORM: &str = "post_attention_layernorm";
pub(super) const QUERY_NORM: &str = "self_attn.q_norm";
pub(super) const KEY_NORM: &str = "self_attn.k_norm";

impl Network<'_> {
    /// One layer from the residual stream before it, `[rows, hidden]`.
    pub(super) fn layer(&self, layer: usize, x: &Tensor, pack: &Pack) -> Result<Activations> {
        let normalized = self.rms_norm(x, &name(layer, INPUT_NORM))?;
        let (attended, heads) = self.attention(layer, &normalized, pack)?;
        let change = self.linear(&attended, layer, Projection::Output)?;
        let weight = self.weight(&name(layer, STREAM_NORM))?;
        let (stream, normalized_stream) = fused::add_rms_norm(x, &change, weight, self.epsilon())?;
        let gate = self.linear(&normalized_stream, layer, Projection::Gate)?;
        let up = self.linear(&normalized_stream, layer, Projection::Up)?;
        let activated = fused::swiglu(&gate, &up)?;
        let output = (&stream + self.linear(&activated, layer, Projection::Down)?)?;
        let input = x.clone();
        Ok(Activations { input, normalized, heads, attended, stream, normalized_stream, gate, up, activated, output })
    }

    /// Bytes of [`Activations`] of so many rows; with an adapter there is more for a moment, which is not counted.
    pub(super) fn activation_bytes(&self, rows: usize, dtype: DType) -> usize {
        let config = self.config;
        let (queries, keys) = (config.head_count * config.head_dim, config.kv_head_count * config.head_dim);
        let plain = if config.has_qk_norm() { queries + keys } else { 0 };
        // The input is the output of the layer before.
        let stream = 4 * config.hidden_size + 2 * queries + 2 * keys + plain + 3 * config.intermediate_size;
        rows * (stream * dtype.size_in_bytes() + config.head_count * size_of::<f32>())
    }

    /// # Shapes
    /// - `x`: `[rows, hidden]`; returns `[rows, heads * head_dim]`
    fn attention(&self, layer: usize, x: &Tensor, pack: &Pack) -> Result<(Tensor, Heads)> {
        let config = self.config;
        let project = |projection: Projection, heads: usize| {
            self.linear(x, layer, projection)?.reshape((x.dim(0)?, heads, config.head_dim)) // [rows, heads, head_dim]
        };
        let mut queries = project(Projection::Query, config.head_count)?;
        let mut keys = project(Projection::Key, config.kv_head_count)?;
        let mut values = project(Projection::Value, config.kv_head_count)?;
        let plain = config.has_qk_norm().then(|| (queries.clone(), keys.clone()));
        if config.has_qk_norm() {
            queries = self.rms_norm(&queries, &name(layer, QUERY_NORM))?;
            keys = self.rms_norm(&keys, &name(layer, KEY_NORM))?;
        }
        let biases = self.biases(layer)?;
        let [query_bias, key_bias] = [0, 1].map(|index| biases.map(|biases| biases[index]));
        if let Some([_, _, bias]) = biases {
            values = fused::add_bias(&values.flatten_from(1)?, bias)?.reshape(values.dims())?;
        }
        let queries = self.rotary.turn(&queries, query_bias, &pack.positions)?;
        let keys = self.rotary.turn(&keys, key_bias, &pack.positions)?;
        #[cfg(feature = "flash-attn")]
        if let Some(attended) = self.flash_attention(pack, [&queries, &keys, &values])? {
            return Ok((attended, Heads { plain, queries, keys, values, log_sums: None }));
        }
        let (attended, log_sums) = if fused::supports_attention(config.head_dim, x.device()) {
            let (attended, log_sums) = fused::attention_forward(&queries, &keys, &values, &pack.layout)?;
            (attended.flatten_from(1)?, Some(log_sums))
        } else {
            (attend_packed(pack, &queries, &keys, &values)?, None)
        };
        Ok((attended, Heads { plain, queries, keys, values, log_sums }))
    }

    /// Biases of queries, keys and values, where there are any.
    pub(super) fn biases(&self, layer: usize) -> Result<Option<[&Tensor; 3]>> {
        if !self.config.has_qkv_bias() {
            return Ok(None);
        }
        let weight = |projection| self.weight(&bias(layer, projection));
        Ok(Some([weight(Projection::Query)?, weight(Projection::Key)?, weight(Projection::Value)?]))
    }

    /// From the gradient of the stream after a layer, `[rows, hidden]`, to that of the stream before it; adds those of the layer's
    /// weights.
    pub(super) fn layer_backward(
        &self,
        layer: usize,
        activations: Activations,
        pack: &Pack,
        back: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let Activations { input, normalized, heads, attended, stream, normalized_stream, gate, up, activated, .. } =
            activations;
        let of_activated = self.linear_backward((layer, Projection::Down), &activated, back, gradients)?;
        let (of_gate, of_up) = fused::swiglu_backward(&gate, &up, &of_activated)?;
        drop((activated, of_activated, gate, up));
        let of_gate = self.linear_backward((layer, Projection::Gate), &normalized_stream, &of_gate, gradients)?;
        let of_up = self.linear_backward((layer, Projection::Up), &normalized_stream, &of_up, gradients)?;
        let of_norm = self.norm_backward(&name(layer, STREAM_NORM), &stream, &(of_gate + of_up)?, gradients)?;
        let of_stream = (back + of_norm)?;

        let of_attended = self.linear_backward((layer, Projection::Output), &attended, &of_stream, gradients)?;
        let of_normalized =
            self.attention_backward(layer, (&normalized, heads, &attended), pack, &of_attended, gradients)?;
        let of_norm = self.norm_backward(&name(layer, INPUT_NORM), &input, &of_normalized, gradients)?;
        of_stream + of_norm
    }

    /// From the gradient of what attention gives to that of what goes in.
    fn attention_backward(
        &self,
        layer: usize,
        (normalized, heads, attended): (&Tensor, Heads, &Tensor),
        pack: &Pack,
        of_attended: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let Heads { plain, queries, keys, values, log_sums } = heads;
        let [of_queries, of_keys, of_values] = match log_sums {
            Some(log_sums) => {
                let result = (attended.reshape(queries.dims())?, log_sums);
                let gradient = of_attended.reshape(queries.dims())?;
                fused::attention_backward((&queries, &keys, &values), &pack.layout, (&result.0, &result.1), &gradient)?
            }
            None => composed_backward([&queries, &keys, &values], pack, of_attended)?,
        };
        let (mut of_queries, mut of_keys) =
            (self.rotary.turn_back(&of_queries, &pack.positions)?, self.rotary.turn_back(&of_keys, &pack.positions)?);
        if let Some((plain_queries, plain_keys)) = plain {
            of_queries = self.norm_backward(&name(layer, QUERY_NORM), &plain_queries, &of_queries, gradients)?;
            of_keys = self.norm_backward(&name(layer, KEY_NORM), &plain_keys, &of_keys, gradients)?;
        }
        let mut sum: Option<Tensor> = None;
        let parts = [(Projection::Query, of_queries), (Projection::Key, of_keys), (Projection::Value, of_values)];
        for (projection, gradient) in parts {
            let gradient = gradient.flatten_from(1)?; // [rows, heads * head_dim]
            if self.config.has_qkv_bias() && self.trains_all() {
                add(gradients, &bias(layer, projection), &sum_of_rows(&gradient)?)?;
            }
            let part = self.linear_backward((layer, projection), normalized, &gradient, gradients)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        sum.map_or_else(|| normalized.zeros_like(), Ok)
    }

    /// From the gradient of a norm to that of what it was taken of; adds that of its weight if it is trained.
    pub(super) fn norm_backward(
        &self,
        name: &str,
        x: &Tensor,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (of_x, of_weight) = fused::rms_norm_backward(x, self.weight(name)?, gradient, self.epsilon())?;
        if self.trains_all() {
            add(gradients, name, &of_weight)?;
        }
        Ok(of_x)
    }

    /// From the gradient of [`Network::linear`] to that of `x`; adds those of what is trained. With `y = f (x W^T + s u B^T)` and
    /// `u = k x A^T`, where `k` is what dropout keeps: `dB = s (f dy)^T u`, `dA = (s f dy B)^T (k x)`, and
    /// `dx = f dy W + k (s f dy B) A`; `f` is a magnitude over a length that counts as constant (arXiv:2402.09353 §4.3).
    fn linear_backward(
        &self,
        (layer, projection): (usize, Projection),
        x: &Tensor,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let path = projection.path(layer);
        let weight_name = format!("{path}.weight");
        let weight = self.weight(&weight_name)?;
        let Some(adapted) = self.adapter else {
            add_product(gradients, &weight_name, &gradient.t()?, x)?;
            return multiply(gradient, weight);
        };
        let [a_name, b_name, magnitude_name] =
            ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"].map(|part| format!("{path}.{part}"));
        let Some(a) = self.weights.get(&a_name) else { return multiply(gradient, weight) };
        let b = self.weight(&b_name)?;
        let factors = self.kept_factors(x, layer, projection)?;
        let kept = factors.as_ref().map_or_else(|| Ok(x.clone()), |factors| x * factors)?;
        let inner = multiply(&kept, &a.t()?)?; // [rows, rank]
        let mut gradient = gradient.clone();
        if let (Some(magnitude), Some(lengths)) = (self.weights.get(&magnitude_name), adapted.lengths.get(&weight_name))
        {
            let product = (multiply(x, &weight.t()?)? + (multiply(&inner, &b.t()?)? * adapted.scale)?)?;
            let sum = sum_of_rows(&(&gradient * product)?)?; // [out]
            add(gradients, &magnitude_name, &(sum / lengths.to_dtype(DType::F32)?)?)?;
            gradient = gradient.broadcast_mul(&(magnitude / lengths)?)?;
        }
        let scaled = (&gradient * adapted.scale)?;
        add_product(gradients, &b_name, &scaled.t()?, &inner)?;
        let of_inner = multiply(&scaled, b)?;
        add_product(gradients, &a_name, &of_inner.t()?, &kept)?;
        let of_kept = multiply(&of_inner, a)?;
        let of_kept = factors.map_or_else(|| Ok(of_kept.clone()), |factors| &of_kept * factors)?;
        multiply(&gradient, weight)? + of_kept
    }
}

/// The sum over the first dimension, in `f32`: a product with ones.
fn sum_of_rows(x: &Tensor) -> Result<Tensor> {
    let ones = Tensor::ones((1, x.dim(0)?), x.dtype(), x.device())?;
    fused::product(&ones, x, DType::F32)?.squeeze(0)
}

fn bias(layer: usize, projection: Projection) -> String {
    format!("{}.bias", projection.path(layer))
}

/// The gradients of attention that is composed of basic operations, by candle.
fn composed_backward(heads: [&Tensor; 3], pack: &Pack, gradient: &Tensor) -> Result<[Tensor; 3]> {
    let [queries, keys, values] = heads;
    let variables = [Var::from_tensor(queries)?, Var::from_tensor(keys)?, Var::from_tensor(values)?];
    let [queries, keys, values] = variables.each_ref().map(Var::as_tensor);
    let found = fused::backward_from(&attend_packed(pack, queries, keys, values)?, gradient)?;
    let part = |x: &Tensor| found.get(x).map_or_else(|| x.zeros_like(), |gradient| Ok(gradient.detach()));
    Ok([part(queries)?, part(keys)?, part(values)?])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;

    use super::*;
    use crate::policy::tree::trees;
    use crate::policy::{Sequence, Target};

    /// Devices without a kernel for the width of a model's heads take the composed way, which CPUs never do.
    #[test]
    fn composed_attention_is_the_fused_one() {
        let common: Vec<u32> = (0..40).collect();
        let tokens = [[&common[..], &[1; 7]].concat(), [&common[..], &[2; 3]].concat(), vec![3; 9]];
        let targets: Vec<Vec<Target>> = tokens
            .iter()
            .map(|tokens| vec![Target { position: tokens.len() as u32 - 1, allowed: None::<Arc<[u32]>> }])
            .collect();
        let sequences: Vec<Sequence<'_>> =
            tokens.iter().zip(&targets).map(|(tokens, targets)| Sequence { tokens, targets }).collect();
        let pack = Pack::new(&trees(&sequences, 1, 1000), &sequences, DType::F32, &Device::Cpu).unwrap();
        assert!(pack.segments.iter().any(|segment| !segment.before.is_empty()), "sequences share rows");
        let rows = pack.tokens.len();
        let heads = |heads: usize, step: f32| {
            let values: Vec<f32> = (0..rows * heads * 6).map(|index| 2.0 * (index as f32 * step).sin()).collect();
            Tensor::from_vec(values, (rows, heads, 6), &Device::Cpu).unwrap()
        };
        let (queries, keys, values, gradient) = (heads(4, 0.7), heads(2, 1.1), heads(2, 1.3), heads(4, 1.7));
        let fused_pair = fused::attention_forward(&queries, &keys, &values, &pack.layout).unwrap();
        let composed = attend_packed(&pack, &queries, &keys, &values).unwrap();
        let assert_close = |a: &Tensor, b: &Tensor| {
            let difference = (a.flatten_all().unwrap() - b.flatten_all().unwrap()).unwrap().abs().unwrap();
            let largest = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
            assert!(largest < 1e-5, "{largest} apart");
        };
        assert_close(&fused_pair.0, &composed);
        let heads = (&queries, &keys, &values);
        let found = fused::attention_backward(heads, &pack.layout, (&fused_pair.0, &fused_pair.1), &gradient).unwrap();
        let gradient = gradient.flatten_from(1).unwrap();
        let composed = composed_backward([&queries, &keys, &values], &pack, &gradient).unwrap();
        found.iter().zip(&composed).for_each(|(a, b)| assert_close(a, b));
    }
}
