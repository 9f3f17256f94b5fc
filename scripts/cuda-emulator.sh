#!/usr/bin/env bash
# Runs COMMAND, a program that was built with feature `cuda`, where there is no graphics processor: a library takes the place of the
# driver and of CUDA's libraries and computes on the CPU (tests/numerics/emulator/driver.cpp). It is thousands of times slower, and
# tells nothing of speed, but all of the program's own code for a device runs, with checks that no device has.
#
#     scripts/cuda-emulator.sh FOLDER COMMAND...
#     scripts/cuda-toolkit.sh target/cuda cargo test --release --locked --features cuda --test numerics --no-run
#     GIFT_TEST_DEVICE=cuda scripts/cuda-emulator.sh target/emulator target/release/deps/numerics-*   # a single file
#     scripts/cuda-emulator.sh target/emulator target/release/gift-host train --device cuda --dtype bf16 ...
#
# The library is built into FOLDER with the C++ compiler, CXX or c++. For COMMAND:
#     GIFT_EMULATOR_REPORT=FILE     at the end, counts of launches, copies, allocations and waits are written to FILE
#     GIFT_EMULATOR_SKIP=1          nothing is computed, so that what is left is the time of the host; results are zeros
#     GIFT_EMULATOR_DESCENDING=1    the threads of a block take turns in the opposite order
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
emulator=$root/tests/numerics/emulator kernels=$root/src/policy/fused/kernels

objects=()
for source in "$emulator"/{emulator,driver,host,libraries,plain}.cpp "$kernels"/*.cu; do
    object=$folder/$(basename "$source").o
    objects+=("$object")
    if [ -e "$object" ] && [ -z "$(find "$source" "$emulator" "$kernels" -name '*.*h' -newer "$object" -o -path "$source" -newer "$object")" ]; then
        continue
    fi
    "${CXX:-c++}" -std=c++17 -O2 -fno-strict-aliasing -fPIC -fvisibility=hidden -x c++ \
        -I "$emulator" -I "$kernels" -c "$source" -o "$object"
done
library=$folder/libemulator.so
"${CXX:-c++}" -shared -Wl,--version-script="$emulator/libraries.map" -o "$library" "${objects[@]}"
for name in libcuda.so.1 libcublas.so.13 libcurand.so.10 libcudart.so.13; do ln -sfn libemulator.so "$folder/$name"; done

LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$@"
