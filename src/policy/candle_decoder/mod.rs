//! The decoder on candle tensors: any candle device, gradients by candle's own backward pass. Serves CUDA and checks
//! [`super::cpu`] in tests; it is not tuned for the CPU.
//!
//! Norms, rotary positions, gates, attention and scores are [`super::fused`] operations, which carry gradients; candle-nn's
//! `rms_norm`, `rope`, `softmax_last_dim` and `sdpa` would stop them without an error.

mod backward; // gradients of packed sequences, layer by layer
mod decoder; // the implementation of `Decoder`
mod head; // the last norm and projection, in blocks of targets
mod network; // the forward pass
mod product; // products with weights
mod quantized; // models that stay quantized, to sample from

pub use decoder::CandleDecoder;
pub(super) use network::CandleCache;
pub use quantized::QuantizedDecoder;
