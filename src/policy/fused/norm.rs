//! Root mean square norms (arXiv:1910.07467): `y = x r w`, `r = 1 / sqrt(mean(x^2) + epsilon)` over the last dimension, which is
//! the residual stream's or a head's. All of it is in `f32` and rounded once.

use candle_core::{DType, Result, Tensor, bail};

use super::operation::{Argument, Input, Launch, Operation, Spec, apply, bind, compute, int, pack, run, suffix};

/// Blocks of the backward kernel, each of which leaves a row of the weight's gradient: two for each multiprocessor of an H100.
const MAX_BLOCKS: usize = 264;
/// Widest row that a warp works on alone.
const MAX_WARP_WIDTH: usize = 256;
/// Shared memory that every device has for a block.
const SHARED_BYTES: usize = 48 << 10;

/// The norm of each row.
///
/// # Shapes
/// - `x`: `[.., width]`, `f32`, `bf16` or `f16`; `weight`: `[width]`, the same type
/// - returns the shape and type of `x`; differentiable in both
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    Ok(apply(Norm { epsilon }, &[x, weight], &[])?.swap_remove(0))
}

/// The sum of the residual stream and a change to it, and the norm of each row of the sum.
///
/// # Shapes
/// - `x`, `change`: `[.., width]`, `f32`, `bf16` or `f16`; `weight`: `[width]`, the same type
/// - returns twice the shape and type of `x`, differentiable in all three
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn add_rms_norm(x: &Tensor, change: &Tensor, weight: &Tensor, epsilon: f32) -> Result<(Tensor, Tensor)> {
    let operation = AddNorm { epsilon };
    let mut computed = compute(&operation, &[x, change, weight])?.into_iter();
    let (Some(stream), Some(normalized)) = (computed.next(), computed.next()) else { bail!("two outputs are missing") };
    // In the graph the norm comes after the sum, whose gradient is that of both its uses.
    let stream = bind(operation, stream, &[], &[x, change], &[])?;
    let normalized = bind(Norm { epsilon }, normalized, &[], &[&stream, weight], &[])?;
    Ok((stream, normalized))
}

/// The gradients of the rows and of the weight from that of [`rms_norm`].
///
/// # Shapes
/// - `x`, `gradient`: `[.., width]`; `weight`: `[width]`, all of one type
/// - returns the shapes and type of `x` and of `weight`, the latter in `f32`
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn rms_norm_backward(x: &Tensor, weight: &Tensor, gradient: &Tensor, epsilon: f32) -> Result<(Tensor, Tensor)> {
    let found = run(&NormBackward { epsilon }, &[x, weight, gradient])?;
    Ok((found[0].clone(), found[1].sum(0)?))
}

/// Threads for each row, and rows for each block.
fn block(width: usize, dtype: DType) -> [usize; 2] {
    if width <= MAX_WARP_WIDTH { [32, 8] } else { [width.div_ceil(pack(dtype)).next_multiple_of(32).min(512), 1] }
}

/// That all of `rows` are alike, that `weight` has an element a column, and that all have one type.
fn check(rows: &[&Spec], weight: &Spec) -> Result<()> {
    let [first, others @ ..] = rows else { bail!("no rows") };
    let (_, width) = first.rows()?;
    if weight.dims != [width] || weight.dtype != first.dtype || others.iter().any(|other| other != first) {
        bail!("a norm of {rows:?} with {weight:?}");
    }
    Ok(())
}

/// A launch of a kernel that takes all inputs, `outputs` outputs, the sizes of the rows and epsilon.
fn launch(
    kernel: &str,
    inputs: &[Spec],
    outputs: usize,
    (blocks, shared_bytes): (usize, usize),
    epsilon: f32,
) -> Result<Vec<Launch>> {
    let (rows, width) = inputs[0].rows()?;
    let tensors = (0..inputs.len()).map(Argument::Input).chain((0..outputs).map(Argument::Output));
    Ok(vec![Launch {
        file: "norm",
        kernel: format!("{kernel}_{}", suffix(inputs[0].dtype)?),
        grid: [blocks, 1, 1],
        block: block(width, inputs[0].dtype),
        shared_bytes,
        arguments: tensors.chain([int(rows)?, int(width)?, Argument::Float(epsilon)]).collect(),
    }])
}

/// The operation of [`rms_norm`].
#[derive(Debug)]
pub struct Norm {
    /// Added to the mean of the squares.
    pub epsilon: f32,
}

impl Operation for Norm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        check(&[&inputs[0]], &inputs[1])?;
        Ok(vec![inputs[0].clone()])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (rows, width) = inputs[0].rows()?;
        launch("rms_norm", inputs, 1, (rows.div_ceil(block(width, inputs[0].dtype)[1]), 0), self.epsilon)
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        Ok(vec![normalize(&inputs[0].floats, &inputs[1].floats, self.epsilon)])
    }

    fn backward(&self, inputs: &[Tensor], _outputs: &[Tensor], gradient: &Tensor) -> Result<Vec<Tensor>> {
        let (of_x, of_weight) = rms_norm_backward(&inputs[0], &inputs[1], gradient, self.epsilon)?;
        Ok(vec![of_x, of_weight.to_dtype(inputs[1].dtype())?])
    }
}

