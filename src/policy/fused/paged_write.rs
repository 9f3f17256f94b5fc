//! What is written to pages ([`super::pages`]): keys and values of new tokens, and copies of pages that several sequences hold.

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor, WithDType, bail};

use super::elementwise::rotate;
use super::operation::{Argument, Launch, Spec, int, suffix};
#[cfg(feature = "cuda")]
use super::pages::missing;
use super::pages::{PAGE, PageShape, PagedRows, file};

/// Threads of a block that writes.
const THREADS: usize = 256;

/// Queries, keys and values of new tokens.
#[derive(Clone, Copy, Debug)]
pub enum NewHeads<'a> {
    /// `[rows, heads, head_dim]`, and twice `[rows, kv_heads, head_dim]`.
    Apart([&'a Tensor; 3]),
    /// All three one after the other, `[rows, heads + 2 kv_heads, head_dim]`.
    Joined(&'a Tensor),
}

impl NewHeads<'_> {
    fn is_joined(&self) -> bool {
        matches!(self, Self::Joined(_))
    }

    /// The three inputs of the kernel.
    fn inputs(&self) -> [&Tensor; 3] {
        match *self {
            Self::Apart(heads) => heads,
            Self::Joined(all) => [all; 3],
        }
    }

    /// All three, apart.
    fn apart(&self, kv_heads: usize) -> Result<[Tensor; 3]> {
        match self {
            Self::Apart(heads) => Ok(heads.map(Clone::clone)),
            Self::Joined(all) => {
                let heads = query_heads(all.dim(1)?, kv_heads)?;
                let part = |start, count| all.narrow(1, start, count)?.contiguous();
                Ok([part(0, heads)?, part(heads, kv_heads)?, part(heads + kv_heads, kv_heads)?])
            }
        }
    }
}

/// Heads of queries among those of all three.
fn query_heads(all: usize, kv_heads: usize) -> Result<usize> {
    match all.checked_sub(2 * kv_heads) {
        Some(heads) if heads > 0 => Ok(heads),
        _ => bail!("{all} heads with {kv_heads} of keys and of values"),
    }
}

/// Inputs before the slabs.
const FIRST_SLAB: usize = 9;

/// Turns queries and keys of new tokens to their positions and writes keys and values to their pages, which change in place; nothing
/// is recorded.
///
/// # Shapes
/// - `heads`: of the type of `slabs`; `cosines` and `sines`: `[max_positions, .., head_dim / 2]`, `f32`
/// - `biases`: what is added to queries, keys and values first, `[heads * head_dim]` and twice `[kv_heads * head_dim]`; sums are
///   rounded to the type
/// - returns the turned queries
///
/// # Errors
/// If the inputs do not fit together, or the backend fails.
pub fn write_rows(
    (heads, biases): (NewHeads<'_>, Option<[&Tensor; 3]>),
    (slabs, shape): (&[Tensor], PageShape),
    layer: usize,
    rows: &PagedRows,
    (cosines, sines): (&Tensor, &Tensor),
) -> Result<Tensor> {
    let new = heads.inputs();
    // Biases that are not there are the heads.
    let inputs = new.into_iter().chain([&rows.places, cosines, sines]).chain(biases.unwrap_or(new)).chain(slabs);
    let inputs = inputs.map(|input| input.detach().contiguous()).collect::<Result<Vec<_>>>()?;
    let specs: Vec<Spec> = inputs.iter().map(Spec::of).collect();
    let (launches, turned) = write_rows_launches(&specs, (heads.is_joined(), biases.is_some()), shape, layer)?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = rows.places.device() {
        let found = super::device::execute(device, &launches, &inputs, vec![turned])?;
        return found.into_iter().next().map(super::operation::wrap).ok_or_else(missing);
    }
    drop((launches, turned));
    let apart = heads.apart(shape.kv_heads)?;
    let biased = |index: usize| match biases {
        Some(biases) => apart[index].broadcast_add(&biases[index].reshape(&apart[index].dims()[1..])?),
        None => Ok(apart[index].clone()),
    };
    let tables = (cosines, sines);
    let positions = rows.places.narrow(1, 0, 1)?.flatten_all()?;
    let turned = rotate(&biased(0)?, &positions, tables)?;
    let read = |x: &Tensor| x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    let (keys, values) = (read(&rotate(&biased(1)?, &positions, tables)?)?, read(&biased(2)?)?);
    let (dim, width) = (shape.head_dim, shape.kv_heads * shape.head_dim);
    let mut cells = vec![Vec::new(); slabs.len()];
    for (row, place) in rows.places.to_vec2::<u32>()?.into_iter().enumerate() {
        let [_, place, zeros] = [0, 1, 2].map(|column| place[column] as usize);
        for head in 0..shape.kv_heads {
            let (slab, start) = shape.place(place / PAGE, layer, head);
            let start = start + place % PAGE * dim;
            for (values, start) in [(&keys, start), (&values, start + shape.kv_heads * shape.head_size())] {
                let values = &values[row * width + head * dim..][..dim];
                cells[slab].push(Cell { start, values: values.to_vec() });
                cells[slab].push(Cell { start: start + dim, values: vec![0.0; zeros * dim] });
            }
        }
    }
    slabs.iter().zip(cells).try_for_each(|(slab, cells)| slab.inplace_op1(&Put(cells)))?;
    Ok(turned)
}

/// What writes rows, and its output, for inputs `queries`, `keys`, `values`, or all three joined three times, `places`, `cosines`,
/// `sines`, three biases or anything in their place, and the slabs.
///
/// # Errors
/// If the inputs do not fit together.
pub fn write_rows_launches(
    inputs: &[Spec],
    (is_joined, is_biased): (bool, bool),
    shape: PageShape,
    layer: usize,
) -> Result<(Vec<Launch>, Spec)> {
    let [rows, all, dim] = inputs[0].dims[..] else { bail!("queries of {:?}", inputs[0]) };
    let dtype = inputs[0].dtype;
    let half = dim / 2;
    let kv = Spec { dims: vec![rows, shape.kv_heads, shape.head_dim], dtype };
    let (heads, keys) = if is_joined { (query_heads(all, shape.kv_heads)?, &inputs[0]) } else { (all, &kv) };
    let tables = inputs[4..6].iter().all(|table| table.dtype == DType::F32 && table.dims.last() == Some(&half));
    let fits = inputs[1..3].iter().all(|new| new == keys) && inputs[3].dims == [rows, 3] && dim == shape.head_dim;
    let biases = inputs[6..FIRST_SLAB].iter().zip([heads, shape.kv_heads, shape.kv_heads]);
    let biases_fit = biases.into_iter().all(|(bias, heads)| bias.dtype == dtype && bias.count() == heads * dim);
    if !fits || !tables || layer >= shape.layers || is_biased && !biases_fit {
        bail!("rows {inputs:?} for pages {shape:?}");
    }
    shape.check(&inputs[FIRST_SLAB..], dtype)?;
    let tensors = (0..FIRST_SLAB).map(Argument::Input);
    let slabs = Argument::Addresses((FIRST_SLAB..inputs.len()).map(Some).collect());
    let counts = [int(heads)?, int(shape.kv_heads)?].into_iter().chain(shape.arguments(layer)?);
    let last = [int(half)?, int(usize::from(is_joined))?, int(usize::from(is_biased))?];
    let launch = Launch {
        file: file(dtype)?,
        kernel: format!("paged_write_{}", suffix(dtype)?),
        grid: [rows, 1, 1],
        block: [THREADS, 1],
        shared_bytes: 0,
        arguments: tensors.chain([slabs, Argument::Output(0)]).chain(counts).chain(last).collect(),
    };
    Ok((vec![launch], Spec { dims: vec![rows, heads, dim], dtype }))
}

/// Copies the beginnings of pages, in all layers, and zeroes what follows. Pages change in place.
///
/// # Shapes
/// - `copies`: pages to read, pages to write, counts of positions
///
/// # Errors
/// If a page is not there, or the backend fails.
pub fn copy_pages((slabs, shape): (&[Tensor], PageShape), copies: &[[u32; 3]]) -> Result<()> {
    let count = slabs.len() << shape.shift;
    if let Some(copy) = copies.iter().find(|copy| copy[0].max(copy[1]) as usize >= count) {
        bail!("a copy {copy:?} among {count} pages");
    }
    #[cfg(feature = "cuda")]
    if let Some(Device::Cuda(device)) = slabs.first().map(Tensor::device).filter(|_| !copies.is_empty()) {
        let copies = Tensor::from_vec(copies.concat(), (copies.len(), 3), slabs[0].device())?;
        let inputs: Vec<Tensor> = [copies].into_iter().chain(slabs.iter().cloned()).collect();
        let launches = copy_pages_launches(&inputs.iter().map(Spec::of).collect::<Vec<_>>(), shape)?;
        return super::device::execute(device, &launches, &inputs, Vec::new()).map(drop);
    }
    let mask = (1 << shape.shift) - 1;
    for copy in copies {
        let [from, to, count] = copy.map(|value| value as usize);
        let page = slabs[from >> shape.shift].get(from & mask)?.to_dtype(DType::F32)?.flatten_all()?;
        let mut values = page.to_vec1::<f32>()?;
        values.chunks_exact_mut(shape.head_size()).for_each(|head| head[count * shape.head_dim..].fill(0.0));
        let cell = Cell { start: (to & mask) * shape.page_size(), values };
        slabs[to >> shape.shift].inplace_op1(&Put(vec![cell]))?;
    }
    Ok(())
}

/// What copies pages, for the inputs `copies`, `[copies, 3]`, and the slabs.
///
/// # Errors
/// If the inputs do not fit together.
pub fn copy_pages_launches(inputs: &[Spec], shape: PageShape) -> Result<Vec<Launch>> {
    let [copies, 3] = inputs[0].dims[..] else { bail!("copies of {:?}", inputs[0]) };
    let Some(slab) = inputs.get(1) else { bail!("no slabs") };
    shape.check(&inputs[1..], slab.dtype)?;
    let slabs = Argument::Addresses((1..inputs.len()).map(Some).collect());
    let parts = 2 * shape.layers * shape.kv_heads;
    let counts = [int(parts)?, int(shape.shift as usize)?, int(shape.head_dim)?];
    Ok(vec![Launch {
        file: file(slab.dtype)?,
        kernel: format!("paged_copy_{}", suffix(slab.dtype)?),
        grid: [copies, parts, 1],
        block: [THREADS, 1],
        shared_bytes: 0,
        arguments: [slabs, Argument::Input(0)].into_iter().chain(counts).collect(),
    }])
}

/// Values for a place in a tensor.
#[derive(Clone, Debug)]
struct Cell {
    start: usize,
    values: Vec<f32>,
}

/// Writes cells to a tensor on the CPU, where it lies.
struct Put(Vec<Cell>);

impl Put {
    fn to<T: WithDType>(&self, values: &mut [T]) {
        for cell in &self.0 {
            let places = &mut values[cell.start..cell.start + cell.values.len()];
            places.iter_mut().zip(&cell.values).for_each(|(place, &value)| *place = T::from_f64(f64::from(value)));
        }
    }
}

impl InplaceOp1 for Put {
    fn name(&self) -> &'static str {
        "put"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _layout: &Layout) -> Result<()> {
        match storage {
            CpuStorage::F32(values) => self.to(values),
            CpuStorage::F16(values) => self.to(values),
            CpuStorage::BF16(values) => self.to(values),
            _ => bail!("pages of a type that nothing is written to"),
        }
        Ok(())
    }
}
