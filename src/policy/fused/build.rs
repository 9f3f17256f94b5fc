//! Compiles the CUDA kernels of this room to PTX, with feature `cuda` only. The driver compiles PTX for the processor that
//! it finds, so that one build serves every processor from `CUDA_COMPUTE_CAP` (80, Ampere, unless it is set) on.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// bf16 on tensor cores came with Ampere.
const LEAST_CAPABILITY: u32 = 80;

fn main() {
    let folder = Path::new("src/policy/fused");
    tell(&format!("rerun-if-changed={}", folder.join("build.rs").display()));
    tell(&format!("rerun-if-changed={}", folder.join("kernels").display()));
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    tell("rerun-if-env-changed=CUDA_HOME");
    tell("rerun-if-env-changed=CUDA_COMPUTE_CAP");
    if let Err(message) = compile(&folder.join("kernels")) {
        tell(&format!("error={message}"));
    }
}

fn tell(line: &str) {
    println!("cargo::{line}");
}

fn compile(kernels: &Path) -> Result<(), String> {
    let nvcc = env::var_os("CUDA_HOME").map_or_else(|| PathBuf::from("nvcc"), |home| Path::new(&home).join("bin/nvcc"));
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| LEAST_CAPABILITY.to_string());
    let known = capability.trim_end_matches('a').parse::<u32>();
    if !known.is_ok_and(|number| number >= LEAST_CAPABILITY) {
        return Err(format!("`CUDA_COMPUTE_CAP` is `{capability}`: expected {LEAST_CAPABILITY} (Ampere) or later"));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("`OUT_DIR` is not set")?);
    let entries = kernels.read_dir().map_err(|error| format!("cannot read `{}`: {error}", kernels.display()))?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for file in files.filter(|path| path.extension().is_some_and(|extension| extension == "cu")) {
        let name = file.file_stem().unwrap_or_default();
        let status = Command::new(&nvcc)
            .args(["-ptx", "-O3", "-std=c++17", "-lineinfo"])
            .arg(format!("-arch=compute_{capability}"))
            .arg(&file)
            .arg("-o")
            .arg(out.join(name).with_extension("ptx"))
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("`{}` failed on `{}`: {status}", nvcc.display(), file.display())),
            Err(error) => {
                let fix = "install a CUDA toolkit and set `CUDA_HOME`, or build by `scripts/cuda-toolkit.sh`";
                return Err(format!("cannot start `{}`, the CUDA compiler ({error}): {fix}", nvcc.display()));
            }
        }
    }
    Ok(())
}
