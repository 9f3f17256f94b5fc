#!/bin/sh
# Everything that needs a graphics processor, in one command and under eight minutes: the tests of the kernels and decoders on the
# device against the CPU, log-probabilities and gradients against PyTorch, rollouts and updates of the Qwen2.5 shapes with random
# weights in bf16, how they grow, the same by transformers and PyTorch, and one table of it all at the end. Exit status 1 if a test
# failed, did not run on the device, or a figure of gift-host that is asked for is missing; at once where there is no device.
#
#     scripts/bench/gpu.sh --pack FOLDER                        # where Rust and nvcc are: builds what is carried
#     scripts/bench/gpu.sh --carried FOLDER [--out FILE.json]   # where the device is: needs python3, torch and transformers
#     scripts/bench/gpu.sh --dry                                # the same steps on a CPU with the tiny shape, from target/release
#     scripts/cuda-emulator.sh target/emulator scripts/bench/gpu.sh --dry --emulated --carried FOLDER --seconds 3600
#                                                               # the same from a CUDA build, on an emulated device
#
# Without CUDA where Rust is: scripts/cuda-toolkit.sh target/cuda scripts/bench/gpu.sh --pack FOLDER
# Beside FOLDER, the second machine needs `scripts/bench` and `tests/numerics/data` of this repository.
# PYTHON names the interpreter that has torch and transformers. Without them the peers are missing in the table.
set -eu
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu.py" "$@"
