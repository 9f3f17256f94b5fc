//! The backward pass of packed sequences, layer by layer: the forward pass keeps the input of each layer only and a layer is
//! computed again when its turn comes (gradient checkpointing, arXiv:1604.06174), so that there is never more in memory than
//! what one layer computes on the way.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use super::head::Head;
use super::network::{Context, Network, Pack};
use crate::policy::fused::{self, RowGroups, accumulate, add_rows};
use crate::policy::{Sequence, SequenceLoss, TokenGradient, TokenScore};

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const FINAL_NORM: &str = "model.norm.weight";

/// Gradients by name, in `f32`.
pub(super) type Gradients = BTreeMap<String, Tensor>;

impl Network<'_> {
    /// Scores the targets of the sequences of a pack and adds the gradients of `loss`, if there is one, to `gradients`.
    pub(super) fn train(
        &self,
        (pack, sequences): (&Pack, &[Sequence<'_>]),
        (temperature, loss): (f32, Option<&dyn SequenceLoss>),
        gradients: &mut Gradients,
    ) -> Result<Vec<(usize, Vec<TokenScore>)>> {
        // Forward: the input of each layer, `[rows, hidden]`, and the stream after the last one.
        let mut inputs = Vec::with_capacity(self.config.layer_count);
        let mut x = self.embed(&Tensor::new(&pack.tokens[..], pack.positions.device())?)?;
        for layer in 0..self.config.layer_count {
            let next = self.layer(layer, &x, &Context::Packed(pack))?.output;
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
            let mut back = head.backward(&x, &wanted, gradients)?;
            drop(x);
            for (layer, input) in inputs.into_iter().enumerate().rev() {
                let activations = self.layer(layer, &input, &Context::Packed(pack))?;
                back = self.layer_backward(layer, activations, pack, &back, gradients)?;
            }
            if self.trains_all() {
                self.embedding_backward(pack, &back, gradients)?;
            }
        }
        Ok(all)
    }

    fn embedding_backward(&self, pack: &Pack, back: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let sum = match gradients.remove(EMBEDDING) {
            Some(sum) => sum,
            None => self.weight(EMBEDDING)?.zeros_like()?.to_dtype(DType::F32)?,
        };
        let groups = RowGroups::new(&pack.tokens, back.device())?;
        gradients.insert(EMBEDDING.to_owned(), add_rows(sum, back, &groups)?);
        Ok(())
    }
}

/// Adds a product of matrices to an accumulated gradient.
pub(super) fn add_product(gradients: &mut Gradients, name: &str, left: &Tensor, right: &Tensor) -> Result<()> {
    let sum = fused::add_product(gradients.remove(name), left, right)?;
    gradients.insert(name.to_owned(), sum);
    Ok(())
}

/// Adds a gradient to the accumulated one.
pub(super) fn add(gradients: &mut Gradients, name: &str, gradient: &Tensor) -> Result<()> {
    let sum = accumulate(gradients.remove(name), gradient)?;
    gradients.insert(name.to_owned(), sum);
    Ok(())
}
