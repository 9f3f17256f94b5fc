//! The product with a frozen matrix. candle's own backward pass computes the gradient of both sides of a product, whoever
//! wants it; for weights under an adapter that would be a third of the work and a copy of the layer for nothing.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

/// `x W^T` with a constant `W`, `[out, in]`.
pub(super) struct FrozenProduct {
    pub(super) weight: Tensor,
}

impl FrozenProduct {
    /// The sizes of the product of `x`, `[rows, in]`, and the shape of the result.
    fn sizes(&self, x: &Layout) -> Result<((usize, usize, usize, usize), Shape)> {
        let (rows, inputs) = x.shape().dims2()?;
        let (outputs, _) = self.weight.dims2()?;
        Ok(((1, rows, outputs, inputs), Shape::from((rows, outputs))))
    }
}

impl CustomOp1 for FrozenProduct {
    fn name(&self) -> &'static str {
        "frozen-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (sizes, shape) = self.sizes(layout)?;
        let turned = self.weight.t()?;
        let (weight, weight_layout) = turned.storage_and_layout();
        match &*weight {
            Storage::Cpu(weight) => Ok((storage.matmul(weight, sizes, layout, weight_layout)?, shape)),
            _ => candle_core::bail!("the weights are on another device"),
        }
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (sizes, shape) = self.sizes(layout)?;
        let turned = self.weight.t()?;
        let (weight, weight_layout) = turned.storage_and_layout();
        match &*weight {
            Storage::Cuda(weight) => Ok((storage.matmul(weight, sizes, layout, weight_layout)?, shape)),
            _ => candle_core::bail!("the weights are on another device"),
        }
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.matmul(&self.weight)?))
    }
}
