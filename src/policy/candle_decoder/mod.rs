//! The decoder on candle tensors: any candle device, with a backward pass that is written out. Serves CUDA and checks
//! [`super::cpu`] in tests; it is not tuned for the CPU.
//!
//! Norms, rotary positions, gates, attention and scores are [`super::fused`] operations.

mod backward; // gradients of packed sequences, layer by layer
mod decoder; // the implementation of `Decoder`
mod extend; // new tokens of cached sequences
#[cfg(feature = "flash-attn")]
mod flash; // attention of sequences that are only scored
mod head; // the last norm and projection, in blocks of targets
mod layer; // one layer, forward and backward
#[cfg(feature = "nccl")]
mod nccl; // sums of gradients from device to device
mod network; // what rows go through
mod open; // CUDA devices
mod pages; // where keys and values lie
mod quantized; // models that stay quantized, to sample from
mod sample; // rows of sequences that are sampled
mod weights; // by name, and joined

pub use decoder::CandleDecoder;
pub use open::open_cuda;
pub(super) use pages::CandleCache;
pub use quantized::QuantizedDecoder;

use super::{Error, Reduce};

/// What adds up the gradients of these replicas: NCCL in a build with it, else the host.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Tensor`] if NCCL does not serve their devices.
pub fn reduction(replicas: &[CandleDecoder]) -> Result<Box<dyn Reduce<CandleDecoder>>, Error> {
    #[cfg(feature = "nccl")]
    if replicas.len() > 1 {
        return Ok(Box::new(nccl::NcclReduce::new(replicas)?));
    }
    let _ = replicas;
    Ok(Box::new(super::HostReduce))
}
