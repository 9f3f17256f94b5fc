//! Sums of gradients over the devices of one machine by NCCL, from memory of a device to memory of a device.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::DevicePtr as _;
use candle_core::cuda_backend::cudarc::nccl::{result, sys};
use candle_core::{Device, DeviceLocation, Storage, Tensor, bail};

use super::CandleDecoder;
use crate::policy::{Error, Reduce};

/// Adds up with NCCL.
pub(super) struct NcclReduce(Mutex<Communicators>);

/// One for each replica.
struct Communicators(Vec<sys::ncclComm_t>);

#[expect(unsafe_code, reason = "the library's handles are pointers")]
// SAFETY: a communicator may be used by any thread, by one at a time, which the mutex around this sees to.
unsafe impl Send for Communicators {}

impl Drop for Communicators {
    fn drop(&mut self) {
        for &communicator in &self.0 {
            #[expect(unsafe_code, reason = "a handle of the library is given back")]
            // SAFETY: it was made by `ncclCommInitAll`, and is used by nobody any more. A failure leaves nothing to be done.
            let _ = unsafe { result::comm_destroy(communicator) };
        }
    }
}

fn failed(error: &result::NcclError) -> Error {
    Error::Tensor { message: format!("NCCL: {error:?}") }
}

impl NcclReduce {
    /// For replicas on different devices.
    ///
    /// # Errors
    /// [`Error::Shape`] for a replica on a CPU; [`Error::Tensor`] if the library fails, as it does where a device comes twice.
    pub(super) fn new(replicas: &[CandleDecoder]) -> Result<Self, Error> {
        let ordinal = |replica: &CandleDecoder| match replica.place().location() {
            DeviceLocation::Cuda { gpu_id } => Ok(gpu_id as i32),
            other => {
                let (expected, found) = ("a CUDA device".to_owned(), format!("{other:?}"));
                Err(Error::Shape { name: "device".to_owned(), expected, found })
            }
        };
        let ordinals = replicas.iter().map(ordinal).collect::<Result<Vec<_>, _>>()?;
        let mut communicators = vec![std::ptr::null_mut(); ordinals.len()];
        #[expect(unsafe_code, reason = "the library fills in handles")]
        // SAFETY: both lists have as many elements as the call says.
        unsafe { result::comm_init_all(communicators.as_mut_ptr(), ordinals.len() as i32, ordinals.as_ptr()) }
            .map_err(|error| failed(&error))?;
        Ok(Self(Mutex::new(Communicators(communicators))))
    }
}

impl Reduce<CandleDecoder> for NcclReduce {
    fn sum_gradients(&self, replicas: &mut [CandleDecoder]) -> Result<(), Error> {
        let gradients = replicas.iter_mut().map(CandleDecoder::whole_gradients).collect::<Result<Vec<_>, _>>()?;
        let communicators = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = gradients.first().map_or(0, Vec::len);
        for index in 0..count {
            // One thread serves all devices, so their calls belong to one group.
            result::group_start().map_err(|error| failed(&error))?;
            let all = gradients.iter().zip(&communicators.0);
            let started =
                all.map(|(own, &communicator)| start(&own[index], communicator)).collect::<Result<Vec<()>, _>>();
            let ended = result::group_end().map_err(|error| failed(&error));
            started?;
            ended?;
        }
        Ok(())
    }
}

/// Puts the sum of a tensor into the stream of its device, in place.
fn start(tensor: &Tensor, communicator: sys::ncclComm_t) -> Result<(), Error> {
    let place = || -> candle_core::Result<_> {
        let (storage, layout) = tensor.storage_and_layout();
        let (Device::Cuda(device), Storage::Cuda(storage)) = (tensor.device(), &*storage) else {
            bail!("a gradient on a CPU")
        };
        let CudaStorageSlice::F32(slice) = &storage.slice else { bail!("a gradient that is not f32") };
        if !layout.is_contiguous() || layout.start_offset() != 0 {
            bail!("a gradient that is a part of something");
        }
        let stream = device.cuda_stream();
        let address = slice.device_ptr(&stream).0;
        Ok((address, stream))
    };
    let (address, stream) = place()?;
    #[expect(unsafe_code, reason = "the library is called with addresses")]
    // SAFETY: the tensor has so many elements of this type, in one piece. It lives as long as its decoder, which frees it in the order
    // of the same stream. Nobody else reads or writes it: the decoders are borrowed for writing.
    unsafe {
        result::all_reduce(
            address as *const _,
            address as *mut _,
            tensor.elem_count(),
            sys::ncclDataType_t::ncclFloat32,
            sys::ncclRedOp_t::ncclSum,
            communicator,
            stream.cu_stream().cast(),
        )
    }
    .map(drop)
    .map_err(|error| failed(&error))
}
