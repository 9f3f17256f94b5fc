#!/usr/bin/env bash
# Runs COMMAND with a CUDA compiler, for machines that have none (x86-64 Linux; no graphics processor or driver is needed):
#
#     scripts/cuda-toolkit.sh FOLDER COMMAND...
#     scripts/cuda-toolkit.sh target/cuda cargo check --release --locked --features cuda
#     scripts/cuda-toolkit.sh target/cuda cargo build --release --locked --features cuda
#
# The first call fetches nvcc, headers and libraries of CUDA 13.0 as Python wheels into FOLDER: 0.6 GB to fetch, 1.1 GB on disk.
# Needs python3 with pip, and gcc. CUDA_COMPUTE_CAP names the processor to compile for (90, Hopper, unless it is set).
#
# What is built runs wherever the driver is; here `--device cuda` says that there is none. On a machine with a driver, point
# LD_LIBRARY_PATH at its own CUDA 13 libraries, as those of its PyTorch (site-packages/nvidia/cu13/lib).
set -euo pipefail

# Newer releases make code that drivers of the 580 series refuse.
release=13.0.2
parts=nvcc,crt,nvvm,cccl,cudart,cublas,curand,nvrtc

[ $# -ge 2 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$1
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
home=$folder/python/nvidia/cu13
done=$folder/complete-$release

if [ ! -e "$done" ]; then
    rm -rf "$folder/python"
    echo "fetching CUDA $release into $folder" >&2
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --only-binary=:all: --no-cache-dir \
        --target "$folder/python" "cuda-toolkit[$parts]==$release" >&2

    # Wheels name libraries by their version alone, and nvcc looks for lib64.
    ln -sfn lib "$home/lib64"
    (cd "$home/lib" && for library in *.so.*; do ln -sfn "$library" "${library%%.so.*}.so"; done)

    # The driver's library comes with no wheel. This one is only linked with, and fails in all it is asked for: each function
    # that the header declares returns 34 (CUDA_ERROR_STUB_LIBRARY).
    mkdir -p "$home/lib/stubs"
    python3 - "$home/include/cuda.h" >"$folder/driver.c" <<'PYTHON'
import re
import sys

text = open(sys.argv[1], encoding="utf-8", errors="replace").read()
names = set(re.findall(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(", text))
# A header names the newest form of some functions by a macro, and programs may link with either.
names |= set(re.findall(r"#\s*define\s+cu[A-Z]\w*\s+(cu[A-Z]\w*)", text))
names |= set(re.findall(r"__CUDA_API_(?:PTDS|PTSZ)\((cu[A-Z]\w*)\)", text))
names |= {"cuProfilerInitialize", "cuProfilerStart", "cuProfilerStop"}
print("\n".join(f"int {name}(void) {{ return 34; }}" for name in sorted(names)))
PYTHON
    gcc -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$home/lib/stubs/libcuda.so.1" "$folder/driver.c"
    ln -sfn libcuda.so.1 "$home/lib/stubs/libcuda.so"
    touch "$done"
fi

export CUDA_HOME=$home PATH=$home/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} CUDARC_CUDA_VERSION=13000
CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}
export CUDAFORGE_THREADS
export LD_LIBRARY_PATH=$home/lib:$home/lib/stubs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LIBRARY_PATH=$home/lib:$home/lib/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}
exec "$@"
