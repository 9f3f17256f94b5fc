//! New tokens of sequences through a network: their keys and values go to the pages of the caches.

use std::sync::Arc;

use candle_core::Tensor;

use super::network::{Network, Paged};
use super::pages::{CandleCache, PagePool};
use crate::policy::fused::{PageHeads, PagedRows, PagedSpan, copy_pages};
use crate::policy::{CacheStorage, Chunk, Error, KvCache, Logits, inputs};

/// [`crate::policy::Inference::extend_in_place`] with a network whose caches lie in `pool`.
pub(super) fn extend(network: &Network<'_>, chunks: &mut [Chunk<'_>], pool: &Arc<PagePool>) -> Result<Logits, Error> {
    inputs::check_chunks(network.config, chunks)?;
    pass(network, chunks, None, pool)
}

/// [`crate::policy::InferenceAhead::extend_by_drawn`] with such a network.
pub(super) fn extend_by_drawn(
    network: &Network<'_>,
    caches: &mut [&mut KvCache],
    tokens: &Tensor,
    pool: &Arc<PagePool>,
) -> Result<Logits, Error> {
    // The program does not know the tokens, which were drawn among those of the vocabulary.
    let mut chunks: Vec<Chunk<'_>> = caches.iter_mut().map(|cache| Chunk { cache, tokens: &[0] }).collect();
    inputs::check_chunks(network.config, &chunks)?;
    if tokens.dims() != [chunks.len()] {
        return Err(Error::Shape {
            name: "drawn tokens".to_owned(),
            expected: format!("{} of them", chunks.len()),
            found: format!("{:?}", tokens.dims()),
        });
    }
    pass(network, &mut chunks, Some(tokens), pool)
}

/// One pass; `drawn` are the tokens, one a chunk, where they are known to the device alone.
fn pass(
    network: &Network<'_>,
    chunks: &mut [Chunk<'_>],
    drawn: Option<&Tensor>,
    pool: &Arc<PagePool>,
) -> Result<Logits, Error> {
    if chunks.is_empty() {
        return Ok(Logits::on_host(Vec::new(), network.config.vocab_size));
    }
    let mut grown = Vec::with_capacity(chunks.len());
    for chunk in &*chunks {
        let cache = own(&chunk.cache.0, pool)?;
        grown.push(cache.grown(chunk.tokens.len())?);
    }
    let (slabs, shape) = (pool.slabs(), pool.shape());
    copy_pages((&slabs, shape), &grown.iter().filter_map(|grown| grown.copy).collect::<Vec<_>>())?;
    let pairs = chunks.iter().zip(&grown);
    let spans: Vec<PagedSpan<'_>> = pairs
        .map(|(chunk, grown)| PagedSpan { tokens: chunk.tokens, start: chunk.cache.len(), pages: &grown.pages })
        .collect();
    let heads =
        PageHeads { kv_heads: shape.kv_heads, group: network.config.head_count / shape.kv_heads, dim: shape.head_dim };
    let tables = |spans: &[PagedSpan<'_>]| PagedRows::new(spans, heads, pool.dtype(), pool.device());
    let has_others = spans.iter().any(|span| span.tokens.len() > 1);
    let ends = has_others.then(|| tables(&spans.iter().map(PagedSpan::end).collect::<Vec<_>>())).transpose()?;
    let mut rows = tables(&spans)?;
    if let Some(drawn) = drawn {
        rows.tokens = drawn.clone();
    }
    let hidden = network.hidden(&Paged { slabs, shape, rows, ends })?;
    let logits = Logits::on_device(network.projected(&hidden)?);
    for (chunk, grown) in chunks.iter_mut().zip(grown) {
        let count = chunk.tokens.len();
        if let CacheStorage::Candle(cache) = &mut chunk.cache.0 {
            cache.take(grown, count);
        }
    }
    Ok(logits)
}

/// A cache of the decoder with these pages.
fn own<'a>(cache: &'a CacheStorage, pool: &Arc<PagePool>) -> Result<&'a CandleCache, Error> {
    match cache {
        CacheStorage::Candle(cache) if cache.fits(pool) => Ok(cache),
        _ => Err(inputs::foreign_cache()),
    }
}
