//! Attention of packed sequences that share their beginnings.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use gift_host::policy::fused::{Attention, AttentionBackward, AttentionLayout, Stretch, attention};

use super::super::emulator::TYPES;
use super::{assert_close, assert_gradients, every_way, normal, values};

fn stretch(rows: Range<usize>, before: &[(usize, usize)]) -> Stretch {
    Stretch { rows, before: before.iter().map(|&(start, end)| start..end).collect() }
}

/// A tree of three levels with stretches of one row, of a tile, and of one row more, and a sequence of its own after it.
fn tree() -> Vec<Stretch> {
    vec![
        stretch(0..70, &[]),
        stretch(70..71, &[(0, 70)]),
        stretch(71..104, &[(0, 70)]),
        stretch(104..124, &[(0, 70), (71, 104)]),
        stretch(124..188, &[(0, 70), (71, 104)]),
        stretch(188..193, &[(0, 70)]),
        stretch(193..258, &[]),
    ]
}

/// Smaller, for finite differences.
fn small_tree() -> Vec<Stretch> {
    vec![stretch(0..3, &[]), stretch(3..5, &[(0, 3)]), stretch(5..9, &[(0, 3)]), stretch(9..10, &[])]
}

/// Output, and the gradients of queries, keys and values for a gradient of the output.
struct Expected {
    output: Vec<f64>,
    of_queries: Vec<f64>,
    of_keys: Vec<f64>,
    of_values: Vec<f64>,
}

fn expected(inputs: [&Tensor; 3], gradient: &Tensor, stretches: &[Stretch]) -> Expected {
    let [queries, keys, values_of_keys] = inputs.map(values);
    let gradient = values(gradient);
    let (rows, heads, dim) = inputs[0].dims3().unwrap();
    let kv_heads = inputs[1].dims()[1];
    let scale = 1.0 / (dim as f64).sqrt();
    let mut output = vec![0.0; rows * heads * dim];
    let (mut of_queries, mut of_keys, mut of_values) = (output.clone(), vec![0.0; keys.len()], vec![0.0; keys.len()]);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for stretch in stretches {
        for row in stretch.rows.clone() {
            let seen: Vec<usize> = stretch.before.iter().cloned().flatten().chain(stretch.rows.start..=row).collect();
            for head in 0..heads {
                let query = (row * heads + head) * dim..(row * heads + head + 1) * dim;
                let place = |key: usize| (key * kv_heads + head * kv_heads / heads) * dim;
                let scores: Vec<f64> =
                    seen.iter().map(|&key| dot(&queries[query.clone()], &keys[place(key)..][..dim]) * scale).collect();
                let sum: f64 = scores.iter().map(|score| score.exp()).sum();
                let weights: Vec<f64> = scores.iter().map(|score| score.exp() / sum).collect();
                let pulls: Vec<f64> = seen
                    .iter()
                    .map(|&key| dot(&gradient[query.clone()], &values_of_keys[place(key)..][..dim]))
                    .collect();
                let mean = dot(&weights, &pulls);
                for ((&key, weight), pull) in seen.iter().zip(&weights).zip(&pulls) {
                    let change = weight * (pull - mean) * scale;
                    for column in 0..dim {
                        let (own, other) = (query.start + column, place(key) + column);
                        output[own] += weight * values_of_keys[other];
                        of_queries[own] += change * keys[other];
                        of_keys[other] += change * queries[own];
                        of_values[other] += weight * gradient[own];
                    }
                }
            }
        }
    }
    Expected { output, of_queries, of_keys, of_values }
}

/// Tolerances in shares of the root mean square: rounded products of rounded probabilities.
fn tolerances(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F32 => (5e-6, 2e-5),
        DType::F16 => (2e-3, 6e-3),
        _ => (1.2e-2, 4e-2),
    }
}

fn assert_attention(stretches: &[Stretch], [heads, kv_heads, dim]: [usize; 3], dtype: DType) {
    let rows = stretches.last().unwrap().rows.end;
    let queries = normal(1, &[rows, heads, dim], 1.5, dtype);
    let keys = normal(2, &[rows, kv_heads, dim], 1.5, dtype);
    let values_of_keys = normal(3, &[rows, kv_heads, dim], 1.0, dtype);
    let gradient = normal(4, &[rows, heads, dim], 1.0, dtype);
    let expected = expected([&queries, &keys, &values_of_keys], &gradient, stretches);
    let layout = AttentionLayout::new(stretches, dtype, &Device::Cpu).unwrap();
    let AttentionLayout { tiles, ranges, key_tiles } = &layout;
    let (forward, backward) = tolerances(dtype);
    let name = |way: &str| format!("{heads} heads, {kv_heads} of keys, {dim} wide, {dtype:?} {way}");

    let inputs = [&queries, &keys, &values_of_keys, tiles, ranges, key_tiles];
    let found = every_way(&Attention, &inputs);
    for (way, outputs) in &found {
        assert_close(&name(way), &values(&outputs[0]), &expected.output, forward);
        assert_close(&name(way), &values(&outputs[1]), &values(&found[0].1[1]), forward);
    }
    let (output, log_sums) = (&found[0].1[0], &found[0].1[1]);
    let inputs = [&queries, &keys, &values_of_keys, output, log_sums, &gradient, tiles, ranges, key_tiles];
    for (way, outputs) in every_way(&AttentionBackward, &inputs) {
        for (output, expected) in outputs.iter().zip([&expected.of_queries, &expected.of_keys, &expected.of_values]) {
            assert_close(&name(way), &values(output), expected, backward);
        }
    }
}

#[test]
fn attention_to_a_tree_matches_plain_loops() {
    for dtype in TYPES {
        assert_attention(&tree(), [4, 2, 64], dtype);
    }
}

#[test]
fn attention_of_other_widths_matches_plain_loops() {
    let stretches = [stretch(0..67, &[]), stretch(67..72, &[]), stretch(72..73, &[(67, 72)])];
    for dtype in TYPES {
        assert_attention(&stretches, [1, 1, 32], dtype);
        assert_attention(&stretches, [3, 1, 128], dtype);
    }
}

/// Heads that there is no kernel for still have the loops.
#[test]
fn gradients_of_attention_match_finite_differences() {
    let rows = |seed: u64, heads: usize| normal(seed, &[10, heads, 6], 1.0, DType::F32);
    let layout = AttentionLayout::new(&small_tree(), DType::F32, &Device::Cpu).unwrap();
    let inputs = [rows(1, 4), rows(2, 2), rows(3, 2)];
    assert_gradients(|inputs| attention(&inputs[0], &inputs[1], &inputs[2], &layout).unwrap(), &inputs);
}

#[test]
fn stretches_that_are_no_tree_are_refused() {
    let wrong = [
        vec![stretch(1..2, &[])],
        vec![stretch(0..2, &[]), stretch(3..4, &[])],
        vec![stretch(0..2, &[]), stretch(2..4, &[]), stretch(4..5, &[(0, 2)])],
        vec![stretch(0..2, &[]), stretch(2..4, &[(0, 1)])],
    ];
    for stretches in wrong {
        assert!(AttentionLayout::new(&stretches, DType::F32, &Device::Cpu).is_err(), "{stretches:?}");
    }
}
