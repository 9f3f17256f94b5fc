//! The low-rank adapter of a decoder on the CPU. The packed weights that the forward pass multiplies with are those with the
//! adapter added, so sampling and scoring cost what they cost without one and never see stale values; the flat weights stay
//! as they were. The backward pass goes through `W + s B A` in two parts and never forms the gradient of `W`.

use std::ops::Range;

use rayon::prelude::*;

use super::gradients::Gradients;
use super::matmul::{Operand, Packing, Product, Rows, multiply, sized};
use super::model::{Joint, Model, Places};
use crate::policy::adapter::{AdapterConfig, Dropout, add_product, length, row_factor};
use crate::policy::{DecoderConfig, Error, NamedTensor, Projection};

/// Rows of a matrix that one task adds the adapter to.
const MERGE_ROWS: usize = 64;

/// One adapted projection.
#[derive(Clone, Debug)]
struct Part {
    /// Its rows among those of the matrices that are multiplied together.
    rows: Range<usize>,
    projection: Projection,
    /// `A`, `[rank, in]`, and `B`, `[out, rank]`, in the flat vector of the adapter.
    a: Range<usize>,
    b: Range<usize>,
    /// The trained lengths, `[out]`; empty without them.
    magnitude: Range<usize>,
    /// What each row of `W + s B A` is multiplied by, in [`Adapter::factors`]; empty without lengths.
    factors: Range<usize>,
}

/// The adapter's tensors in one flat vector, and where each belongs.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) config: AdapterConfig,
    pub(super) places: Places,
    pub(super) values: Vec<f32>,
    layers: Vec<[Vec<Part>; 4]>,
    factors: Vec<f32>,
    /// What training leaves out.
    pub(super) dropout: Option<Dropout>,
}

/// Buffers of both passes.
#[derive(Debug, Default)]
pub(super) struct AdapterScratch {
    /// The inputs that are not left out, `[rows, in]`, and what they are multiplied by.
    kept: Vec<f32>,
    factors: Vec<f32>,
    /// `s x A^T`, `[rows, rank]`.
    down: Vec<f32>,
    /// `s dy B`, `[rows, rank]`.
    up: Vec<f32>,
    /// `dy` with each column times its row's factor, `[rows, out]`.
    scaled: Vec<f32>,
    /// The product's output, `[rows, out]`.
    output: Vec<f32>,
}

impl Adapter {
    /// # Errors
    /// [`Error::Shape`] for settings or tensors that do not fit the model.
    pub(super) fn new(config: AdapterConfig, shape: &DecoderConfig, tensors: &[NamedTensor]) -> Result<Self, Error> {
        config.validate(shape)?;
        let places = Places::new(config.parameters(shape));
        let values = places.join(tensors)?;
        let mut next = places.list.iter().map(|place| place.range.clone());
        let mut next = || next.next().unwrap_or_default();
        let mut factor_count = 0;
        let mut layers = Vec::with_capacity(shape.layer_count);
        for _ in 0..shape.layer_count {
            let mut joints: [Vec<Part>; 4] = Default::default();
            for &projection in &config.targets {
                let [outputs, _] = projection.shape(shape);
                let (joint, start) = joint_of(projection, shape);
                let (a, b) = (next(), next());
                let (mut magnitude, mut factors) = (0..0, 0..0);
                if config.dora {
                    magnitude = next();
                    factors = factor_count..factor_count + outputs;
                    factor_count += outputs;
                }
                joints[joint as usize].push(Part {
                    rows: start..start + outputs,
                    projection,
                    a,
                    b,
                    magnitude,
                    factors,
                });
            }
            layers.push(joints);
        }
        let dropout = Dropout::new(config.dropout);
        Ok(Self { config, places, values, layers, factors: vec![0.0; factor_count], dropout })
    }

    /// Whether any of the matrices that are multiplied together carries an adapter.
    pub(super) fn touches(&self, layer: usize, joint: Joint) -> bool {
        !self.layers[layer][joint as usize].is_empty()
    }

    /// Adds the adapter to `weights`, `[out, inputs]`, the matrices that are multiplied together. The same bits as
    /// [`AdapterConfig::merge`].
    pub(super) fn merge(&mut self, layer: usize, joint: Joint, weights: &mut [f32], inputs: usize) {
        let (rank, scale) = (self.config.rank, self.config.scale());
        for part in &self.layers[layer][joint as usize] {
            let (a, b) = (&self.values[part.a.clone()], &self.values[part.b.clone()]);
            let rows = &mut weights[part.rows.start * inputs..part.rows.end * inputs];
            let tasks = rows.par_chunks_mut(MERGE_ROWS * inputs).zip(b.par_chunks(MERGE_ROWS * rank));
            tasks.for_each(|(rows, b)| add_product(rows, inputs, (a, b, rank), scale));
            if part.magnitude.is_empty() {
                continue;
            }
            let magnitude = &self.values[part.magnitude.clone()];
            let factors = &mut self.factors[part.factors.clone()];
            let rows = rows.par_chunks_mut(inputs).zip(magnitude).zip(factors).with_min_len(MERGE_ROWS);
            rows.for_each(|((row, &magnitude), factor)| {
                *factor = row_factor(magnitude, length(row));
                for value in row {
                    *value *= *factor;
                }
            });
        }
    }
}

