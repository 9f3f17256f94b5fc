//! Checks of what callers hand to a decoder, the same for every backend. After them the arithmetic cannot fail for a reason
//! of the caller's.

use std::collections::BTreeMap;

use super::{Chunk, DecoderConfig, Error, NamedTensor, Sequence, Target};

fn shape_error(name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Shape { name: name.to_owned(), expected: expected.into(), found: found.into() }
}

/// The error for a weight that is not there.
pub(super) fn missing(name: &str) -> Error {
    shape_error(name, "a tensor", "none")
}

/// The error for a cache that another model or backend made.
pub(super) fn foreign_cache() -> Error {
    shape_error("cache", "a cache that this decoder made", "one of another model or backend")
}

fn check_tokens(config: &DecoderConfig, tokens: &[u32], held: usize) -> Result<(), Error> {
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
        return Err(shape_error("tokens", format!("ids below {}", config.vocab_size), token.to_string()));
    }
    let length = held + tokens.len();
    if length > config.max_positions {
        return Err(shape_error("tokens", format!("at most {} positions", config.max_positions), length.to_string()));
    }
    Ok(())
}

/// Checks the chunks of [`super::Inference::extend`].
///
/// # Errors
/// [`Error::Shape`] for a chunk without tokens, an id outside the vocabulary or a context that is too long.
pub(super) fn check_chunks(config: &DecoderConfig, chunks: &[Chunk<'_>]) -> Result<(), Error> {
    for chunk in chunks {
        if chunk.tokens.is_empty() {
            return Err(shape_error("tokens", "at least one token a chunk", "none"));
        }
        check_tokens(config, chunk.tokens, chunk.cache.len())?;
    }
    Ok(())
}

/// Checks the sequences of [`super::Decoder::score`] and [`super::Decoder::accumulate`].
///
/// # Errors
/// [`Error::Shape`] naming what does not fit.
pub(super) fn check_sequences(
    config: &DecoderConfig,
    sequences: &[Sequence<'_>],
    temperature: f32,
) -> Result<(), Error> {
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(shape_error("temperature", "a positive number", temperature.to_string()));
    }
    for sequence in sequences {
        check_tokens(config, sequence.tokens, 0)?;
        let mut last = 0;
        for target in sequence.targets {
            let position = target.position as usize;
            if position <= last || position >= sequence.tokens.len() {
                let expected = format!("ascending positions from 1 to {}", sequence.tokens.len().saturating_sub(1));
                return Err(shape_error("targets", expected, format!("{position} after {last}")));
            }
            last = position;
            check_allowed(config, target, sequence.tokens[position])?;
        }
    }
    Ok(())
}

fn check_allowed(config: &DecoderConfig, target: &Target, token: u32) -> Result<(), Error> {
    let Some(allowed) = &target.allowed else { return Ok(()) };
    if allowed.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(shape_error("allowed", "ascending ids", format!("{allowed:?}")));
    }
    if let Some(&id) = allowed.last().filter(|&&id| id as usize >= config.vocab_size) {
        return Err(shape_error("allowed", format!("ids below {}", config.vocab_size), id.to_string()));
    }
    if allowed.binary_search(&token).is_err() {
        let found = format!("token {token} at position {} outside them", target.position);
        return Err(shape_error("allowed", "ids that the sampled token is among", found));
    }
    Ok(())
}

/// Checks that `tensors` are those of a list of names and shapes, each once, in any order.
///
/// # Errors
/// [`Error::Shape`] if a name is missing, unknown, given twice or has another shape.
pub(super) fn check_tensors(expected: &[(String, Vec<usize>)], tensors: &[NamedTensor]) -> Result<(), Error> {
    let mut missing: BTreeMap<&str, &[usize]> =
        expected.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    for tensor in tensors {
        let Some(shape) = missing.remove(tensor.name.as_str()) else {
            return Err(shape_error(&tensor.name, "each parameter of the model once", "another tensor of this name"));
        };
        let size = shape.iter().product::<usize>();
        if shape != tensor.shape || size != tensor.data.len() {
            let found = format!("{:?} with {} values", tensor.shape, tensor.data.len());
            return Err(shape_error(&tensor.name, format!("{shape:?}"), found));
        }
    }
    match missing.into_iter().next() {
        Some((name, shape)) => Err(shape_error(name, format!("{shape:?}"), "no such tensor")),
        None => Ok(()),
    }
}
