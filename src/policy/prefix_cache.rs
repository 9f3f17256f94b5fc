//! Keys, values and logits of contexts that a model has met, kept from rollout to rollout. Only for a model whose weights
//! do not change: a league's snapshot or another frozen opponent meets the same positions again and again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Error, KvCache, Logits};

/// A context by the number of its tokens and their hash.
pub(super) type ContextKey = (usize, u64);

/// What is known of a context.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) tokens: Arc<[u32]>,
    /// Keys and values of all tokens.
    pub(super) cache: KvCache,
    /// After the last token, one row.
    pub(super) logits: Arc<Logits>,
}

impl Known {
    /// Bytes of tokens and logits.
    fn own_bytes(&self) -> usize {
        size_of_val(&*self.tokens) + self.logits.bytes()
    }
}

/// Contexts of about the same age.
#[derive(Debug, Default)]
struct Generation {
    known: HashMap<ContextKey, Known>,
    /// Blocks of keys and values that are counted already.
    blocks: HashSet<usize>,
    bytes: usize,
}

impl Generation {
    fn insert(&mut self, key: ContextKey, known: Known) {
        self.bytes += known.own_bytes();
        self.bytes += known.cache.bytes_beside(&mut self.blocks);
        self.known.insert(key, known);
    }
}

/// The contexts that a frozen model met last. When the younger half of its room is full, it becomes the older one, and what
/// was in that and has not been met since is forgotten.
#[derive(Debug)]
pub struct PrefixCache {
    young: Generation,
    old: Generation,
    max_bytes: usize,
}

impl PrefixCache {
    /// Takes at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { young: Generation::default(), old: Generation::default(), max_bytes }
    }

    /// What is known of the context with these tokens.
    pub(super) fn get(&mut self, key: ContextKey, tokens: &[u32]) -> Option<Known> {
        if let Some(known) = self.young.known.get(&key) {
            return (*known.tokens == *tokens).then(|| known.clone());
        }
        let known = self.old.known.get(&key).filter(|known| *known.tokens == *tokens)?.clone();
        self.keep(key, known.clone());
        Some(known)
    }

    /// Notes a context, whose logits are a row of these.
    pub(super) fn insert(
        &mut self,
        key: ContextKey,
        tokens: &[u32],
        cache: &KvCache,
        (logits, row): (&Logits, usize),
    ) -> Result<(), Error> {
        let logits = Arc::new(logits.row(row)?);
        self.keep(key, Known { tokens: tokens.into(), cache: cache.clone(), logits });
        Ok(())
    }

    fn keep(&mut self, key: ContextKey, known: Known) {
        let half = self.max_bytes / 2;
        let most = known.own_bytes() + KvCache::total_bytes([&known.cache]);
        if most > half {
            return;
        }
        if self.young.bytes + most > half {
            self.old = std::mem::take(&mut self.young);
        }
        // Where another context has the same key, the first one stays: what is counted must not be dropped before its time.
        if !self.young.known.contains_key(&key) {
            self.young.insert(key, known);
        }
    }
}
