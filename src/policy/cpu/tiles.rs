//! The inner loops of matrix products: a few rows by one or several panels of [`LANES`] columns, all sums in registers.
//! Compiled twice, for the processor level of the build and for AVX-512, and chosen when the program runs: every element
//! is one chain of multiply-adds in the order of the inner index either way, so the results have the same bits.

/// Columns of a panel: one 512-bit register, or two of 256 bits.
pub(super) const LANES: usize = 16;
/// Most rows computed together with 16 registers of 256 bits: 6 x 2 sums, two columns and one broadcast.
const BASE_ROWS: usize = 6;
/// Most rows computed together with 32 registers of 512 bits. Twelve sums hide the latency of two multiply-adds a cycle.
const WIDE_ROWS: usize = 12;

/// The instructions that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Those of the build.
    Base,
    /// AVX-512.
    Wide,
}

impl Level {
    /// The best of this processor.
    pub(super) fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            return Self::Wide;
        }
        Self::Base
    }

    /// Rows of a group of an interleaved left side, and most rows of a tile.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Base => BASE_ROWS,
            Self::Wide => WIDE_ROWS,
        }
    }
}

/// Where the rows of a tile's left side lie.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// Row-major: row `i` at `i * stride`.
    Rows,
    /// In groups of [`Level::rows`] rows: inner index `p` at `p * rows`, rows beside each other.
    Interleaved,
}

/// The sizes of a product on blocks that need no further packing.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) left_stride: usize,
    pub(super) right_stride: usize,
    pub(super) out_stride: usize,
    /// Columns to store, at most `LANES` for each panel.
    pub(super) columns: usize,
    pub(super) accumulate: bool,
}

/// `a * b + c`, fused where the processor can; elsewhere a fused one would be a slow library call.
#[inline]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

type Sums<const M: usize, const N: usize> = [[[f32; LANES]; N]; M];

/// Where the values of a left side stand: that of row `i` at inner index `p` at `i * row + p * step`.
#[derive(Clone, Copy)]
struct Strides {
    row: usize,
    step: usize,
}

/// Stops the program if `M` rows or a panel end before what a tile reads of them.
#[inline]
fn check_ends<const M: usize, const N: usize>(block: &Block, left: &[f32], strides: Strides, right: [&[f32]; N]) {
    let Some(last) = block.depth.checked_sub(1) else { return };
    assert!(M > 0 && (M - 1) * strides.row + last * strides.step < left.len(), "the left side ends early");
    assert!(right.iter().all(|panel| last * block.right_stride + LANES <= panel.len()), "a panel ends early");
}

/// `M` rows by `N` panels. With slices in the loop every index would be tested, which takes as long as the arithmetic; and
/// no inlining may mix the sums with other memory, so that the compiler keeps them in registers.
#[inline(never)]
#[expect(unsafe_code, reason = "the ends of all that is read are compared with the slices first")]
fn multiply_base<const M: usize, const N: usize>(
    block: &Block,
    left: &[f32],
    strides: Strides,
    right: [&[f32]; N],
) -> Sums<M, N> {
    check_ends::<M, N>(block, left, strides, right);
    let mut sums = [[[0.0; LANES]; N]; M];
    let mut left = left.as_ptr();
    let mut panels = right.map(<[f32]>::as_ptr);
    for _ in 0..block.depth {
        // SAFETY: at inner index `p`, the value at `i * row + p * step`, at most the last one compared above.
        let values: [f32; M] = std::array::from_fn(|i| unsafe { *left.add(i * strides.row) });
        left = left.wrapping_add(strides.step);
        for n in 0..N {
            // SAFETY: at inner index `p`, `LANES` values from `p * right_stride` on, which end within the panel.
            let column: [f32; LANES] = unsafe { *panels[n].cast() };
            panels[n] = panels[n].wrapping_add(block.right_stride);
            for i in 0..M {
                for j in 0..LANES {
                    sums[i][n][j] = multiply_add(values[i], column[j], sums[i][n][j]);
                }
            }
        }
    }
    sums
}

