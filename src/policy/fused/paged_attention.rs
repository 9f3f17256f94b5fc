//! Attention of new tokens to the pages of their sequences ([`super::pages`]).

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::attention::{WIDTHS, scale, tile_bytes};
use super::layout::tile_rows;
use super::operation::{Argument, Input, Launch, Operation, Spec, int, run, suffix};
use super::pages::{PAGE, PageShape, PagedRows, WARP_ROWS, file};
use crate::policy::cpu::{add_scaled, dot, fast_exp};

/// Warps of a block for single tokens.
const DECODE_WARPS: usize = 4;

/// Causal attention of new tokens to the pages of their sequences, in which their own keys and values stand already. Query head `h`
/// has the keys of head `h / (heads / kv_heads)`; nothing is recorded.
///
/// # Shapes
/// - `queries`: `[rows, heads, head_dim]`, `f32`, `bf16` or `f16`, turned; `slabs`: [`PageShape::slab_dims`], the same type
/// - returns the shape and type of `queries`
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn paged_attention(
    queries: &Tensor,
    (slabs, shape): (&[Tensor], PageShape),
    layer: usize,
    rows: &PagedRows,
) -> Result<Tensor> {
    let operation = PagedAttention { shape, layer, slots: rows.slots };
    let inputs = [queries].into_iter().chain(rows.of_attention()).chain(slabs);
    Ok(run(&operation, &inputs.collect::<Vec<_>>())?.swap_remove(0))
}

/// The operation of [`paged_attention`]: inputs `queries`, [`PagedRows::of_attention`] and the slabs. Outputs the result, and on a device the parts of tokens, `[slots, heads, head_dim + 2]`.
#[derive(Debug)]
pub struct PagedAttention {
    /// How pages are laid out.
    pub shape: PageShape,
    /// The layer.
    pub layer: usize,
    /// Count of parts that are put together.
    pub slots: usize,
}

/// Inputs before the slabs.
const TABLES: usize = 8;

impl PagedAttention {
    fn heads(&self, inputs: &[Spec]) -> Result<usize> {
        let [_, heads, dim] = inputs[0].dims[..] else { bail!("attention of {:?}", inputs[0]) };
        let fits = dim == self.shape.head_dim && heads.is_multiple_of(self.shape.kv_heads);
        if !fits || self.layer >= self.shape.layers || inputs.len() <= TABLES {
            bail!("attention of {:?} to pages {:?} in layer {}", inputs[0], self.shape, self.layer);
        }
        self.shape.check(&inputs[TABLES..], inputs[0].dtype)?;
        Ok(heads)
    }

    /// Attention of one query row to its first `end` positions, whose pages `page` finds by number and head.
    fn attend<'a>(&self, query: &[f32], end: usize, page: impl Fn(usize, usize) -> [&'a [f32]; 2], out: &mut [f32]) {
        let dim = self.shape.head_dim;
        let group = query.len() / dim / self.shape.kv_heads;
        let mut weights = vec![0.0; end];
        for (head, (query, out)) in query.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
            let pages = || weights_of_pages(end).map(|range| (page(range.start / PAGE, head / group), range));
            for ([keys, _], range) in pages() {
                for (weight, key) in weights[range].iter_mut().zip(keys.chunks_exact(dim)) {
                    *weight = dot(query, key) * scale(dim);
                }
            }
            let top = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for weight in &mut weights {
                *weight = fast_exp(*weight - top);
            }
            let sum: f32 = weights.iter().sum();
            for ([_, values], range) in pages() {
                for (weight, values) in weights[range].iter().zip(values.chunks_exact(dim)) {
                    add_scaled(out, weight / sum, values);
                }
            }
        }
    }
}

/// Shared memory of a block for single tokens: `DecodeMemory` of `kernels/decode.cuh`.
fn decode_bytes(dtype: DType, dim: usize, group: usize) -> usize {
    let aligned = |count: usize, size: usize| (count * size).next_multiple_of(128);
    let (float, size, rows) = (size_of::<f32>(), dtype.size_in_bytes(), DECODE_WARPS * WARP_ROWS);
    let (padding, fetched) = if dtype == DType::F32 { (1, 0) } else { (8, 2 * DECODE_WARPS * PAGE * (dim + 8)) };
    let (scores, results) = (aligned(rows * (PAGE + 4), float), DECODE_WARPS * group.min(WARP_ROWS) * dim * float);
    let last = if fetched > 0 { scores + results.max(fetched * size) } else { results.max(scores) };
    aligned(rows * (dim + padding), size) + 3 * aligned(rows, float) + last
}

/// The positions below `end` page by page.
fn weights_of_pages(end: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..end).step_by(PAGE).map(move |start| start..end.min(start + PAGE))
}

