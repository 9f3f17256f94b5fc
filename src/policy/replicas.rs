//! One policy on several devices of a machine (data parallelism): the same weights on each, sequences divided over them, gradients
//! added up before a step ([`Reduce`]), which all take alike. To everybody else it is one [`Decoder`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{
    AdamWStep, AdapterConfig, CacheStorage, Chunk, Decoder, DecoderConfig, Error, Inference, KvCache, Logits,
    NamedTensor, Sequence, SequenceLoss, TensorKind, TokenGradient, TokenScore, inputs,
};

/// Adds up what replicas have accumulated.
pub trait Reduce<D>: Send + Sync {
    /// Leaves the sum of the accumulated gradients of all replicas, in `f32`, in each of them, the same bits in all.
    ///
    /// # Errors
    /// If a backend fails; gradients are then of no use.
    fn sum_gradients(&self, replicas: &mut [D]) -> Result<(), Error>;
}

/// Adds up in the memory of the host, in the order of the replicas: for any decoder, at the speed of two copies.
#[derive(Clone, Copy, Debug)]
pub struct HostReduce;

impl<D: Decoder> Reduce<D> for HostReduce {
    fn sum_gradients(&self, replicas: &mut [D]) -> Result<(), Error> {
        let Some((first, others)) = replicas.split_first() else { return Ok(()) };
        let mut sums = first.tensors(TensorKind::Gradient)?;
        for other in others {
            // Sorted by name in all of them.
            for (sum, part) in sums.iter_mut().zip(other.tensors(TensorKind::Gradient)?) {
                sum.data.iter_mut().zip(part.data).for_each(|(sum, part)| *sum += part);
            }
        }
        replicas.iter_mut().try_for_each(|replica| replica.set_tensors(TensorKind::Gradient, &sums))
    }
}

/// A decoder on several devices.
pub struct ReplicatedDecoder<D> {
    config: DecoderConfig,
    adapter: Option<AdapterConfig>,
    device: String,
    state: RwLock<State<D>>,
    reduce: Box<dyn Reduce<D>>,
    /// Caches that were begun.
    caches: AtomicUsize,
}

struct State<D> {
    replicas: Vec<D>,
    /// Whether each replica holds the sum of all gradients, and not only its own part.
    is_reduced: bool,
}

impl<D: Decoder> State<D> {
    fn reduce(&mut self, reduce: &dyn Reduce<D>) -> Result<(), Error> {
        if !self.is_reduced {
            reduce.sum_gradients(&mut self.replicas)?;
            self.is_reduced = true;
        }
        Ok(())
    }

    /// Before more is added: the sum stays in the first replica alone, so that it is not counted twice.
    fn open(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.is_reduced) {
            self.replicas.iter_mut().skip(1).try_for_each(Decoder::clear_gradients)?;
        }
        Ok(())
    }
}

impl<D: Decoder> ReplicatedDecoder<D> {
    /// A decoder on the devices of these replicas, which have the same shape, adapter and weights.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is none, or their shapes or adapters differ.
    pub fn new(replicas: Vec<D>, reduce: Box<dyn Reduce<D>>) -> Result<Self, Error> {
        let refuse = |found: &str| Error::Shape {
            name: "replicas".to_owned(),
            expected: "decoders of one shape".to_owned(),
            found: found.to_owned(),
        };
        let first = replicas.first().ok_or_else(|| refuse("none"))?;
        let (config, adapter) = (first.config().clone(), first.adapter().cloned());
        if replicas.iter().any(|other| *other.config() != config || other.adapter() != adapter.as_ref()) {
            return Err(refuse("several shapes"));
        }
        let device = replicas.iter().map(Inference::device).collect::<Vec<_>>().join(",");
        let state = RwLock::new(State { replicas, is_reduced: false });
        Ok(Self { config, adapter, device, state, reduce, caches: AtomicUsize::new(0) })
    }

    /// What `look` finds in each replica.
    pub fn each<R>(&self, look: impl FnMut(&D) -> R) -> Vec<R> {
        self.read().replicas.iter().map(look).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State<D>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<D>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&mut self) -> &mut State<D> {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does work for each item on a thread of its own; the first error counts.
fn in_parallel<T: Send, R: Send>(
    items: impl Iterator<Item = T>,
    work: impl Fn(T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        let died = |_| Error::Tensor { message: "the thread of a device failed".to_owned() };
        threads.into_iter().map(|thread| thread.join().map_err(died)?).collect()
    })
}

/// Divides sequences over so many replicas, by tokens; those that begin alike stay together, as they share what they begin with.
fn divide(sequences: &[Sequence<'_>], count: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&index| sequences[index].tokens);
    let all: usize = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    let mut parts = vec![Vec::new(); count];
    let mut before = 0;
    for index in order {
        // By the middle of the sequence.
        let length = sequences[index].tokens.len();
        let part = (2 * before + length) * count / (2 * all).max(1);
        parts[part.min(count - 1)].push(index);
        before += length;
    }
    parts
}

/// The loss of some sequences of a call.
struct Part<'a> {
    loss: &'a dyn SequenceLoss,
    indices: &'a [usize],
}

impl SequenceLoss for Part<'_> {
    fn gradient(&self, index: usize, scores: &[TokenScore], out: &mut [TokenGradient]) {
        self.loss.gradient(self.indices[index], scores, out);
    }
}

/// The results of parts in the order of all.
fn gather<T: Clone + Default>(parts: &[Vec<usize>], found: Vec<Vec<T>>) -> Vec<T> {
    let mut all = vec![T::default(); parts.iter().map(Vec::len).sum()];
    for (index, result) in parts.iter().flatten().zip(found.into_iter().flatten()) {
        all[*index] = result;
    }
    all
}