/// The operation of [`add_rms_norm`]: inputs `x`, `change` and `weight`, outputs the sum and its norm. Its gradient is that of the
/// sum alone.
#[derive(Debug)]
pub struct AddNorm {
    /// Added to the mean of the squares.
    pub epsilon: f32,
}

impl Operation for AddNorm {
    fn name(&self) -> &'static str {
        "add-rms-norm"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        check(&[&inputs[0], &inputs[1]], &inputs[2])?;
        Ok(vec![inputs[0].clone(), inputs[0].clone()])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (rows, width) = inputs[0].rows()?;
        launch("add_rms_norm", inputs, 2, (rows.div_ceil(block(width, inputs[0].dtype)[1]), 0), self.epsilon)
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let sum: Vec<f32> = inputs[0].floats.iter().zip(inputs[1].floats.iter()).map(|(a, b)| a + b).collect();
        // The norm is that of the stream as it is stored.
        let dims = inputs[0].spec.dims.as_slice();
        let stored = Tensor::from_slice(&sum, dims, &candle_core::Device::Cpu)?.to_dtype(inputs[0].spec.dtype)?;
        let stored = stored.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let normalized = normalize(&stored, &inputs[2].floats, self.epsilon);
        Ok(vec![stored, normalized])
    }

    fn backward(&self, _inputs: &[Tensor], _outputs: &[Tensor], gradient: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![gradient.clone(), gradient.clone()])
    }
}

/// The gradient of [`Norm`]: inputs `x`, `weight` and the gradient of the output; outputs that of `x`, and rows whose sum is that of
/// `weight`, `[blocks, width]` in `f32`.
#[derive(Debug)]
pub struct NormBackward {
    /// Added to the mean of the squares.
    pub epsilon: f32,
}

impl NormBackward {
    fn blocks(x: &Spec) -> Result<usize> {
        let (rows, width) = x.rows()?;
        Ok(rows.div_ceil(block(width, x.dtype)[1]).clamp(1, MAX_BLOCKS))
    }
}

impl Operation for NormBackward {
    fn name(&self) -> &'static str {
        "rms-norm-backward"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        check(&[&inputs[0], &inputs[2]], &inputs[1])?;
        let (_, width) = inputs[0].rows()?;
        Ok(vec![inputs[0].clone(), Spec { dims: vec![Self::blocks(&inputs[0])?, width], dtype: DType::F32 }])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let ((_, width), dtype) = (inputs[0].rows()?, inputs[0].dtype);
        let shared_bytes = block(width, dtype)[1] * width.next_multiple_of(pack(dtype)) * size_of::<f32>();
        if shared_bytes > SHARED_BYTES {
            bail!("rows of {width} elements are too wide for the norm's backward kernel");
        }
        launch("rms_norm_backward", inputs, 2, (Self::blocks(&inputs[0])?, shared_bytes), self.epsilon)
    }

    /// `dx = r w dy - x r^3 / width sum(w dy x)`, `dw = sum over rows of dy x r`.
    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let (rows, width) = inputs[0].spec.rows()?;
        let (blocks, together) = (Self::blocks(&inputs[0].spec)?, block(width, inputs[0].spec.dtype)[1]);
        let weight = &*inputs[1].floats;
        let mut of_x = Vec::with_capacity(rows * width);
        let mut parts = vec![0.0; blocks * width];
        let pairs = inputs[0].floats.chunks_exact(width).zip(inputs[2].floats.chunks_exact(width));
        for (row, (x, gradient)) in pairs.enumerate() {
            let r = inverse_root(x, self.epsilon);
            let pulls = x.iter().zip(weight).zip(gradient).map(|((x, weight), gradient)| x * weight * gradient);
            let pull = pulls.sum::<f32>() * r * r * r / width as f32;
            let columns = x.iter().zip(weight).zip(gradient);
            of_x.extend(columns.map(|((x, weight), gradient)| r * weight * gradient - x * pull));
            let part = &mut parts[row / together % blocks * width..][..width];
            part.iter_mut().zip(x).zip(gradient).for_each(|((part, x), gradient)| *part += gradient * x * r);
        }
        Ok(vec![of_x, parts])
    }
}

fn inverse_root(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32 + epsilon).sqrt()
}

fn normalize(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let row = |x: &[f32]| {
        let r = inverse_root(x, epsilon);
        x.iter().zip(weight).map(move |(x, weight)| x * r * weight).collect::<Vec<_>>()
    };
    x.chunks_exact(weight.len()).flat_map(row).collect()
}
