//! The backward pass of packed sequences, layer by layer: the forward pass keeps the input of each layer only and a layer is
//! computed again when its turn comes (gradient checkpointing, arXiv:1604.06174), so that what candle records is never more
//! than one layer.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, Var};

use super::head::Head;
use super::network::{Context, Network, Pack};
use crate::policy::fused::{accumulate, backward_from};
use crate::policy::{Sequence, SequenceLoss, TokenGradient, TokenScore};

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const FINAL_NORM: &str = "model.norm.weight";

/// Gradients by name, in `f32`.
pub(super) type Gradients = BTreeMap<String, Tensor>;

/// Weights to take sequences through the network with.
pub(super) struct Pass<'a> {
    /// Weights through which nothing is recorded.
    pub(super) plain: Network<'a>,
    /// The same, recorded in those that are trained.
    pub(super) recorded: Network<'a>,
    /// The trained variables.
    pub(super) variables: &'a BTreeMap<String, Var>,
}

impl Pass<'_> {
    /// Scores the targets of the sequences of a pack and adds the gradients of `loss`, if there is one, to `gradients`.
    pub(super) fn train(
        &self,
        (pack, sequences): (&Pack, &[Sequence<'_>]),
        (temperature, loss): (f32, Option<&dyn SequenceLoss>),
        gradients: &mut Gradients,
    ) -> Result<Vec<(usize, Vec<TokenScore>)>> {
        // Forward: the input of each layer, `[rows, hidden]`, and the stream after the last one.
        let mut inputs = Vec::with_capacity(self.plain.config.layer_count);
        let mut x = self.plain.embed(&pack.tokens)?;
        for layer in 0..self.plain.config.layer_count {
            let next = self.plain.layer(layer, &x, &mut Context::Packed(pack))?;
            let input = std::mem::replace(&mut x, next);
            if loss.is_some() {
                inputs.push(input);
            }
        }
        let mut head = Head::new(self, pack, sequences, temperature, x.device().is_cpu());
        let scores = head.scores(&x)?;
        let mut wanted = vec![TokenGradient::default(); scores.len()];
        if let Some(loss) = loss {
            for (index, range) in &head.sequences {
                loss.gradient(*index, &scores[range.clone()], &mut wanted[range.clone()]);
            }
        }
        let all = head.sequences.iter().map(|(index, range)| (*index, scores[range.clone()].to_vec())).collect();
        if wanted.iter().any(|gradient| *gradient != TokenGradient::default()) {
            let back = head.backward(&x, &wanted, gradients)?;
            drop(x);
            self.layers_backward(pack, inputs, back, gradients)?;
        }
        Ok(all)
    }

    /// From the gradient of the stream after the last layer, `[rows, hidden]`, to those of the layers and the embedding.
    fn layers_backward(
        &self,
        pack: &Pack,
        inputs: Vec<Tensor>,
        mut back: Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        for (layer, input) in inputs.into_iter().enumerate().rev() {
            let input = Var::from_tensor(&input)?;
            let output = self.recorded.layer(layer, input.as_tensor(), &mut Context::Packed(pack))?;
            let found = backward_from(&output, &back)?;
            let prefix = format!("model.layers.{layer}.");
            for (name, var) in self.variables.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
            {
                if let Some(gradient) = found.get(var.as_tensor()) {
                    add(gradients, name, gradient)?;
                }
            }
            back = match found.get(input.as_tensor()) {
                Some(gradient) => gradient.detach(),
                None => back.zeros_like()?,
            };
        }
        if let Some(var) = self.variables.get(EMBEDDING) {
            let sum = match gradients.remove(EMBEDDING) {
                Some(sum) => sum,
                None => var.as_tensor().zeros_like()?.to_dtype(DType::F32)?.detach(),
            };
            let ids = Tensor::new(&*pack.tokens, back.device())?;
            gradients.insert(EMBEDDING.to_owned(), sum.index_add(&ids, &back.to_dtype(DType::F32)?, 0)?.detach());
        }
        Ok(())
    }
}

/// Adds a gradient to the accumulated one.
pub(super) fn add(gradients: &mut Gradients, name: &str, gradient: &Tensor) -> Result<()> {
    let sum = accumulate(gradients.remove(name), gradient)?;
    gradients.insert(name.to_owned(), sum);
    Ok(())
}
