//! Rotary positions (arXiv:2104.09864, in the form that turns the two halves of a head against each other), the gate of the
//! feed-forward layer (arXiv:2002.05202), and sums of gradients.

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{DType, Result, Tensor, bail};

use super::operation::{Argument, Input, Launch, Operation, Spec, apply, int, pack, run, suffix};

/// Threads of a block, each with a pack of elements or pairs.
const THREADS: usize = 256;

/// Turns each head to its row's position: with `c` and `s` the cosine and sine of position and column `i < head_dim / 2`,
/// `y_i = x_i c - x_{i + half} s` and `y_{i + half} = x_{i + half} c + x_i s`.
///
/// # Shapes
/// - `x`: `[rows, heads, head_dim]`, `f32`, `bf16` or `f16`; `positions`: `[rows]`, `u32`; `cosines` and `sines`:
///   `[max_positions, .., head_dim / 2]`, `f32`
/// - returns the shape and type of `x`; differentiable in it
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn rotate(x: &Tensor, positions: &Tensor, (cosines, sines): (&Tensor, &Tensor)) -> Result<Tensor> {
    Ok(apply(Rotation { is_back: false }, &[x], &[positions, cosines, sines])?.swap_remove(0))
}

/// As [`rotate`], of `x + bias`, whose elements are rounded to the type; nothing is recorded.
///
/// # Shapes
/// - `bias`: `[heads * head_dim]`, the type of `x`
///
/// # Errors
/// As [`rotate`].
pub fn rotate_biased(
    x: &Tensor,
    bias: &Tensor,
    positions: &Tensor,
    (cosines, sines): (&Tensor, &Tensor),
) -> Result<Tensor> {
    Ok(run(&Rotation { is_back: false }, &[x, positions, cosines, sines, bias])?.swap_remove(0))
}

/// `x + bias` for each row; nothing is recorded.
///
/// # Shapes
/// - `x`: `[rows, width]`, `bias`: `[width]`, one of `f32`, `bf16` and `f16`
/// - returns the shape and type of `x`
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok(run(&AddBias, &[x, bias])?.swap_remove(0))
}

/// Turns back: the gradient of [`rotate`] from that of its result. Shapes and errors are the same.
///
/// # Errors
/// As [`rotate`].
pub fn rotate_back(x: &Tensor, positions: &Tensor, (cosines, sines): (&Tensor, &Tensor)) -> Result<Tensor> {
    Ok(apply(Rotation { is_back: true }, &[x], &[positions, cosines, sines])?.swap_remove(0))
}

/// `silu(gate) * up`.
///
/// # Shapes
/// - `gate`, `up`: the same shape, `f32`, `bf16` or `f16`
/// - returns the same; differentiable in both
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok(apply(Swiglu, &[gate, up], &[])?.swap_remove(0))
}

/// The gradients of `gate` and `up` from that of [`swiglu`], all of one shape and type.
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn swiglu_backward(gate: &Tensor, up: &Tensor, gradient: &Tensor) -> Result<(Tensor, Tensor)> {
    let found = run(&SwigluBackward, &[gate, up, gradient])?;
    Ok((found[0].clone(), found[1].clone()))
}

/// The sum of an accumulated gradient, if there is one, and another one; nothing is recorded. On CUDA `sum` changes in place.
///
/// # Shapes
/// - `sum`: `f32`; `gradient`: the same shape, `f32`, `bf16` or `f16`
/// - returns the shape, `f32`, contiguous
///
/// # Errors
/// If the shapes differ, or the backend fails.
pub fn accumulate(sum: Option<Tensor>, gradient: &Tensor) -> Result<Tensor> {
    let gradient = gradient.detach().contiguous()?;
    let Some(sum) = sum else { return gradient.to_dtype(DType::F32) };
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = sum.device() {
        let launches = accumulate_launch(&gradient, &sum)?;
        super::device::execute(device, &launches, &[gradient, sum.clone()], Vec::new())?;
        return Ok(sum);
    }
    sum + gradient.to_dtype(DType::F32)?
}

/// What adds the first of two inputs to the second one.
///
/// # Errors
/// If they do not fit together.
pub fn accumulate_launch(gradient: &Tensor, sum: &Tensor) -> Result<Vec<Launch>> {
    let spec = Spec::of(gradient);
    if sum.dims() != gradient.dims() || sum.dtype() != DType::F32 || !sum.is_contiguous() {
        bail!("a gradient of {:?} for a sum of {:?}", gradient.dims(), sum.dims());
    }
    let (rows, width) = spec.rows()?;
    let arguments = vec![Argument::Input(0), Argument::Input(1), int(rows)?, int(width)?];
    launch("accumulate", spec.dtype, (rows * width).div_ceil(pack(spec.dtype)), arguments)
}

