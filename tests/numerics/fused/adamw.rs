//! AdamW for many tensors at once.

use candle_core::{DType, Device, Tensor};
use gift_host::policy::AdamWStep;
use gift_host::policy::fused::{Parameter, adamw, adamw_launch, square_sum, square_sum_launch};

use super::super::decoder::{STEP, devices, must_have_device};
use super::super::emulator::{TYPES, launch_all};
use super::{assert_close, normal, tolerance, values};

/// A vector, which does not decay, matrices of less than a chunk and of more, and one without a gradient.
fn parameters(dtype: DType, device: &Device) -> Vec<Parameter> {
    let parameter = |(seed, dims): (usize, &&[usize])| {
        let part = |part: usize, scale: f64| {
            normal((10 * seed + part) as u64, dims, scale, DType::F32).to_device(device).unwrap()
        };
        let weight = part(0, 1.0);
        Parameter {
            copy: part_of_another(&weight, dtype),
            weight,
            gradient: (seed != 2).then(|| part(1, 1.0)),
            first: part(2, 0.3),
            second: part(3, 0.3).sqr().unwrap(),
        }
    };
    let dims: [&[usize]; 4] = [&[37], &[300, 300], &[5, 7], &[1, 65536]];
    dims.iter().enumerate().map(parameter).collect()
}

/// A rounded copy between rows that nobody may write to.
fn part_of_another(weight: &Tensor, dtype: DType) -> Tensor {
    let rounded = weight.to_dtype(dtype).unwrap();
    let rows = weight.dim(0).unwrap();
    Tensor::cat(&[&rounded, &rounded, &rounded], 0).unwrap().narrow(0, rows, rows).unwrap()
}

fn step() -> AdamWStep {
    AdamWStep { step: 3, gradient_scale: 0.5, epsilon: 1e-3, ..STEP }
}

/// Weight and both moments after a step.
fn expected(parameter: &Parameter) -> [Vec<f64>; 3] {
    let step = step();
    let (mut weight, mut first, mut second) =
        (values(&parameter.weight), values(&parameter.first), values(&parameter.second));
    let gradient = parameter.gradient.as_ref().map_or_else(|| vec![0.0; weight.len()], values);
    let decay = if parameter.weight.rank() == 2 { step.weight_decay } else { 0.0 };
    for i in 0..weight.len() {
        let gradient = gradient[i] * step.gradient_scale;
        first[i] = step.beta1 * first[i] + (1.0 - step.beta1) * gradient;
        second[i] = step.beta2 * second[i] + (1.0 - step.beta2) * gradient * gradient;
        let corrected = first[i] / (1.0 - step.beta1.powi(3));
        let root = (second[i] / (1.0 - step.beta2.powi(3))).sqrt() + step.epsilon;
        weight[i] = weight[i] * (1.0 - step.learning_rate * decay) - step.learning_rate * corrected / root;
    }
    [weight, first, second]
}

#[test]
fn steps_match_plain_loops() {
    for dtype in TYPES {
        let given = parameters(dtype, &Device::Cpu);
        let expected: Vec<_> = given.iter().map(expected).collect();
        let (launch, inputs) = adamw_launch(&given, &step()).unwrap();
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let buffers = if must_have_device() { Vec::new() } else { launch_all(&[launch], &inputs, &[]) };
        let mut buffers = buffers.iter();
        let emulated = given.iter().zip(&expected).filter(|_| !must_have_device());
        for (parameter, [weight, first, second]) in emulated {
            let mut next = |name: &str, expected: &[f64], tolerance: f64| {
                assert_close(name, &values(buffers.next().unwrap()), expected, tolerance);
            };
            next("weight", weight, 1e-6);
            if let Some(gradient) = &parameter.gradient {
                next("gradient", &values(gradient), 0.0);
            }
            next("first moment", first, 1e-6);
            next("second moment", second, 1e-6);
            next("copy", weight, tolerance(dtype));
        }

        for device in devices() {
            let mut parameters = parameters(dtype, &device);
            adamw(&mut parameters, &step()).unwrap();
            for (parameter, [weight, first, second]) in parameters.iter().zip(&expected) {
                assert_close("weight", &values(&parameter.weight), weight, 1e-6);
                assert_close("first moment", &values(&parameter.first), first, 1e-6);
                assert_close("second moment", &values(&parameter.second), second, 1e-6);
                assert_close("copy", &values(&parameter.copy), weight, tolerance(dtype));
            }
        }
    }
}

#[test]
fn sums_of_squares_match_plain_loops() {
    let weights = |device: &Device| -> Vec<Tensor> {
        parameters(DType::F32, device).into_iter().map(|parameter| parameter.weight).collect()
    };
    let tensors = weights(&Device::Cpu);
    let tensors: Vec<&Tensor> = tensors.iter().collect();
    let expected: f64 = tensors.iter().flat_map(|tensor| values(tensor)).map(|x| x * x).sum();
    let (launch, inputs, sums) = square_sum_launch(&tensors).unwrap();
    let emulated = (!must_have_device()).then(|| {
        let buffers = launch_all(&[launch], &inputs.iter().collect::<Vec<_>>(), &[sums]);
        values(buffers.last().unwrap()).iter().sum()
    });
    let computed =
        devices().into_iter().map(|device| square_sum(&weights(&device).iter().collect::<Vec<_>>()).unwrap());
    for found in emulated.into_iter().chain(computed) {
        assert!((found / expected - 1.0).abs() < 1e-5, "{found}, not {expected}");
    }
}
