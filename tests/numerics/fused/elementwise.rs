//! Rotary positions and the gate of the feed-forward layer.

use candle_core::{DType, Device, Tensor};
use gift_host::policy::fused::{
    AddBias, Rotation, RowGroups, Swiglu, SwigluBackward, SwigluJoined, accumulate, accumulate_launch, add_rows,
    add_rows_launch, rotate, swiglu,
};

use super::super::decoder::{devices, must_have_device};
use super::super::emulator::{TYPES, launch_all};
use super::{assert_close, assert_computes, assert_gradients, normal, tolerance, values};

const MAX_POSITIONS: usize = 40;

/// Cosines and sines as the decoder has them, `[MAX_POSITIONS, 1, half]`.
fn tables(half: usize) -> (Tensor, Tensor) {
    let table = |function: fn(f64) -> f64| {
        let angle = |index: usize| (index / half) as f64 * 10.0_f64.powf(-((index % half) as f64) / half as f64);
        let values: Vec<f32> = (0..MAX_POSITIONS * half).map(|index| function(angle(index)) as f32).collect();
        Tensor::from_vec(values, (MAX_POSITIONS, 1, half), &Device::Cpu).unwrap()
    };
    (table(f64::cos), table(f64::sin))
}

fn positions(rows: usize) -> Tensor {
    let positions: Vec<u32> = (0..rows).map(|row| (row * 17 % MAX_POSITIONS) as u32).collect();
    Tensor::new(positions, &Device::Cpu).unwrap()
}

#[test]
fn rotations_match_plain_loops() {
    for dtype in TYPES {
        // Packs that are whole, and others.
        for [rows, heads, half] in [[1, 1, 4], [9, 3, 10], [70, 2, 32], [2, 3, 5]] {
            let x = normal(1, &[rows, heads, 2 * half], 1.0, dtype);
            let (positions, (cosines, sines)) = (positions(rows), tables(half));
            let ids = positions.to_vec1::<u32>().unwrap();
            let bias = normal(2, &[heads * 2 * half], 1.0, dtype);
            let sum = x.broadcast_add(&bias.reshape((heads, 2 * half)).unwrap()).unwrap();
            let (wide_cosines, wide_sines) = (values(&cosines), values(&sines));
            let turned = |wide: &[f64], direction: f64| {
                let mut turned = wide.to_vec();
                for (row, &position) in ids.iter().enumerate() {
                    for head in 0..heads {
                        for column in 0..half {
                            let place = (row * heads + head) * 2 * half + column;
                            let angle = position as usize * half + column;
                            let (cosine, sine) = (wide_cosines[angle], wide_sines[angle] * direction);
                            turned[place] = wide[place] * cosine - wide[place + half] * sine;
                            turned[place + half] = wide[place + half] * cosine + wide[place] * sine;
                        }
                    }
                }
                turned
            };
            for (is_back, direction) in [(false, 1.0), (true, -1.0)] {
                let inputs = [&x, &positions, &cosines, &sines];
                let expected = [(turned(&values(&x), direction), tolerance(dtype))];
                assert_computes(&Rotation { is_back }, &inputs, &expected);
            }
            let inputs = [&x, &positions, &cosines, &sines, &bias];
            let expected = [(turned(&values(&sum), 1.0), tolerance(dtype))];
            assert_computes(&Rotation { is_back: false }, &inputs, &expected);
            let rows_of = |x: &Tensor| x.flatten_from(1).unwrap();
            assert_computes(&AddBias, &[&rows_of(&x), &bias], &[(values(&rows_of(&sum)), tolerance(dtype))]);
        }
    }
}

#[test]
fn gates_match_plain_loops() {
    for dtype in TYPES {
        for dims in [[1, 5], [13, 300], [6, 64]] {
            let [gate, up, gradient] = [1, 2, 3].map(|seed| normal(seed, &dims, 2.0, dtype));
            let (wide_gate, wide_up, wide_gradient) = (values(&gate), values(&up), values(&gradient));
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let each = |function: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
                (0..wide_gate.len()).map(|i| function(wide_gate[i], wide_up[i], wide_gradient[i])).collect()
            };
            let one = tolerance(dtype);
            let product = each(&|gate, up, _| gate * sigmoid(gate) * up);
            assert_computes(&Swiglu, &[&gate, &up], &[(product.clone(), one)]);
            assert_computes(&SwigluJoined, &[&Tensor::cat(&[&gate, &up], 1).unwrap()], &[(product, one)]);
            let of_gate = each(&|gate, up, dy| dy * up * sigmoid(gate) * (1.0 + gate * (1.0 - sigmoid(gate))));
            let of_up = each(&|gate, _, dy| dy * gate * sigmoid(gate));
            assert_computes(&SwigluBackward, &[&gate, &up, &gradient], &[(of_gate, one), (of_up, one)]);
        }
    }
}

#[test]
fn sums_of_gradients_match_plain_loops() {
    for dtype in TYPES {
        let (sum, gradient) = (normal(1, &[7, 50], 1.0, DType::F32), normal(2, &[7, 50], 1.0, dtype));
        let expected: Vec<f64> = values(&sum).iter().zip(values(&gradient)).map(|(a, b)| a + b).collect();
        if !must_have_device() {
            let buffers = launch_all(&accumulate_launch(&gradient, &sum).unwrap(), &[&gradient, &sum], &[]);
            assert_close("in the emulator", &values(&buffers[1]), &expected, 1e-6);
        }
        for device in devices() {
            let there = |tensor: &Tensor| tensor.to_device(&device).unwrap();
            let found = accumulate(Some(there(&sum)), &there(&gradient)).unwrap();
            assert_close("on a device", &values(&found), &expected, 1e-6);
        }
    }
}

#[test]
fn sums_of_rows_match_plain_loops() {
    let indices = [3_u32, 0, 3, 5, 3, 0];
    for dtype in TYPES {
        let (sums, x) = (normal(1, &[6, 300], 1.0, DType::F32), normal(2, &[indices.len(), 300], 1.0, dtype));
        let (mut expected, wide) = (values(&sums), values(&x));
        for (row, &index) in indices.iter().enumerate() {
            let sum = &mut expected[index as usize * 300..][..300];
            sum.iter_mut().zip(&wide[row * 300..]).for_each(|(sum, value)| *sum += value);
        }
        if !must_have_device() {
            let groups = RowGroups::new(&indices, &Device::Cpu).unwrap();
            let launches = add_rows_launch(&sums, &x, &groups).unwrap();
            let buffers = launch_all(&launches, &[&x, &groups.entries, &groups.rows, &sums], &[]);
            assert_close("in the emulator", &values(&buffers[3]), &expected, 1e-6);
        }
        for device in devices() {
            let there = |tensor: &Tensor| tensor.to_device(&device).unwrap();
            let groups = RowGroups::new(&indices, &device).unwrap();
            let found = add_rows(there(&sums), &there(&x), &groups).unwrap();
            assert_close("on a device", &values(&found), &expected, 1e-6);
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let part = |seed: u64| normal(seed, &[5, 2, 8], 1.0, DType::F32);
    assert_gradients(|inputs| swiglu(&inputs[0], &inputs[1]).unwrap(), &[part(1), part(2)]);
    let (positions, (cosines, sines)) = (positions(5), tables(4));
    assert_gradients(|inputs| rotate(&inputs[0], &positions, (&cosines, &sines)).unwrap(), &[part(1)]);
}
