//! [`CpuDecoder`]: the implementation of [`Decoder`] on the CPU. Checks what comes in, divides it into tasks and leaves the
//! arithmetic to the other files of this folder.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::cache::CpuCache;
use super::forward::{Asked, Keep, Span, Workspace, forward};
use super::gradients::Gradients;
use super::head::{HeadScratch, logits_of};
use super::model::Model;
use super::moments::{Moment, Which};
use super::optimizer::{Moving, adamw, adamw_narrow, add_shards, norm};
use super::train::{Learning, Pass, Scored, TreeWorkspace, assign, shard_count};
use crate::config::OptimizerStates;
use crate::policy::tree::{Node, trees};
use crate::policy::{
    AdamWStep, AdapterConfig, CacheStorage, Chunk, Decoder, DecoderConfig, Error, Inference, KvCache, NamedTensor,
    Sequence, SequenceLoss, TensorKind, TokenScore, inputs,
};

/// Rows that one task takes through all layers when the model is small enough for one core to hold: no task waits for
/// another until the logits.
const SMALL_MODEL_ROWS: usize = 32;
/// For larger models the products themselves are split over threads, and tasks are large so that weights are read rarely.
const LARGE_MODEL_ROWS: usize = 512;
/// Parameters up to which a model counts as small.
const SMALL_MODEL_PARAMETERS: usize = 1 << 23;
/// Trees of sequences that a call is divided into at least, if it has so many sequences: products of a small model are not
/// split over threads, those of a large one are.
const MIN_TREES_SMALL: usize = 4;
const MIN_TREES_LARGE: usize = 2;

/// A decoder with weights in `f32` on the CPU. Threads are those of the current rayon pool.
#[derive(Debug)]
pub struct CpuDecoder {
    model: Model,
    /// Empty until the first gradient, so a decoder that only samples does not pay for training.
    gradient: Vec<f32>,
    first_moment: Moment,
    second_moment: Moment,
    shards: Vec<Vec<f32>>,
    /// What passes keep for their gradients.
    keep: Keep,
    extend_pool: Pool<(Workspace, HeadScratch)>,
    tree_pool: Pool<TreeWorkspace>,
}

/// Buffers that tasks borrow; there are never more than tasks that ran at once.
#[derive(Debug)]
struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn with<R>(&self, make: impl FnOnce() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        // A panic elsewhere leaves the list itself whole.
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut item = taken.unwrap_or_else(make);
        let result = work(&mut item);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(item);
        result
    }
}

impl CpuDecoder {
    /// A decoder with these weights.
    ///
    /// # Errors
    /// [`Error::Shape`] for sizes that do not fit together or tensors that do not fit them.
    pub fn new(config: DecoderConfig, weights: &[NamedTensor]) -> Result<Self, Error> {
        Ok(Self::of(Model::new(config, weights, None)?))
    }

    /// A decoder with these weights, which stay, and an adapter on them, which is trained.
    ///
    /// # Errors
    /// [`Error::Shape`] for sizes that do not fit together or tensors that do not fit them.
    pub fn with_adapter(
        config: DecoderConfig,
        weights: &[NamedTensor],
        adapter: AdapterConfig,
        tensors: &[NamedTensor],
    ) -> Result<Self, Error> {
        Ok(Self::of(Model::new(config, weights, Some((adapter, tensors)))?))
    }

    fn of(model: Model) -> Self {
        Self {
            model,
            gradient: Vec::new(),
            first_moment: Moment::Zero,
            second_moment: Moment::Zero,
            shards: Vec::new(),
            keep: Keep::All,
            extend_pool: Pool::new(),
            tree_pool: Pool::new(),
        }
    }