impl Operation for PagedAttention {
    fn name(&self) -> &'static str {
        "paged-attention"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let heads = self.heads(inputs)?;
        let parts = vec![self.slots, heads, self.shape.head_dim + 2];
        Ok(vec![inputs[0].clone(), Spec { dims: parts, dtype: DType::F32 }])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (heads, dtype) = (self.heads(inputs)?, inputs[0].dtype);
        let PageShape { kv_heads, head_dim: dim, .. } = self.shape;
        let slabs = Argument::Addresses((TABLES..inputs.len()).map(Some).collect());
        let counts = [int(heads)?, int(kv_heads)?].into_iter().chain(self.shape.arguments(self.layer)?);
        let launch = |kernel: &str, grid, threads, shared_bytes, arguments| -> Result<Launch> {
            let kernel = format!("{kernel}_{}", suffix(dtype)?);
            Ok(Launch { file: file(dtype)?, kernel, grid, block: [threads, 1], shared_bytes, arguments })
        };
        let common = |table: usize, outputs: usize| {
            let tensors = [Argument::Input(0), slabs.clone(), Argument::Input(1), Argument::Input(table)];
            tensors.into_iter().chain((0..outputs).map(Argument::Output)).chain(counts.clone())
        };
        let scale = Argument::Float(scale(dim));
        let [items, tiles, merges, shared] = [2, 3, 4, 5].map(|table| inputs[table].dims[0]);
        if !WIDTHS.contains(&dim) {
            if tiles > 0 || merges > 0 || shared > 0 {
                bail!("no kernel takes heads of {dim} elements in tiles");
            }
            let arguments = common(2, 1).chain([int(dim)?, scale]).collect();
            let bytes = 2 * dim * size_of::<f32>();
            return Ok(vec![launch("paged_plain", [items, heads, 1], 32, bytes, arguments)?]);
        }
        let wide = |kernel: &str, grid, threads, shared_bytes, arguments| -> Result<Launch> {
            let launch = launch(kernel, grid, threads, shared_bytes, arguments)?;
            Ok(Launch { kernel: format!("{}_{dim}", launch.kernel), ..launch })
        };
        let rows = tile_rows(dtype);
        let bytes = tile_bytes((dtype, dim), (3, rows * (rows + 4) * size_of::<f32>(), &[rows]));
        let arguments = common(3, 1).chain([scale.clone()]).collect();
        let in_tiles = wide("paged_tiles", [tiles, heads, 1], rows * 2, bytes, arguments)?;

        let group = heads / kv_heads;
        let grid = [shared + items, kv_heads, group.div_ceil(WARP_ROWS)];
        let tensors = [Argument::Input(0), slabs, Argument::Input(1), Argument::Input(2)].into_iter();
        let tensors = tensors.chain([5, 6, 4, 7].map(Argument::Input)).chain([0, 1].map(Argument::Output));
        let arguments = tensors.chain(counts).chain([int(shared)?, scale]).collect();
        let bytes = decode_bytes(dtype, dim, group);
        let in_parts = wide("paged_decode", grid, DECODE_WARPS * 32, bytes, arguments)?;

        Ok(vec![in_tiles, in_parts])
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let specs: Vec<Spec> = inputs.iter().map(|input| input.spec.clone()).collect();
        let width = self.heads(&specs)? * self.shape.head_dim;
        // The end of the positions of each row, and where its pages begin.
        let mut rows = vec![(0, 0); specs[0].dims[0]];
        for item in inputs[2].ids.chunks_exact(6) {
            let row = &mut rows[item[0] as usize];
            *row = (row.0.max(item[2] as usize), item[3] as usize);
        }
        for tile in inputs[3].ids.chunks_exact(4) {
            let [first, count, position, offset] = std::array::from_fn(|index| tile[index] as usize);
            (0..count).for_each(|row| rows[first + row] = (position + row + 1, offset));
        }
        let value_offset = self.shape.kv_heads * self.shape.head_size();
        let mut out = vec![0.0; inputs[0].floats.len()];
        out.par_chunks_mut(width).zip(inputs[0].floats.par_chunks(width)).zip(rows).for_each(
            |((out, query), (end, offset))| {
                let page = |index: usize, kv_head: usize| {
                    let (slab, place) = self.shape.place(inputs[1].ids[offset + index] as usize, self.layer, kv_head);
                    let part = |start: usize| &inputs[TABLES + slab].floats[start..start + self.shape.head_size()];
                    [part(place), part(place + value_offset)]
                };
                self.attend(query, end, page, out);
            },
        );
        Ok(vec![out])
    }
}