impl<D: Decoder> Inference for ReplicatedDecoder<D> {
    fn config(&self) -> &DecoderConfig {
        &self.config
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    /// The replicas take turns; what is cut from a cache stays where it is, so that a group that shares a prompt stays together.
    fn new_cache(&self) -> KvCache {
        let state = self.read();
        let replica = self.caches.fetch_add(1, Ordering::Relaxed) % state.replicas.len();
        KvCache(CacheStorage::Replica(replica, Box::new(state.replicas[replica].new_cache())))
    }

    /// Asked of one replica, as a new cache would take a turn.
    fn first_growth(&self, count: usize) -> usize {
        self.read().replicas.first().map_or(0, |replica| replica.first_growth(count))
    }

    fn extend(&self, chunks: &mut [Chunk<'_>]) -> Result<Vec<f32>, Error> {
        self.extend_in_place(chunks)?.into_host()
    }

    fn extend_in_place(&self, chunks: &mut [Chunk<'_>]) -> Result<Logits, Error> {
        let state = self.read();
        let mut places = Vec::with_capacity(chunks.len());
        let mut inner: Vec<Vec<Chunk<'_>>> = state.replicas.iter().map(|_| Vec::new()).collect();
        for chunk in chunks {
            let CacheStorage::Replica(replica, cache) = &mut chunk.cache.0 else { return Err(inputs::foreign_cache()) };
            let Some(part) = inner.get_mut(*replica) else { return Err(inputs::foreign_cache()) };
            places.push((*replica, part.len()));
            part.push(Chunk { cache, tokens: chunk.tokens });
        }
        let pairs = state.replicas.iter().zip(inner);
        let found = in_parallel(pairs, |(replica, mut chunks)| replica.extend_in_place(&mut chunks))?;
        Ok(Logits::in_parts(found, places))
    }
}

impl<D: Decoder> Decoder for ReplicatedDecoder<D> {
    fn adapter(&self) -> Option<&AdapterConfig> {
        self.adapter.as_ref()
    }

    fn set_gradient_checkpointing(&mut self, is_on: bool) {
        self.state().replicas.iter_mut().for_each(|replica| replica.set_gradient_checkpointing(is_on));
    }

    /// What is left out depends on the tokens, not on the replica.
    fn draw_dropout(&mut self, seed: u64) {
        self.state().replicas.iter_mut().for_each(|replica| replica.draw_dropout(seed));
    }

    fn score(&self, sequences: &[Sequence<'_>], temperature: f32) -> Result<Vec<Vec<TokenScore>>, Error> {
        let state = self.read();
        let parts = divide(sequences, state.replicas.len());
        let found = in_parallel(state.replicas.iter().zip(&parts), |(replica, part)| {
            replica.score(&part.iter().map(|&index| sequences[index]).collect::<Vec<_>>(), temperature)
        })?;
        Ok(gather(&parts, found))
    }

    fn accumulate(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        loss: &dyn SequenceLoss,
    ) -> Result<Vec<Vec<TokenScore>>, Error> {
        let state = self.state();
        state.open()?;
        let parts = divide(sequences, state.replicas.len());
        let found = in_parallel(state.replicas.iter_mut().zip(&parts), |(replica, part)| {
            let own: Vec<_> = part.iter().map(|&index| sequences[index]).collect();
            replica.accumulate(&own, temperature, &Part { loss, indices: part })
        })?;
        Ok(gather(&parts, found))
    }

    fn gradient_norm(&self) -> Result<f64, Error> {
        let mut state = self.write();
        state.reduce(self.reduce.as_ref())?;
        state.replicas[0].gradient_norm()
    }

    fn clear_gradients(&mut self) -> Result<(), Error> {
        let state = self.state();
        state.is_reduced = false;
        state.replicas.iter_mut().try_for_each(Decoder::clear_gradients)
    }

    fn step(&mut self, step: &AdamWStep) -> Result<(), Error> {
        let mut state = self.write();
        state.reduce(self.reduce.as_ref())?;
        in_parallel(state.replicas.iter_mut(), |replica| replica.step(step))?;
        state.is_reduced = false;
        Ok(())
    }

    fn tensors(&self, kind: TensorKind) -> Result<Vec<NamedTensor>, Error> {
        let mut state = self.write();
        if kind == TensorKind::Gradient {
            state.reduce(self.reduce.as_ref())?;
        }
        state.replicas[0].tensors(kind)
    }

    fn set_tensors(&mut self, kind: TensorKind, tensors: &[NamedTensor]) -> Result<(), Error> {
        let state = self.state();
        // Tensors that do not fit are refused by the first one.
        state.replicas.iter_mut().try_for_each(|replica| replica.set_tensors(kind, tensors))?;
        state.is_reduced |= kind == TensorKind::Gradient;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{CpuDecoder, HostReduce, initial_weights};
    use crate::seed::Seed;

    #[test]
    fn asking_what_a_cache_would_take_is_no_turn() {
        let config = DecoderConfig::tiny(20);
        let weights = initial_weights(&config, Seed::new(1));
        let replicas = (0..3).map(|_| CpuDecoder::new(config.clone(), &weights).unwrap()).collect();
        let decoder = ReplicatedDecoder::new(replicas, Box::new(HostReduce)).unwrap();
        let places = [(); 6].map(|()| {
            assert!(decoder.first_growth(7) > 0);
            match decoder.new_cache().0 {
                CacheStorage::Replica(at, _) => at,
                _ => panic!("the cache of a replica"),
            }
        });
        assert_eq!(places, [0, 1, 2, 0, 1, 2]);
    }
}
