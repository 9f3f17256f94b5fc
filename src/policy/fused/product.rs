//! Products of matrices whose sums, made in `f32`, are not rounded to the type of their factors where that would lose something: of
//! logits, which are exponents, and of gradients of weights, which are added up. On CUDA cuBLAS computes them, and adds to what is
//! there; on a CPU factors in 16 bits are widened.

use candle_core::{DType, Device, Layout, Result, Tensor, bail};

/// `left right`; nothing is recorded.
///
/// # Shapes
/// - `left`: `[m, k]`, `right`: `[k, n]`, one of `f32`, `bf16` and `f16`; each has its rows or its columns one after the other in memory
/// - returns `[m, n]` in `to`: `f32` or the type of the factors
///
/// # Errors
/// If the factors do not fit together, or the backend fails.
pub fn product(left: &Tensor, right: &Tensor, to: DType) -> Result<Tensor> {
    let (left, right) = (left.detach(), right.detach());
    match left.device() {
        Device::Cpu => {
            let wide = |x: &Tensor| x.to_dtype(DType::F32);
            wide(&left)?.matmul(&wide(&right)?)?.to_dtype(to)
        }
        #[cfg(feature = "cuda")]
        Device::Cuda(device) if to != left.dtype() => {
            let gemm = Gemm::new(&left, &right)?;
            if to != DType::F32 {
                bail!("a product of `{:?}` in `{to:?}`", left.dtype());
            }
            if gemm.is_empty() {
                return Tensor::zeros((gemm.n, gemm.m), to, left.device());
            }
            let computed = super::device::multiply(device, &gemm, (&left, &right), None)?;
            computed.map(super::operation::wrap).ok_or_else(|| candle_core::Error::Msg("no product".to_owned()))
        }
        _ => left.matmul(&right),
    }
}

/// `sum + left right`, or the product alone; nothing is recorded. On CUDA `sum` changes in place.
///
/// # Shapes
/// - `left`: `[m, k]`, `right`: `[k, n]`, as for [`product`]; `sum`: `[m, n]`, `f32`, contiguous
/// - returns `[m, n]`, `f32`, contiguous
///
/// # Errors
/// If the shapes do not fit together, or the backend fails.
pub fn add_product(sum: Option<Tensor>, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let Some(sum) = sum else { return product(left, right, DType::F32) };
    if sum.dtype() != DType::F32 || !sum.is_contiguous() || sum.dims() != [left.dim(0)?, right.dim(1)?] {
        bail!("a product of {:?} and {:?} for a sum of {:?}", left.shape(), right.shape(), sum.shape());
    }
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = sum.device() {
        let gemm = Gemm::new(left, right)?;
        if !gemm.is_empty() {
            super::device::multiply(device, &gemm, (left, right), Some(&sum))?;
        }
        return Ok(sum);
    }
    sum + product(left, right, DType::F32)?
}

/// A factor as cuBLAS takes it, which counts down columns first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Whether it is to be turned around.
    pub is_transposed: bool,
    /// Elements from one column to the next (the leading dimension).
    pub step: usize,
}

/// What `cublasGemmEx` is called with. As it counts down columns first, rows are columns to it: `C = L R` becomes `C^T = R^T L^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// `m`: columns of the result.
    pub m: usize,
    /// `n`: rows of the result.
    pub n: usize,
    /// `k`: elements of a sum.
    pub k: usize,
    /// `A`: the right factor.
    pub a: Factor,
    /// `B`: the left factor.
    pub b: Factor,
}

impl Gemm {
    /// What multiplies these matrices.
    ///
    /// # Errors
    /// If they do not fit together, are too large, or neither rows nor columns of one follow each other in memory.
    pub fn new(left: &Tensor, right: &Tensor) -> Result<Self> {
        let ((m, k), (rows, n)) = (left.dims2()?, right.dims2()?);
        if k != rows || left.dtype() != right.dtype() || [m, n, k].iter().any(|&size| i32::try_from(size).is_err()) {
            bail!("a product of {:?} {:?} and {:?} {:?}", left.shape(), left.dtype(), right.shape(), right.dtype());
        }
        Ok(Self { m: n, n: m, k, a: factor(right.layout())?, b: factor(left.layout())? })
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.m == 0 || self.n == 0 || self.k == 0
    }
}

fn factor(layout: &Layout) -> Result<Factor> {
    let ([rows, columns], [row_step, column_step]) = (layout.dims(), layout.stride()) else { bail!("{layout:?}") };
    // The step along a dimension of one element says nothing.
    if (*column_step == 1 || *columns == 1) && (*row_step >= *columns || *rows == 1) {
        let step = if *rows == 1 { *columns } else { *row_step };
        return Ok(Factor { is_transposed: false, step: step.max(1) });
    }
    if (*row_step == 1 || *rows == 1) && (*column_step >= *rows || *columns == 1) {
        let step = if *columns == 1 { *rows } else { *column_step };
        return Ok(Factor { is_transposed: true, step: step.max(1) });
    }
    bail!("no rows and no columns in one piece: {layout:?}")
}
