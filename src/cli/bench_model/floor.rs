//! What the machine can do at best, measured: copies of memory and multiply-adds on registers, on all threads. The least
//! time of a piece of work is the larger of what its bytes and its operations take at these rates.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::policy::open_cuda;

/// Rates of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// Bytes read and bytes written a second while copying, together.
    pub(super) copied_bytes: f64,
    /// Floating-point operations a second.
    pub(super) operations: f64,
}

/// Values of a buffer that is copied: 128 MiB, more than any cache holds.
const COPIED: usize = 1 << 25;
/// Values of a copying task.
const COPY_TASK: usize = 1 << 20;
/// Time of one measurement; the best of several counts.
const TIME: Duration = Duration::from_millis(200);
const REPEATS: usize = 5;
/// Independent sums of a thread: enough to keep two multiply-adds of 16 values, 4 steps deep, under way.
const SUMS: usize = 160;
const STEPS: usize = 4096;

impl Floor {
    /// Measures `device`, as decoders name it; of several alike the first, and counts all.
    pub(super) fn measure(device: &str, dtype: &str) -> anyhow::Result<Self> {
        let (count, first) = (device.split(',').count() as f64, device.split(',').next().unwrap_or(device));
        match first.strip_prefix("cuda:").map(str::parse) {
            Some(index) => {
                let one = on_device(&open_cuda(index?)?, dtype)?;
                Ok(Self { copied_bytes: count * one.copied_bytes, operations: count * one.operations })
            }
            None => Ok(Self { copied_bytes: copies(), operations: multiply_adds() }),
        }
    }

    /// The least time of so much work, in seconds.
    pub(super) fn seconds(&self, bytes: f64, operations: f64) -> f64 {
        (bytes / self.copied_bytes).max(operations / self.operations)
    }
}

/// The most work a second over the repeats, each as many rounds as fit in [`TIME`].
fn best(work: f64, mut round: impl FnMut()) -> f64 {
    round();
    let measure = |_| {
        let (start, mut rounds) = (Instant::now(), 0.0);
        while start.elapsed() < TIME {
            round();
            rounds += 1.0;
        }
        work * rounds / start.elapsed().as_secs_f64()
    };
    (0..REPEATS).map(measure).fold(0.0, f64::max)
}

fn copies() -> f64 {
    let from = vec![1.0_f32; COPIED];
    let mut to = vec![0.0_f32; COPIED];
    best(2.0 * size_of_val(&from[..]) as f64, || {
        let tasks = to.par_chunks_mut(COPY_TASK).zip(from.par_chunks(COPY_TASK));
        tasks.for_each(|(to, from)| to.copy_from_slice(black_box(from)));
    })
}

fn multiply_adds() -> f64 {
    let threads = rayon::current_num_threads();
    let tasks = 16 * threads;
    best((2 * SUMS * STEPS * tasks) as f64, || {
        (0..tasks).into_par_iter().for_each(|task| {
            black_box(chains(black_box(task as f32)));
        });
    })
}

/// [`SUMS`] chains of [`STEPS`] multiply-adds, with the widest instructions of the processor.
fn chains(start: f32) -> [f32; SUMS] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        #[expect(unsafe_code, reason = "the processor has the instructions")]
        // SAFETY: it was just asked.
        return unsafe { chains_wide(start) };
    }
    chains_base(start)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline(never)]
fn chains_wide(start: f32) -> [f32; SUMS] {
    chains_body(start)
}

#[inline(never)]
fn chains_base(start: f32) -> [f32; SUMS] {
    chains_body(start)
}

#[inline]
fn chains_body(start: f32) -> [f32; SUMS] {
    let (factor, term) = (black_box(0.999_f32), black_box(1e-3_f32));
    let mut sums = [start; SUMS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, term);
        }
    }
    sums
}

/// On a graphics processor: copies of a tensor, and the library's product of large matrices.
fn on_device(device: &Device, dtype: &str) -> anyhow::Result<Floor> {
    const SIDE: usize = 8192;
    const QUEUED: u32 = 8;
    let last = |work: fn(&Tensor) -> candle_core::Result<Tensor>, matrix: &Tensor| {
        (1..QUEUED).try_for_each(|_| work(matrix).map(drop)).and_then(|()| work(matrix))
    };
    let dtype = if dtype == "bf16" { DType::BF16 } else { DType::F32 };
    // A processor that multiplies ones draws less power and is faster than it ever is.
    let noise = |index: usize| f32::from((index as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]) / 128.0 - 1.0;
    let matrix = Tensor::from_iter((0..SIDE * SIDE).map(noise), device)?.reshape((SIDE, SIDE))?.to_dtype(dtype)?;
    let mut failure = None;
    let mut round = |work: &dyn Fn() -> candle_core::Result<Tensor>| {
        if let Err(error) = work().and_then(|result| Ok((result, device.synchronize()?))) {
            failure = Some(error);
        }
    };
    let bytes = 2.0 * (matrix.elem_count() * dtype.size_in_bytes()) as f64;
    // Several for each wait, which would count as well.
    let each = f64::from(QUEUED);
    let copied_bytes = best(each * bytes, || round(&|| last(Tensor::copy, &matrix)));
    let operations =
        best(each * 2.0 * (SIDE as f64).powi(3), || round(&|| last(|matrix| matrix.matmul(matrix), &matrix)));
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Floor { copied_bytes, operations }),
    }
}
