//! The decoder on candle tensors: any candle device, gradients by candle's own backward pass. Serves CUDA and checks
//! [`super::cpu`] in tests; it is not tuned for the CPU.
//!
//! Only differentiable operations appear here. candle-nn's fused `rms_norm`, `rope`, `softmax_last_dim` and `sdpa` would
//! stop gradients without an error, so norm, rotary positions and softmax are composed of basic operations.

mod backward; // gradients of packed sequences, layer by layer
mod decoder; // the implementation of `Decoder`
mod frozen; // products with weights that are not trained
mod network; // the forward pass and the scores
mod quantized; // models that stay quantized, to sample from

pub use decoder::CandleDecoder;
pub(super) use network::CandleCache;
pub use quantized::QuantizedDecoder;
