//! Matrix products on one core or several. The forward pass multiplies with weights packed once per update ([`Panels`]); the
//! backward pass packs as it goes ([`multiply`]). Plain Rust that compiles to fused multiply-adds on full vector registers.
//!
//! Every element of a product is one chain of multiply-adds in the order of the inner index, whichever rows share a call and
//! however many threads work. So a row's result has the same bits in any batch, sampled token by token or scored at once.

use rayon::prelude::*;

pub(super) use super::tiles::LANES;
use super::tiles::{Block, Level, Order, panels_at_once, sweep, sweep_few};

/// Length of the inner index between loads and stores of the accumulators: a panel of it is 16 KiB, half of a level 1 cache.
const DEPTH: usize = 256;
/// Multiply-adds (about 0.05 ms) from which a product is split over threads.
const PARALLEL_WORK: usize = 1 << 22;
/// Rows below which reading the weights takes longer than multiplying: a product of fewer counts as one of so many.
const STREAMED_ROWS: usize = 8;
/// Rows of one task of a split product with packed weights, a multiple of the rows of a tile.
const TASK_ROWS: usize = 48;
/// Columns of one task of a split product with too few rows to split, a multiple of `LANES`.
const TASK_COLUMNS: usize = 96;
/// Rows of one task of [`multiply`], which packs its right side in every task.
const PACKING_TASK_ROWS: usize = 192;

/// Makes a buffer at least this long and returns that part; what is in it stays.
pub(super) fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// The left side of [`Panels::multiply`] and the place of the result.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// How many rows.
    pub(super) count: usize,
    /// Distance between rows of the left side.
    pub(super) stride: usize,
    /// Whether the product is added to what stands there.
    pub(super) accumulate: bool,
}

/// A matrix `[out, in]` packed for `y = x W^T`: groups of `LANES` rows of `W`, each as `[in, LANES]`; the last is filled up
/// with zeros.
#[derive(Debug, Default)]
pub(super) struct Panels {
    data: Vec<f32>,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// Packs `weight`, `[out, depth]` row-major.
    pub(super) fn pack(&mut self, weight: &[f32], depth: usize) {
        (self.depth, self.columns) = (depth, weight.len() / depth);
        self.data.resize(self.columns.div_ceil(LANES) * LANES * depth, 0.0);
        let panels = self.data.par_chunks_mut(LANES * depth).zip(weight.par_chunks(LANES * depth));
        panels.with_min_len(8).for_each(|(panel, rows)| pack_transposed(panel, rows, depth, depth));
    }

    /// `out (+)= left W^T`.
    ///
    /// # Shapes
    /// - `left`: `[rows.count, in]` with distance `rows.stride`; `out`: `[rows.count, out]`, contiguous
    pub(super) fn multiply(&self, rows: Rows, left: &[f32], out: &mut [f32]) {
        let columns = self.columns;
        let out = &mut out[..rows.count * columns];
        if rows.count.max(STREAMED_ROWS) * columns * self.depth < PARALLEL_WORK {
            self.multiply_part(rows, left, 0..columns, out);
        } else if rows.count >= 2 * TASK_ROWS {
            out.par_chunks_mut(TASK_ROWS * columns).enumerate().for_each(|(task, out)| {
                let part = Rows { count: out.len() / columns, ..rows };
                self.multiply_part(part, &left[task * TASK_ROWS * rows.stride..], 0..columns, out);
            });
        } else {
            self.multiply_by_columns(rows, left, out);
        }
    }

    /// Few rows: tasks are groups of columns, which they compute apart because rows of `out` interleave them.
    fn multiply_by_columns(&self, rows: Rows, left: &[f32], out: &mut [f32]) {
        let mut tasks: Vec<Vec<&mut [f32]>> = Vec::new();
        tasks.resize_with(self.columns.div_ceil(TASK_COLUMNS), || Vec::with_capacity(rows.count));
        for row in out.chunks_exact_mut(self.columns) {
            for (task, part) in tasks.iter_mut().zip(row.chunks_mut(TASK_COLUMNS)) {
                task.push(part);
            }
        }
        tasks.into_par_iter().enumerate().for_each_init(Vec::new, |buffer, (task, parts)| {
            let first = task * TASK_COLUMNS;
            let range = first..(first + TASK_COLUMNS).min(self.columns);
            let buffer = sized(buffer, rows.count * range.len());
            if rows.accumulate {
                for (buffer, part) in buffer.chunks_exact_mut(range.len()).zip(&parts) {
                    buffer.copy_from_slice(part);
                }
            }
            self.multiply_part(rows, left, range.clone(), buffer);
            for (buffer, part) in buffer.chunks_exact(range.len()).zip(parts) {
                part.copy_from_slice(buffer);
            }
        });
    }