    /// The trees of sequences, enough of them for several threads.
    fn trees(&self, sequences: &[Sequence<'_>]) -> Vec<Node> {
        trees(sequences, if is_small(&self.model) { MIN_TREES_SMALL } else { MIN_TREES_LARGE }, usize::MAX)
    }
}

/// Whether a core holds the model, so that tasks are not to wait for each other.
fn is_small(model: &Model) -> bool {
    model.layout.places.total <= SMALL_MODEL_PARAMETERS
}

/// The scores of each of `count` sequences.
fn in_order(scored: impl IntoIterator<Item = Scored>, count: usize) -> Vec<Vec<TokenScore>> {
    let mut scores = vec![Vec::new(); count];
    for (index, sequence_scores) in scored.into_iter().flatten() {
        scores[index] = sequence_scores;
    }
    scores
}

/// Cuts spans into groups of about as many rows as a task takes. Where there are few, every thread has a part of them: a row
/// has the same bits in any group.
fn group_sizes(model: &Model, spans: &[Span<'_>]) -> Vec<usize> {
    let rows: usize = spans.iter().map(|span| span.tokens.len()).sum();
    let limit = if is_small(model) {
        SMALL_MODEL_ROWS.min(rows.div_ceil(rayon::current_num_threads()))
    } else {
        LARGE_MODEL_ROWS
    };
    let mut sizes = Vec::new();
    let (mut count, mut rows) = (0, 0);
    for span in spans {
        if count > 0 && rows + span.tokens.len() > limit {
            sizes.push(count);
            (count, rows) = (0, 0);
        }
        count += 1;
        rows += span.tokens.len();
    }
    sizes.push(count);
    sizes
}

/// Runs one group and writes the logits after each span's last token.
fn extend_group(model: &Model, spans: &mut [Span<'_>], logits: &mut [f32], buffers: &mut (Workspace, HeadScratch)) {
    let (workspace, head) = buffers;
    forward(model, spans, (Keep::Nothing, Asked::Ends), workspace);
    logits_of(model, &workspace.hidden[..spans.len() * model.config.hidden_size], logits, head);
}

impl Inference for CpuDecoder {
    fn config(&self) -> &DecoderConfig {
        &self.model.config
    }

    fn new_cache(&self) -> KvCache {
        KvCache(CacheStorage::Cpu(CpuCache::new(&self.model.config)))
    }

    fn extend(&self, chunks: &mut [Chunk<'_>]) -> Result<Vec<f32>, Error> {
        let model = &self.model;
        inputs::check_chunks(&model.config, chunks)?;
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let mut spans = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            match &mut chunk.cache.0 {
                CacheStorage::Cpu(cache) if cache.fits(&model.config) => {
                    spans.push(Span { tokens: chunk.tokens, cache });
                }
                _ => return Err(inputs::foreign_cache()),
            }
        }
        let vocab_size = model.config.vocab_size;
        let mut logits = vec![0.0; spans.len() * vocab_size];
        let mut tasks = Vec::new();
        let (mut rest, mut rest_logits) = (&mut spans[..], &mut logits[..]);
        for size in group_sizes(model, rest) {
            let (group, later) = rest.split_at_mut(size);
            let (group_logits, later_logits) = rest_logits.split_at_mut(size * vocab_size);
            tasks.push((group, group_logits));
            (rest, rest_logits) = (later, later_logits);
        }
        tasks.into_par_iter().with_max_len(1).for_each(|(group, logits)| {
            self.extend_pool.with(Default::default, |buffers| extend_group(model, group, logits, buffers));
        });
        Ok(logits)
    }
}

impl Decoder for CpuDecoder {
    fn adapter(&self) -> Option<&AdapterConfig> {
        self.model.adapter.as_ref().map(|adapter| &adapter.config)
    }

    fn set_gradient_checkpointing(&mut self, is_on: bool) {
        self.keep = if is_on { Keep::Inputs } else { Keep::All };
    }

    fn draw_dropout(&mut self, seed: u64) {
        if let Some(dropout) = self.model.adapter.as_mut().and_then(|adapter| adapter.dropout.as_mut()) {
            dropout.draw(seed);
        }
    }

    fn score(&self, sequences: &[Sequence<'_>], temperature: f32) -> Result<Vec<Vec<TokenScore>>, Error> {
        inputs::check_sequences(&self.model.config, sequences, temperature)?;
        let pass = Pass { model: &self.model, sequences, temperature };
        let task = |tree: &Node| {
            let mut scored = Scored::new();
            self.tree_pool.with(Default::default, |workspace| pass.score(tree, workspace, &mut scored));
            scored
        };
        let scored: Vec<_> = self.trees(sequences).par_iter().with_max_len(1).map(task).collect();
        Ok(in_order(scored, sequences.len()))
    }

    fn accumulate(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        loss: &dyn SequenceLoss,
    ) -> Result<Vec<Vec<TokenScore>>, Error> {
        inputs::check_sequences(&self.model.config, sequences, temperature)?;
        let total = self.model.trained_count();
        self.gradient.resize(total, 0.0);
        let trees = self.trees(sequences);
        let count = shard_count(total, trees.len());
        let mut shards = std::mem::take(&mut self.shards);
        shards.resize_with((count.max(1) - 1).max(shards.len()), Vec::new);
        for shard in &mut shards[..count.max(1) - 1] {
            shard.clear();
            shard.resize(total, 0.0);
        }
        // The accumulated gradient itself is the first shard.
        let mut gradient = std::mem::take(&mut self.gradient);
        let this = &*self;
        let pass = Pass { model: &this.model, sequences, temperature };
        let work = |(trees, shard): (Vec<Node>, &mut Vec<f32>)| {
            let mut scored = Scored::new();
            this.tree_pool.with(Default::default, |workspace| {
                for tree in &trees {
                    let is_adapted = this.model.adapter.is_some();
                    let gradients = if is_adapted { Gradients::Adapter(shard) } else { Gradients::Weights(shard) };
                    pass.train(tree, Learning { loss, gradients, keep: this.keep }, workspace, &mut scored);
                }
            });
            scored
        };
        let places: Vec<&mut Vec<f32>> = std::iter::once(&mut gradient).chain(&mut shards).take(count).collect();
        let assigned = assign(trees, count).into_par_iter().zip(places).with_max_len(1);
        let done: Vec<_> = assigned.map(work).collect();
        add_shards(&mut gradient, &shards[..count.max(1) - 1]);
        (self.gradient, self.shards) = (gradient, shards);
        Ok(in_order(done, sequences.len()))
    }

    fn gradient_norm(&self) -> Result<f64, Error> {
        Ok(norm(&self.gradient))
    }

    fn clear_gradients(&mut self) -> Result<(), Error> {
        self.gradient.fill(0.0);
        Ok(())
    }

    fn step(&mut self, step: &AdamWStep) -> Result<(), Error> {
        let total = self.model.trained_count();
        self.gradient.resize(total, 0.0);
        let (weights, places) = match &mut self.model.adapter {
            Some(adapter) => (&mut adapter.values, &adapter.places),
            None => (&mut self.model.weights, &self.model.layout.places),
        };
        match step.states {
            OptimizerStates::F32 => {
                let first = self.first_moment.wide(Which::First, total);
                let second = self.second_moment.wide(Which::Second, total);
                adamw(step, &places.matrices(), Moving { weights, gradient: &self.gradient, first, second });
            }
            OptimizerStates::EightBit => {
                let first = self.first_moment.narrow(Which::First, places);
                let second = self.second_moment.narrow(Which::Second, places);
                adamw_narrow(step, places, (weights, &self.gradient), (first, second));
            }
        }
        if self.model.adapter.is_some() {
            self.model.repack_adapted();
        } else {
            self.model.repack();
        }
        self.clear_gradients()
    }

    fn tensors(&self, kind: TensorKind) -> Result<Vec<NamedTensor>, Error> {
        let flat = match kind {
            TensorKind::Weight => return Ok(self.model.layout.places.split(&self.model.weights)),
            TensorKind::Adapter => {
                let adapter = self.model.adapter.as_ref();
                return Ok(adapter.map_or_else(Vec::new, |adapter| adapter.places.split(&adapter.values)));
            }
            TensorKind::Gradient => &self.gradient,
            TensorKind::FirstMoment | TensorKind::SecondMoment => {
                let places = self.model.trained_places();
                return Ok(places.split(&match kind {
                    TensorKind::FirstMoment => self.first_moment.values(Which::First, places.total),
                    _ => self.second_moment.values(Which::Second, places.total),
                }));
            }
        };
        let places = self.model.trained_places();
        Ok(if flat.is_empty() { places.split(&vec![0.0; places.total]) } else { places.split(flat) })
    }

    fn set_tensors(&mut self, kind: TensorKind, tensors: &[NamedTensor]) -> Result<(), Error> {
        match kind {
            TensorKind::Weight => {
                self.model.weights = self.model.layout.places.join(tensors)?;
                self.model.repack();
            }
            TensorKind::Adapter => match &mut self.model.adapter {
                Some(adapter) => {
                    adapter.values = adapter.places.join(tensors)?;
                    self.model.repack_adapted();
                }
                None => inputs::check_tensors(&[], tensors)?,
            },
            TensorKind::Gradient => self.gradient = self.model.trained_places().join(tensors)?,
            TensorKind::FirstMoment => self.first_moment = Moment::Wide(self.model.trained_places().join(tensors)?),
            TensorKind::SecondMoment => self.second_moment = Moment::Wide(self.model.trained_places().join(tensors)?),
        }
        Ok(())
    }
}
