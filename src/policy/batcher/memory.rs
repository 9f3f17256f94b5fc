//! How much memory caches take, and which of them give way.

use super::{Batcher, Entry};
use crate::policy::Inference;

impl Batcher {
    /// What caches may still take; `None` without a bound.
    pub(super) fn free_bytes(&self) -> Option<i64> {
        let most = i64::try_from(self.max_cache_bytes).unwrap_or(i64::MAX);
        (most > 0).then(|| most - self.cache_bytes() as i64)
    }

    pub(super) fn growth(&self, decoder: &dyn Inference, sequence: usize, count: usize) -> usize {
        match &self.sequences[sequence].held {
            Some(held) => held.cache.growth(count),
            None => decoder.first_growth(count),
        }
    }

    /// A token's room for every sequence that has a cache.
    pub(super) fn margin(&self, decoder: &dyn Inference) -> usize {
        let holding = self.sequences.iter().filter(|sequence| sequence.held.is_some() && !sequence.is_over).count();
        holding * decoder.first_growth(1)
    }

    /// What the entries of a batch will take.
    pub(super) fn promised(
        &self,
        decoder: &dyn Inference,
        entries: &[Entry<'_>],
        batch: &[usize],
        counts: &[usize],
    ) -> i64 {
        let growth = |(&index, &count): (&usize, &usize)| self.growth(decoder, entries[index].sequences[0], count);
        batch.iter().zip(counts).map(growth).sum::<usize>() as i64
    }

    /// Drops the cache of a finished sequence, or of the highest-numbered one that is not in the batch; false if there is
    /// none. Sequences below `leader` give way only if nothing else is computed: some may wait for others outside.
    pub(super) fn preempt(
        &mut self,
        (leader, is_alone): (usize, bool),
        entries: &[Entry<'_>],
        batch: &[usize],
    ) -> bool {
        let going: Vec<usize> = batch.iter().map(|&index| entries[index].sequences[0]).collect();
        let finished = self.sequences.iter().position(|sequence| sequence.is_over && sequence.held.is_some());
        let lowest = if is_alone { 0 } else { leader + 1 };
        let later = (lowest..self.sequences.len()).rev().find(|sequence| {
            *sequence != leader && self.sequences[*sequence].held.is_some() && !going.contains(sequence)
        });
        let Some(victim) = finished.or(later) else { return false };
        self.sequences[victim].held = None;
        self.stats.preempted += usize::from(finished.is_none());
        true
    }
}
