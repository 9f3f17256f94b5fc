//! One step of AdamW (arXiv:1711.05101) for all tensors at once, and the norm of all gradients. On CUDA each is one launch, and
//! weights and moments change in place.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::operation::{Argument, Launch, Spec, suffix};
use crate::policy::AdamWStep;

/// Elements that a block works on, as in `kernels/adamw.cu`.
const CHUNK: usize = 65536;
/// Threads of a block.
const THREADS: usize = 512;

/// A trained tensor and what belongs to it, contiguous and of one shape.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The weight, `f32`.
    pub weight: Tensor,
    /// Its gradient, `f32`; `None` if it is zero.
    pub gradient: Option<Tensor>,
    /// The first moment, `f32`.
    pub first: Tensor,
    /// The second moment, `f32`.
    pub second: Tensor,
    /// The rounded weight, in the type that the network computes in, which is the same for all parameters. It changes in place, and
    /// may be a part of another tensor, but not share its memory with the weight.
    pub copy: Tensor,
}

/// Takes a step: changes the weights, the moments and the copies. Matrices decay, vectors do not.
///
/// # Errors
/// If the backend fails; then some tensors may have changed.
pub fn adamw(parameters: &mut [Parameter], step: &AdamWStep) -> Result<()> {
    let Some(first) = parameters.first() else { return Ok(()) };
    match first.weight.device().clone() {
        Device::Cpu => parameters.iter_mut().try_for_each(|parameter| on_cpu(parameter, step)),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let (launch, inputs) = adamw_launch(parameters, step)?;
            super::device::execute(&device, &[launch], &inputs, Vec::new()).map(drop)
        }
        other => bail!("no AdamW on {:?}", other.location()),
    }
}

/// The factors of a step that do not depend on the tensor.
struct Factors {
    /// Learning rate over the correction of the first moment.
    rate: f64,
    second_correction: f64,
}

impl Factors {
    fn of(step: &AdamWStep) -> Self {
        let power = i32::try_from(step.step).unwrap_or(i32::MAX);
        let first_correction = 1.0 - step.beta1.powi(power);
        let second_correction = 1.0 - step.beta2.powi(power);
        Self { rate: step.learning_rate / first_correction, second_correction }
    }
}

/// What the decay leaves of a weight.
fn kept(weight: &Tensor, step: &AdamWStep) -> f32 {
    let decay = if weight.rank() == 2 { step.weight_decay } else { 0.0 };
    (1.0 - step.learning_rate * decay) as f32
}

fn on_cpu(parameter: &mut Parameter, step: &AdamWStep) -> Result<()> {
    let read = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let factors = Factors::of(step);
    let (rate, correction) = (factors.rate as f32, factors.second_correction as f32);
    let (beta1, rest1, beta2, rest2) =
        (step.beta1 as f32, (1.0 - step.beta1) as f32, step.beta2 as f32, (1.0 - step.beta2) as f32);
    let kept = kept(&parameter.weight, step);
    let mut weight = read(&parameter.weight)?;
    let (mut first, mut second) = (read(&parameter.first)?, read(&parameter.second)?);
    let gradient = match &parameter.gradient {
        Some(gradient) => read(gradient)?,
        None => vec![0.0; weight.len()],
    };
    for (((w, m), v), gradient) in weight.iter_mut().zip(&mut first).zip(&mut second).zip(gradient) {
        let gradient = gradient * step.gradient_scale as f32;
        *m = *m * beta1 + gradient * rest1;
        *v = *v * beta2 + gradient * gradient * rest2;
        *w = *w * kept - rate * *m / ((*v / correction).sqrt() + step.epsilon as f32);
    }
    let dims = parameter.weight.dims().to_vec();
    let store = |values: Vec<f32>| Tensor::from_vec(values, dims.as_slice(), &Device::Cpu);
    (parameter.weight, parameter.first, parameter.second) = (store(weight)?, store(first)?, store(second)?);
    overwrite(&parameter.copy, &parameter.weight)
}

/// Writes the numbers of a tensor to the memory of another one of its shape, rounded to its type.
///
/// # Errors
/// If they share their memory, or the backend fails.
pub fn overwrite(tensor: &Tensor, with: &Tensor) -> Result<()> {
    tensor.slice_set(&with.to_dtype(tensor.dtype())?.contiguous()?, 0, 0)
}

/// The tables of the kernels: sizes, and the chunks of each tensor.
fn tables<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<(Vec<u32>, Vec<[u32; 2]>)> {
    let (mut sizes, mut chunks) = (Vec::new(), Vec::new());
    for (index, tensor) in tensors.enumerate() {
        let Ok(size) = u32::try_from(tensor.elem_count()) else { bail!("{:?} is too large", tensor.dims()) };
        sizes.push(size);
        chunks.extend((0..tensor.elem_count().div_ceil(CHUNK)).map(|chunk| [index as u32, chunk as u32]));
    }
    Ok((sizes, chunks))
}

