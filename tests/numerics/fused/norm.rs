//! Root mean square norms.

use candle_core::{DType, Tensor};
use gift_host::policy::fused::{AddNorm, Norm, NormBackward, add_rms_norm, rms_norm};

use super::super::emulator::TYPES;
use super::{assert_computes, assert_gradients, every_way, normal, tolerance, values};

const EPSILON: f32 = 1e-5;

/// Widths below, at and beside a warp, and wider than a warp works on alone; more rows than blocks.
const SIZES: [[usize; 2]; 6] = [[3, 20], [17, 64], [1, 128], [5, 300], [2, 1056], [2400, 4]];

fn inverse_root(x: &[f64]) -> f64 {
    1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + f64::from(EPSILON)).sqrt()
}

fn expected(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let row = |x: &[f64]| {
        let r = inverse_root(x);
        x.iter().zip(weight).map(|(x, weight)| x * r * weight).collect::<Vec<_>>()
    };
    x.chunks(weight.len()).flat_map(row).collect()
}

#[test]
fn norms_match_plain_loops() {
    for dtype in TYPES {
        for dims in SIZES {
            let (x, change) = (normal(1, &dims, 2.0, dtype), normal(2, &dims, 1.0, dtype));
            let weight = (normal(3, &dims[1..], 0.2, dtype) + 1.0).unwrap();
            let (wide, wide_weight) = (values(&x), values(&weight));
            let one = tolerance(dtype);
            assert_computes(&Norm { epsilon: EPSILON }, &[&x, &weight], &[(expected(&wide, &wide_weight), one)]);

            let sum = (&x + &change).unwrap();
            let stream = values(&sum);
            let normalized = expected(&stream, &wide_weight);
            let add = AddNorm { epsilon: EPSILON };
            assert_computes(&add, &[&x, &change, &weight], &[(stream, one), (normalized, one)]);
        }
    }
}

#[test]
fn gradients_of_norms_match_plain_loops() {
    for dtype in TYPES {
        for dims in SIZES {
            let [rows, width] = dims;
            let (x, gradient) = (normal(1, &dims, 2.0, dtype), normal(2, &dims, 1.0, dtype));
            let weight = (normal(3, &dims[1..], 0.2, dtype) + 1.0).unwrap();
            let (wide, wide_weight, wide_gradient) = (values(&x), values(&weight), values(&gradient));
            let (mut of_x, mut of_weight) = (Vec::new(), vec![0.0; width]);
            for row in 0..rows {
                let (x, gradient) = (&wide[row * width..][..width], &wide_gradient[row * width..][..width]);
                let r = inverse_root(x);
                let pull =
                    (0..width).map(|i| wide_weight[i] * gradient[i] * x[i]).sum::<f64>() * r.powi(3) / width as f64;
                for i in 0..width {
                    of_x.push(r * wide_weight[i] * gradient[i] - x[i] * pull);
                    of_weight[i] += gradient[i] * x[i] * r;
                }
            }
            for (way, found) in every_way(&NormBackward { epsilon: EPSILON }, &[&x, &weight, &gradient]) {
                let name = format!("{dims:?} {dtype:?} {way}");
                super::assert_close(&name, &values(&found[0]), &of_x, 2.0 * tolerance(dtype));
                super::assert_close(&name, &values(&found[1].sum(0).unwrap()), &of_weight, 1e-5);
            }
        }
    }
}

/// The gradient of the stream is that of both its uses.
#[test]
fn gradients_of_norms_match_finite_differences() {
    let part = |seed: u64| normal(seed, &[3, 20], 1.0, DType::F32);
    let weight = (normal(4, &[20], 0.2, DType::F32) + 1.0).unwrap();
    assert_gradients(|inputs| rms_norm(&inputs[0], &inputs[1], EPSILON).unwrap(), &[part(1), weight.clone()]);
    let both = |inputs: &[Tensor]| {
        let (stream, normalized) = add_rms_norm(&inputs[0], &inputs[1], &inputs[2], EPSILON).unwrap();
        Tensor::cat(&[stream, normalized], 0).unwrap()
    };
    assert_gradients(both, &[part(1), part(2), weight]);
}
