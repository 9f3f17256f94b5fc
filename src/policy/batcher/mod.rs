//! Which tokens go through the model together. Sequences that stand at the same tokens are computed once, a sequence that
//! begins as another takes over its cache, long prompts are cut so that sampling goes on between their parts, and caches
//! that no longer fit are dropped and computed again later.
//!
//! None of this shows in a result: a row of the model has the same bits whatever shares its pass (see
//! [`Inference::extend`] on the CPU), so batching decides about time and memory alone.

mod ahead; // what a device computes before it is asked for
mod memory; // what caches take, and which give way
mod pass; // logits, and whose they are

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::prefix_cache::{ContextKey, PrefixCache};
use super::{Chunk, Error, Inference, KvCache, Logits};

pub use pass::Pass;

/// Tokens that a sequence must have in common with another to wait for its cache.
const MIN_SHARED: usize = 16;

/// A sequence that waits for the logits after its last token.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The number of the sequence, below the batcher's count.
    pub sequence: usize,
    /// All its tokens; grown since the last request, never changed.
    pub tokens: &'a [u32],
}

/// What batching has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStats {
    /// Tokens that went through the model.
    pub computed: usize,
    /// Tokens whose keys and values were taken over from another sequence.
    pub shared: usize,
    /// Tokens whose keys and values another batcher of the model had computed.
    pub recalled: usize,
    /// Caches dropped to make room.
    pub preempted: usize,
    /// The largest size of all caches together after a call; looked at only under a bound.
    pub peak_cache_bytes: usize,
}

/// A place among the sequences of a [`Batcher`]; the sequence is over when the lease is dropped.
#[derive(Debug)]
pub struct Lease {
    sequence: usize,
    /// Tells the batcher from others.
    batcher: Arc<()>,
}

/// A cache and the tokens in it.
#[derive(Debug)]
struct Held {
    cache: KvCache,
    tokens: Vec<u32>,
}

#[derive(Debug, Default)]
struct Sequence {
    held: Option<Held>,
    is_started: bool,
    is_over: bool,
    /// Of the tokens of the last request.
    key: ContextKey,
    /// Who has the sequence, if it was leased.
    lease: Option<Weak<Lease>>,
}

/// Keeps the caches of a rollout and decides what the model computes next.
#[derive(Debug)]
pub struct Batcher {
    sequences: Vec<Sequence>,
    max_batch_tokens: usize,
    /// 0: no bound.
    max_cache_bytes: usize,
    stats: BatchStats,
    tag: Arc<()>,
    /// What other batchers of the same model computed.
    known: Option<Arc<Mutex<PrefixCache>>>,
    /// Logits behind the tokens that were drawn last, which nobody has asked for yet.
    ahead: Option<Pass>,
}

/// Sequences that stand at the same tokens, the one with the longest cache first.
struct Entry<'a> {
    sequences: Vec<usize>,
    tokens: &'a [u32],
    /// Tokens in the first one's cache.
    held: usize,
}

impl Entry<'_> {
    fn pending(&self) -> usize {
        self.tokens.len() - self.held
    }
}

impl Batcher {
    /// For `count` sequences. A pass takes at most `max_batch_tokens`; the caches together take at most
    /// `max_cache_bytes` (0: no bound), unless a single sequence needs more.
    pub fn new(count: usize, max_batch_tokens: usize, max_cache_bytes: usize) -> Self {
        let mut sequences = Vec::new();
        sequences.resize_with(count, Sequence::default);
        let (max_batch_tokens, stats, tag) = (max_batch_tokens.max(1), BatchStats::default(), Arc::default());
        Self { sequences, max_batch_tokens, max_cache_bytes, stats, tag, known: None, ahead: None }
    }

    /// With what earlier batchers of the same model computed; its weights must be theirs.
    #[must_use]
    pub fn with_prefix_cache(self, known: Arc<Mutex<PrefixCache>>) -> Self {
        Self { known: Some(known), ..self }
    }

    /// The number of a leased sequence; a new one if the lease is empty or of another batcher.
    pub fn sequence(&mut self, lease: &mut Option<Arc<Lease>>) -> usize {
        if let Some(lease) = lease.as_ref().filter(|lease| Arc::ptr_eq(&lease.batcher, &self.tag)) {
            return lease.sequence;
        }
        let fresh = Arc::new(Lease { sequence: self.sequences.len(), batcher: Arc::clone(&self.tag) });
        self.sequences.push(Sequence { lease: Some(Arc::downgrade(&fresh)), ..Sequence::default() });
        lease.insert(fresh).sequence
    }

    /// What was done so far.
    pub fn stats(&self) -> BatchStats {
        self.stats
    }

    /// Size of all caches, what several sequences hold counted once.
    pub fn cache_bytes(&self) -> usize {
        KvCache::total_bytes(self.sequences.iter().filter_map(|sequence| Some(&sequence.held.as_ref()?.cache)))
    }

    /// Notes that a sequence is over. Its cache stays as long as others may begin like it.
    pub fn finish(&mut self, sequence: usize) {
        self.sequences[sequence].is_over = true;
    }

