//! Starts kernels on a CUDA device.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::backend::{BackendDevice as _, BackendStorage as _};
use candle_core::cuda_backend::cudarc::cublas;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr as _, LaunchConfig, PushKernelArg as _,
};
use candle_core::cuda_backend::{CudaStorageSlice, DeviceId, WrapErr as _};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};

use super::operation::{Argument, Computed, Launch, Spec};
use super::product::{Factor, Gemm};

/// Shared memory that a kernel may ask for without more.
const FREE_SHARED_BYTES: usize = 48 << 10;
/// Tables of addresses that are kept.
const MAX_TABLES: usize = 16;

macro_rules! ptx {
    ($name:expr, $($file:literal),*) => {
        match $name {
            $($file => Ok(include_str!(concat!(env!("OUT_DIR"), "/", $file, ".ptx"))),)*
            other => bail!("no kernels `{other}`"),
        }
    };
}

/// The PTX of a file of `kernels/`.
fn ptx(file: &str) -> Result<&'static str> {
    ptx!(
        file,
        "adamw",
        "attention_bf16",
        "attention_f16",
        "attention_f32",
        "elementwise",
        "norm",
        "paged_bf16",
        "paged_f16",
        "paged_f32",
        "sample",
        "scores"
    )
}

/// Executes launches in order. Inputs are contiguous; outputs are as the launches leave them.
pub(super) fn execute(
    device: &CudaDevice,
    launches: &[Launch],
    inputs: &[Tensor],
    outputs: Vec<Spec>,
) -> Result<Vec<Computed>> {
    let stream = device.cuda_stream();
    let guards: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
    let mut addresses = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        addresses.push(place(storage, layout, &stream)?);
    }
    let allocate = |spec: Spec| {
        // No memory has an address without anything in it.
        let room = if spec.count() == 0 { Shape::from(1) } else { Shape::from(spec.dims.as_slice()) };
        #[expect(unsafe_code, reason = "an output is uninitialized until its kernel has run")]
        // SAFETY: numbers of any bits are valid. Launches write all elements of their outputs before others read them, in
        // the order of the stream.
        let storage = unsafe { device.alloc_uninit(&room, spec.dtype)? };
        Ok((storage, spec))
    };
    let outputs = outputs.into_iter().map(allocate).collect::<Result<Vec<(CudaStorage, Spec)>>>()?;
    let places = outputs.iter().map(|(storage, _)| address(storage, &stream)).collect::<Result<Vec<_>>>()?;
    for launch in launches.iter().filter(|launch| !launch.grid.contains(&0)) {
        start(device, launch, &addresses, &places)?;
    }
    Ok(outputs.into_iter().map(|(storage, spec)| (Storage::Cuda(storage), spec)).collect())
}

