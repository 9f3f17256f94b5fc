//! The decoder on the CPU: hand-written forward and backward over plain `f32` slices. The sibling of
//! [`super::candle_decoder`], which is its oracle in tests.
//!
//! Results are the same bytes for any number of threads: work is cut into tasks by sizes alone, and sums over tasks are
//! taken in a fixed order. A token's forward pass has the same bits whether it is sampled or scored and whatever shares its
//! batch (see [`matmul`]), so the first update on fresh samples has ratio exactly 1.

mod adapter; // low-rank adapters: added to the packed weights, trained in their place
mod attention; // causal attention, forward and backward
mod cache; // keys and values of one sequence
mod decoder; // the implementation of `Decoder`
mod forward; // rows of tokens through the layers
mod gradients; // of all weights, or of the adapter alone
mod head; // from hidden rows to scores, and back
mod kernels; // norms, rotary positions, SwiGLU, exponentials
mod matmul; // matrix products
mod memory; // how much of it is taken, for planning
mod model; // weights, where each lies, and their packed copies
mod moments; // Adam's moments in 32 or 8 bits
mod optimizer; // gradient norm and AdamW
mod tiles; // the inner loops of matrix products
mod train; // scores and gradients of sequences

pub(super) use cache::CpuCache;
pub use decoder::CpuDecoder;
pub(super) use kernels::{add_scaled, dot, fast_exp};
pub use memory::{MemoryPlan, StepSize, rollout_memory, training_memory};
