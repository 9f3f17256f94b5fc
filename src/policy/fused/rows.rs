//! Sums of rows by index: the gradient of an embedding, and of rows that were picked. The order of each sum is that of the rows.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::operation::{Argument, Launch, Spec, int, suffix};

/// Threads of a block.
const THREADS: usize = 256;

/// Which rows go to which index.
///
/// # Shapes
/// - `entries`: `[indices, 3]`, `u32`: an index, and the first and the end of its rows in `rows`
/// - `rows`: `[rows]`, `u32`
#[derive(Clone, Debug)]
pub struct RowGroups {
    /// The indices.
    pub entries: Tensor,
    /// Their rows.
    pub rows: Tensor,
}

impl RowGroups {
    /// The groups for the index of each row, of which there is at least one.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn new(indices: &[u32], device: &Device) -> Result<Self> {
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, &index) in indices.iter().enumerate() {
            groups.entry(index).or_default().push(row as u32);
        }
        let mut entries: Vec<u32> = Vec::with_capacity(3 * groups.len());
        let mut rows: Vec<u32> = Vec::with_capacity(indices.len());
        for (index, members) in &groups {
            entries.extend([*index, rows.len() as u32, (rows.len() + members.len()) as u32]);
            rows.extend(members);
        }
        Ok(Self { entries: Tensor::from_vec(entries, (groups.len(), 3), device)?, rows: Tensor::new(rows, device)? })
    }
}

/// `sums` with each row of `x` added to the row of its index; nothing is recorded. On CUDA `sums` changes in place.
///
/// # Shapes
/// - `sums`: `[indices, width]`, `f32`, contiguous; `x`: `[rows, width]`, `f32`, `bf16` or `f16`
/// - returns the shape of `sums`, `f32`
///
/// # Errors
/// If the shapes do not fit together, or the backend fails.
pub fn add_rows(sums: Tensor, x: &Tensor, groups: &RowGroups) -> Result<Tensor> {
    let x = x.detach().contiguous()?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = sums.device() {
        let launches = add_rows_launch(&sums, &x, groups)?;
        let inputs = [x, groups.entries.clone(), groups.rows.clone(), sums.clone()];
        super::device::execute(device, &launches, &inputs, Vec::new())?;
        return Ok(sums);
    }
    let (count, width) = sums.dims2()?;
    let mut values = sums.flatten_all()?.to_vec1::<f32>()?;
    drop(sums);
    let x = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let rows = groups.rows.to_vec1::<u32>()?;
    for entry in groups.entries.to_vec2::<u32>()? {
        let Some(sum) = values.get_mut(entry[0] as usize * width..(entry[0] as usize + 1) * width) else {
            bail!("no row {} of {count}", entry[0]);
        };
        for &row in &rows[entry[1] as usize..entry[2] as usize] {
            let values = &x[row as usize * width..][..width];
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    Tensor::from_vec(values, (count, width), &Device::Cpu)
}

/// What adds rows, for the inputs `x`, the two tables of the groups, and `sums`.
///
/// # Errors
/// If the shapes do not fit together.
pub fn add_rows_launch(sums: &Tensor, x: &Tensor, groups: &RowGroups) -> Result<Vec<Launch>> {
    let (spec, width) = (Spec::of(x), sums.dims2()?.1);
    if spec.dims != [groups.rows.dim(0)?, width] || sums.dtype() != DType::F32 || !sums.is_contiguous() {
        bail!("rows {:?} for sums of {:?}", spec.dims, sums.dims());
    }
    Ok(vec![Launch {
        file: "elementwise",
        kernel: format!("add_rows_{}", suffix(spec.dtype)?),
        grid: [groups.entries.dim(0)?, 1, 1],
        block: [THREADS, 1],
        shared_bytes: 0,
        arguments: (0..4).map(Argument::Input).chain([int(width)?]).collect(),
    }])
}
