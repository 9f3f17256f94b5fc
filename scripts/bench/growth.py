#!/usr/bin/env python3
"""How the cost of a rollout grows with the number of sequences, with the length of the context and with the turns: prints three
Markdown tables and writes scripts/bench/results/growth-cpu.json.

    cargo build --release
    python3 scripts/bench/growth.py [--shape tiny] [--most-batch 512] [--most-context 16384] [--turns 16] [--out FILE]

--plot FILE.svg draws them as well, with matplotlib. `share` is the share of what the machine could do at best (the floor, measured in the same process). Set GIFT_HOST to measure
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


def draw(result, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gift-host"})
    from matplotlib import pyplot

    rate = lambda report, part: report[part]["tokens_per_s"]
    figure, (by_batch, by_context, by_turn) = pyplot.subplots(1, 3, figsize=(12, 3.2))
    by_batch.plot([report["batch"] for report in result["batch"]], [rate(report, "decode") for report in result["batch"]], ".-")
    by_batch.set(xlabel="sequences", ylabel="sampled tokens/s", xscale="log")
    contexts = [report["prompt"] + report["new"] for report in result["context"]]
    for part, label in (("prefill", "prompt"), ("decode", "sampled")):
        by_context.plot(contexts, [rate(report, part) for report in result["context"]], ".-", label=label)
    by_context.set(xlabel="context", ylabel="tokens/s", xscale="log", yscale="log")
    by_context.legend()
    by_turn.plot(range(1, len(result["turns"]["turn_seconds"]) + 1), result["turns"]["turn_seconds"], ".-")
    by_turn.set(xlabel="turn", ylabel="seconds", ylim=(0, None))
    for axis in (by_batch, by_context, by_turn):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--most-batch", type=int, default=512)
    parser.add_argument("--most-context", type=int, default=16384)
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(ROOT / "scripts/bench/results/growth-cpu.json"))
    parser.add_argument("--plot", metavar="FILE.svg")
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
    if arguments.plot:
        draw(result, arguments.plot)


if __name__ == "__main__":
    main()
