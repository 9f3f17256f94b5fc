//! A device goes on with drawn tokens at once, without waiting for the program, which meanwhile reads them, plays by the rules and
//! says what may be drawn next. A token that an answer ends with goes through the model too: what follows it stands behind it.

use candle_core::Tensor;

use super::{Batcher, Held, Pass, Request};
use crate::policy::logits::Drawing;
use crate::policy::{Draw, Error, Inference, InferenceAhead, KvCache, Logits, Sampled, Sampling};

impl Batcher {
    /// Draws tokens for sequences of these passes, in the order of the passes and of their sequences; some may be left out. A decoder
    /// on a device has their logits ready for the next [`Batcher::step`].
    ///
    /// # Errors
    /// [`Error::Shape`] for a sequence that is in none of the passes, or in an earlier one; otherwise from the decoder.
    pub fn sample(
        &mut self,
        decoder: &dyn Inference,
        sampling: &Sampling,
        passes: &[Pass],
        draws: Vec<Draw<'_>>,
    ) -> Result<Vec<Sampled>, Error> {
        let sequences: Vec<usize> = draws.iter().map(|draw| draw.index).collect();
        let mut draws = draws.into_iter().peekable();
        let mut drawings = Vec::with_capacity(passes.len());
        for pass in passes {
            let of_row = || {
                let draw = draws.next_if(|draw| pass.row(draw.index).is_some())?;
                Some(Draw { index: pass.row(draw.index)?, ..draw })
            };
            drawings.push(pass.logits.draw(sampling, std::iter::from_fn(of_row).collect())?);
        }
        if let Some(draw) = draws.peek() {
            let expected = "one of the passes, in their order".to_owned();
            return Err(Error::Shape { name: "sequence".to_owned(), expected, found: draw.index.to_string() });
        }
        let places = self.go_ahead(decoder, &sequences, &drawings)?;
        let drawn = drawings.into_iter().map(Drawing::finish).collect::<Result<Vec<_>, _>>()?.concat();
        for place in places {
            if let Some(held) = &mut self.sequences[sequences[place]].held {
                held.tokens.push(drawn[place].token);
            }
        }
        Ok(drawn)
    }

    /// Extends the caches of these sequences by what is being drawn for them, as far as there is room. Returns the places among the
    /// sequences of those that were.
    fn go_ahead(
        &mut self,
        decoder: &dyn Inference,
        sequences: &[usize],
        drawings: &[Drawing<'_>],
    ) -> Result<Vec<usize>, Error> {
        let tokens = drawings.iter().map(Drawing::tokens).collect::<Option<Vec<_>>>();
        let (Some(ahead), Some(tokens)) = (decoder.ahead(), tokens) else { return Ok(Vec::new()) };
        if sequences.len() > self.max_batch_tokens {
            return Ok(Vec::new());
        }
        let (mut places, mut all_held) = (Vec::new(), Vec::new());
        let mut free = self.free_bytes();
        for (place, &sequence) in sequences.iter().enumerate() {
            let fits = |held: &mut Held| {
                let has_room = free.is_none_or(|free| held.cache.growth(1) as i64 <= free);
                has_room && held.cache.len() < decoder.config().max_positions
            };
            // A second token for the same sequence finds no cache.
            if let Some(held) = self.sequences[sequence].held.take_if(fits) {
                free = free.map(|free| free - held.cache.growth(1) as i64);
                places.push(place);
                all_held.push(held);
            }
        }
        if places.is_empty() {
            return Ok(places);
        }
        let mut caches: Vec<&mut KvCache> = all_held.iter_mut().map(|held| &mut held.cache).collect();
        let logits = extend(ahead, &mut caches, (&tokens, sequences.len()), &places);
        for (&place, held) in places.iter().zip(all_held) {
            self.sequences[sequences[place]].held = Some(held);
        }
        let logits = logits?;
        self.stats.computed += places.len();
        let mut rows: Vec<_> = places.iter().enumerate().map(|(row, &place)| (sequences[place], row)).collect();
        rows.sort_unstable();
        self.ahead = Some(Pass { logits, rows });
        Ok(places)
    }

    /// The logits that were computed before they were asked for, and the other requests.
    pub(super) fn ready<'a>(&mut self, requests: &[Request<'a>]) -> (Pass, Vec<Request<'a>>) {
        let ahead = self.ahead.take().unwrap_or_else(Pass::empty);
        let (mut found, mut others) = (Vec::with_capacity(ahead.rows.len()), Vec::new());
        for request in requests {
            let sequence = request.sequence;
            match (ahead.row(sequence), &mut self.sequences[sequence].held) {
                (Some(row), Some(held)) if held.cache.len() == request.tokens.len() => found.push((sequence, row)),
                (_, held) => {
                    // Logits that nobody asked for at once are gone: the last token is computed again.
                    let wanted = request.tokens.len() - 1;
                    if let Some(held) = held.as_mut().filter(|held| held.cache.len() > wanted) {
                        held.cache = held.cache.prefix(wanted);
                        held.tokens.truncate(wanted);
                    }
                    others.push(*request);
                }
            }
        }
        found.sort_unstable();
        (Pass { rows: found, ..ahead }, others)
    }
}

/// The logits behind those of `count` drawn tokens that are named by their places.
fn extend(
    decoder: &dyn InferenceAhead,
    caches: &mut [&mut KvCache],
    (tokens, count): (&[&Tensor], usize),
    places: &[usize],
) -> Result<Logits, Error> {
    let parts: Vec<&Tensor> = tokens.iter().copied().filter(|tokens| tokens.elem_count() > 0).collect();
    let mut all = if let [only] = parts[..] { only.clone() } else { Tensor::cat(&parts, 0)? };
    if places.len() < count {
        let places: Vec<u32> = places.iter().map(|&place| place as u32).collect();
        all = all.index_select(&Tensor::new(places, all.device())?, 0)?;
    }
    decoder.extend_by_drawn(caches, &all)
}