    /// The columns `range` (starting at a multiple of `LANES`) into `out`, `[rows.count, range.len()]`.
    fn multiply_part(&self, rows: Rows, left: &[f32], range: std::ops::Range<usize>, out: &mut [f32]) {
        let level = Level::of_processor();
        let at_once = panels_at_once(level, rows.count);
        let mut first = range.start;
        while first < range.end {
            let count = at_once.min((range.end - first).div_ceil(LANES));
            let count = if count == 3 { 2 } else { count };
            let columns = (count * LANES).min(range.end - first);
            for start in (0..self.depth).step_by(DEPTH) {
                let block = Block {
                    rows: rows.count,
                    depth: DEPTH.min(self.depth - start),
                    left_stride: rows.stride,
                    right_stride: LANES,
                    out_stride: range.len(),
                    columns,
                    accumulate: rows.accumulate || start > 0,
                };
                let panel = |n| &self.data[(first + n * LANES) * self.depth + start * LANES..][..block.depth * LANES];
                let (left, out) = (&left[start..], &mut out[first - range.start..]);
                match count {
                    4 => sweep_few(&block, level, left, std::array::from_fn(panel), out),
                    2 => sweep(&block, (level, Order::Rows), left, [panel(0), panel(1)], out),
                    _ => sweep(&block, (level, Order::Rows), left, [panel(0)], out),
                }
            }
            first += count * LANES;
        }
    }

    /// The products of one row with the `LANES` outputs from `LANES * panel` on; the same bits as [`Panels::multiply`].
    pub(super) fn multiply_panel(&self, left: &[f32], panel: usize) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        let data = &self.data[panel * LANES * self.depth..][..LANES * self.depth];
        for start in (0..self.depth).step_by(DEPTH) {
            let block = Block {
                rows: 1,
                depth: DEPTH.min(self.depth - start),
                left_stride: 0,
                right_stride: LANES,
                out_stride: LANES,
                columns: LANES,
                accumulate: start > 0,
            };
            sweep(&block, (Level::of_processor(), Order::Rows), &left[start..], [&data[start * LANES..]], &mut out);
        }
        out
    }
}

/// `out (+)= left right` where `right` already has `LANES` readable columns a row: for the small products of attention.
#[derive(Clone, Copy)]
pub(super) struct SmallProduct {
    /// Rows of `left` and `out`.
    pub(super) rows: usize,
    /// Length of the inner index.
    pub(super) depth: usize,
    /// Distances between the rows of `left`, `right` and `out`.
    pub(super) strides: [usize; 3],
    /// Columns to store, at most `LANES`.
    pub(super) columns: usize,
    /// Whether the product is added to what stands there.
    pub(super) accumulate: bool,
}

impl SmallProduct {
    /// Computes it.
    pub(super) fn run(self, left: &[f32], right: &[f32], out: &mut [f32]) {
        let [left_stride, right_stride, out_stride] = self.strides;
        let Self { rows, depth, columns, accumulate, .. } = self;
        let block = Block { rows, depth, left_stride, right_stride, out_stride, columns, accumulate };
        sweep(&block, (Level::of_processor(), Order::Rows), left, [right], out);
    }
}

/// A matrix, or the transposed of one, somewhere in a slice.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
    stride: usize,
    transposed: bool,
}

impl<'a> Operand<'a> {
    /// The matrix whose rows lie `stride` apart.
    pub(super) fn new(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, transposed: false }
    }

    /// The transposed of the matrix whose rows lie `stride` apart.
    pub(super) fn transposed(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, transposed: true }
    }

    /// A row of a matrix that is not transposed, and what lies behind it.
    pub(super) fn row(self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..]
    }

    /// From this row and column on.
    fn from(self, row: usize, column: usize) -> &'a [f32] {
        let (row, column) = if self.transposed { (column, row) } else { (row, column) };
        &self.data[row * self.stride + column..]
    }
}

/// The place of a product of [`multiply`].
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Rows of the left side.
    pub(super) rows: usize,
    /// Columns of the right side.
    pub(super) columns: usize,
    /// Length of the inner index.
    pub(super) depth: usize,
    /// Distance between rows of `out`.
    pub(super) out_stride: usize,
    /// Whether the product is added to what stands there.
    pub(super) accumulate: bool,
}

