//! Runs the CUDA kernels of `src/policy/fused/kernels` on the CPU: the C++ compiler builds them with the headers in this folder,
//! and every launch is a process that gets its buffers and gives them back (`launch.cpp`). `driver.cpp` and its neighbours take the
//! place of the driver for a CUDA build instead.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use gift_host::policy::fused::{Argument, Launch, Operation, Spec};

/// The program with the kernels of a file, compiled at its first use.
fn program(file: &'static str) -> PathBuf {
    static PROGRAMS: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = programs.get(file) {
        return program.clone();
    }
    let root = super::root();
    let (kernels, emulator) = (root.join("src/policy/fused/kernels"), root.join("tests/numerics/emulator"));
    // Another test process may do the same, so the program gets its name when it is whole.
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    let unfinished = program.with_extension(std::process::id().to_string());
    let status = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
        .args(["-std=c++17", "-O2", "-fno-strict-aliasing", "-x", "c++", "-I"])
        .args([&emulator, Path::new("-I"), &kernels])
        .args([kernels.join(file).with_extension("cu"), emulator.join("emulator.cpp"), emulator.join("launch.cpp")])
        .arg("-o")
        .arg(&unfinished)
        .status()
        .expect("a C++ compiler");
    assert!(status.success(), "the kernels of `{file}` do not compile");
    std::fs::rename(&unfinished, &program).expect("the program is renamed");
    programs.insert(file, program.clone());
    program
}

/// A CUDA build, which tests have not, runs on it (`scripts/cuda-emulator.sh`).
#[test]
fn the_stand_in_for_the_driver_compiles() {
    let emulator = super::root().join("tests/numerics/emulator");
    let status = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
        .args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
        .args(["driver.cpp", "host.cpp", "libraries.cpp", "plain.cpp"].map(|file| emulator.join(file)))
        .status()
        .expect("a C++ compiler");
    assert!(status.success());
}

/// Computes an operation by its kernels in the emulator.
pub(super) fn emulate(operation: &dyn Operation, inputs: &[&Tensor]) -> Vec<Tensor> {
    let specs: Vec<Spec> = inputs.iter().map(|input| Spec::of(input)).collect();
    let outputs = operation.outputs(&specs).expect("the inputs fit");
    let buffers = launch_all(&operation.launches(&specs).expect("there are kernels"), inputs, &outputs);
    buffers[inputs.len()..].to_vec()
}

/// All inputs and outputs after these launches. An output that no launch writes stays NaN.
pub(super) fn launch_all(launches: &[Launch], inputs: &[&Tensor], outputs: &[Spec]) -> Vec<Tensor> {
    let bytes = |tensor: &&Tensor| {
        let mut bytes = Vec::new();
        tensor.write_bytes(&mut bytes).expect("the values of a tensor");
        bytes
    };
    let empty = |spec: &Spec| vec![0xff; spec.count() * spec.dtype.size_in_bytes()];
    let mut buffers: Vec<Vec<u8>> = inputs.iter().map(bytes).chain(outputs.iter().map(empty)).collect();
    for launch in launches.iter().filter(|launch| !launch.grid.contains(&0)) {
        let [ascending, descending] = [false, true].map(|turns| start(launch, &buffers, inputs.len(), turns));
        assert!(ascending == descending, "`{}` depends on the order of its threads", launch.kernel);
        buffers = ascending;
    }
    let specs = inputs.iter().map(|input| Spec::of(input)).chain(outputs.iter().cloned());
    buffers.iter().zip(specs).map(|(bytes, spec)| tensor(bytes, &spec)).collect()
}

fn tensor(bytes: &[u8], spec: &Spec) -> Tensor {
    if bytes.is_empty() {
        return Tensor::zeros(spec.dims.as_slice(), spec.dtype, &Device::Cpu).expect("no values");
    }
    Tensor::from_raw_buffer(bytes, spec.dtype, &spec.dims, &Device::Cpu).expect("the values of a tensor")
}

fn start(launch: &Launch, buffers: &[Vec<u8>], input_count: usize, is_descending: bool) -> Vec<Vec<u8>> {
    let mut request = Vec::new();
    let mut word = |value: usize| request.extend(u32::try_from(value).expect("a small number").to_le_bytes());
    word(launch.kernel.len());
    request.extend(launch.kernel.as_bytes());
    let numbers = [&launch.grid[..], &launch.block, &[launch.shared_bytes, usize::from(is_descending), buffers.len()]];
    for &number in numbers.into_iter().flatten() {
        request.extend((number as u32).to_le_bytes());
    }
    for buffer in buffers {
        request.extend((buffer.len() as u64).to_le_bytes());
        request.extend(buffer);
    }
    let mut words = vec![launch.arguments.len() as u32];
    for argument in &launch.arguments {
        match argument {
            Argument::Input(index) => words.extend([0, *index as u32]),
            Argument::Output(index) => words.extend([0, (input_count + index) as u32]),
            Argument::Addresses(list) => {
                words.extend([1, list.len() as u32]);
                words.extend(list.iter().map(|index| index.map_or(u32::MAX, |index| index as u32)));
            }
            Argument::Int(value) => words.extend([2, value.cast_unsigned()]),
            Argument::Float(value) => words.extend([2, value.to_bits()]),
        }
    }
    request.extend(words.iter().flat_map(|word| word.to_le_bytes()));

    let mut child = Command::new(program(launch.file))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the emulator starts");
    // It reads all before it writes.
    let sent = child.stdin.take().expect("a pipe").write_all(&request);
    let output = child.wait_with_output().expect("the emulator ends");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && sent.is_ok(), "`{}`: {message}", launch.kernel);
    let mut left = &output.stdout[..];
    let mut next = |buffer: &Vec<u8>| {
        let (bytes, rest) = left.split_at(buffer.len());
        left = rest;
        bytes.to_vec()
    };
    buffers.iter().map(&mut next).collect()
}

/// Types that kernels take.
pub(super) const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
