#!/bin/sh
# The case for a graphics processor: 128 episodes (8 groups of 16) of the Qwen2.5-1.5B shape with random weights in bf16,
# prompts of 400 tokens and 3 turns of 200 sampled ones, then an update on sequences of that length. Needs nothing but the
# binary, which can be carried to the machine alone; stays below eight minutes and prints one table.
#
#     scripts/bench/gpu.sh [BINARY]
#     scripts/bench/gpu.sh --dry [BINARY]      # the same steps on a CPU with the tiny shape, to see that they work
set -u
shape=qwen2.5-1.5b device=cuda dtype=bf16 batch=128 groups=8 prompt=400 new=200 limit=200
if [ "${1:-}" = --dry ]; then
    shift
    shape=tiny device=cpu dtype=f32 batch=16 groups=2 prompt=40 new=20
fi
binary=${1:-target/release/gift-host}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader

# Everything is measured once: the floors and the first, short round warm the device up.
common="--shape $shape --device $device --dtype $dtype --groups $groups --rounds 1 --json"
timeout "$limit" "$binary" bench rollout $common --batch $batch --prompt $prompt --new $new --turns 3 --turn-prompt 50 \
    >"$folder/rollout.json" 2>"$folder/rollout.log" || { echo "the rollout failed or took more than $limit s:"; tail -5 "$folder/rollout.log"; }
timeout "$limit" "$binary" bench update $common --batch $batch --prompt $prompt --new $((3 * new)) \
    >"$folder/update.json" 2>"$folder/update.log" || { echo "the update failed or took more than $limit s:"; tail -5 "$folder/update.log"; }

# The JSON has one field a line, so the table needs no other program than awk.
printf '%-10s %10s %12s %10s %8s\n' '' seconds tokens/s 'floor s' share
for file in rollout update; do
    awk '
        /^  "(prefill|decode|rollout|update)": \{/ { gsub(/[",:{ ]/, ""); name = $0; known = 1 }
        known && /"(seconds|tokens_per_s|floor_s|share_of_floor)":/ {
            key = $1; gsub(/[":]/, "", key); value = $2; sub(/,/, "", value); field[key] = value
        }
        known && /^  \}/ {
            printf "%-10s %10.2f %12.1f %10.2f %6.0f %%\n", name, field["seconds"], field["tokens_per_s"], field["floor_s"],
                100 * field["share_of_floor"]
            known = 0
        }' "$folder/$file.json"
done
