//! Causal attention of packed sequences with grouped queries, without a matrix of scores (FlashAttention-2, arXiv:2307.08691):
//! what is kept for the backward pass is the log-sum-exp of each row.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::layout::{AttentionLayout, tile_rows};
use super::operation::{Argument, Input, Launch, Operation, Spec, apply, int, run, suffix};

/// Threads of the kernels without products of matrices.
const THREADS: usize = 256;
/// Widths of heads that there are kernels for.
pub(super) const WIDTHS: [usize; 3] = [32, 64, 128];

/// Whether [`attention`] computes heads of this width on this device.
pub fn supports_attention(head_dim: usize, device: &Device) -> bool {
    device.is_cpu() || WIDTHS.contains(&head_dim)
}

/// `softmax(Q K^T / sqrt(head_dim)) V` over the rows that each row sees. Query head `h` has the keys of head
/// `h / (heads / kv_heads)`.
///
/// # Shapes
/// - `queries`: `[rows, heads, head_dim]`, `f32`, `bf16` or `f16`; `keys`, `values`: `[rows, kv_heads, head_dim]`, the same type,
///   which `layout` was made for
/// - returns the shape and type of `queries`; differentiable in all three
///
/// # Errors
/// If the inputs do not fit together, the device has no kernel for this width ([`supports_attention`]), or the backend fails.
pub fn attention(queries: &Tensor, keys: &Tensor, values: &Tensor, layout: &AttentionLayout) -> Result<Tensor> {
    let constants = [&layout.tiles, &layout.ranges, &layout.key_tiles];
    Ok(apply(Attention, &[queries, keys, values], &constants)?.swap_remove(0))
}

/// As [`attention`], without a gradient and with what [`attention_backward`] needs: the log-sum-exp of each row's scores,
/// `[rows, heads]` in `f32`.
///
/// # Errors
/// As [`attention`].
pub fn attention_forward(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    layout: &AttentionLayout,
) -> Result<(Tensor, Tensor)> {
    let found = run(&Attention, &[queries, keys, values, &layout.tiles, &layout.ranges, &layout.key_tiles])?;
    Ok((found[0].clone(), found[1].clone()))
}

/// The gradients of `queries`, `keys` and `values` from what [`attention_forward`] gave and the gradient of its first part.
///
/// # Errors
/// As [`attention`].
pub fn attention_backward(
    (queries, keys, values): (&Tensor, &Tensor, &Tensor),
    layout: &AttentionLayout,
    (result, log_sums): (&Tensor, &Tensor),
    gradient: &Tensor,
) -> Result<[Tensor; 3]> {
    let AttentionLayout { tiles, ranges, key_tiles } = layout;
    let inputs = [queries, keys, values, result, log_sums, gradient, tiles, ranges, key_tiles];
    let found = run(&AttentionBackward, &inputs)?;
    Ok([found[0].clone(), found[1].clone(), found[2].clone()])
}

/// `[rows, heads, kv heads, head_dim]`, and that the inputs fit together.
fn sizes(queries: &Spec, keys: &Spec, values: &Spec) -> Result<[usize; 4]> {
    let ([rows, heads, dim], [key_rows, kv_heads, key_dim]) = (&queries.dims[..], &keys.dims[..]) else {
        bail!("attention of {queries:?} to {keys:?}");
    };
    let fits = rows == key_rows && dim == key_dim && *kv_heads > 0 && heads % kv_heads == 0;
    if !fits || keys != values || keys.dtype != queries.dtype {
        bail!("attention of {queries:?} to {keys:?} and {values:?}");
    }
    Ok([*rows, *heads, *kv_heads, *dim])
}

pub(super) fn scale(dim: usize) -> f32 {
    1.0 / (dim as f32).sqrt()
}

/// The file with the kernels for a type.
fn file(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("attention_f32"),
        DType::BF16 => Ok("attention_bf16"),
        DType::F16 => Ok("attention_f16"),
        other => bail!("no attention kernels for `{other:?}`"),
    }
}

/// Shared memory of a block that works on a tile: `tiles` are matrices of a tile's rows by `head_dim`, `square` one of a tile's rows by
/// as many with the bytes of an element, `floats` single values.
pub(super) fn tile_bytes((dtype, dim): (DType, usize), (tiles, square, floats): (usize, usize, &[usize])) -> usize {
    let padding = if dtype == DType::F32 { 1 } else { 8 };
    let aligned = |bytes: usize| bytes.next_multiple_of(128);
    tiles * aligned(tile_rows(dtype) * (dim + padding) * dtype.size_in_bytes())
        + aligned(square)
        + floats.iter().map(|count| aligned(count * size_of::<f32>())).sum::<usize>()
}

