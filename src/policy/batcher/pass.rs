//! The logits of one pass, and the sequences that they belong to.

use crate::policy::Logits;

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

    /// The row of a sequence, if it is one of these.
    pub(super) fn row(&self, sequence: usize) -> Option<usize> {
        let place = self.rows.binary_search_by_key(&sequence, |&(sequence, _)| sequence).ok()?;
        Some(self.rows[place].1)
    }
}
