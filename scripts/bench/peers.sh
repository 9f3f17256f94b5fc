#!/bin/sh
# Rollouts and updates on a CPU here, in PyTorch with transformers, in TRL, and in llama.cpp: same shapes, same random weights, same
# token ids, same number of threads, in turn within one run. Prints a table and writes scripts/bench/results/peers-cpu.json, or
# target/peers-cpu.json if only some cases are named.
#
#     cargo build --release
#     scripts/bench/peers.sh [--rounds 3] [--threads N] [--case NAME]... [--out FILE]
#
# The first call makes a virtual environment below target/ and installs the peers with pip: 1 GB, and 6 GB where PyTorch's own
# index, which has builds for the CPU alone, cannot be reached. PYTHON names an
# interpreter that has torch, transformers, trl, safetensors, gguf and xllamacpp already; GIFT_HOST measures another binary.
set -eu
cd "$(dirname "$0")/../.."
names='torch transformers trl safetensors gguf xllamacpp'
has_peers() {
    "$PYTHON" -c "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))" $names 2>/dev/null
}
if [ -z "${PYTHON:-}" ]; then
    folder=target/peers-venv
    PYTHON=$folder/bin/python
    if ! has_peers; then
        echo "installing the peers into $folder" >&2
        python3 -m venv "$folder"
        "$folder/bin/pip" install --quiet --retries 1 --index-url https://download.pytorch.org/whl/cpu torch 2>/dev/null || {
            echo "PyTorch's index of builds for the CPU cannot be reached: installing the usual build, which is 6 GB on disk" >&2
            "$folder/bin/pip" install --quiet torch
        }
        "$folder/bin/pip" install --quiet transformers trl safetensors gguf xllamacpp
    fi
fi
has_peers || { echo "$PYTHON lacks one of $names" >&2; exit 1; }
exec "$PYTHON" scripts/bench/peers.py "$@"
