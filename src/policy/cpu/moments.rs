//! Adam's moments, in 32 bits or in 8: block-wise dynamic quantization (Dettmers et al., arXiv:2110.02861, section 2). A value is
//! its block's largest magnitude times one of 256 numbers, which lie denser towards zero.
//!
//! Departures: both ends of the signed map are ±1, so that a block's scale survives being read and quantized again and a
//! checkpoint in 32 bits restores the same bytes; and a second moment above zero never becomes zero, which would divide the
//! first one by epsilon alone.

use std::ops::Range;
use std::sync::LazyLock;

use rayon::prelude::*;

use super::model::Places;

/// Values that share a scale (the paper: 2048).
pub(super) const BLOCK: usize = 2048;
/// Tensors with fewer values stay in 32 bits: they are no memory, and norms are sensitive (the paper's code: 4096).
const MIN_NARROW: usize = 4096;

/// The numbers that a code stands for, ascending, and the borders between them.
pub(super) struct Map {
    values: Vec<f32>,
    borders: Vec<f32>,
    is_signed: bool,
}

impl Map {
    /// Dynamic tree quantization: seven decades, `10^(i - 6)` times the middles of `2^i` equal parts of `[0.1, 1]` with a sign,
    /// twice as many without, for `i` from 0 to 6; and 0.
    fn new(is_signed: bool) -> Self {
        let mut values = vec![0.0];
        for decade in 0..7 {
            let parts = 1_usize << (decade + usize::from(!is_signed));
            let size = 10_f64.powi(decade as i32 - 6);
            for part in 0..parts {
                let is_last = decade == 6 && part + 1 == parts;
                let middle = if is_last { 1.0 } else { 0.1 + 0.9 * (part as f64 + 0.5) / parts as f64 };
                values.push((size * middle) as f32);
                if is_signed {
                    values.push(-(size * middle) as f32);
                }
            }
        }
        values.sort_by(f32::total_cmp);
        let borders = values.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect();
        Self { values, borders, is_signed }
    }

    /// The code of the number nearest to `value`, which is at most 1 in magnitude.
    fn code(&self, value: f32) -> u8 {
        let code = self.borders.partition_point(|&border| border < value);
        // Without a sign, code 0 is zero.
        if !self.is_signed && code == 0 && value > 0.0 { 1 } else { code as u8 }
    }

    fn quantize(&self, values: &[f32], codes: &mut [u8]) -> f32 {
        let scale = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        if !(scale > 0.0 && scale.is_finite()) {
            codes.fill(self.code(0.0));
            return 0.0;
        }
        for (code, value) in codes.iter_mut().zip(values) {
            *code = self.code(value / scale);
        }
        scale
    }

    fn dequantize(&self, codes: &[u8], scale: f32, values: &mut [f32]) {
        for (value, &code) in values.iter_mut().zip(codes) {
            *value = self.values[code as usize] * scale;
        }
    }
}

static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(true));
static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(false));

/// One moment of everything that is trained; empty before the first step.
#[derive(Debug, Default)]
pub(super) enum Moment {
    /// Before the first step: zero.
    #[default]
    Zero,
    /// In 32 bits.
    Wide(Vec<f32>),
    /// In 8 bits, but for small tensors.
    Narrow(Narrow),
}

/// A moment in 8 bits.
#[derive(Debug)]
pub(super) struct Narrow {
    pub(super) tensors: Vec<NarrowTensor>,
}

/// A tensor's part of a moment.
#[derive(Debug)]
pub(super) enum NarrowTensor {
    /// Too small to be worth it.
    Wide(Vec<f32>),
    /// A code a value, and a scale for each [`BLOCK`] of them.
    Codes { codes: Vec<u8>, scales: Vec<f32> },
}

/// Which of the two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Second,
}

impl Which {
    pub(super) fn map(self) -> &'static Map {
        match self {
            Self::First => &SIGNED,
            Self::Second => &UNSIGNED,
        }
    }
}

impl Moment {
    /// All values in 32 bits.
    pub(super) fn values(&self, which: Which, total: usize) -> Vec<f32> {
        match self {
            Self::Zero => vec![0.0; total],
            Self::Wide(values) => values.clone(),
            Self::Narrow(narrow) => {
                let mut values = Vec::with_capacity(total);
                for tensor in &narrow.tensors {
                    tensor.append_to(which, &mut values);
                }
                values
            }
        }
    }

    /// The moment in 32 bits, made if it is not there yet.
    pub(super) fn wide(&mut self, which: Which, total: usize) -> &mut Vec<f32> {
        if !matches!(self, Self::Wide(_)) {
            *self = Self::Wide(self.values(which, total));
        }
        match self {
            Self::Wide(values) => values,
            // It was made so above.
            Self::Zero | Self::Narrow(_) => unreachable!("the moment is wide"),
        }
    }

