//! Operations of the decoder that are one kernel each on CUDA, with a backward of their own, and plain loops on the CPU that
//! say what the kernels compute. candle's compositions of basic operations go through memory once a step; these go through it
//! once. [`super::CandleDecoder`] is made of them and of matrix products.
//!
//! The kernels (`kernels/*.cu`) take `f32`, `bf16` and `f16` and compute in `f32`. A build with feature `cuda` compiles them to
//! PTX (`build.rs`); the tests compile the same files for the CPU (`tests/numerics/emulator`).

mod adamw; // one optimizer step, and the norm of gradients
mod attention; // causal attention of packed sequences
#[cfg(feature = "cuda")]
mod device; // starts kernels
mod elementwise; // rotary positions, the gate, sums of gradients
#[cfg(feature = "cuda")]
mod host_copy; // copies that nobody waits for at once
mod layout; // which rows attend to which
mod norm; // root mean square norms, of a sum as well
mod operation; // what a fused operation is; candle's graph
mod paged_attention; // of new tokens to pages
mod paged_write; // what is written to pages
mod pages; // keys and values in pages, and rows that go with them
mod product; // products of matrices in 32 bits
mod rows; // sums of rows by index
mod sample; // tokens from logits
mod scores; // log-probabilities and entropies from logits
mod shared_pages; // pages that several sequences begin with
mod tables; // indices on their way to the device

pub use adamw::{Parameter, adamw, adamw_launch, overwrite, square_sum, square_sum_launch};
pub use attention::{
    Attention, AttentionBackward, attention, attention_backward, attention_forward, supports_attention,
};
pub use elementwise::{
    AddBias, Rotation, Swiglu, SwigluBackward, SwigluJoined, accumulate, accumulate_launch, add_bias, rotate,
    rotate_back, rotate_biased, swiglu, swiglu_backward, swiglu_joined,
};
pub use layout::{AttentionLayout, Stretch};
pub use norm::{AddNorm, Norm, NormBackward, add_rms_norm, rms_norm, rms_norm_backward};
pub use operation::{Argument, Input, Launch, Operation, Spec, backward_from, run};
pub use paged_attention::{PagedAttention, paged_attention};
pub use paged_write::{NewHeads, copy_pages, copy_pages_launches, write_rows, write_rows_launches};
pub use pages::{PAGE, PageHeads, PageShape, PagedRows, PagedSpan};
pub use product::{Factor, Gemm, add_product, product};
pub use rows::{RowGroups, add_rows, add_rows_launch};
pub use sample::{DrawnTokens, SampleTokens, TokenDraw, draw_tables, draw_tokens, sample_tokens};
pub use scores::{
    TokenDistributions, TokenScores, TokenScoresBackward, TokenTargets, token_scores, token_scores_backward,
};
