//! CUDA devices, opened for work that many threads hand in, and the room that is left on them.

use candle_core::{Device, Result as TensorResult};

use crate::policy::Error;

/// The CUDA device of this number. All work on it is one queue, whichever thread hands it in, and memory that tensors give back
/// stays with the process for the next ones.
///
/// # Errors
/// [`Error::Tensor`] if there is no such device, or the build has no CUDA.
pub fn open_cuda(index: usize) -> Result<Device, Error> {
    // `new_cuda` has a queue for each thread: what one thread writes, another would read, or give back, too early.
    let device = Device::new_cuda_with_stream(index)?;
    #[cfg(feature = "cuda")]
    keep_memory(device.as_cuda_device()?)?;
    Ok(device)
}

/// Keeps what is given back in the pool that allocations come from. Otherwise it goes to the driver at every wait for the device,
/// which is once a token, and comes back slowly.
#[cfg(feature = "cuda")]
fn keep_memory(device: &candle_core::CudaDevice) -> TensorResult<()> {
    use candle_core::cuda_backend::WrapErr as _;
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    let stream = device.cuda_stream();
    let context = stream.context();
    #[expect(unsafe_code, reason = "the driver is asked for its pool; events are given up")]
    // SAFETY: the threshold is read before the call returns, as the 64 bits that the attribute has. There is one queue, so that
    // nothing need be known about others.
    unsafe {
        device.disable_event_tracking();
        if context.has_async_alloc() {
            let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
            let mut threshold = u64::MAX;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast()).w()?;
        }
    }
    Ok(())
}

/// Bytes that can still be allocated on a device; `None` for a CPU.
///
/// # Errors
/// If the driver does not tell.
#[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "a device may fail"))]
pub(super) fn free_bytes(device: &Device) -> TensorResult<Option<usize>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Ok(Some(free_on_cuda(device)?)),
        _ => Ok(None),
    }
}

/// Those of the device that nobody has, and those of the pool that no tensor holds.
#[cfg(feature = "cuda")]
fn free_on_cuda(device: &candle_core::CudaDevice) -> TensorResult<usize> {
    use candle_core::cuda_backend::WrapErr as _;
    use candle_core::cuda_backend::cudarc::driver::{result, sys::CUmemPool_attribute as Attribute};
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().w()?;
    let (free, _) = result::mem_get_info().w()?;
    if !context.has_async_alloc() {
        return Ok(free);
    }
    #[expect(unsafe_code, reason = "the driver is asked for its pool")]
    // SAFETY: both attributes are 64 bits, which the calls fill in.
    let (reserved, used) = unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
        let (mut reserved, mut used) = (0_u64, 0_u64);
        let attributes = [
            (Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &raw mut reserved),
            (Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &raw mut used),
        ];
        for (attribute, place) in attributes {
            result::mem_pool::get_attribute(pool, attribute, place.cast()).w()?;
        }
        (reserved, used)
    };
    Ok(free + reserved.saturating_sub(used) as usize)
}
