//! Fused operations: on the CPU, by their CUDA kernels in the emulator, and on a CUDA device if the build and the machine have
//! one, each against plain `f64` loops.

mod adamw;
mod attention;
mod elementwise;
mod half;
mod limits;
mod norm;
mod paged;
mod product;
mod reference;
mod sample;
mod scores;

use candle_core::{DType, Device, Tensor, Var};
use gift_host::policy::fused::{Operation, run};
use gift_host::seed::Seed;

use super::decoder::{devices, must_have_device, norm as length};
use super::emulator::emulate;

/// Values from a standard normal distribution times `scale`, rounded to the type.
fn normal(seed: u64, dims: &[usize], scale: f64, dtype: DType) -> Tensor {
    let mut stream = Seed::new(seed).child("fused", 0).stream();
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| (scale * stream.normal()) as f32).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Half a unit in the last place of the type, and what sums in `f32` lose.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-6,
        DType::F16 => 6e-4,
        _ => 4.5e-3,
    }
}

/// That each value is right but for `tolerance` of itself and of the root mean square of all.
fn assert_close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let typical = length(expected.iter().copied()) / (expected.len().max(1) as f64).sqrt();
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= tolerance * (expected.abs() + typical), "{name}: {found} at {index}, not {expected}");
    }
}

/// What every way to compute an operation gives.
fn every_way(operation: &dyn Operation, inputs: &[&Tensor]) -> Vec<(&'static str, Vec<Tensor>)> {
    let mut ways = vec![("on the CPU", run(operation, inputs).expect("computed"))];
    if !must_have_device() {
        ways.push(("in the emulator", emulate(operation, inputs)));
    }
    for device in devices().iter().filter(|device| !device.is_cpu()) {
        let there: Vec<Tensor> = inputs.iter().map(|input| input.to_device(device).expect("copied")).collect();
        let found = run(operation, &there.iter().collect::<Vec<_>>()).expect("computed");
        let back = found.iter().map(|output| output.to_device(&Device::Cpu).expect("copied"));
        ways.push(("on the device", back.collect()));
    }
    ways
}

/// That every way to compute an operation gives these values but for these tolerances.
fn assert_computes(operation: &dyn Operation, inputs: &[&Tensor], expected: &[(Vec<f64>, f64)]) {
    for (way, outputs) in every_way(operation, inputs) {
        assert_eq!(outputs.len(), expected.len());
        for (index, (output, (expected, tolerance))) in outputs.iter().zip(expected).enumerate() {
            let dims: Vec<_> = inputs.iter().map(|input| input.dims()).collect();
            let name = format!("output {index} of {operation:?} of {dims:?} {:?} {way}", inputs[0].dtype());
            assert_close(&name, &values(output), expected, *tolerance);
        }
    }
}

/// That the gradients of `sum(weights * function(inputs))` which candle finds are those of central differences, at some elements of
/// each input. Inputs in `f32`: differences over `2 step` are good to about `1e-3`.
fn assert_gradients(function: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) {
    let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tracked: Vec<Tensor> = variables.iter().map(|var| var.as_tensor().clone()).collect();
    let output = function(&tracked);
    let weights = normal(99, output.dims(), 1.0, DType::F32);
    let value = |output: &Tensor| values(&(output * &weights).unwrap()).iter().sum::<f64>();
    let gradients = (&output * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    for (index, (input, variable)) in inputs.iter().zip(&variables).enumerate() {
        let gradient = values(gradients.get(variable.as_tensor()).expect("a gradient"));
        let typical = length(gradient.iter().copied()) / (gradient.len() as f64).sqrt();
        let count = input.elem_count();
        for element in (0..count).step_by((count / 12).max(1)) {
            let step = 4e-3;
            let at = |step: f32| {
                let mut moved: Vec<f32> = input.flatten_all().unwrap().to_vec1().unwrap();
                moved[element] += step;
                let mut inputs = inputs.to_vec();
                inputs[index] = Tensor::from_vec(moved, input.dims(), &Device::Cpu).unwrap();
                value(&function(&inputs))
            };
            let difference = (at(step) - at(-step)) / f64::from(2.0 * step);
            let error = (gradient[element] - difference).abs();
            let close = error < 1e-3 * difference.abs() + 3e-3 * typical;
            assert!(close, "input {index} at {element}: {}, not {difference}", gradient[element]);
        }
    }
}