/// Multiplies two matrices: adds the product to `sum`, or gives it. Neither matrix nor `sum`, contiguous in `f32`, is empty.
pub(super) fn multiply(
    device: &CudaDevice,
    gemm: &Gemm,
    (left, right): (&Tensor, &Tensor),
    sum: Option<&Tensor>,
) -> Result<Option<Computed>> {
    use cublas::sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t};
    let stream = device.cuda_stream();
    let guards: Vec<_> = [Some(left), Some(right), sum].into_iter().flatten().map(Tensor::storage_and_layout).collect();
    let places = guards.iter().map(|(storage, layout)| place(storage, layout, &stream));
    let places = places.collect::<Result<Vec<u64>>>()?;
    let spec = Spec { dims: vec![gemm.n, gemm.m], dtype: DType::F32 };
    let (computed, out) = if let Some(&sum) = places.get(2) {
        (None, sum)
    } else {
        #[expect(unsafe_code, reason = "the product is uninitialized until it is computed")]
        // SAFETY: numbers of any bits are valid, and the product is written before others read it, in the order of the stream.
        let storage = unsafe { device.alloc_uninit(&Shape::from(spec.dims.as_slice()), spec.dtype)? };
        let out = address(&storage, &stream)?;
        (Some((Storage::Cuda(storage), spec)), out)
    };
    let dtype = match left.dtype() {
        DType::F32 => cudaDataType_t::CUDA_R_32F,
        DType::BF16 => cudaDataType_t::CUDA_R_16BF,
        DType::F16 => cudaDataType_t::CUDA_R_16F,
        other => bail!("no product of `{other:?}`"),
    };
    let turn = |factor: Factor| {
        if factor.is_transposed { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N }
    };
    let (alpha, beta) = (1.0_f32, if sum.is_some() { 1.0_f32 } else { 0.0 });
    // The library works in the context of the thread, which nothing may have set yet.
    stream.context().bind_to_thread().w()?;
    let handle = device.cublas_handle();
    #[expect(unsafe_code, reason = "cuBLAS is called with addresses")]
    // SAFETY: `gemm` is made from the layouts of both matrices, whose storages the guards keep, and the result has `n` times `m`
    // elements; a test interprets it as the library's documentation does. `alpha` and `beta` are read before the call returns.
    unsafe {
        cublas::result::gemm_ex(
            *handle.handle(),
            turn(gemm.a),
            turn(gemm.b),
            gemm.m as i32,
            gemm.n as i32,
            gemm.k as i32,
            (&raw const alpha).cast(),
            places[1] as *const _,
            dtype,
            gemm.a.step as i32,
            places[0] as *const _,
            dtype,
            gemm.b.step as i32,
            (&raw const beta).cast(),
            out as *mut _,
            cudaDataType_t::CUDA_R_32F,
            gemm.m as i32,
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()?;
    Ok(computed)
}

fn start(device: &CudaDevice, launch: &Launch, inputs: &[u64], outputs: &[u64]) -> Result<()> {
    let function = device.get_or_load_custom_func(&launch.kernel, launch.file, ptx(launch.file)?)?;
    if launch.shared_bytes > FREE_SHARED_BYTES {
        let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, launch.shared_bytes as i32).w()?;
    }
    // Tables live until the kernel is in the stream, which frees them in order.
    let mut held = Vec::new();
    let mut values = Vec::with_capacity(launch.arguments.len());
    for argument in &launch.arguments {
        values.push(match argument {
            Argument::Input(index) => Value::Address(inputs[*index]),
            Argument::Output(index) => Value::Address(outputs[*index]),
            Argument::Addresses(list) => {
                let table = table(device, list.iter().map(|index| index.map_or(0, |index| inputs[index])).collect())?;
                let place = table.device_ptr(&device.cuda_stream()).0;
                held.push(table);
                Value::Address(place)
            }
            Argument::Int(value) => Value::Int(*value),
            Argument::Float(value) => Value::Float(*value),
        });
    }
    let mut builder = function.builder();
    for value in &values {
        match value {
            Value::Address(value) => builder.arg(value),
            Value::Int(value) => builder.arg(value),
            Value::Float(value) => builder.arg(value),
        };
    }
    let config = LaunchConfig {
        grid_dim: launch.grid.map(|blocks| blocks as u32).into(),
        block_dim: (launch.block[0] as u32, launch.block[1] as u32, 1),
        shared_mem_bytes: launch.shared_bytes as u32,
    };
    #[expect(unsafe_code, reason = "a kernel is started with the arguments that its operation names")]
    // SAFETY: the tests execute the same launches on the same kernels in an emulator that checks the ends of every buffer.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// A table of these addresses on the device. The slabs of pages are the same ones launch after launch, so tables are kept for a while;
/// one with the same content is as good as a new one.
fn table(device: &CudaDevice, addresses: Vec<u64>) -> Result<Arc<CudaSlice<u64>>> {
    type Tables = HashMap<(DeviceId, Vec<u64>), Arc<CudaSlice<u64>>>;
    static TABLES: LazyLock<Mutex<Tables>> = LazyLock::new(Mutex::default);
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (device.id(), addresses);
    if let Some(table) = tables.get(&key) {
        return Ok(Arc::clone(table));
    }
    if tables.len() >= MAX_TABLES {
        tables.clear();
    }
    let table = Arc::new(device.clone_htod(&key.1)?);
    tables.insert(key, Arc::clone(&table));
    Ok(table)
}

enum Value {
    Address(u64),
    Int(i32),
    Float(f32),
}

/// Where the first element of a tensor lies on the device.
pub(super) fn place(storage: &Storage, layout: &Layout, stream: &CudaStream) -> Result<u64> {
    let Storage::Cuda(storage) = storage else { bail!("an input is on another device") };
    let offset = layout.start_offset() * storage.dtype().size_in_bytes();
    Ok(address(storage, stream)? + offset as u64)
}

/// Where a storage lies on the device.
fn address(storage: &CudaStorage, stream: &CudaStream) -> Result<u64> {
    Ok(match &storage.slice {
        CudaStorageSlice::U32(slice) => slice.device_ptr(stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(stream).0,
        CudaStorageSlice::F16(slice) => slice.device_ptr(stream).0,
        CudaStorageSlice::F32(slice) => slice.device_ptr(stream).0,
        _ => bail!("no kernel takes such a tensor"),
    })
}