/// A launch with a block for each tile and head, and this in its shared memory ([`tile_bytes`]).
fn tiled(
    kernel: &str,
    (dtype, dim): (DType, usize),
    grid: [usize; 3],
    shared: (usize, usize, &[usize]),
    arguments: Vec<Argument>,
) -> Result<Launch> {
    if !WIDTHS.contains(&dim) {
        bail!("no attention kernel for heads of {dim} elements");
    }
    let shared_bytes = tile_bytes((dtype, dim), shared);
    let kernel = format!("{kernel}_{}_{dim}", suffix(dtype)?);
    Ok(Launch { file: file(dtype)?, kernel, grid, block: [tile_rows(dtype) * 2, 1], shared_bytes, arguments })
}

/// The operation of [`attention`]: inputs `queries`, `keys`, `values` and the tables of a layout; outputs the result and the
/// log-sum-exp of the scores, `[rows, heads]` in `f32`.
#[derive(Debug)]
pub struct Attention;

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [rows, heads, ..] = sizes(&inputs[0], &inputs[1], &inputs[2])?;
        Ok(vec![inputs[0].clone(), Spec { dims: vec![rows, heads], dtype: DType::F32 }])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let [_, heads, kv_heads, dim] = sizes(&inputs[0], &inputs[1], &inputs[2])?;
        let dtype = inputs[0].dtype;
        let rows = tile_rows(dtype);
        let tensors = (0..5).map(Argument::Input).chain([Argument::Output(0), Argument::Output(1)]);
        let arguments = tensors.chain([int(heads)?, int(kv_heads)?, Argument::Float(scale(dim))]).collect();
        let scores = rows * (rows + 4) * size_of::<f32>();
        let grid = [inputs[3].dims[0], heads, 1];
        Ok(vec![tiled("attention", (dtype, dim), grid, (3, scores, &[rows]), arguments)?])
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let shape = sizes(&inputs[0].spec, &inputs[1].spec, &inputs[2].spec)?;
        let [rows, heads, _, dim] = shape;
        let (mut out, mut log_sums) = (vec![0.0; rows * heads * dim], vec![0.0; rows * heads]);
        for_each_head(inputs, (&inputs[3], &inputs[4]), shape, |(query, _), keys| {
            let top = keys.iter().fold(f32::NEG_INFINITY, |top, key| top.max(key.score));
            let sum: f32 = keys.iter().map(|key| (key.score - top).exp()).sum();
            log_sums[query] = top + sum.ln();
            let out = &mut out[query * dim..][..dim];
            for key in keys {
                let weight = (key.score - top).exp() / sum;
                let values = &inputs[2].floats[key.head * dim..][..dim];
                out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
            }
        });
        Ok(vec![out, log_sums])
    }

    fn backward(&self, inputs: &[Tensor], outputs: &[Tensor], gradient: &Tensor) -> Result<Vec<Tensor>> {
        let [queries, keys, values, tiles, ranges, key_tiles] = inputs else { bail!("the tables are missing") };
        let given = [queries, keys, values, &outputs[0], &outputs[1], gradient, tiles, ranges, key_tiles];
        let mut found = run(&AttentionBackward, &given)?;
        found.truncate(3);
        Ok(found)
    }
}

/// A key that a query sees.
struct Seen {
    /// `row * kv_heads + head`.
    head: usize,
    /// Their product over `sqrt(head_dim)`.
    score: f32,
}

