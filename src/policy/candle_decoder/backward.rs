//! The backward pass of packed sequences, layer by layer. The forward pass keeps what the last layers compute on the way, as far as
//! there is room for it; of the layers before them the input only, and they are computed again when their turn comes (gradient
//! checkpointing, arXiv:1604.06174), to the same bits.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use super::head::Head;
use super::layer::Activations;
use super::network::{Network, Pack};
use crate::policy::fused::{self, RowGroups, accumulate, add_rows};
use crate::policy::{Sequence, SequenceLoss, TokenGradient, TokenScore};

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const FINAL_NORM: &str = "model.norm.weight";

/// Gradients by name, in `f32`.
pub(super) type Gradients = BTreeMap<String, Tensor>;

/// What the backward pass begins a layer with.
enum Kept {
    /// The stream before it, `[rows, hidden]`.
    Input(Tensor),
    All(Box<Activations>),
}

impl Network<'_> {
    /// Scores the targets of the sequences of a pack and adds the gradients of `loss`, if there is one, to `gradients`. The
    /// activations of as many layers as `room` bytes hold are kept.
    pub(super) fn train(
        &self,
        (pack, sequences): (&Pack, &[Sequence<'_>]),
        (temperature, loss): (f32, Option<&dyn SequenceLoss>),
        room: usize,
        gradients: &mut Gradients,
    ) -> Result<Vec<(usize, Vec<TokenScore>)>> {
        // Forward: what is kept of each layer, and the stream after the last one.
        let layers = self.config.layer_count;
        let mut kept = Vec::with_capacity(layers);
        let mut x = self.embed(&Tensor::new(&pack.tokens[..], pack.positions.device())?)?;
        let whole = room / self.activation_bytes(pack.tokens.len(), x.dtype()).max(1);
        for layer in 0..layers {
            let activations = self.layer(layer, &x, pack)?;
            let input = std::mem::replace(&mut x, activations.output.clone());
            if loss.is_some() {
                let is_whole = layers - layer <= whole;
                kept.push(if is_whole { Kept::All(Box::new(activations)) } else { Kept::Input(input) });
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
            for (layer, kept) in kept.into_iter().enumerate().rev() {
                let activations = match kept {
                    Kept::Input(input) => self.layer(layer, &input, pack)?,
                    Kept::All(activations) => *activations,
                };
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
