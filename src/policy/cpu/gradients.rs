//! Where the backward pass leaves gradients: with all weights, or with the adapter alone.

use std::ops::Range;

use super::matmul::sized;

/// The flat vector that gradients are added to.
pub(super) enum Gradients<'a> {
    /// Of all weights.
    Weights(&'a mut [f32]),
    /// Of the adapter's tensors; the weights under it are frozen.
    Adapter(&'a mut [f32]),
}

impl Gradients<'_> {
    /// The gradient of the weights at a place; `None` where they are frozen.
    pub(super) fn at(&mut self, place: &Range<usize>) -> Option<&mut [f32]> {
        match self {
            Self::Weights(flat) => Some(&mut flat[place.clone()]),
            Self::Adapter(_) => None,
        }
    }

    /// The gradient of a vector at a place; where it is frozen, `unused` takes it: those few numbers cost less than a second
    /// form of every norm's backward pass.
    pub(super) fn vector<'b>(&'b mut self, place: &Range<usize>, unused: &'b mut Vec<f32>) -> &'b mut [f32] {
        match self {
            Self::Weights(flat) => &mut flat[place.clone()],
            Self::Adapter(_) => sized(unused, place.len()),
        }
    }
}
