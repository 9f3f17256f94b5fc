//! What happens to the flat gradient: summing shards, its norm, and the AdamW step. Element-wise or in blocks of fixed size,
//! so the same bytes for any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::model::Places;
use super::moments::{self, Narrow, NarrowTensor, OpenBlock};
use crate::policy::AdamWStep;

/// Elements of one task.
const BLOCK: usize = 1 << 15;

/// Adds the shards to the gradient, first to last.
pub(super) fn add_shards(gradient: &mut [f32], shards: &[Vec<f32>]) {
    gradient.par_chunks_mut(BLOCK).enumerate().for_each(|(block, sums)| {
        for shard in shards {
            for (sum, value) in sums.iter_mut().zip(&shard[block * BLOCK..]) {
                *sum += value;
            }
        }
    });
}

/// The L2 norm, with sums in `f64`.
pub(super) fn norm(gradient: &[f32]) -> f64 {
    let block = |values: &[f32]| values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    let sums: Vec<f64> = gradient.par_chunks(BLOCK).map(block).collect();
    sums.iter().sum::<f64>().sqrt()
}

/// The flat vectors that a step reads and changes, of one length.
pub(super) struct Moving<'a> {
    pub(super) weights: &'a mut [f32],
    pub(super) gradient: &'a [f32],
    pub(super) first: &'a mut [f32],
    pub(super) second: &'a mut [f32],
}

/// As [`adamw`] with moments in 8 bits: a block of them is widened, moved and narrowed again by one task.
pub(super) fn adamw_narrow(
    step: &AdamWStep,
    places: &Places,
    (weights, gradient): (&mut [f32], &[f32]),
    (first, second): (&mut Narrow, &mut Narrow),
) {
    let tensors = first.tensors.iter_mut().zip(&mut second.tensors);
    for (place, moments) in places.list.iter().zip(tensors) {
        let decay = if place.shape.len() == 2 { step.weight_decay } else { 0.0 };
        let weights = &mut weights[place.range.clone()];
        let gradient = &gradient[place.range.clone()];
        match moments {
            (NarrowTensor::Wide(first), NarrowTensor::Wide(second)) => {
                adamw_range(step, decay, (weights, gradient), [first, second]);
            }
            (
                NarrowTensor::Codes { codes: first, scales: first_scales },
                NarrowTensor::Codes { codes: second, scales: second_scales },
            ) => {
                let blocks = weights.par_chunks_mut(moments::BLOCK).zip(gradient.par_chunks(moments::BLOCK));
                let first = first.par_chunks_mut(moments::BLOCK).zip(first_scales);
                let second = second.par_chunks_mut(moments::BLOCK).zip(second_scales);
                blocks.zip(first).zip(second).for_each(|(((weights, gradient), first), second)| {
                    let mut open = OpenBlock::open((first.0, *first.1), (second.0, *second.1));
                    let count = weights.len();
                    let moments = [&mut open.first[..count], &mut open.second[..count]];
                    Rates::of(step, decay).apply((weights, gradient), moments);
                    (*first.1, *second.1) = open.close(first.0, second.0);
                });
            }
            // Both are made for the same places.
            _ => {}
        }
    }
}

/// AdamW (arXiv:1711.05101, algorithm 2, with a schedule multiplier of 1 and the decay multiplied by the learning rate, as
/// in PyTorch): with `g` the scaled gradient,
/// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
/// `w = w (1 - lr decay) - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)`.
///
/// `decayed` lists the ranges that decay, ascending.
pub(super) fn adamw(step: &AdamWStep, decayed: &[Range<usize>], moving: Moving<'_>) {
    let Moving { weights, gradient, first, second } = moving;
    let mut start = 0;
    for range in decayed {
        let kept = start..range.start;
        for (part, decay) in [(kept, 0.0), (range.clone(), step.weight_decay)] {
            adamw_range(
                step,
                decay,
                (&mut weights[part.clone()], &gradient[part.clone()]),
                [&mut first[part.clone()], &mut second[part]],
            );
        }
        start = range.end;
    }
    adamw_range(step, 0.0, (&mut weights[start..], &gradient[start..]), [&mut first[start..], &mut second[start..]]);
}

fn adamw_range(step: &AdamWStep, decay: f64, (weights, gradient): (&mut [f32], &[f32]), moments: [&mut [f32]; 2]) {
    let [first, second] = moments;
    let rates = Rates::of(step, decay);
    let blocks = weights.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    let blocks = blocks.zip(first.par_chunks_mut(BLOCK)).zip(second.par_chunks_mut(BLOCK));
    blocks.for_each(|(((weights, gradient), first), second)| rates.apply((weights, gradient), [first, second]));
}

/// The numbers of a step in the precision that it is taken in.
#[derive(Clone, Copy)]
struct Rates {
    scale: f32,
    beta1: [f32; 2],
    beta2: [f32; 2],
    keep: f32,
    rate: f32,
    second_factor: f32,
    epsilon: f32,
}

impl Rates {
    fn of(step: &AdamWStep, decay: f64) -> Self {
        // The power of a step number beyond i32 is 0 anyway.
        let power = i32::try_from(step.step).unwrap_or(i32::MAX);
        let first_correction = 1.0 - step.beta1.powi(power);
        let second_correction = 1.0 - step.beta2.powi(power);
        Self {
            scale: step.gradient_scale as f32,
            beta1: [step.beta1 as f32, (1.0 - step.beta1) as f32],
            beta2: [step.beta2 as f32, (1.0 - step.beta2) as f32],
            keep: (1.0 - step.learning_rate * decay) as f32,
            rate: (step.learning_rate / first_correction) as f32,
            second_factor: (1.0 / second_correction) as f32,
            epsilon: step.epsilon as f32,
        }
    }

    fn apply(self, (weights, gradient): (&mut [f32], &[f32]), [first, second]: [&mut [f32]; 2]) {
        for (((weight, &gradient), first), second) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
            let gradient = gradient * self.scale;
            *first = self.beta1[0] * *first + self.beta1[1] * gradient;
            *second = self.beta2[0] * *second + self.beta2[1] * gradient * gradient;
            let root = (*second * self.second_factor).sqrt() + self.epsilon;
            *weight = *weight * self.keep - self.rate * *first / root;
        }
    }
}