/// The same with AVX-512. Left to itself, the compiler does not unroll a loop of this length; and with slices it tests every
/// index, which takes as long as the arithmetic.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m512, _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::{Block, LANES, Strides, Sums, WIDE_ROWS, check_ends};

    /// Values by which a prefetch is ahead.
    const PREFETCH: usize = 768;

    #[target_feature(enable = "avx512f")]
    #[inline]
    #[expect(unsafe_code, reason = "an array of 16 values is 64 writable bytes")]
    fn store<const M: usize, const N: usize>(sums: [[__m512; N]; M]) -> Sums<M, N> {
        let mut out = [[[0.0; LANES]; N]; M];
        for i in 0..M {
            for n in 0..N {
                // SAFETY: the reference covers all that is written; the store needs no alignment.
                unsafe { _mm512_storeu_ps(out[i][n].as_mut_ptr(), sums[i][n]) };
            }
        }
        out
    }

    /// As [`super::multiply_base`]; where the right side is `is_streamed` from memory, it is asked for in time.
    #[target_feature(enable = "avx512f")]
    #[inline]
    #[expect(unsafe_code, reason = "the ends of all that is read are compared with the slices first")]
    fn multiply<const M: usize, const N: usize>(
        block: &Block,
        left: &[f32],
        strides: Strides,
        right: [&[f32]; N],
        is_streamed: bool,
    ) -> Sums<M, N> {
        check_ends::<M, N>(block, left, strides, right);
        let mut sums = [[_mm512_setzero_ps(); N]; M];
        let mut left = left.as_ptr();
        let mut panels = right.map(<[f32]>::as_ptr);
        for _ in 0..block.depth {
            let mut columns = [_mm512_setzero_ps(); N];
            for n in 0..N {
                // SAFETY: at inner index `p`, `LANES` values from `p * right_stride` on, which end within the panel.
                columns[n] = unsafe { _mm512_loadu_ps(panels[n]) };
                if is_streamed {
                    _mm_prefetch::<_MM_HINT_T0>(panels[n].wrapping_add(PREFETCH).cast());
                }
                panels[n] = panels[n].wrapping_add(block.right_stride);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: at inner index `p`, the value at `i * row + p * step`, at most the last one compared above.
                let value = _mm512_set1_ps(unsafe { *left.add(i * strides.row) });
                for n in 0..N {
                    sums[n] = _mm512_fmadd_ps(value, columns[n], sums[n]);
                }
            }
            left = left.wrapping_add(strides.step);
        }
        store(sums)
    }

    #[target_feature(enable = "avx512f")]
    #[inline(never)]
    pub(super) fn rows<const M: usize, const N: usize>(block: &Block, left: &[f32], right: [&[f32]; N]) -> Sums<M, N> {
        multiply(block, left, Strides { row: block.left_stride, step: 1 }, right, true)
    }

    #[target_feature(enable = "avx512f")]
    #[inline(never)]
    pub(super) fn interleaved<const M: usize, const N: usize>(
        block: &Block,
        left: &[f32],
        right: [&[f32]; N],
    ) -> Sums<M, N> {
        multiply(block, left, Strides { row: 1, step: WIDE_ROWS }, right, false)
    }
}

/// The sums of a tile.
#[inline]
#[expect(unsafe_code, reason = "`Level::Wide` is made only where the processor has these instructions")]
fn sums_of<const M: usize, const N: usize>(
    block: &Block,
    (level, order): (Level, Order),
    left: &[f32],
    right: [&[f32]; N],
) -> Sums<M, N> {
    match (level, order) {
        // SAFETY: the processor was asked.
        #[cfg(target_arch = "x86_64")]
        (Level::Wide, Order::Rows) => unsafe { wide::rows(block, left, right) },
        #[cfg(target_arch = "x86_64")]
        (Level::Wide, Order::Interleaved) => unsafe { wide::interleaved(block, left, right) },
        (_, Order::Rows) => multiply_base(block, left, Strides { row: block.left_stride, step: 1 }, right),
        (_, Order::Interleaved) => multiply_base(block, left, Strides { row: 1, step: BASE_ROWS }, right),
    }
}

#[inline]
fn tile<const M: usize, const N: usize>(
    block: &Block,
    how: (Level, Order),
    left: &[f32],
    right: [&[f32]; N],
    out: &mut [f32],
) {
    let sums: Sums<M, N> = sums_of(block, how, left, right);
    for (i, sums) in sums.iter().enumerate() {
        for (n, sums) in sums.iter().enumerate() {
            let width = (block.columns - n * LANES).min(LANES);
            let out = &mut out[i * block.out_stride + n * LANES..][..width];
            if block.accumulate {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            } else if let Ok(out) = <&mut [f32; LANES]>::try_from(&mut *out) {
                *out = *sums;
            } else {
                out.copy_from_slice(&sums[..width]);
            }
        }
    }
}