fn flat(chunks: &[[u32; 2]], device: &Device) -> Result<Tensor> {
    Tensor::from_vec(chunks.concat(), (chunks.len(), 2), device)
}

/// What takes a step, and its inputs: those of `parameters` that are there, which change in place, and tables.
///
/// # Errors
/// If a tensor is too large, or the backend fails.
pub fn adamw_launch(parameters: &[Parameter], step: &AdamWStep) -> Result<(Launch, Vec<Tensor>)> {
    let Some(first) = parameters.first() else { bail!("no parameters") };
    let (device, dtype) = (first.weight.device(), first.copy.dtype());
    let (mut inputs, mut addresses) = (Vec::new(), Vec::new());
    for parameter in parameters {
        let Parameter { weight, gradient, first, second, copy } = parameter;
        for tensor in [Some(weight), gradient.as_ref(), Some(first), Some(second), Some(copy)] {
            addresses.push(tensor.map(|_| inputs.len()));
            inputs.extend(tensor.cloned());
        }
        let fits = |tensor: &Tensor| tensor.is_contiguous() && tensor.dims() == weight.dims();
        let moments = [weight, first, second].into_iter().chain(gradient).all(|tensor| tensor.dtype() == DType::F32);
        if !moments || copy.dtype() != dtype || !inputs.iter().rev().take(4).all(fits) {
            bail!("a parameter of {:?} whose tensors do not fit together", weight.dims());
        }
    }
    let (sizes, chunks) = tables(parameters.iter().map(|parameter| &parameter.weight))?;
    let kept: Vec<f32> = parameters.iter().map(|parameter| kept(&parameter.weight, step)).collect();
    let tables = [Tensor::new(sizes, device)?, Tensor::new(kept, device)?, flat(&chunks, device)?];
    let first_table = inputs.len();
    inputs.extend(tables);
    let factors = Factors::of(step);
    let numbers = [
        factors.rate,
        step.beta1,
        1.0 - step.beta1,
        step.beta2,
        1.0 - step.beta2,
        factors.second_correction,
        step.epsilon,
        step.gradient_scale,
    ];
    let tables = (first_table..first_table + 3).map(Argument::Input);
    let numbers = numbers.into_iter().map(|number| Argument::Float(number as f32));
    let launch = Launch {
        file: "adamw",
        kernel: format!("adamw_{}", suffix(dtype)?),
        grid: [chunks.len(), 1, 1],
        block: [THREADS, 1],
        shared_bytes: 0,
        arguments: [Argument::Addresses(addresses)].into_iter().chain(tables).chain(numbers).collect(),
    };
    Ok((launch, inputs))
}

/// The sum of the squares of all elements of contiguous tensors in `f32`.
///
/// # Errors
/// If the backend fails.
pub fn square_sum(tensors: &[&Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else { return Ok(0.0) };
    match first.device() {
        Device::Cpu => {
            let mut sum = 0.0;
            for tensor in tensors {
                let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                sum +=
                    values.chunks(CHUNK).map(|chunk| f64::from(chunk.iter().map(|x| x * x).sum::<f32>())).sum::<f64>();
            }
            Ok(sum)
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let (launch, inputs, sums) = square_sum_launch(tensors)?;
            let computed = super::device::execute(device, &[launch], &inputs, vec![sums])?;
            let sums = computed.into_iter().map(super::operation::wrap).next();
            let sums = sums.map_or_else(|| Ok(Vec::new()), |sums| sums.to_vec1::<f32>())?;
            Ok(sums.into_iter().map(f64::from).sum())
        }
        other => bail!("no sum of squares on {:?}", other.location()),
    }
}

/// What computes the sums of the squares of all chunks, its inputs, and its output, `[chunks]` in `f32`.
///
/// # Errors
/// If a tensor is too large, or the backend fails.
pub fn square_sum_launch(tensors: &[&Tensor]) -> Result<(Launch, Vec<Tensor>, Spec)> {
    let Some(first) = tensors.first() else { bail!("no tensors") };
    let (sizes, chunks) = tables(tensors.iter().copied())?;
    let tables = [Tensor::new(sizes, first.device())?, flat(&chunks, first.device())?];
    let inputs: Vec<Tensor> = tensors.iter().map(|&tensor| tensor.clone()).chain(tables).collect();
    let addresses = Argument::Addresses((0..tensors.len()).map(Some).collect());
    let tables = [Argument::Input(tensors.len()), Argument::Input(tensors.len() + 1), Argument::Output(0)];
    let launch = Launch {
        file: "adamw",
        kernel: "square_sums".to_owned(),
        grid: [chunks.len(), 1, 1],
        block: [THREADS, 1],
        shared_bytes: 0,
        arguments: [addresses].into_iter().chain(tables).collect(),
    };
    Ok((launch, inputs, Spec { dims: vec![chunks.len()], dtype: DType::F32 }))
}
