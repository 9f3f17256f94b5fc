//! Products with matrices of weights. candle's own backward pass computes the gradient of a weight as that of its transposed
//! view, which is then copied element by element, and the gradient of both sides, whoever wants it; for weights under an
//! adapter that would be a third of the work and a copy of the layer for nothing.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor};

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

/// `x W^T`, with `x` `[rows, in]` and `W` `[out, in]`.
pub(super) struct Product;

impl Product {
    /// The product of contiguous matrices in this layout, and its shape.
    fn multiply<S: BackendStorage>(x: (&S, &Layout), weight: (&S, &Layout)) -> Result<(S, Shape)> {
        let (rows, inputs) = x.1.shape().dims2()?;
        let (outputs, _) = weight.1.shape().dims2()?;
        let product = x.0.matmul(weight.0, (1, rows, outputs, inputs), x.1, &weight.1.transpose(0, 1)?)?;
        Ok((product, Shape::from((rows, outputs))))
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        Self::multiply((x, xl), (w, wl))
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        Self::multiply((x, xl), (w, wl))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(gradient.matmul(weight)?), Some(gradient.t()?.matmul(x)?)))
    }
}
