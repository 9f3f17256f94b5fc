#!/bin/sh
# Rollouts and updates on a CPU here, in PyTorch with transformers, in TRL, and in llama.cpp: same shapes, same random weights, same
# token ids, same number of threads, in turn within one run. Prints a table and writes scripts/bench/results/peers-cpu.json.
#
#     cargo build --release
#     scripts/bench/peers.sh [--rounds 3] [--threads N] [--case NAME]... [--out FILE]
#
# The first call makes a virtual environment below target/ and installs the peers with pip (about 1 GB). PYTHON names an
# interpreter that has torch, transformers, trl, safetensors, gguf and xllamacpp already; GIFT_HOST measures another binary.
set -eu
cd "$(dirname "$0")/../.."
if [ -z "${PYTHON:-}" ]; then
    folder=target/peers-venv
    names='"torch", "transformers", "trl", "safetensors", "gguf", "xllamacpp"'
    if ! "$folder/bin/python" -c "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, [$names])))" 2>&-; then
        python3 -m venv "$folder"
        # The build for the CPU alone is smaller; where its index cannot be reached, the usual one computes on a CPU as well.
        "$folder/bin/pip" install --quiet --index-url https://download.pytorch.org/whl/cpu torch ||
            "$folder/bin/pip" install --quiet torch
        "$folder/bin/pip" install --quiet transformers trl safetensors gguf xllamacpp
    fi
    PYTHON=$folder/bin/python
fi
exec "$PYTHON" scripts/bench/peers.py "$@"
