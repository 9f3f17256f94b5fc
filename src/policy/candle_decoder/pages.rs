//! Where keys and values of the candle decoder lie: pages of positions, in slabs that are taken from the device when they are
//! needed and given back when nothing is held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Tensor};

use crate::policy::DecoderConfig;
use crate::policy::fused::{PAGE, PageShape};

/// Bytes of a slab at most, unless a page has more: what the pages of a device take beyond those that are held. On a CPU little.
const SLAB_BYTES: usize = 128 << 20;
const CPU_SLAB_BYTES: usize = 4 << 20;
/// The logarithm to base 2 of the pages of a slab at most.
const MAX_SHIFT: u32 = 12;

/// The pages of one decoder.
#[derive(Debug)]
pub(crate) struct PagePool {
    shape: PageShape,
    dtype: DType,
    device: Device,
    slabs: Mutex<Vec<Slab>>,
}

#[derive(Debug)]
struct Slab {
    memory: Tensor,
    /// Pages that nobody holds, by their number in the slab.
    free: Vec<usize>,
}

/// A page that is held; free again when it is dropped. What it is read for is in the device's queue before what the next holder
/// writes to it.
#[derive(Debug)]
pub(crate) struct Page {
    pool: Arc<PagePool>,
    number: usize,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.pool.take_back(self.number);
    }
}

impl PagePool {
    pub(super) fn new(config: &DecoderConfig, device: &Device, dtype: DType) -> Arc<Self> {
        let (layers, kv_heads, head_dim) = (config.layer_count, config.kv_head_count, config.head_dim);
        let shape = PageShape { layers, kv_heads, head_dim, shift: 0 };
        let bytes = if device.is_cpu() { CPU_SLAB_BYTES } else { SLAB_BYTES };
        let count = bytes / (shape.page_size() * dtype.size_in_bytes()).max(1);
        let shape = PageShape { shift: count.max(1).ilog2().min(MAX_SHIFT), ..shape };
        Arc::new(Self { shape, dtype, device: device.clone(), slabs: Mutex::default() })
    }

