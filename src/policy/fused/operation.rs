//! What a fused operation is: its outputs, what its kernels are started with, the same arithmetic on the CPU, and its gradient.
//! [`run`] computes one on whatever device its inputs lie on; [`bind`] makes a result differentiable for candle.
//!
//! A launch is plain data. The device executes it ([`super::device`]), and so does the emulator of the tests, on the same
//! kernels: what is wrong in a grid, an argument or a kernel shows without a graphics processor.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage as _;
use candle_core::backprop::GradStore;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor,
    bail,
};

/// Shape and type of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The sizes of its dimensions.
    pub dims: Vec<usize>,
    /// The type of its elements.
    pub dtype: DType,
}

impl Spec {
    /// That of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self { dims: tensor.dims().to_vec(), dtype: tensor.dtype() }
    }

    /// Another type, the same shape.
    #[must_use]
    pub fn to(&self, dtype: DType) -> Self {
        Self { dims: self.dims.clone(), dtype }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Elements of the last dimension, and how many times there are so many.
    ///
    /// # Errors
    /// If there is no dimension.
    pub fn rows(&self) -> Result<(usize, usize)> {
        let Some((&width, rows)) = self.dims.split_last() else { bail!("a number, where rows are needed") };
        Ok((rows.iter().product(), width))
    }
}

/// The values of an input on the CPU, row-major.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Shape, and the type that they had.
    pub spec: Spec,
    /// Numbers, widened.
    pub floats: Cow<'a, [f32]>,
    /// Indices, if these are indices.
    pub ids: Cow<'a, [u32]>,
}

impl<'a> Input<'a> {
    /// The values of a contiguous tensor in this storage.
    fn of(tensor: &Tensor, storage: &'a Storage, layout: &Layout) -> Result<Self> {
        let Storage::Cpu(storage) = storage else { bail!("an input is on another device") };
        let range = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
        let (mut floats, mut ids) = (Cow::Borrowed(&[][..]), Cow::Borrowed(&[][..]));
        match storage {
            CpuStorage::U32(values) => ids = Cow::Borrowed(&values[range]),
            CpuStorage::F32(values) => floats = Cow::Borrowed(&values[range]),
            _ => floats = Cow::Owned(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
        }
        Ok(Self { spec: Spec::of(tensor), floats, ids })
    }
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// The address of an input.
    Input(usize),
    /// The address of an output.
    Output(usize),
    /// The address of a table of the addresses of inputs; null where there is none.
    Addresses(Vec<Option<usize>>),
    /// An `int`.
    Int(i32),
    /// A `float`.
    Float(f32),
}

/// One start of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The file of `kernels/`, without ending.
    pub file: &'static str,
    /// The kernel in it.
    pub kernel: String,
    /// Blocks in x, y and z; nothing happens if one of them is 0.
    pub grid: [usize; 3],
    /// Threads of a block in x and y.
    pub block: [usize; 2],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: usize,
    /// The arguments, in order.
    pub arguments: Vec<Argument>,
}

/// A fused operation. Inputs are contiguous and lie on one device.
pub trait Operation: Debug + Send + Sync + 'static {
    /// A name for messages.
    fn name(&self) -> &'static str;

    /// The outputs for such inputs.
    ///
    /// # Errors
    /// If the inputs do not fit together.
    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>>;

    /// What computes the outputs on CUDA, one after the other.
    ///
    /// # Errors
    /// If the kernels do not serve such inputs.
    fn launches(&self, inputs: &[Spec]) -> Result<Vec<Launch>>;

    /// The outputs by plain loops in `f32`; rounded to the type of the output afterwards.
    ///
    /// # Errors
    /// If values do not fit.
    fn cpu(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>>;

    /// The gradients of the first inputs from that of the first output.
    ///
    /// # Errors
    /// If there is none, or the backend fails.
    fn backward(&self, _inputs: &[Tensor], _outputs: &[Tensor], _gradient: &Tensor) -> Result<Vec<Tensor>> {
        bail!("`{}` has no gradient", self.name())
    }
}

/// The ending of the kernels for this type.
///
/// # Errors
/// For a type without kernels.
pub(super) fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        DType::F16 => Ok("f16"),
        other => bail!("no kernel for `{other:?}`"),
    }
}

/// Elements that a thread reads at once, 16 bytes.
pub(super) fn pack(dtype: DType) -> usize {
    16 / dtype.size_in_bytes()
}

/// An argument that C calls `int`.
pub(super) fn int(value: usize) -> Result<Argument> {
    match i32::try_from(value) {
        Ok(value) => Ok(Argument::Int(value)),
        Err(_) => bail!("{value} is too much for a kernel"),
    }
}

/// An output that is no tensor yet.
pub(super) type Computed = (Storage, Spec);

/// Computes an operation; nothing is recorded.
///
/// # Errors
/// If the inputs do not fit, or the backend fails.
pub fn run(operation: &dyn Operation, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    Ok(compute(operation, inputs)?.into_iter().map(wrap).collect())
}

/// A tensor for which nothing is recorded.
pub(super) fn wrap((storage, spec): Computed) -> Tensor {
    Tensor::from_storage(storage, spec.dims, BackpropOp::none(), false)
}

/// As [`run`].
pub(super) fn compute(operation: &dyn Operation, inputs: &[&Tensor]) -> Result<Vec<Computed>> {
    let inputs = inputs.iter().map(|input| input.detach().contiguous()).collect::<Result<Vec<_>>>()?;
    let specs: Vec<Spec> = inputs.iter().map(Spec::of).collect();
    let outputs = operation.outputs(&specs)?;
    let Some(first) = inputs.first() else { bail!("`{}` without inputs", operation.name()) };
    if inputs.iter().any(|input| !input.device().same_device(first.device())) {
        bail!("the inputs of `{}` are on several devices", operation.name());
    }
    match first.device() {
        Device::Cpu => on_cpu(operation, &inputs, outputs),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => super::device::execute(device, &operation.launches(&specs)?, &inputs, outputs),
        other => bail!("`{}` does not run on {:?}", operation.name(), other.location()),
    }
}

