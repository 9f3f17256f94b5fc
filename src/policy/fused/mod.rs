//! Operations of the decoder that are one kernel each on CUDA, with a backward of their own, and plain loops on the CPU that
//! say what the kernels compute. candle's compositions of basic operations go through memory once a step; these go through it
//! once. [`super::candle_decoder`] is made of them and of matrix products.
//!
//! The kernels (`kernels/*.cu`) take `f32`, `bf16` and `f16` and compute in `f32`. A build with feature `cuda` compiles them to
//! PTX (`build.rs`); the tests compile the same files for the CPU (`tests/numerics/emulator`).

#[cfg(feature = "cuda")]
mod device; // starts kernels
mod norm; // root mean square norms, of a sum as well
mod operation; // what a fused operation is; candle's graph

pub use norm::{AddNorm, Norm, NormBackward, add_rms_norm, rms_norm};
pub use operation::{Argument, Input, Launch, Operation, Spec, run};