    pub(super) fn shape(&self) -> PageShape {
        self.shape
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// The memory of all pages.
    pub(super) fn slabs(&self) -> Vec<Tensor> {
        self.lock().iter().map(|slab| slab.memory.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slab>> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page_bytes(&self) -> usize {
        self.shape.page_size() * self.dtype.size_in_bytes()
    }

    /// A page with anything in it.
    fn page(self: &Arc<Self>) -> Result<Arc<Page>> {
        let mut slabs = self.lock();
        // The first slabs first, so that the last ones are free again early.
        let found = slabs.iter_mut().enumerate().find_map(|(index, slab)| Some((index, slab.free.pop()?)));
        let (index, free) = if let Some(found) = found {
            found
        } else {
            // Zeros: what a page holds is multiplied with, and masked afterwards.
            let memory = Tensor::zeros(&self.shape.slab_dims(), self.dtype, &self.device)?;
            slabs.push(Slab { memory, free: (1..1 << self.shape.shift).rev().collect() });
            (slabs.len() - 1, 0)
        };
        Ok(Arc::new(Page { pool: Arc::clone(self), number: (index << self.shape.shift) + free }))
    }

    fn take_back(&self, page: usize) {
        let mut slabs = self.lock();
        let (index, number) = (page >> self.shape.shift, page & ((1 << self.shape.shift) - 1));
        if let Some(slab) = slabs.get_mut(index) {
            slab.free.push(number);
        }
        // One free slab stays while pages come and go; the last one goes when a rollout is over, as training needs the room.
        let is_free = |slab: &Slab| slab.free.len() == 1 << self.shape.shift;
        while let [before @ .., last] = &slabs[..]
            && is_free(last)
            && before.last().is_none_or(is_free)
        {
            slabs.pop();
        }
    }
}

/// Keys and values of one sequence. A clone holds the same pages; a page that several caches hold is copied when one of them writes
/// to it, which can only be the last.
#[derive(Clone, Debug)]
pub(crate) struct CandleCache {
    pool: Arc<PagePool>,
    pages: Vec<Arc<Page>>,
    length: usize,
}

/// Room for new tokens of a cache, which does not hold them yet.
pub(super) struct Grown {
    /// The pages after the first `kept` ones.
    added: Vec<Arc<Page>>,
    kept: usize,
    /// A page that several caches hold, its copy and the count of its positions.
    pub(super) copy: Option<[u32; 3]>,
    /// The numbers of all pages.
    pub(super) pages: Vec<u32>,
}

impl CandleCache {
    pub(super) fn new(pool: &Arc<PagePool>) -> Self {
        Self { pool: Arc::clone(pool), pages: Vec::new(), length: 0 }
    }

    /// Tokens held.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The first `length` tokens, in the same memory.
    pub(crate) fn prefix(&self, length: usize) -> Self {
        let length = length.min(self.length);
        Self { pool: Arc::clone(&self.pool), pages: self.pages[..length.div_ceil(PAGE)].to_vec(), length }
    }

    /// The pages, each with what tells it from others, and their size in bytes.
    pub(crate) fn blocks(&self) -> (impl Iterator<Item = usize>, usize) {
        (self.pages.iter().map(|page| Arc::as_ptr(page) as usize), self.pool.page_bytes())
    }

    /// Whether the last page has room, but other caches hold it too.
    fn shared_end(&self) -> bool {
        !self.length.is_multiple_of(PAGE) && self.pages.last().is_some_and(|page| Arc::strong_count(page) > 1)
    }

    /// Bytes that `count` more tokens take at most.
    pub(crate) fn growth(&self, count: usize) -> usize {
        let added = (self.length + count).div_ceil(PAGE) - self.length.div_ceil(PAGE);
        (added + usize::from(self.shared_end())) * self.pool.page_bytes()
    }

    /// Whether the cache was made by the decoder with these pages.
    pub(super) fn fits(&self, pool: &Arc<PagePool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// Room for `count` more tokens; the cache stays as it is.
    ///
    /// # Errors
    /// If the device has no room.
    pub(super) fn grown(&self, count: usize) -> Result<Grown> {
        let (mut added, mut copy) = (Vec::new(), None);
        let mut kept = self.pages.len();
        if let Some(last) = self.pages.last().filter(|_| self.shared_end()) {
            let own = self.pool.page()?;
            copy = Some([last.number as u32, own.number as u32, (self.length % PAGE) as u32]);
            kept -= 1;
            added.push(own);
        }
        while (kept + added.len()) * PAGE < self.length + count {
            added.push(self.pool.page()?);
        }
        let pages = self.pages[..kept].iter().chain(&added).map(|page| page.number as u32).collect();
        Ok(Grown { added, kept, copy, pages })
    }

    /// Takes the `count` tokens that there is room for, once every layer has them.
    pub(super) fn take(&mut self, grown: Grown, count: usize) {
        self.pages.truncate(grown.kept);
        self.pages.extend(grown.added);
        self.length += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(cache: &CandleCache) -> Vec<usize> {
        cache.pages.iter().map(|page| page.number).collect()
    }

    fn extended(cache: &CandleCache, count: usize) -> (CandleCache, Option<[u32; 3]>) {
        let grown = cache.grown(count).unwrap();
        let (copy, pages) = (grown.copy, grown.pages.clone());
        let mut cache = cache.clone();
        cache.take(grown, count);
        assert_eq!(numbers(&cache), pages.iter().map(|&page| page as usize).collect::<Vec<_>>());
        (cache, copy)
    }

    #[test]
    fn clones_share_pages_until_they_are_written() {
        let pool = PagePool::new(&DecoderConfig::tiny(10), &Device::Cpu, DType::F32);
        let (first, copy) = extended(&CandleCache::new(&pool), PAGE + 8);
        assert_eq!((numbers(&first), copy, first.growth(1)), (vec![0, 1], None, 0));
        let mut second = first.prefix(PAGE + 5);
        let bytes = pool.page_bytes();
        assert_eq!((first.growth(1), second.growth(1), second.growth(2 * PAGE)), (bytes, bytes, 3 * bytes));
        let (grown, copy) = extended(&second, 1);
        second = grown;
        assert_eq!((numbers(&second), copy, second.growth(1)), (vec![0, 2], Some([1, 2, 5]), 0));
        // The other one is alone with its end again, and a whole page is never copied.
        assert_eq!(extended(&first, 1).1, None);
        assert_eq!(extended(&first.prefix(PAGE), 1).1, None);
        let (blocks, size) = first.blocks();
        let all: std::collections::HashSet<usize> = blocks.chain(second.blocks().0).collect();
        assert_eq!((all.len(), size), (3, bytes));
    }

    #[test]
    fn pages_that_nobody_holds_are_given_away_again_and_slabs_go_with_the_last() {
        let pool = PagePool::new(&DecoderConfig::tiny(10), &Device::Cpu, DType::F32);
        let slab = PAGE << pool.shape.shift;
        let (first, _) = extended(&CandleCache::new(&pool), 10);
        let (second, _) = extended(&CandleCache::new(&pool), 2 * slab);
        assert_eq!(pool.slabs().len(), 3);
        drop(second);
        // One of those that are free stays.
        assert_eq!(pool.slabs().len(), 2);
        let (third, _) = extended(&CandleCache::new(&pool), slab);
        assert_eq!(pool.slabs().len(), 2);
        assert!(!numbers(&third).contains(&numbers(&first)[0]));
        drop((first, third));
        assert!(pool.slabs().is_empty());
    }
}