/// A launch with a thread for each of `count` packs.
fn launch(kernel: &str, dtype: DType, count: usize, arguments: Vec<Argument>) -> Result<Vec<Launch>> {
    Ok(vec![Launch {
        file: "elementwise",
        kernel: format!("{kernel}_{}", suffix(dtype)?),
        grid: [count.div_ceil(THREADS), 1, 1],
        block: [THREADS, 1],
        shared_bytes: 0,
        arguments,
    }])
}

/// The operation of [`rotate`]; turning back is its gradient. A fifth input is a bias.
#[derive(Debug)]
pub struct Rotation {
    /// Whether to turn by the negative angle.
    pub is_back: bool,
}

impl Rotation {
    fn direction(&self) -> f32 {
        if self.is_back { -1.0 } else { 1.0 }
    }

    fn sizes(inputs: &[Spec]) -> Result<(usize, usize, usize)> {
        let [rows, heads, dim] = inputs[0].dims[..] else { bail!("heads of {:?}", inputs[0]) };
        let tables =
            inputs[2..4].iter().all(|table| table.dtype == DType::F32 && table.dims.last() == Some(&(dim / 2)));
        let bias_fits = inputs.get(4).is_none_or(|bias| bias.dtype == inputs[0].dtype && bias.count() == heads * dim);
        if !bias_fits || inputs[1].dims != [rows] || inputs[1].dtype != DType::U32 || !tables || inputs[2] != inputs[3]
        {
            bail!("a rotation of {inputs:?}");
        }
        Ok((rows, heads, dim / 2))
    }
}

impl Operation for Rotation {
    fn name(&self) -> &'static str {
        "rotation"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        Self::sizes(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (rows, heads, half) = Self::sizes(inputs)?;
        let is_biased = inputs.len() > 4;
        let sizes = [int(rows)?, int(heads)?, int(half)?, Argument::Float(self.direction()), int(is_biased.into())?];
        let bias = Argument::Input(if is_biased { 4 } else { 0 });
        let tensors = (0..4).map(Argument::Input).chain([bias, Argument::Output(0)]);
        let packs = rows * heads * half.div_ceil(pack(inputs[0].dtype));
        launch("rotary", inputs[0].dtype, packs, tensors.chain(sizes).collect())
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let specs: Vec<Spec> = inputs.iter().map(|input| input.spec.clone()).collect();
        let (_, heads, half) = Self::sizes(&specs)?;
        let mut y = match inputs.get(4) {
            Some(bias) => biased(&inputs[0], &bias.floats)?,
            None => inputs[0].floats.to_vec(),
        };
        for (row, &position) in y.chunks_exact_mut((heads * 2 * half).max(1)).zip(inputs[1].ids.iter()) {
            let angles = position as usize * half..(position as usize + 1) * half;
            let (Some(cosines), Some(sines)) = (inputs[2].floats.get(angles.clone()), inputs[3].floats.get(angles))
            else {
                bail!("no angle for position {position}");
            };
            for head in row.chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                    let sine = sine * self.direction();
                    (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
                }
            }
        }
        Ok(vec![y])
    }

    fn backward(&self, inputs: &[Tensor], _outputs: &[Tensor], gradient: &Tensor) -> Result<Vec<Tensor>> {
        run(&Self { is_back: !self.is_back }, &[gradient, &inputs[1], &inputs[2], &inputs[3]])
    }
}

/// Rows of `x + bias`, rounded to the type of `x`.
fn biased(x: &Input<'_>, bias: &[f32]) -> Result<Vec<f32>> {
    let sums: Vec<f32> = x.floats.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
    let rounded = Tensor::from_vec(sums, x.spec.dims.as_slice(), &candle_core::Device::Cpu)?.to_dtype(x.spec.dtype)?;
    rounded.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// The operation of [`add_bias`].
#[derive(Debug)]
pub struct AddBias;

impl Operation for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (_, width) = inputs[0].rows()?;
        if inputs[1].dims != [width] || inputs[1].dtype != inputs[0].dtype {
            bail!("a bias {:?} for {:?}", inputs[1], inputs[0]);
        }
        Ok(vec![inputs[0].clone()])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (rows, width) = inputs[0].rows()?;
        let tensors = (0..2).map(Argument::Input).chain([Argument::Output(0)]);
        let arguments = tensors.chain([int(rows)?, int(width)?]).collect();
        launch("add_bias", inputs[0].dtype, rows * width.div_ceil(pack(inputs[0].dtype)), arguments)
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        Ok(vec![biased(&inputs[0], &inputs[1].floats)?])
    }
}