/// Which product a projection is part of, and its first row there.
fn joint_of(projection: Projection, shape: &DecoderConfig) -> (Joint, usize) {
    let rows = |projection: Projection| projection.shape(shape)[0];
    match projection {
        Projection::Query => (Joint::Qkv, 0),
        Projection::Key => (Joint::Qkv, rows(Projection::Query)),
        Projection::Value => (Joint::Qkv, rows(Projection::Query) + rows(Projection::Key)),
        Projection::Output => (Joint::AttentionOut, 0),
        Projection::Gate => (Joint::GateUp, 0),
        Projection::Up => (Joint::GateUp, rows(Projection::Gate)),
        Projection::Down => (Joint::Down, 0),
    }
}

/// Rows on their way through an adapted product.
#[derive(Clone, Copy)]
pub(super) struct Through<'a> {
    /// How many they are.
    pub(super) rows: usize,
    /// What dropout knows them by; empty where nothing is left out.
    pub(super) keys: &'a [u64],
    /// `[rows, in]`.
    pub(super) input: &'a [f32],
}

impl Through<'_> {
    /// What a part's inputs are multiplied by, `[rows, columns]`; `None` where nothing is left out.
    fn factors<'b>(
        &self,
        adapter: &Adapter,
        (layer, part): (usize, &Part),
        columns: usize,
        buffer: &'b mut Vec<f32>,
    ) -> Option<&'b [f32]> {
        let dropout = adapter.dropout.as_ref().filter(|_| !self.keys.is_empty())?;
        let factors = sized(buffer, self.rows * columns);
        dropout.factors((layer, part.projection), &self.keys[..self.rows], columns, factors);
        Some(factors)
    }
}

/// Adds what dropout changes in an adapted product whose matrices hold the whole adapter: `f s B A ((k - 1) x)`, with `k`
/// what the inputs are multiplied by.
///
/// # Shapes
/// - `output`: `[rows, out]`
pub(super) fn leave_out(
    adapter: &Adapter,
    (layer, joint): (usize, Joint),
    through: Through<'_>,
    output: &mut [f32],
    (scratch, packing): (&mut AdapterScratch, &mut Packing),
) {
    let (rows, rank, scale) = (through.rows, adapter.config.rank, adapter.config.scale());
    let outputs = output.len() / rows;
    for part in &adapter.layers[layer][joint as usize] {
        let (a, b) = (&adapter.values[part.a.clone()], &adapter.values[part.b.clone()]);
        let (columns, count) = (a.len() / rank, part.rows.len());
        let Some(factors) = through.factors(adapter, (layer, part), columns, &mut scratch.factors) else { return };
        let changed = sized(&mut scratch.kept, rows * columns);
        for ((changed, &value), &factor) in changed.iter_mut().zip(through.input).zip(factors) {
            *changed = (factor - 1.0) * value;
        }
        let down = sized(&mut scratch.down, rows * rank);
        let thin = Product { rows, columns: rank, depth: columns, out_stride: rank, accumulate: false };
        multiply(thin, Operand::new(changed, columns), Operand::transposed(a, columns), down, packing);
        for value in &mut *down {
            *value *= scale;
        }
        let sum = sized(&mut scratch.output, rows * count);
        let wide = Product { rows, columns: count, depth: rank, out_stride: count, accumulate: false };
        multiply(wide, Operand::new(down, rank), Operand::transposed(b, rank), sum, packing);
        let lengths = adapter.factors.get(part.factors.clone()).filter(|factors| !factors.is_empty());
        for (row, sum) in output.chunks_exact_mut(outputs).zip(sum.chunks_exact(count)) {
            let row = row[part.rows.clone()].iter_mut().zip(sum);
            match lengths {
                Some(lengths) => row.zip(lengths).for_each(|((value, sum), factor)| *value += factor * sum),
                None => row.for_each(|(value, sum)| *value += sum),
            }
        }
    }
}