fn on_cpu(operation: &dyn Operation, inputs: &[Tensor], outputs: Vec<Spec>) -> Result<Vec<Computed>> {
    let guards: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
    let mut values = Vec::with_capacity(inputs.len());
    for (tensor, (storage, layout)) in inputs.iter().zip(&guards) {
        values.push(Input::of(tensor, storage, layout)?);
    }
    let values = operation.cpu(&values)?;
    let store = |(values, spec): (Vec<f32>, Spec)| {
        let layout = Layout::contiguous(spec.dims.as_slice());
        Ok((Storage::Cpu(CpuStorage::F32(values).to_dtype(&layout, spec.dtype)?), spec))
    };
    values.into_iter().zip(outputs).map(store).collect()
}

/// Computes an operation; its first output is differentiable in the first inputs, the `tracked` ones, of which there are at most
/// three.
///
/// # Errors
/// As [`run`].
pub(super) fn apply<O: Operation>(operation: O, tracked: &[&Tensor], constants: &[&Tensor]) -> Result<Vec<Tensor>> {
    let inputs: Vec<&Tensor> = tracked.iter().chain(constants).copied().collect();
    let mut computed = compute(&operation, &inputs)?.into_iter();
    let Some(first) = computed.next() else { bail!("`{}` without outputs", operation.name()) };
    let others: Vec<Tensor> = computed.map(wrap).collect();
    let first = bind(operation, first, &others, tracked, constants)?;
    Ok([vec![first], others].concat())
}

/// What an operation has computed first from these inputs, with its gradient.
///
/// # Errors
/// If there are more than three tracked inputs, or the backend fails.
pub(super) fn bind<O: Operation>(
    operation: O,
    first: Computed,
    others: &[Tensor],
    tracked: &[&Tensor],
    constants: &[&Tensor],
) -> Result<Tensor> {
    if !tracked.iter().any(|input| input.track_op()) {
        return Ok(wrap(first));
    }
    let constants = constants.iter().map(|tensor| tensor.detach().contiguous()).collect::<Result<_>>()?;
    let bound = Bound { operation, constants, others: others.to_vec(), first: Mutex::new(Some(first)) };
    match tracked {
        [a] => a.apply_op1(bound),
        [a, b] => a.apply_op2(b, bound),
        [a, b, c] => a.apply_op3(b, c, bound),
        more => bail!("{} tracked inputs", more.len()),
    }
}

/// The gradients of all that `output` depends on, from its own.
///
/// # Errors
/// If an operation on the way has no gradient, or the backend fails.
pub fn backward_from(output: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    apply(Start, &[output], &[gradient])?.swap_remove(0).backward()
}

/// A number that nobody reads, whose gradient is the second input: candle begins a backward pass at a number.
#[derive(Debug)]
struct Start;

impl Operation for Start {
    fn name(&self) -> &'static str {
        "start"
    }

    fn outputs(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        if inputs[0] != inputs[1] {
            bail!("a gradient {:?} of {:?}", inputs[1], inputs[0]);
        }
        Ok(vec![Spec { dims: Vec::new(), dtype: DType::F32 }])
    }

    fn launches(&self, _inputs: &[Spec]) -> Result<Vec<Launch>> {
        Ok(Vec::new())
    }

    fn cpu(&self, _inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        Ok(vec![vec![0.0]])
    }

    fn backward(&self, inputs: &[Tensor], _outputs: &[Tensor], _gradient: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[1].clone()])
    }
}

/// An operation in candle's graph. Its forward pass hands over what is computed already, as candle's operations have one output
/// and three inputs only.
struct Bound<O> {
    operation: O,
    constants: Vec<Tensor>,
    /// Outputs after the first one.
    others: Vec<Tensor>,
    first: Mutex<Option<Computed>>,
}

impl<O: Operation> Bound<O> {
    fn take(&self) -> Result<Computed> {
        match self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(first) => Ok(first),
            None => bail!("`{}` was asked for its output twice", self.operation.name()),
        }
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Storage::Cpu(storage), spec) => Ok((storage, spec.dims.into())),
            _ => bail!("the output of `{}` is on another device", self.operation.name()),
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Storage::Cuda(storage), spec) => Ok((storage, spec.dims.into())),
            _ => bail!("the output of `{}` is on another device", self.operation.name()),
        }
    }

    fn gradients<const N: usize>(
        &self,
        tracked: [&Tensor; N],
        first: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let inputs: Vec<Tensor> =
            tracked.into_iter().map(Tensor::detach).chain(self.constants.iter().cloned()).collect();
        let outputs = [vec![first.detach()], self.others.clone()].concat();
        let mut found = self.operation.backward(&inputs, &outputs, gradient)?.into_iter();
        Ok(std::array::from_fn(|_| found.next()))
    }
}

impl<O: Operation> CustomOp1 for Bound<O> {
    fn name(&self) -> &'static str {
        self.operation.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(&self, a: &Tensor, first: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients([a], first, gradient)?;
        Ok(a)
    }
}

impl<O: Operation> CustomOp2 for Bound<O> {
    fn name(&self) -> &'static str {
        self.operation.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        first: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients([a, b], first, gradient)?;
        Ok((a, b))
    }
}

impl<O: Operation> CustomOp3 for Bound<O> {
    fn name(&self) -> &'static str {
        self.operation.name()
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        first: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients([a, b, c], first, gradient)?;
        Ok((a, b, c))
    }
}