/// The operation of [`swiglu`].
#[derive(Debug)]
pub struct Swiglu;

/// That all inputs are alike.
fn check(inputs: &[Spec]) -> Result<(usize, usize)> {
    if inputs.iter().any(|input| *input != inputs[0]) {
        bail!("a gate of {inputs:?}");
    }
    inputs[0].rows()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Operation for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (rows, width) = check(inputs)?;
        let arguments = vec![Argument::Input(0), Argument::Input(1), Argument::Output(0), int(rows)?, int(width)?];
        launch("swiglu", inputs[0].dtype, (rows * width).div_ceil(pack(inputs[0].dtype)), arguments)
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let pairs = inputs[0].floats.iter().zip(inputs[1].floats.iter());
        Ok(vec![pairs.map(|(&gate, up)| gate * sigmoid(gate) * up).collect()])
    }

    fn backward(&self, inputs: &[Tensor], _outputs: &[Tensor], gradient: &Tensor) -> Result<Vec<Tensor>> {
        run(&SwigluBackward, &[&inputs[0], &inputs[1], gradient])
    }
}

/// `silu(gate) up` of a gate and what it lets through side by side; nothing is recorded.
///
/// # Shapes
/// - `both`: `[.., 2 width]`, `f32`, `bf16` or `f16`: first `gate`, then `up`
/// - returns `[.., width]`, the same type
///
/// # Errors
/// If the width is odd, or the backend fails.
pub fn swiglu_joined(both: &Tensor) -> Result<Tensor> {
    Ok(run(&SwigluJoined, &[both])?.swap_remove(0))
}

/// The operation of [`swiglu_joined`].
#[derive(Debug)]
pub struct SwigluJoined;

impl SwigluJoined {
    fn half(both: &Spec) -> Result<(usize, usize)> {
        let (rows, width) = both.rows()?;
        if !width.is_multiple_of(2) {
            bail!("a gate of {both:?}");
        }
        Ok((rows, width / 2))
    }
}

impl Operation for SwigluJoined {
    fn name(&self) -> &'static str {
        "swiglu-joined"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (_, width) = Self::half(&inputs[0])?;
        let mut spec = inputs[0].clone();
        spec.dims.pop();
        spec.dims.push(width);
        Ok(vec![spec])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (rows, width) = Self::half(&inputs[0])?;
        let arguments = vec![Argument::Input(0), Argument::Output(0), int(rows)?, int(width)?];
        launch("swiglu_joined", inputs[0].dtype, rows * width.div_ceil(pack(inputs[0].dtype)), arguments)
    }

    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let (_, width) = Self::half(&inputs[0].spec)?;
        let row = |both: &[f32]| -> Vec<f32> {
            let (gate, up) = both.split_at(width);
            gate.iter().zip(up).map(|(&gate, up)| gate * sigmoid(gate) * up).collect()
        };
        Ok(vec![inputs[0].floats.chunks_exact((2 * width).max(1)).flat_map(row).collect()])
    }
}

/// The gradient of [`Swiglu`]: inputs `gate`, `up` and the gradient of the output, outputs the gradients of the first two.
#[derive(Debug)]
pub struct SwigluBackward;

impl Operation for SwigluBackward {
    fn name(&self) -> &'static str {
        "swiglu-backward"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        check(inputs)?;
        Ok(vec![inputs[0].clone(), inputs[0].clone()])
    }

    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>> {
        let (rows, width) = check(inputs)?;
        let tensors = (0..3).map(Argument::Input).chain((0..2).map(Argument::Output));
        let packs = (rows * width).div_ceil(pack(inputs[0].dtype));
        launch("swiglu_backward", inputs[0].dtype, packs, tensors.chain([int(rows)?, int(width)?]).collect())
    }

    /// With `s = sigmoid(gate)`: `dy up s (1 + gate (1 - s))` and `dy gate s`.
    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        let triples = inputs[0].floats.iter().zip(inputs[1].floats.iter()).zip(inputs[2].floats.iter());
        let gradients = triples.map(|((&gate, up), gradient)| {
            let s = sigmoid(gate);
            (gradient * up * s * (1.0 + gate * (1.0 - s)), gradient * gate * s)
        });
        let (of_gate, of_up) = gradients.unzip();
        Ok(vec![of_gate, of_up])
    }
}
