//! The logits of a pass, wherever they were computed, and tokens drawn from them there: a vocabulary for each sequence is too much to
//! copy from a device at every token.

use candle_core::Tensor;
use rayon::prelude::*;

use super::Error;
use super::fused::{DrawnTokens, TokenDraw, draw_tokens};
use super::sampling::{Sampled, Sampling, sample};
use crate::seed::Stream;

/// Rows of logits, `[rows, vocab]`.
#[derive(Clone, Debug)]
pub struct Logits(Values);

#[derive(Clone, Debug)]
enum Values {
    /// Row-major, with the size of the vocabulary.
    Host(Vec<f32>, usize),
    /// In any type that kernels take.
    Candle(Tensor),
    /// In several places: of each row the part that it lies in, and its number there.
    Parts(Vec<Logits>, Vec<(usize, usize)>),
}

/// A token that is to be drawn.
#[derive(Debug)]
pub struct Draw<'a> {
    /// What it is drawn for: a row of [`Logits`], or a sequence of a [`super::Pass`].
    pub index: usize,
    /// The ids that it is drawn among, ascending; `None` for all.
    pub allowed: Option<&'a [u32]>,
    /// Where its random number comes from.
    pub stream: &'a mut Stream,
}

impl Logits {
    /// Logits in the program's memory.
    pub fn on_host(values: Vec<f32>, vocab_size: usize) -> Self {
        Self(Values::Host(values, vocab_size))
    }

    /// Logits of a tensor, `[rows, vocab]`.
    pub(super) fn on_device(values: Tensor) -> Self {
        Self(Values::Candle(values))
    }

    /// Logits of several decoders: `places` names for each row the part that it lies in, and its number there.
    pub(super) fn in_parts(parts: Vec<Self>, places: Vec<(usize, usize)>) -> Self {
        Self(Values::Parts(parts, places))
    }

    /// A copy in the program's memory, `[rows, vocab]`, row-major.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    pub fn into_host(self) -> Result<Vec<f32>, Error> {
        Ok(match self.0 {
            Values::Host(values, _) => values,
            Values::Candle(values) => values.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?,
            Values::Parts(parts, places) => {
                let width = parts.first().map_or(Ok(0), Self::vocab_size)?;
                let parts = parts.into_iter().map(Self::into_host).collect::<Result<Vec<_>, _>>()?;
                let row = |&(part, row): &(usize, usize)| &parts[part][row * width..][..width];
                places.iter().map(row).collect::<Vec<_>>().concat()
            }
        })
    }

    /// A copy of one row.
    pub(super) fn row(&self, row: usize) -> Result<Self, Error> {
        Ok(Self(match &self.0 {
            Values::Host(values, width) => Values::Host(values[row * width..][..*width].to_vec(), *width),
            Values::Candle(values) => Values::Candle(values.narrow(0, row, 1)?.copy()?),
            Values::Parts(parts, places) => return parts[places[row].0].row(places[row].1),
        }))
    }

    /// The rows of all these, one after the other; of one decoder.
    pub(super) fn joined(parts: &[impl AsRef<Self>]) -> Result<Self, Error> {
        if Self::are_apart(parts) {
            let (mut all, mut places) = (Vec::new(), Vec::new());
            for part in parts {
                let before = all.len();
                match &part.as_ref().0 {
                    Values::Parts(parts, own) => {
                        all.extend(parts.iter().cloned());
                        places.extend(own.iter().map(|(part, row)| (before + part, *row)));
                    }
                    Values::Host(values, width) => {
                        places.extend((0..values.len() / width).map(|row| (before, row)));
                        all.push(part.as_ref().clone());
                    }
                    Values::Candle(values) => {
                        places.extend((0..values.dim(0)?).map(|row| (before, row)));
                        all.push(part.as_ref().clone());
                    }
                }
            }
            return Ok(Self::in_parts(all, places));
        }
        let mut tensors = Vec::new();
        let (mut all, mut vocab_size) = (Vec::new(), 0);
        for part in parts {
            match &part.as_ref().0 {
                Values::Candle(values) => tensors.push(values),
                Values::Host(values, width) => {
                    all.extend_from_slice(values);
                    vocab_size = *width;
                }
                Values::Parts(..) => {}
            }
        }
        Ok(Self(if tensors.is_empty() {
            Values::Host(all, vocab_size)
        } else {
            Values::Candle(Tensor::cat(&tensors, 0)?)
        }))
    }

    /// Whether these lie in several places.
    fn are_apart(parts: &[impl AsRef<Self>]) -> bool {
        let Some(first) = parts.first() else { return false };
        parts.iter().any(|part| match (&first.as_ref().0, &part.as_ref().0) {
            (Values::Host(..), Values::Host(..)) => false,
            (Values::Candle(first), Values::Candle(values)) => !first.device().same_device(values.device()),
            _ => true,
        })
    }

    fn vocab_size(&self) -> Result<usize, Error> {
        Ok(match &self.0 {
            Values::Host(_, width) => *width,
            Values::Candle(values) => values.dim(1)?,
            Values::Parts(parts, _) => parts.first().map_or(Ok(0), Self::vocab_size)?,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Values::Host(values, _) => size_of_val(&values[..]),
            Values::Candle(values) => values.elem_count() * values.dtype().size_in_bytes(),
            Values::Parts(parts, _) => parts.iter().map(Self::bytes).sum(),
        }
    }

    /// Draws tokens, several for a row if they are asked for. Where none of the logits is finite, the first allowed token is taken.
    /// What is drawn and what a stream is asked for does not depend on where the logits are, but for what sums in another order lose.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    pub fn sample(&self, sampling: &Sampling, draws: Vec<Draw<'_>>) -> Result<Vec<Sampled>, Error> {
        self.draw(sampling, draws)?.finish()
    }

    /// As [`Logits::sample`], without waiting for a device.
    ///
    /// # Errors
    /// As [`Logits::sample`].
    pub(super) fn draw<'a>(&self, sampling: &Sampling, draws: Vec<Draw<'a>>) -> Result<Drawing<'a>, Error> {
        Ok(Drawing(match &self.0 {
            Values::Host(values, width) => {
                let draw = |draw: Draw<'_>| {
                    sample(&values[draw.index * width..][..*width], draw.allowed, sampling, draw.stream)
                };
                State::Done(draws.into_par_iter().map(draw).collect())
            }
            Values::Candle(values) => {
                // A number is taken from a stream only where it decided.
                let numbers: Vec<TokenDraw<'_>> = draws
                    .iter()
                    .map(|draw| TokenDraw {
                        row: draw.index,
                        allowed: draw.allowed,
                        number: draw.stream.clone().float(),
                    })
                    .collect();
                let drawn = draw_tokens(values, &numbers, sampling)?;
                State::Coming { draws, drawn, is_greedy: sampling.is_greedy() }
            }
            Values::Parts(parts, places) => {
                let mut of_parts: Vec<(Vec<usize>, Vec<Draw<'_>>)> = parts.iter().map(|_| Default::default()).collect();
                let count = draws.len();
                for (index, draw) in draws.into_iter().enumerate() {
                    let (part, row) = places[draw.index];
                    of_parts[part].0.push(index);
                    of_parts[part].1.push(Draw { index: row, ..draw });
                }
                let mut found = vec![None; count];
                for (part, (indices, draws)) in
                    parts.iter().zip(of_parts).filter(|(_, (indices, _))| !indices.is_empty())
                {
                    for (index, drawn) in indices.into_iter().zip(part.sample(sampling, draws)?) {
                        found[index] = Some(drawn);
                    }
                }
                State::Done(found.into_iter().flatten().collect())
            }
        }))
    }
}

