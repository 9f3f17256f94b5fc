//! The logits of one pass, and the sequences that they belong to.

use crate::policy::logits::Drawing;
use crate::policy::{Draw, Error, Logits, Sampling};

/// Logits of one pass, and whose they are.
#[derive(Debug)]
pub struct Pass {
    pub(super) logits: Logits,
    /// Sequences in ascending order, each with its row; several may have the same one.
    pub(super) rows: Vec<(usize, usize)>,
}

impl Pass {
    /// Of no sequence.
    pub(super) fn empty() -> Self {
        Self { logits: Logits::on_host(Vec::new(), 0), rows: Vec::new() }
    }

    /// Every sequence whose logits these are, ascending.
    pub fn sequences(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|&(sequence, _)| sequence)
    }

    /// Begins to draw the next tokens of some of these sequences.
    ///
    /// # Errors
    /// [`Error::Shape`] for a sequence that is not among them; [`Error::Tensor`] if the backend fails.
    pub(super) fn draw<'a>(&self, sampling: &Sampling, draws: Vec<Draw<'a>>) -> Result<Drawing<'a>, Error> {
        let of_row = |draw| {
            let Draw { index, allowed, stream } = draw;
            match self.rows.binary_search_by_key(&index, |&(sequence, _)| sequence) {
                Ok(place) => Ok(Draw { index: self.rows[place].1, allowed, stream }),
                Err(_) => Err(Error::Shape {
                    name: "sequence".to_owned(),
                    expected: "one of the pass".to_owned(),
                    found: index.to_string(),
                }),
            }
        };
        self.logits.draw(sampling, draws.into_iter().map(of_row).collect::<Result<_, _>>()?)
    }
}