/// Buffers for packing.
#[derive(Debug, Default)]
pub(super) struct Packing {
    left: Vec<f32>,
    right: Vec<f32>,
}

/// `out (+)= left right`, packing both sides as needed.
pub(super) fn multiply(product: Product, left: Operand, right: Operand, out: &mut [f32], packing: &mut Packing) {
    let Product { rows, columns, depth, out_stride, .. } = product;
    // Rows of `out` must be contiguous for tasks to own them.
    let splits = out_stride == columns && rows > PACKING_TASK_ROWS && rows * columns * depth >= PARALLEL_WORK;
    if !splits {
        multiply_serial(product, left, right, out, packing);
        return;
    }
    let tasks = out[..rows * columns].par_chunks_mut(PACKING_TASK_ROWS * columns).enumerate();
    tasks.for_each_init(Packing::default, |packing, (task, out)| {
        let part = Product { rows: out.len() / columns, ..product };
        let left = Operand { data: left.from(task * PACKING_TASK_ROWS, 0), ..left };
        multiply_serial(part, left, right, out, packing);
    });
}

fn multiply_serial(product: Product, left: Operand, right: Operand, out: &mut [f32], packing: &mut Packing) {
    let Product { rows, columns, depth, out_stride, accumulate } = product;
    let level = Level::of_processor();
    for start in (0..depth).step_by(DEPTH) {
        let part = DEPTH.min(depth - start);
        let (order, left_part, left_stride) = if left.transposed {
            pack_columns(&mut packing.left, left.from(0, start), left.stride, (rows, level.rows()), part);
            (Order::Interleaved, &packing.left[..], 0)
        } else {
            (Order::Rows, left.from(0, start), left.stride)
        };
        packing.right.resize(2 * DEPTH * LANES, 0.0);
        let (first_panel, second_panel) = packing.right.split_at_mut(DEPTH * LANES);
        let at_once = panels_at_once(level, rows).min(2);
        for first in (0..columns).step_by(at_once * LANES) {
            let width = (at_once * LANES).min(columns - first);
            pack_panel(first_panel, right, (start, first), (part, width.min(LANES)));
            let block = Block {
                rows,
                depth: part,
                left_stride,
                right_stride: LANES,
                out_stride,
                columns: width,
                accumulate: accumulate || start > 0,
            };
            let out = &mut out[first..];
            if width > LANES {
                pack_panel(second_panel, right, (start, first + LANES), (part, width - LANES));
                sweep(&block, (level, order), left_part, [&*first_panel, &*second_panel], out);
            } else {
                sweep(&block, (level, order), left_part, [&*first_panel], out);
            }
        }
    }
}

/// `width` columns of `right` from a row and column on, as `[depth, LANES]`.
fn pack_panel(panel: &mut [f32], right: Operand, (row, column): (usize, usize), (depth, width): (usize, usize)) {
    let source = right.from(row, column);
    if right.transposed {
        let source = &source[..(width - 1) * right.stride + depth];
        pack_transposed(&mut panel[..depth * LANES], source, right.stride, depth);
        return;
    }
    for (row, source) in panel.chunks_exact_mut(LANES).zip(source.chunks(right.stride)).take(depth) {
        if width == LANES {
            row.copy_from_slice(&source[..LANES]);
        } else {
            row[..width].copy_from_slice(&source[..width]);
        }
    }
}

/// Up to `LANES` rows of `source` (`depth` long, `stride` apart) as `[depth, LANES]`; missing rows become zeros.
fn pack_transposed(panel: &mut [f32], source: &[f32], stride: usize, depth: usize) {
    let count = source.len().div_ceil(stride).min(LANES);
    // Blocks of 16 steps keep both sides in cache.
    for (block, panel) in panel.chunks_mut(LANES * LANES).enumerate() {
        for lane in 0..LANES {
            if lane >= count {
                panel.iter_mut().skip(lane).step_by(LANES).for_each(|value| *value = 0.0);
                continue;
            }
            let row = &source[lane * stride..][..depth];
            for (value, &from) in panel[lane..].iter_mut().step_by(LANES).zip(&row[block * LANES..]) {
                *value = from;
            }
        }
    }
}

