//! Copies from a CUDA device that the program does not wait for at once: work that it hands in after one goes on meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr as _;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};
use candle_core::{CudaDevice, Result, Tensor, bail};

use super::device::place;

/// Memory that the device writes to by itself, ready for the next copy: to ask for it takes longer than a copy.
static FREE: Mutex<Vec<PinnedHostSlice<f32>>> = Mutex::new(Vec::new());
/// The least that is asked for, in values.
const LEAST: usize = 1024;

/// Values on their way.
#[derive(Debug)]
pub(super) struct HostCopy {
    memory: Option<PinnedHostSlice<f32>>,
    count: usize,
    /// Behind the copy in the queue.
    end: CudaEvent,
}

impl HostCopy {
    /// Hands in a copy of a contiguous tensor in `f32`.
    ///
    /// # Errors
    /// If the tensor is another one, or the driver fails.
    pub(super) fn begin(device: &CudaDevice, from: &Tensor) -> Result<Self> {
        if from.dtype() != candle_core::DType::F32 || !from.is_contiguous() {
            bail!("a copy of {:?} in {:?}", from.layout(), from.dtype());
        }
        let (stream, count) = (device.cuda_stream(), from.elem_count());
        let mut memory = room(&stream, count)?;
        let (storage, layout) = from.storage_and_layout();
        let source = place(&storage, layout, &stream)?;
        let target = memory.as_mut_ptr().w()?;
        #[expect(unsafe_code, reason = "the driver writes to memory of the program")]
        // SAFETY: the memory has room for `count` values, and nobody reads it, nor gives it back, before the end of the copy was
        // waited for. The source has as many, and memory of tensors is given back in the order of the queue.
        unsafe {
            let target = std::slice::from_raw_parts_mut(target, count);
            result::memcpy_dtoh_async(target, source, stream.cu_stream()).w()?;
        }
        let end = stream.record_event(None).w()?;
        Ok(Self { memory: Some(memory), count, end })
    }

    /// The values, once they are there.
    ///
    /// # Errors
    /// If the device failed.
    pub(super) fn finish(mut self) -> Result<Vec<f32>> {
        self.end.synchronize().w()?;
        let Some(memory) = self.memory.take() else { bail!("values were taken twice") };
        let values = memory.as_slice().w()?[..self.count].to_vec();
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        Ok(values)
    }
}

impl Drop for HostCopy {
    fn drop(&mut self) {
        // The memory may go only when the device writes to it no more.
        if self.memory.is_some() {
            self.end.synchronize().ok();
        }
    }
}

/// Memory for so many values.
fn room(stream: &Arc<CudaStream>, count: usize) -> Result<PinnedHostSlice<f32>> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |memory: &PinnedHostSlice<f32>| memory.len() >= count && Arc::ptr_eq(memory.context(), stream.context());
    if let Some(index) = free.iter().position(fits) {
        return Ok(free.swap_remove(index));
    }
    #[expect(unsafe_code, reason = "the memory is uninitialized")]
    // SAFETY: it is read where a copy has written to it, and numbers of any bits are valid.
    unsafe {
        stream.context().alloc_pinned_with_flags(count.next_power_of_two().max(LEAST), 0).w()
    }
}