/// Backward of an adapted product `y = x W''^T` with `W'' = f (W + s B A)`, where `f` is 1 or the factor of each row, which
/// counts as constant but for its part `m`. With `g = f dy`: `dx = g W + (s g B) A`, `dA = (s g B)^T x`, `dB = g^T (s x A^T)`,
/// `dm = sum over rows of dy y / m`. With dropout `x` stands for the inputs that are kept wherever `A` is, and what comes back
/// through `A` goes to those alone.
///
/// # Shapes
/// - `output_gradient`: `[rows, out]`; `input_gradient`: `[rows, in]`, written
pub(super) fn adapted_backward(
    (model, adapter): (&Model, &Adapter),
    (layer, joint): (usize, Joint),
    (through, output_gradient): (Through<'_>, &[f32]),
    input_gradient: &mut [f32],
    (gradients, scratch, packing): (&mut Gradients<'_>, &mut AdapterScratch, &mut Packing),
) {
    let weight = model.at(&model.layout.layers[layer].joint(joint));
    let Through { rows, input, .. } = through;
    let columns = input_gradient.len() / rows;
    let outputs = weight.len() / columns;
    let rank = adapter.config.rank;
    let scale = adapter.config.scale();
    let parts = &adapter.layers[layer][joint as usize];
    let Gradients::Adapter(gradient) = gradients else { return };

    let mut back = &output_gradient[..rows * outputs];
    if adapter.config.dora {
        let output = sized(&mut scratch.output, rows * outputs);
        model.panels[layer].joint(joint).multiply(
            Rows { count: rows, stride: columns, accumulate: false },
            input,
            output,
        );
        if !through.keys.is_empty() {
            // `leave_out` needs the buffer.
            let mut whole = std::mem::take(&mut scratch.output);
            leave_out(adapter, (layer, joint), through, &mut whole[..rows * outputs], (scratch, packing));
            scratch.output = whole;
        }
        let output = &scratch.output[..rows * outputs];
        let scaled = sized(&mut scratch.scaled, rows * outputs);
        scaled.copy_from_slice(back);
        for part in parts {
            let factors = &adapter.factors[part.factors.clone()];
            let magnitude = &adapter.values[part.magnitude.clone()];
            let sums = &mut gradient[part.magnitude.clone()];
            for (scaled, output) in scaled.chunks_exact_mut(outputs).zip(output.chunks_exact(outputs)) {
                let row = scaled[part.rows.clone()].iter_mut().zip(&output[part.rows.clone()]);
                for ((((value, &y), &factor), &m), sum) in row.zip(factors).zip(magnitude).zip(&mut *sums) {
                    // A length of exactly 0 hides the row that it multiplies; it stays.
                    if m != 0.0 {
                        *sum += *value * y / m;
                    }
                    *value *= factor;
                }
            }
        }
        back = &scratch.scaled[..rows * outputs];
    }
    let product = Product { rows, columns, depth: outputs, out_stride: columns, accumulate: false };
    multiply(product, Operand::new(back, outputs), Operand::new(weight, columns), input_gradient, packing);
    for part in parts {
        let (a, b) = (&adapter.values[part.a.clone()], &adapter.values[part.b.clone()]);
        let (first, count) = (part.rows.start, part.rows.len());
        let thin = Product { rows, columns: rank, depth: columns, out_stride: rank, accumulate: false };
        let factors = through.factors(adapter, (layer, part), columns, &mut scratch.factors);
        let input = match factors {
            None => input,
            Some(factors) => {
                let kept = sized(&mut scratch.kept, rows * columns);
                for ((kept, &value), &factor) in kept.iter_mut().zip(input).zip(factors) {
                    *kept = factor * value;
                }
                kept
            }
        };
        let down = sized(&mut scratch.down, rows * rank);
        multiply(thin, Operand::new(input, columns), Operand::transposed(a, columns), down, packing);
        let up = sized(&mut scratch.up, rows * rank);
        let thin = Product { depth: count, ..thin };
        multiply(thin, Operand::new(&back[first..], outputs), Operand::new(b, rank), up, packing);
        down.iter_mut().chain(&mut *up).for_each(|value| *value *= scale);
        let of_b = Product { rows: count, columns: rank, depth: rows, out_stride: rank, accumulate: true };
        let left = Operand::transposed(&back[first..], outputs);
        multiply(of_b, left, Operand::new(down, rank), &mut gradient[part.b.clone()], packing);
        let of_a = Product { rows: rank, columns, depth: rows, out_stride: columns, accumulate: true };
        let left = Operand::transposed(up, rank);
        multiply(of_a, left, Operand::new(input, columns), &mut gradient[part.a.clone()], packing);
        let of_input = Product { rows, columns, depth: rank, out_stride: columns, accumulate: factors.is_none() };
        let Some(factors) = factors else {
            multiply(of_input, Operand::new(up, rank), Operand::new(a, columns), input_gradient, packing);
            continue;
        };
        let back = sized(&mut scratch.kept, rows * columns);
        multiply(of_input, Operand::new(up, rank), Operand::new(a, columns), back, packing);
        for ((sum, &value), &factor) in input_gradient.iter_mut().zip(&*back).zip(factors) {
            *sum += factor * value;
        }
    }
}