/// The transposed of `[depth, rows]` in groups of rows, each `[depth, group]`; what is past the end is stale but unused.
fn pack_columns(packed: &mut Vec<f32>, source: &[f32], stride: usize, (rows, in_group): (usize, usize), depth: usize) {
    let packed = sized(packed, rows.div_ceil(in_group) * in_group * depth);
    for (group, packed) in packed.chunks_exact_mut(in_group * depth).enumerate() {
        let first = group * in_group;
        let width = in_group.min(rows - first);
        for (packed, source) in packed.chunks_exact_mut(in_group).zip(source[first..].chunks(stride)) {
            packed[..width].copy_from_slice(&source[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn random(seed: u64, count: usize) -> Vec<f32> {
        let mut stream = Seed::new(seed).stream();
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    /// `[rows, columns]` by plain loops in `f64`, reading `left[i, p]` and `right[p, j]` through closures.
    fn plain(sizes: [usize; 3], left: impl Fn(usize, usize) -> f32, right: impl Fn(usize, usize) -> f32) -> Vec<f64> {
        let [rows, columns, depth] = sizes;
        let element = |i: usize, j: usize| (0..depth).map(|p| f64::from(left(i, p)) * f64::from(right(p, j))).sum();
        (0..rows * columns).map(|index| element(index / columns, index % columns)).collect()
    }

    /// The error of a sum of `depth` products of normal numbers in `f32` stays under this.
    fn assert_close(found: &[f32], expected: &[f64], depth: usize) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6 * depth as f64 + 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn packed_products_match_plain_loops_at_every_size() {
        // The last two are large enough to be split over threads, by rows and by columns.
        for [rows, columns, depth] in
            [[1, 1, 1], [5, 16, 8], [7, 33, 19], [13, 40, 300], [97, 300, 300], [20, 700, 650]]
        {
            let (left, weight) = (random(1, rows * depth), random(2, columns * depth));
            let expected = plain([rows, columns, depth], |i, p| left[i * depth + p], |p, j| weight[j * depth + p]);
            let mut panels = Panels::default();
            panels.pack(&weight, depth);
            let mut out = vec![0.0; rows * columns];
            let shape = Rows { count: rows, stride: depth, accumulate: false };
            panels.multiply(shape, &left, &mut out);
            assert_close(&out, &expected, depth);
            for column in 0..columns {
                let panel = panels.multiply_panel(&left[..depth], column / LANES);
                assert_eq!(panel[column % LANES].to_bits(), out[column].to_bits());
            }
            panels.multiply(Rows { accumulate: true, ..shape }, &left, &mut out);
            let doubled: Vec<_> = expected.iter().map(|value| value * 2.0).collect();
            assert_close(&out, &doubled, 2 * depth);
        }
    }

    #[test]
    fn general_products_match_plain_loops_in_all_four_orders() {
        for [rows, columns, depth] in [[1, 1, 1], [6, 16, 8], [7, 33, 19], [50, 20, 600], [400, 300, 130]] {
            for (left_transposed, right_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
                let left_stride = if left_transposed { rows } else { depth } + 3;
                let right_stride = if right_transposed { depth } else { columns } + 5;
                let left = random(3, (rows + depth) * (rows + depth + 3));
                let right = random(4, (columns + depth) * (columns + depth + 5));
                let at = |data: &[f32], stride: usize, transposed: bool, row: usize, column: usize| {
                    if transposed { data[column * stride + row] } else { data[row * stride + column] }
                };
                let expected = plain(
                    [rows, columns, depth],
                    |i, p| at(&left, left_stride, left_transposed, i, p),
                    |p, j| at(&right, right_stride, right_transposed, p, j),
                );
                let mut out = vec![7.0; rows * columns];
                let product = Product { rows, columns, depth, out_stride: columns, accumulate: false };
                let left = Operand { data: &left, stride: left_stride, transposed: left_transposed };
                let right = Operand { data: &right, stride: right_stride, transposed: right_transposed };
                multiply(product, left, right, &mut out, &mut Packing::default());
                assert_close(&out, &expected, depth);
            }
        }
    }

    /// Sampling computes a row among others, scoring computes it among different others: the ratio must still be 1.
    #[test]
    fn a_row_has_the_same_bits_in_any_batch() {
        let (rows, columns, depth) = (23, 40, 300);
        let (left, weight) = (random(5, rows * depth), random(6, columns * depth));
        let mut panels = Panels::default();
        panels.pack(&weight, depth);
        let mut together = vec![0.0; rows * columns];
        panels.multiply(Rows { count: rows, stride: depth, accumulate: false }, &left, &mut together);
        for row in 0..rows {
            let mut alone = vec![0.0; columns];
            let shape = Rows { count: 1, stride: depth, accumulate: false };
            panels.multiply(shape, &left[row * depth..], &mut alone);
            assert_eq!(alone, together[row * columns..][..columns]);
        }
    }
}