/// All rows against `N` panels beside each other.
pub(super) fn sweep<const N: usize>(
    block: &Block,
    (level, order): (Level, Order),
    left: &[f32],
    right: [&[f32]; N],
    out: &mut [f32],
) {
    let most = level.rows();
    let mut row = 0;
    while row < block.rows {
        let rest = block.rows - row;
        // Interleaved rows lie in full groups; others are divided evenly, as tiles of few rows wait for their sums.
        let count = match order {
            Order::Rows => rest.div_ceil(rest.div_ceil(most)),
            Order::Interleaved => rest.min(most),
        };
        let left = match order {
            Order::Rows => &left[row * block.left_stride..],
            Order::Interleaved => &left[row * block.depth..],
        };
        let (how, out) = ((level, order), &mut out[row * block.out_stride..]);
        match count {
            1 => tile::<1, N>(block, how, left, right, out),
            2 => tile::<2, N>(block, how, left, right, out),
            3 => tile::<3, N>(block, how, left, right, out),
            4 => tile::<4, N>(block, how, left, right, out),
            5 => tile::<5, N>(block, how, left, right, out),
            6 => tile::<6, N>(block, how, left, right, out),
            7 => tile::<7, N>(block, how, left, right, out),
            8 => tile::<8, N>(block, how, left, right, out),
            9 => tile::<9, N>(block, how, left, right, out),
            10 => tile::<10, N>(block, how, left, right, out),
            11 => tile::<11, N>(block, how, left, right, out),
            _ => tile::<12, N>(block, how, left, right, out),
        }
        row += count;
    }
}

/// As [`sweep`] for at most three rows and four panels.
pub(super) fn sweep_few(block: &Block, level: Level, left: &[f32], right: [&[f32]; 4], out: &mut [f32]) {
    let how = (level, Order::Rows);
    match block.rows {
        0 => {}
        1 => tile::<1, 4>(block, how, left, right, out),
        2 => tile::<2, 4>(block, how, left, right, out),
        _ => tile::<3, 4>(block, how, left, right, out),
    }
}

/// How many panels a product takes at once: few rows need several to have enough sums under way, many rows are bound by how
/// often they read the left side.
pub(super) fn panels_at_once(level: Level, rows: usize) -> usize {
    match (level, rows) {
        (_, 0..=2) | (Level::Wide, 3) => 4,
        (Level::Base, 3) | (Level::Wide, _) => 2,
        (Level::Base, _) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    /// Machines with and without AVX-512 must give the same bytes. On one without, this compares nothing with itself.
    #[test]
    fn both_levels_give_the_same_bits_at_every_number_of_rows() {
        let mut stream = Seed::new(6).stream();
        let depth = 37;
        let mut random = |count: usize| (0..count).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let (left, right) = (random(30 * depth), [random(LANES * depth), random(LANES * depth)]);
        for rows in 1..=30 {
            for columns in [5, LANES, LANES + 3, 2 * LANES] {
                let results = [Level::Base, Level::of_processor()].map(|level| {
                    let block = Block {
                        rows,
                        depth,
                        left_stride: depth,
                        right_stride: LANES,
                        out_stride: columns,
                        columns,
                        accumulate: true,
                    };
                    let mut out = vec![1.0; rows * columns];
                    if columns > LANES {
                        sweep(&block, (level, Order::Rows), &left, [&right[0], &right[1]], &mut out);
                    } else {
                        sweep(&block, (level, Order::Rows), &left, [&right[0][..]], &mut out);
                    }
                    out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
                });
                assert_eq!(results[0], results[1], "{rows} rows, {columns} columns");
            }
        }
        let panels = [&right[0][..], &right[1], &right[0], &right[1]];
        for rows in 1..=3 {
            let block = Block {
                rows,
                depth,
                left_stride: depth,
                right_stride: LANES,
                out_stride: 4 * LANES,
                columns: 4 * LANES,
                accumulate: false,
            };
            let results = [Level::Base, Level::of_processor()].map(|level| {
                let mut out = vec![0.0; rows * 4 * LANES];
                sweep_few(&block, level, &left, panels, &mut out);
                out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            });
            assert_eq!(results[0], results[1], "{rows} rows");
        }
    }
}
