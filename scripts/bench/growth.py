#!/usr/bin/env python3
"""How the cost of a rollout grows with the number of sequences, with the length of the context and with the turns: prints three
Markdown tables and writes scripts/bench/results/growth-cpu.json.

    cargo build --release
    python3 scripts/bench/growth.py [--shape tiny] [--most-batch 512] [--most-context 16384] [--turns 16] [--out FILE]

`share` is the share of what the machine could do at best (the floor, measured in the same process). Set GIFT_HOST to measure
another binary.
"""

import argparse
import json
import pathlib
import sys

from host import ROOT, call


def bench(**sizes):
    arguments = ["bench", "rollout", "--json", "--device", "cpu"]
    for name, value in sizes.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    print(" ".join(arguments), file=sys.stderr)
    return json.loads(call(arguments))


def powers(first, most, factor):
    sizes = []
    while first <= most:
        sizes.append(first)
        first *= factor
    return sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--most-batch", type=int, default=512)
    parser.add_argument("--most-context", type=int, default=16384)
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(ROOT / "scripts/bench/results/growth-cpu.json"))
    arguments = parser.parse_args()
    shape, rounds = arguments.shape, arguments.rounds
    result = {"shape": shape, "batch": [], "context": [], "turns": None}

    print(f"Sequences ({shape}, one prompt of 64 tokens, 16 new):\n")
    print("| sequences | sampled tokens/s | share of the floor |\n|---:|---:|---:|")
    for batch in powers(1, arguments.most_batch, 2):
        report = bench(shape=shape, batch=batch, groups=1, prompt=64, new=16, rounds=rounds)
        result["batch"].append(report)
        decode = report["decode"]
        print(f"| {batch} | {decode['tokens_per_s']:.0f} | {100 * decode['share_of_floor']:.0f} % |", flush=True)

    print(f"\nContext ({shape}, 4 sequences with prompts of their own, 16 new):\n")
    print("| context | prompt tokens/s | share | sampled tokens/s | share |\n|---:|---:|---:|---:|---:|")
    for context in powers(256, arguments.most_context, 2):
        report = bench(shape=shape, batch=4, groups=4, prompt=context - 16, new=16, rounds=rounds)
        result["context"].append(report)
        prefill, decode = report["prefill"], report["decode"]
        print(f"| {context} | {prefill['tokens_per_s']:.0f} | {100 * prefill['share_of_floor']:.0f} % "
              f"| {decode['tokens_per_s']:.0f} | {100 * decode['share_of_floor']:.0f} % |", flush=True)

    print(f"\nTurns ({shape}, 16 sequences in one group, 64 prompt tokens and 16 new in every turn):\n")
    report = bench(shape=shape, batch=16, groups=1, prompt=64, turn_prompt=64, new=16, turns=arguments.turns, rounds=rounds)
    result["turns"] = report
    print("| turn | context before | seconds |\n|---:|---:|---:|")
    for turn, seconds in enumerate(report["turn_seconds"]):
        if turn < 2 or (turn + 1) & turn == 0:
            print(f"| {turn + 1} | {turn * 80} | {seconds:.4f} |")
    pathlib.Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