/// Calls `visit` with `row * heads + head` and the row of each query, and the keys that it sees.
fn for_each_head(
    inputs: &[Input<'_>],
    (tiles, ranges): (&Input<'_>, &Input<'_>),
    [_, heads, kv_heads, dim]: [usize; 4],
    mut visit: impl FnMut((usize, usize), &[Seen]),
) {
    for tile in tiles.ids.chunks_exact(5) {
        let [first, count, start, first_range, range_count] = std::array::from_fn(|index| tile[index] as usize);
        let before = ranges.ids.chunks_exact(2).skip(first_range).take(range_count);
        let before: Vec<usize> = before.flat_map(|range| range[0] as usize..range[1] as usize).collect();
        for row in first..first + count {
            for head in 0..heads {
                let query = &inputs[0].floats[(row * heads + head) * dim..][..dim];
                let seen = |key: usize| {
                    let head = key * kv_heads + head / (heads / kv_heads);
                    let products = query.iter().zip(&inputs[1].floats[head * dim..][..dim]).map(|(a, b)| a * b);
                    Seen { head, score: products.sum::<f32>() * scale(dim) }
                };
                let keys: Vec<Seen> = before.iter().copied().chain(start..=row).map(seen).collect();
                visit((row * heads + head, row), &keys);
            }
        }
    }
}

/// The gradient of [`Attention`]: inputs `queries`, `keys`, `values`, the result, the log-sum-exp, the gradient of the result and
/// the tables of a layout. Outputs the gradients of the first three, and what their kernels hand each other.
#[derive(Debug)]
pub struct AttentionBackward;

impl Operation for AttentionBackward {
    fn name(&self) -> &'static str {
        "attention-backward"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        sizes(&inputs[0], &inputs[1], &inputs[2])?;
        let [queries, keys, values, result, log_sums, gradient, ..] = inputs else { bail!("inputs are missing") };
        if result != queries || gradient != queries || log_sums.dims != queries.dims[..2] {
            bail!("a gradient {gradient:?} of attention {result:?} of {queries:?}");
        }
        let parts = queries.to(DType::F32);
        Ok(vec![queries.clone(), keys.clone(), values.clone(), log_sums.clone(), parts.clone(), parts])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let [rows, heads, kv_heads, dim] = sizes(&inputs[0], &inputs[1], &inputs[2])?;
        let dtype = inputs[0].dtype;
        let (input, output) = (Argument::Input, Argument::Output);
        let plain = |kernel: &str, blocks: usize, block: [usize; 2], arguments: Vec<Argument>| -> Result<Launch> {
            let kernel = format!("{kernel}_{}", suffix(dtype)?);
            Ok(Launch { file: file(dtype)?, kernel, grid: [blocks, 1, 1], block, shared_bytes: 0, arguments })
        };
        let count = rows * heads;
        let delta = vec![input(3), input(5), output(3), int(count)?, int(dim)?];
        let delta = plain("attention_delta", count.div_ceil(THREADS / 32), [32, THREADS / 32], delta)?;

        let padding = if dtype == DType::F32 { 1 } else { 8 };
        let tile = tile_rows(dtype);
        let pulls = tile * (tile + padding) * dtype.size_in_bytes();
        let shared = (4, pulls, &[tile, tile, 256][..]);
        let sizes = [int(heads)?, int(kv_heads)?, Argument::Float(scale(dim))];
        let common = [0, 1, 2, 5, 4].map(input).into_iter().chain([output(3)]);
        let of_queries = common.clone().chain([input(6), input(7), output(0)]).chain(sizes.clone()).collect();
        let grid = [inputs[6].dims[0], heads, 1];
        let of_queries = tiled("attention_backward_queries", (dtype, dim), grid, shared, of_queries)?;
        let of_keys = common.chain([input(8), output(4), output(5)]).chain(sizes).collect();
        let grid = [inputs[8].dims[0], heads, 1];
        let of_keys = tiled("attention_backward_keys", (dtype, dim), grid, shared, of_keys)?;

        let sum = |from: usize, to: usize| {
            let sizes = [int(rows)?, int(heads / kv_heads)?, int(kv_heads * dim)?, int(dim)?];
            let arguments = [output(from), output(to)].into_iter().chain(sizes).collect();
            let blocks = (rows * kv_heads * dim).div_ceil(THREADS);
            plain("attention_sum_groups", blocks, [THREADS, 1], arguments)
        };
        Ok(vec![delta, of_queries, of_keys, sum(4, 1)?, sum(5, 2)?])
    }

    /// With `P = exp(scores - log-sum-exp)` and `delta = sum(dO O)`: `dV = P^T dO`, `dS = P (dO V^T - delta)`,
    /// `dQ = dS K / sqrt(head_dim)`, `dK = dS^T Q / sqrt(head_dim)`.
    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let shape = sizes(&inputs[0].spec, &inputs[1].spec, &inputs[2].spec)?;
        let [rows, heads, kv_heads, dim] = shape;
        let mut of_queries = vec![0.0; rows * heads * dim];
        let mut delta = vec![0.0; rows * heads];
        // By the head of the query, as the kernels have them.
        let (mut key_parts, mut value_parts) = (of_queries.clone(), of_queries.clone());
        for_each_head(inputs, (&inputs[6], &inputs[7]), shape, |(query, row), keys| {
            let part = |input: usize, head: usize| &inputs[input].floats[head * dim..][..dim];
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let add = |to: &mut [f32], head: usize, factor: f32, from: &[f32]| {
                to[head * dim..][..dim].iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
            };
            let gradient = part(5, query);
            delta[query] = dot(gradient, part(3, query));
            for key in keys {
                let probability = (key.score - inputs[4].floats[query]).exp();
                let pull = probability * (dot(gradient, part(2, key.head)) - delta[query]) * scale(dim);
                add(&mut of_queries, query, pull, part(1, key.head));
                let place = key.head / kv_heads * heads + (query - row * heads);
                add(&mut key_parts, place, pull, part(0, query));
                add(&mut value_parts, place, probability, gradient);
            }
        });
        let group = heads / kv_heads * dim;
        let sum = |parts: &[f32]| -> Vec<f32> {
            let column = |(group, column): (&[f32], usize)| group.iter().skip(column).step_by(dim).sum::<f32>();
            parts.chunks_exact(group).flat_map(|group| (0..dim).map(move |index| column((group, index)))).collect()
        };
        Ok(vec![of_queries, sum(&key_parts), sum(&value_parts), delta, key_parts, value_parts])
    }
}