    /// The moment in 8 bits, made if it is not there yet; one that was in 8 bits before gets the same codes.
    pub(super) fn narrow(&mut self, which: Which, places: &Places) -> &mut Narrow {
        if !matches!(self, Self::Narrow(_)) {
            let values = match std::mem::take(self) {
                Self::Wide(values) => values,
                Self::Zero | Self::Narrow(_) => Vec::new(),
            };
            let tensor = |range: Range<usize>| match values.get(range.clone()) {
                Some(values) => NarrowTensor::from_values(which, values),
                None => NarrowTensor::zero(which, range.len()),
            };
            let tensors = places.list.iter().map(|place| tensor(place.range.clone())).collect();
            *self = Self::Narrow(Narrow { tensors });
        }
        match self {
            Self::Narrow(narrow) => narrow,
            Self::Zero | Self::Wide(_) => unreachable!("the moment is narrow"),
        }
    }
}

impl NarrowTensor {
    fn zero(which: Which, count: usize) -> Self {
        if count < MIN_NARROW {
            return Self::Wide(vec![0.0; count]);
        }
        Self::Codes { codes: vec![which.map().code(0.0); count], scales: vec![0.0; count.div_ceil(BLOCK)] }
    }

    fn from_values(which: Which, values: &[f32]) -> Self {
        let mut tensor = Self::zero(which, values.len());
        match &mut tensor {
            Self::Wide(own) => own.copy_from_slice(values),
            Self::Codes { codes, scales } => {
                let blocks = codes.par_chunks_mut(BLOCK).zip(scales).zip(values.par_chunks(BLOCK));
                blocks.for_each(|((codes, scale), values)| *scale = which.map().quantize(values, codes));
            }
        }
        tensor
    }

    fn append_to(&self, which: Which, values: &mut Vec<f32>) {
        match self {
            Self::Wide(own) => values.extend_from_slice(own),
            Self::Codes { codes, scales } => {
                let start = values.len();
                values.resize(start + codes.len(), 0.0);
                let blocks = values[start..].par_chunks_mut(BLOCK).zip(codes.par_chunks(BLOCK)).zip(scales);
                blocks.for_each(|((values, codes), &scale)| which.map().dequantize(codes, scale, values));
            }
        }
    }
}

/// A block of both moments, in 32 bits while a step works on it.
pub(super) struct OpenBlock {
    pub(super) first: [f32; BLOCK],
    pub(super) second: [f32; BLOCK],
}

impl OpenBlock {
    pub(super) fn open(first: (&[u8], f32), second: (&[u8], f32)) -> Self {
        let mut block = Self { first: [0.0; BLOCK], second: [0.0; BLOCK] };
        SIGNED.dequantize(first.0, first.1, &mut block.first);
        UNSIGNED.dequantize(second.0, second.1, &mut block.second);
        block
    }

    /// Narrows both again; returns their scales.
    pub(super) fn close(&self, first: &mut [u8], second: &mut [u8]) -> (f32, f32) {
        let first = SIGNED.quantize(&self.first[..first.len()], first);
        (first, UNSIGNED.quantize(&self.second[..second.len()], second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn the_maps_are_those_of_the_paper() {
        let (signed, unsigned) = (&*SIGNED, &*UNSIGNED);
        assert_eq!((signed.values.len(), unsigned.values.len()), (255, 255));
        assert!(signed.values.is_sorted() && unsigned.values.is_sorted());
        assert_eq!(
            (signed.values[0], signed.values[254], unsigned.values[0], unsigned.values[254]),
            (-1.0, 1.0, 0.0, 1.0)
        );
        // The smallest numbers: the middle of [0.1, 1] and of its first half, six decades down.
        let smallest = signed.values.iter().copied().find(|&value| value > 0.0).unwrap();
        assert!((smallest - 0.55e-6).abs() < 1e-12 && (unsigned.values[1] - 0.325e-6).abs() < 1e-12);
    }

    /// A part of the largest decade is 0.9 / 64 of the block's largest value with a sign and half of that without; the last one,
    /// whose number is its upper end, makes errors of three quarters of a part. Codes survive being read and written again.
    #[test]
    fn values_come_back_close_and_codes_exactly() {
        let mut stream = Seed::new(4).stream();
        let values: Vec<f32> = (0..3 * BLOCK + 7).map(|_| (stream.normal() * 1e-3) as f32).collect();
        let squares: Vec<f32> = values.iter().map(|value| value * value).collect();
        for (which, values) in [(Which::First, &values), (Which::Second, &squares)] {
            let tensor = NarrowTensor::from_values(which, values);
            let mut back = Vec::new();
            tensor.append_to(which, &mut back);
            for (block, found) in values.chunks(BLOCK).zip(back.chunks(BLOCK)) {
                let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                let part = if which == Which::First { 0.9 / 64.0 } else { 0.9 / 128.0 };
                for (value, found) in block.iter().zip(found) {
                    assert!((value - found).abs() < 0.76 * part * largest, "{value} became {found}, below {largest}");
                }
            }
            assert!(which == Which::First || back.iter().all(|&value| value > 0.0), "no second moment is lost");
            let again = NarrowTensor::from_values(which, &back);
            match (&tensor, &again) {
                (NarrowTensor::Codes { codes: a, scales: b }, NarrowTensor::Codes { codes: c, scales: d }) => {
                    assert_eq!((a, b), (c, d));
                }
                _ => panic!("both are in 8 bits"),
            }
        }
    }
}
