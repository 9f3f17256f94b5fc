#!/usr/bin/env bash
# Plays tic-tac-toe against a real model behind a real server: SmolLM2-135M-Instruct in llama-cpp-python's. It makes a
# virtual environment in FOLDER and builds the server there (a C++ compiler and cmake; some minutes), starts it on this
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

mkdir -p "$folder"
if [[ ! -x "$folder/venv/bin/python" ]]; then
    python3 -m venv "$folder/venv"
fi
"$folder/venv/bin/pip" install --quiet "llama-cpp-python[server]"
"$(dirname "$0")/../fetch-smollm2.sh" "$folder"
"$folder/venv/bin/python" -m llama_cpp.server --model "$folder/SmolLM2-135M-Instruct.Q4_1.gguf" --model_alias smollm2 \
    --host 127.0.0.1 --port "$port" --n_ctx 2048 --verbose false >"$folder/server.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT

# The program waits for the server by itself: it tries again until `remote.grace_s` is over.
"$binary" eval --games games/tictactoe.lua --player random --opponent "openai:http://127.0.0.1:$port/v1#smollm2" \
    --episodes "$episodes" --set remote.max_tokens=64 --set remote.invalid_tries=2 --set remote.grace_s=120
