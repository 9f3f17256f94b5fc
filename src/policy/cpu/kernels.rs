//! The element-wise parts of a decoder layer, forward and backward, and reductions over rows. Written in loops of fixed width
//! that compile to vector instructions; every result depends on the values alone, never on the machine's thread count.

/// Partial sums kept side by side in reductions.
const WIDTH: usize = 16;

/// `e^x` with a relative error below 2e-7 (the reduction and polynomial of Cephes' `expf`); 0 below -87.3, and the largest
/// power above 88.
#[inline]
pub(in crate::policy) fn fast_exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.376_26;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let power = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, so that the difference is exact to 1e-8.
    let r = (clamped - power * 0.693_359_4) + power * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let scale = f32::from_bits(((power as i32 + 127) << 23) as u32);
    if x < LOWEST { 0.0 } else { value * scale }
}

/// The sum of `function` over two slices of the same length, in a fixed order.
#[inline]
fn sum_by(a: &[f32], b: &[f32], function: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<WIDTH>();
    let (b_blocks, b_rest) = b.as_chunks::<WIDTH>();
    let mut sums = [0.0_f32; WIDTH];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for j in 0..WIDTH {
            sums[j] += function(a[j], b[j]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| function(a, b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// The scalar product.
pub(in crate::policy) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_by(a, b, |a, b| a * b)
}

/// `y += factor * x`.
pub(in crate::policy) fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// The largest value; negative infinity for none. NaN does not count here and shows in the sums.
pub(super) fn maximum(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<WIDTH>();
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; WIDTH];
    for block in blocks {
        for j in 0..WIDTH {
            lanes[j] = larger(lanes[j], block[j]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// Replaces every `x` by `e^(factor (x - maximum))` and returns the sum of the results.
pub(super) fn exponentials(x: &mut [f32], maximum: f32, factor: f32) -> f32 {
    for value in x.iter_mut() {
        *value = fast_exp((*value - maximum) * factor);
    }
    sum_by(x, x, |value, _| value)
}

/// The sums of `e^x` and `x e^x`, for values that are at most 0.
pub(super) fn exponential_sums(x: &[f32]) -> (f32, f32) {
    let (blocks, rest) = x.as_chunks::<WIDTH>();
    let (mut sums, mut weighted) = ([0.0_f32; WIDTH], [0.0_f32; WIDTH]);
    for block in blocks {
        for j in 0..WIDTH {
            let power = fast_exp(block[j]);
            sums[j] += power;
            weighted[j] += power * block[j];
        }
    }
    for (j, &value) in rest.iter().enumerate() {
        let power = fast_exp(value);
        sums[j] += power;
        weighted[j] += power * value;
    }
    (sums.iter().sum(), weighted.iter().sum())
}

/// `y = x / sqrt(mean(x^2) + eps) * weight`, row by row (arXiv:1910.07467).
///
/// # Shapes
/// - `x`, `y`: `[rows, hidden]`; `weight`: `[hidden]`
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let width = weight.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let scale = root_mean_square_inverse(x, eps);
        for ((y, &x), &weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * weight;
        }
    }
}

fn root_mean_square_inverse(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// Backward of [`rms_norm`]: adds to `x_gradient` and `weight_gradient`. With `r` the inverse root,
/// `dx = r w dy - x r^3 mean(w dy x)` and `dw = sum over rows of dy x r`.
pub(super) fn rms_norm_backward(
    (x, weight, eps): (&[f32], &[f32], f32),
    y_gradient: &[f32],
    x_gradient: &mut [f32],
    weight_gradient: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(y_gradient.chunks_exact(width)).zip(x_gradient.chunks_exact_mut(width));
    for ((x, dy), dx) in rows {
        let scale = root_mean_square_inverse(x, eps);
        let mut product = 0.0;
        let (blocks, _) = weight.as_chunks::<WIDTH>();
        let mut lanes = [0.0_f32; WIDTH];
        for ((w, x), dy) in blocks.iter().zip(x.as_chunks::<WIDTH>().0).zip(dy.as_chunks::<WIDTH>().0) {
            for j in 0..WIDTH {
                lanes[j] += w[j] * dy[j] * x[j];
            }
        }
        for j in blocks.len() * WIDTH..width {
            product += weight[j] * dy[j] * x[j];
        }
        product += lanes.iter().sum::<f32>();
        let pull = product * scale * scale * scale / width as f32;
        for j in 0..width {
            dx[j] += scale * weight[j] * dy[j] - x[j] * pull;
            weight_gradient[j] += dy[j] * x[j] * scale;
        }
    }
}

/// [`rms_norm`] of the heads of queries and keys in rows of queries, keys and values.
///
/// # Shapes
/// - `input`: `[rows, queries + keys]`; `output`: `[rows, stride]`, of which the first `queries + keys` are written
pub(super) fn norm_heads(
    input: &[f32],
    (queries, keys): (&[f32], &[f32]),
    eps: f32,
    widths: HeadWidths,
    output: &mut [f32],
) {
    let rows = input.chunks_exact(widths.queries + widths.keys).zip(output.chunks_exact_mut(widths.stride));
    for (input, output) in rows {
        let (query_input, key_input) = input.split_at(widths.queries);
        let (query_output, rest) = output.split_at_mut(widths.queries);
        rms_norm(query_input, queries, eps, query_output);
        rms_norm(key_input, keys, eps, &mut rest[..widths.keys]);
    }
}

/// Where queries and keys lie in a row.
#[derive(Clone, Copy)]
pub(super) struct HeadWidths {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) stride: usize,
}

/// Backward of [`norm_heads`]: replaces the gradients of queries and keys in `gradient`, `[rows, stride]`, by those of
/// their inputs, and adds to the gradients of both weights.
pub(super) fn norm_heads_backward(
    (input, (queries, keys), eps): (&[f32], (&[f32], &[f32]), f32),
    widths: HeadWidths,
    gradient: &mut [f32],
    (query_gradient, key_gradient): (&mut [f32], &mut [f32]),
) {
    let mut outer = vec![0.0; widths.queries.max(widths.keys)];
    let rows = input.chunks_exact(widths.queries + widths.keys).zip(gradient.chunks_exact_mut(widths.stride));
    for (input, gradient) in rows {
        let (query_input, key_input) = input.split_at(widths.queries);
        let (query_part, rest) = gradient.split_at_mut(widths.queries);
        let mut back = |input: &[f32], weight: &[f32], part: &mut [f32], weight_gradient: &mut [f32]| {
            let outer = &mut outer[..part.len()];
            outer.copy_from_slice(part);
            part.fill(0.0);
            rms_norm_backward((input, weight, eps), outer, part, weight_gradient);
        };
        back(query_input, queries, query_part, query_gradient);
        back(key_input, keys, &mut rest[..widths.keys], key_gradient);
    }
}

/// `out = silu(gate) * up` (`SwiGLU`, arXiv:2002.05202).
///
/// # Shapes
/// - `gate_up`: `[rows, 2 * width]`, gate first; `out`: `[rows, width]`
pub(super) fn swiglu(gate_up: &[f32], width: usize, out: &mut [f32]) {
    for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = row.split_at(width);
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + fast_exp(-gate)) * up;
        }
    }
}

/// Backward of [`swiglu`]: overwrites `gradient`, `[rows, 2 * width]`, from `out_gradient`, `[rows, width]`.
pub(super) fn swiglu_backward(gate_up: &[f32], width: usize, out_gradient: &[f32], gradient: &mut [f32]) {
    let rows = gate_up.chunks_exact(2 * width).zip(out_gradient.chunks_exact(width));
    for ((row, out), gradient) in rows.zip(gradient.chunks_exact_mut(2 * width)) {
        let (gate, up) = row.split_at(width);
        let (gate_gradient, up_gradient) = gradient.split_at_mut(width);
        for j in 0..width {
            let sigmoid = 1.0 / (1.0 + fast_exp(-gate[j]));
            let silu = gate[j] * sigmoid;
            up_gradient[j] = out[j] * silu;
            gate_gradient[j] = out[j] * up[j] * (sigmoid + silu * (1.0 - sigmoid));
        }
    }
}

/// Cosines and sines of the rotary positions (arXiv:2104.09864) in the half-split layout of Hugging Face: element `i` turns
/// with element `i + head_dim / 2`.
#[derive(Debug)]
pub(super) struct Rotary {
    cosines: Vec<f32>,
    sines: Vec<f32>,
    half: usize,
}

impl Rotary {
    /// Tables for positions below `max_positions`; `frequencies` are radians a position.
    pub(super) fn new(frequencies: &[f32], max_positions: usize) -> Self {
        // Angles are rounded to `f32`, as in PyTorch.
        let angles = (0..max_positions)
            .flat_map(|position| frequencies.iter().map(move |&frequency| f64::from(position as f32 * frequency)));
        let (sines, cosines) = angles.map(|angle| (angle.sin() as f32, angle.cos() as f32)).unzip();
        Self { cosines, sines, half: frequencies.len() }
    }

    /// Turns the first `heads` heads of a row by its position; backwards for gradients.
    pub(super) fn turn(&self, row: &mut [f32], heads: usize, position: usize, backwards: bool) {
        let half = self.half;
        let cosines = &self.cosines[position * half..][..half];
        let sines = &self.sines[position * half..][..half];
        let sign = if backwards { -1.0 } else { 1.0 };
        for head in row.chunks_exact_mut(2 * half).take(heads) {
            let (a, b) = head.split_at_mut(half);
            for j in 0..half {
                let (x, y, sine) = (a[j], b[j], sign * sines[j]);
                a[j] = x * cosines[j] - y * sine;
                b[j] = y * cosines[j] + x * sine;
            }
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

    #[test]
    fn fast_exp_is_exact_to_2e_7_and_does_not_overflow() {
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let expected = f64::from(x).exp();
            assert!((f64::from(fast_exp(x)) / expected - 1.0).abs() < 2e-7, "e^{x}");
        }
        assert_eq!((fast_exp(0.0), fast_exp(-100.0), fast_exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(fast_exp(1e9).is_finite() && fast_exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_match_plain_loops_at_any_length() {
        for length in [1, 15, 16, 17, 100] {
            let (x, y) = (random(1, length), random(2, length));
            let plain: f64 = x.iter().zip(&y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            assert!((f64::from(dot(&x, &y)) - plain).abs() < 1e-5);
            assert_eq!(maximum(&x).to_bits(), x.iter().copied().fold(f32::NEG_INFINITY, f32::max).to_bits());
            let top = maximum(&x);
            let shifted: Vec<f32> = x.iter().map(|x| x - top).collect();
            let (sum, weighted) = exponential_sums(&shifted);
            let plain: f64 = shifted.iter().map(|&x| f64::from(x).exp()).sum();
            let plain_weighted: f64 = shifted.iter().map(|&x| f64::from(x).exp() * f64::from(x)).sum();
            assert!((f64::from(sum) - plain).abs() < 1e-5 && (f64::from(weighted) - plain_weighted).abs() < 1e-5);
            let mut powers = x.clone();
            assert!((f64::from(exponentials(&mut powers, top, 1.0)) - plain).abs() < 1e-5);
        }
    }

    /// Central differences of `sum(y * direction)` with a step of 1e-2 in `f32` are good to about 1e-3.
    fn assert_gradient(x: &[f32], gradient: &[f32], value: impl Fn(&[f32]) -> f64) {
        for index in 0..x.len() {
            let moved = |step: f32| {
                let mut x = x.to_vec();
                x[index] += step;
                value(&x)
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((difference - f64::from(gradient[index])).abs() < 2e-3, "{index}: {difference}");
        }
    }

    fn product(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn rms_norm_gradients_match_differences() {
        let (x, weight, direction) = (random(3, 40), random(4, 20), random(5, 40));
        let (mut dx, mut dw) = (vec![0.0; 40], vec![0.0; 20]);
        rms_norm_backward((&x, &weight, 1e-5), &direction, &mut dx, &mut dw);
        let value = |x: &[f32], weight: &[f32]| {
            let mut y = vec![0.0; 40];
            rms_norm(x, weight, 1e-5, &mut y);
            product(&y, &direction)
        };
        assert_gradient(&x, &dx, |x| value(x, &weight));
        assert_gradient(&weight, &dw, |weight| value(&x, weight));
    }

    #[test]
    fn swiglu_gradients_match_differences() {
        let (x, direction) = (random(6, 36), random(7, 18));
        let mut gradient = vec![0.0; 36];
        swiglu_backward(&x, 9, &direction, &mut gradient);
        assert_gradient(&x, &gradient, |x| {
            let mut y = vec![0.0; 18];
            swiglu(x, 9, &mut y);
            product(&y, &direction)
        });
    }

    #[test]
    fn turning_back_undoes_turning_and_keeps_other_heads() {
        let rotary = Rotary::new(&[1.0, 0.1, 0.01, 0.001], 100);
        let start = random(8, 24);
        let mut row = start.clone();
        rotary.turn(&mut row, 2, 57, false);
        assert!(row[..16].iter().zip(&start).any(|(a, b)| (a - b).abs() > 0.1));
        assert_eq!(row[16..], start[16..]);
        rotary.turn(&mut row, 2, 57, true);
        assert!(row.iter().zip(&start).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
