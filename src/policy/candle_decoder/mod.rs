//! The decoder on candle tensors: any candle device, with a backward pass that is written out. Serves CUDA and checks
//! [`super::cpu`] in tests; it is not tuned for the CPU.
//!
//! Norms, rotary positions, gates, attention and scores are [`super::fused`] operations.

mod backward; // gradients of packed sequences, layer by layer
mod decoder; // the implementation of `Decoder`
mod head; // the last norm and projection, in blocks of targets
mod layer; // one layer, forward and backward
mod network; // what rows go through
mod pages; // where keys and values lie
mod quantized; // models that stay quantized, to sample from

pub use decoder::CandleDecoder;
pub(super) use pages::CandleCache;
pub use quantized::QuantizedDecoder;