    /// Takes the sequences that wait for the model one step further: those that need a single token (the usual case while
    /// sampling) all at once, and of longer pending texts as much as fits one pass. Returns the logits of those whose
    /// tokens are all computed, at least one once its texts are through; the others are to be asked for again.
    ///
    /// # Errors
    /// From the decoder.
    pub fn step(&mut self, decoder: &dyn Inference, requests: &[Request<'_>]) -> Result<Vec<Pass>, Error> {
        for sequence in &mut self.sequences {
            sequence.is_over |= sequence.lease.as_ref().is_some_and(|lease| lease.strong_count() == 0);
        }
        self.hash(requests);
        let (ready, requests) = self.ready(requests);
        let (recalled, unknown) = self.recall(requests)?;
        let mut entries = self.merge(&unknown);
        self.share(&mut entries);
        let singles = entries.iter().filter(|entry| entry.pending() == 1).count();
        // Single tokens first; the order is otherwise that of the requests.
        entries.sort_by_key(|entry| entry.pending() != 1);
        let mut rest = &mut entries[..];
        let (mut served, mut singles) = (ready.rows.len(), singles);
        let mut passes = vec![ready, recalled];
        while !rest.is_empty() {
            let (batch, counts) = self.admit(decoder, rest, served == 0);
            served += batch.len();
            if batch.is_empty() {
                break;
            }
            let taken = batch.last().map_or(0, |last| last + 1);
            passes.push(self.compute(decoder, rest, &batch, &counts)?);
            if taken >= singles {
                break;
            }
            singles -= taken;
            rest = &mut rest[taken..];
        }
        if self.sequences.iter().all(|sequence| sequence.is_started || sequence.is_over) {
            self.sequences.iter_mut().filter(|sequence| sequence.is_over).for_each(|sequence| sequence.held = None);
        }
        if self.max_cache_bytes > 0 {
            self.stats.peak_cache_bytes = self.stats.peak_cache_bytes.max(self.cache_bytes());
        }
        passes.retain(|pass| !pass.rows.is_empty());
        Ok(passes)
    }

    /// Brings the keys of the sequences to their tokens.
    fn hash(&mut self, requests: &[Request<'_>]) {
        for request in requests {
            let (count, hash) = &mut self.sequences[request.sequence].key;
            for &token in &request.tokens[*count..] {
                // FNV-1a (by 32 bits): equality is always checked as well, so a collision costs time only.
                *hash = (*hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
            }
            *count = request.tokens.len();
        }
    }

    /// The logits of the sequences that stand where another batcher of this model has been, and the other requests.
    fn recall<'a>(&mut self, requests: Vec<Request<'a>>) -> Result<(Pass, Vec<Request<'a>>), Error> {
        let Some(known) = self.known.clone() else { return Ok((Pass::empty(), requests)) };
        let (mut rows, mut logits) = (Vec::new(), Vec::new());
        let mut unknown = Vec::with_capacity(requests.len());
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        for request in requests {
            let sequence = &mut self.sequences[request.sequence];
            let Some(found) = known.get(sequence.key, request.tokens) else {
                unknown.push(request);
                continue;
            };
            let held = sequence.held.take().map_or(0, |held| held.cache.len());
            self.stats.recalled += request.tokens.len() - held;
            sequence.held = Some(Held { cache: found.cache, tokens: request.tokens.to_vec() });
            sequence.is_started = true;
            rows.push((request.sequence, logits.len()));
            logits.push(found.logits);
        }
        rows.sort_unstable();
        Ok((Pass { logits: Logits::joined(&logits)?, rows }, unknown))
    }

    /// Sequences with the same tokens become one entry.
    fn merge<'a>(&mut self, requests: &[Request<'a>]) -> Vec<Entry<'a>> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        let mut known: HashMap<ContextKey, usize> = HashMap::new();
        for request in requests {
            let sequence = &mut self.sequences[request.sequence];
            let held = sequence.held.as_ref().map_or(0, |held| held.cache.len());
            let entry = *known.entry(sequence.key).or_insert(entries.len());
            match entries.get_mut(entry) {
                Some(entry) if entry.tokens == request.tokens => {
                    entry.sequences.push(request.sequence);
                    if held > entry.held {
                        entry.held = held;
                        let last = entry.sequences.len() - 1;
                        entry.sequences.swap(0, last);
                    }
                }
                _ => entries.push(Entry { sequences: vec![request.sequence], tokens: request.tokens, held }),
            }
        }
        entries
    }

    /// Gives entries whose cache is behind the cache of the sequence that has most tokens in common with them. An entry
    /// that would get more from one that is computed in this call waits for it.
    fn share(&mut self, entries: &mut Vec<Entry<'_>>) {
        let mut going: Vec<&[u32]> = Vec::new();
        let mut waits = vec![false; entries.len()];
        for (index, entry) in entries.iter_mut().enumerate() {
            // A sequence that has sampled and kept its cache has nothing more in common with others.
            let is_started = self.sequences[entry.sequences[0]].is_started;
            if entry.pending() == 1 || (is_started && entry.held > 0) {
                continue;
            }
            // The last token is left to compute: its logits are wanted.
            let wanted = &entry.tokens[..entry.tokens.len() - 1];
            let common = |tokens: &[u32]| tokens.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            let best = self.sequences.iter().enumerate().filter_map(|(other, sequence)| {
                let held = sequence.held.as_ref()?;
                Some((common(&held.tokens), std::cmp::Reverse(other)))
            });
            let (most, other) = best.max().map_or((0, 0), |(most, other)| (most, other.0));
            if most > entry.held {
                let from = self.sequences[other].held.as_ref().map(|held| held.cache.prefix(most));
                self.stats.shared += most - entry.held;
                let tokens = wanted[..most].to_vec();
                self.sequences[entry.sequences[0]].held = from.map(|cache| Held { cache, tokens });
                entry.held = most;
            }
            let promised = going.iter().map(|tokens| common(tokens)).max().unwrap_or(0);
            waits[index] = promised >= entry.held + MIN_SHARED;
            if !waits[index] {
                going.push(entry.tokens);
            }
        }
        let mut waits = waits.into_iter();
        entries.retain(|_| !waits.next().unwrap_or(false));
    }

    /// The entries of the next pass by index, and how many tokens of each. Where caches are bounded, sequences of lower
    /// numbers come first, and the caches of the highest give way.
    fn admit(&mut self, decoder: &dyn Inference, entries: &[Entry<'_>], is_first: bool) -> (Vec<usize>, Vec<usize>) {
        let (mut batch, mut counts) = (Vec::new(), Vec::new());
        let mut room = self.max_batch_tokens;
        let mut free = self.free_bytes();
        for (index, entry) in entries.iter().enumerate() {
            let leader = entry.sequences[0];
            // A cache that gave way in this call has to be built up again first.
            let has_cache = self.sequences[leader].held.as_ref().map_or(0, |held| held.cache.len()) == entry.held;
            let count = entry.pending().min(room);
            if count == 0 {
                break;
            }
            if !has_cache {
                continue;
            }
            if let Some(bytes) = free.as_mut() {
                let is_alone = is_first && batch.is_empty();
                let needed = self.growth(decoder, leader, count);
                // A sequence without a cache leaves a block to each of those that have one, or it would lose its own soon.
                let margin = if entry.held == 0 { self.margin(decoder) } else { 0 };
                while *bytes < needed as i64 && self.preempt((leader, is_alone), entries, &batch) {
                    *bytes = self.free_bytes().unwrap_or(0) - self.promised(decoder, entries, &batch, &counts);
                }
                if *bytes < (needed + margin) as i64 && !is_alone {
                    continue;
                }
                *bytes -= needed as i64;
            }
            room -= count;
            batch.push(index);
            counts.push(count);
        }
        (batch, counts)
    }

    /// One pass: extends the caches of the batch by so many tokens each.
    fn compute(
        &mut self,
        decoder: &dyn Inference,
        entries: &mut [Entry<'_>],
        batch: &[usize],
        counts: &[usize],
    ) -> Result<Pass, Error> {
        let mut held: Vec<Held> = batch
            .iter()
            .map(|&index| {
                let taken = self.sequences[entries[index].sequences[0]].held.take();
                taken.unwrap_or_else(|| Held { cache: decoder.new_cache(), tokens: Vec::new() })
            })
            .collect();
        let mut chunks: Vec<Chunk<'_>> = Vec::with_capacity(held.len());
        for ((held, &index), &count) in held.iter_mut().zip(batch).zip(counts) {
            let tokens = &entries[index].tokens[held.cache.len()..][..count];
            held.tokens.extend_from_slice(tokens);
            chunks.push(Chunk { cache: &mut held.cache, tokens });
        }
        self.stats.computed += counts.iter().sum::<usize>();
        let logits = decoder.extend_in_place(&mut chunks)?; // [batch, vocab]
        let mut rows = BTreeMap::new();
        // What stands behind an observation comes again, what stands within an answer seldom.
        let mut kept = self.known.as_ref().map(|known| known.lock().unwrap_or_else(PoisonError::into_inner));
        for (row, (held, &index)) in held.into_iter().zip(batch).enumerate() {
            let entry = &entries[index];
            let is_done = held.cache.len() == entry.tokens.len();
            // The others stand at the same tokens, so what they had is part of this.
            let others = if is_done { &entry.sequences[1..] } else { &[] };
            for &other in others {
                let behind = self.sequences[other].held.as_ref().map_or(0, |held| held.cache.len());
                self.stats.shared += entry.tokens.len() - behind;
                self.sequences[other].held = Some(Held { cache: held.cache.clone(), tokens: held.tokens.clone() });
            }
            if is_done {
                for &sequence in &entry.sequences {
                    self.sequences[sequence].is_started = true;
                    rows.insert(sequence, row);
                }
                if let Some(kept) = kept.as_mut().filter(|_| counts[row] > 1) {
                    let key = self.sequences[entry.sequences[0]].key;
                    kept.insert(key, entry.tokens, &held.cache, (&logits, row))?;
                }
            }
            self.sequences[entry.sequences[0]].held = Some(held);
        }
        Ok(Pass { logits, rows: rows.into_iter().collect() })
    }
}