/// Tokens that are being drawn.
#[derive(Debug)]
pub(super) struct Drawing<'a>(State<'a>);

#[derive(Debug)]
enum State<'a> {
    Done(Vec<Sampled>),
    Coming { draws: Vec<Draw<'a>>, drawn: DrawnTokens, is_greedy: bool },
}

impl Drawing<'_> {
    /// The tokens where the logits lie, `[draws]`, `u32`; `None` if that is the program's memory, or several places.
    pub(super) fn tokens(&self) -> Option<&Tensor> {
        match &self.0 {
            State::Done(_) => None,
            State::Coming { drawn, .. } => Some(drawn.tokens()),
        }
    }

    /// The tokens, in the order of the draws.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the backend fails.
    pub(super) fn finish(self) -> Result<Vec<Sampled>, Error> {
        match self.0 {
            State::Done(sampled) => Ok(sampled),
            State::Coming { draws, drawn, is_greedy } => {
                let accept = |(draw, found): (Draw<'_>, Option<Sampled>)| {
                    if found.is_some() && !is_greedy {
                        draw.stream.float();
                    }
                    found.unwrap_or_else(|| Sampled::impossible(draw.allowed))
                };
                Ok(draws.into_iter().zip(drawn.finish()?).map(accept).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::seed::Seed;

    /// Each row twice, one of them without a finite logit, free and constrained; the streams stand where they would stand.
    #[test]
    fn draws_are_the_same_wherever_logits_are() {
        let vocab_size = 700;
        let mut noise = Seed::new(1).stream();
        let mut values: Vec<f32> = (0..3 * vocab_size).map(|_| 2.0 * noise.normal() as f32).collect();
        values[vocab_size..2 * vocab_size].fill(f32::NAN);
        let tensor = Tensor::from_slice(&values, (3, vocab_size), &Device::Cpu).unwrap();
        // The first row in one place, the others in another, and all of it put together from rows of its own again.
        let apart = Logits::in_parts(
            vec![Logits::on_device(tensor.clone()), Logits::on_host(values[..vocab_size].to_vec(), vocab_size)],
            vec![(1, 0), (0, 1), (0, 2)],
        );
        let row = |row: usize| std::sync::Arc::new(apart.row(row).unwrap());
        let two = std::sync::Arc::new(Logits::joined(&[row(0), row(1)]).unwrap());
        let again = Logits::joined(&[two, row(2)]).unwrap();
        let places = [Logits::on_host(values, vocab_size), Logits::on_device(tensor), apart, again];
        for sampling in [
            Sampling::default(),
            Sampling { temperature: 0.0, ..Sampling::default() },
            Sampling { temperature: 1.3, top_k: 50, top_p: 0.8, min_p: 0.01 },
        ] {
            let [host, others @ ..] = places.each_ref().map(|logits| {
                let mut streams: Vec<Stream> = (0..6).map(|index| Seed::new(2).child("draw", index).stream()).collect();
                let draws = streams.iter_mut().enumerate().map(|(draw, stream)| Draw {
                    index: draw % 3,
                    allowed: (draw > 3).then_some(&[5, 6, 90][..]),
                    stream,
                });
                let drawn = logits.sample(&sampling, draws.collect()).unwrap();
                (drawn, streams.iter_mut().map(Stream::float).collect::<Vec<_>>())
            });
            assert!(others.iter().all(|other| *other == host), "{sampling:?}");
        }
        let [host, others @ ..] = places.each_ref().map(|logits| {
            let rows: Vec<std::sync::Arc<Logits>> =
                [2, 0].map(|row| std::sync::Arc::new(logits.row(row).unwrap())).into();
            assert_eq!(rows[0].bytes(), 4 * vocab_size);
            Logits::joined(&rows).unwrap().into_host().unwrap()
        });
        assert!(others.iter().all(|other| *other == host));
    }
}
