#!/usr/bin/env python3
"""The Python side of peers.sh: what is measured, the peers, and the table.

Every case is measured in rounds; in each, all sides take a turn in a process of their own, which measures once to warm up
and once more. Ratios are of the best rounds, because other programs on the machine only ever slow a side down. They are given
by the clock and by processor time: on a machine that others use, take one thread and believe the latter, as the peers' threads
wait for each other at every product. Log-probabilities (and for updates the norm of the gradient) must agree, or the run fails.

- transformers: `generate` with its cache for one turn; for several turns the same forward passes by hand, so that nothing is
  computed twice. Prompts of a group are prefilled for each member, as `generate` does.
- llama.cpp: its server inside the process (xllamacpp), one slot a sequence, in f32. It takes a group's prompt once where the
  server offers that (`n`), else for each member.
- update: the GRPO loss of the first update on a batch (ratio 1), one backward pass, clipping by norm, fused AdamW.
- trl: a whole step of its GRPOTrainer (sampling, rewards, update) against a rollout and an update on what it sampled.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

import peer_sides

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GIFT_HOST", str(ROOT / "target" / "release" / "gift-host"))
THREADS = peer_sides.THREADS

# What is measured: arguments of `gift-host bench`, the peers, and the ratio that is wanted of each.
CASES = {
    "tiny-episodes": ("rollout", dict(shape="tiny", batch=128, groups=8, prompt=40, new=3, turns=4, turn_prompt=24),
                      {"transformers": 3.0}),
    "smollm2-group": ("rollout", dict(shape="smollm2", batch=16, groups=1, prompt=200, new=64),
                      {"transformers": 3.0, "llama.cpp": 1.0}),
    "smollm2-distinct": ("rollout", dict(shape="smollm2", batch=16, groups=16, prompt=200, new=64),
                         {"transformers": 1.5, "llama.cpp": 1.0}),
    "smollm2-single": ("rollout", dict(shape="smollm2", batch=1, groups=1, prompt=200, new=64),
                       {"transformers": 2.0, "llama.cpp": None}),
    "tiny-update": ("update", dict(shape="tiny", batch=64, groups=64, prompt=100, new=60), {"torch": 1.2}),
    "smollm2-update": ("update", dict(shape="smollm2", batch=16, groups=16, prompt=1, new=255), {"torch": 1.2}),
    "smollm2-update-group": ("update", dict(shape="smollm2", batch=16, groups=1, prompt=192, new=64), {"torch": None}),
    "tiny-step": ("step", dict(shape="tiny", batch=128, groups=8, prompt=100, new=12), {"trl": None}),
    "smollm2-step": ("step", dict(shape="smollm2", batch=16, groups=1, prompt=200, new=64), {"trl": None}),
}
# What a report of `gift-host bench` has of each kind.
PARTS = {"rollout": ["rollout"], "update": ["update"], "step": ["rollout", "update"]}


def load_average():
    return os.getloadavg()[0]


def processor_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


# --- this program -----------------------------------------------------------------------------------------------------


def measure_host(kind, case, folder, is_first):
    arguments = [BINARY, "bench", "update" if kind == "update" else "rollout", "--json", "--rounds", "1"]
    arguments += ["--threads", str(THREADS), "--device", "cpu", *(["--update"] if kind == "step" else [])]
    for name, value in case.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    if is_first:
        if case.get("turns", 1) > 1:
            # Only one turn is saved: its weights and tokens are those of the case.
            saved = [argument for argument in arguments]
            saved[saved.index("--turns") + 1] = "1"
            subprocess.run([*saved, "--save", folder], check=True, capture_output=True, cwd=ROOT)
        else:
            arguments += ["--save", folder]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    report = json.loads(done.stdout)
    lines = [report[part] for part in PARTS[kind]]
    result = {
        "seconds": sum(line["seconds"] for line in lines),
        "processor_s": sum(line["processor_seconds"][0] for line in lines),
        "peak_memory_bytes": report["peak_memory_bytes"],
        "floor_s": sum(line["floor_s"] for line in lines),
    }
    result["share_of_floor"] = result["floor_s"] / result["seconds"]
    if kind == "rollout":
        result["prefill_s"] = report["prefill"]["seconds"]
        result["decode_s"] = report["decode"]["seconds"]
    else:
        result["loss"], result["grad_norm"] = report["loss"], report["grad_norm"]
    return result


# --- in turn ----------------------------------------------------------------------------------------------------------


def in_process(task, folder, case):
    """Runs a task in a process of its own, so that memory and threads are its own."""
    call = [sys.executable, __file__, "--task", task, "--folder", folder, "--sizes", json.dumps(case)]
    done = subprocess.run(call, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{task} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def measure(name, rounds, folder):
    kind, case, wanted = CASES[name]
    results = {side: [] for side in ["gift-host", *wanted]}
    before = load_average()
    for index in range(rounds):
        print(f"{name}, round {index + 1} of {rounds}, load {load_average():.1f}", file=sys.stderr)
        results["gift-host"].append(measure_host(kind, case, folder, index == 0))
        for side in wanted:
            results[side].append(in_process(side, folder, case))
    for side in wanted:
        first = results[side][0]
        if side == "llama.cpp":
            first.update(in_process("check-llama", folder, {**case, **first}))
        # f32 over 30 layers with another order of sums: 1e-3 nats is far above what is seen, far below any mistake. llama.cpp
        # was seen to differ by 6e-3 although weights, keys and values are f32 there.
        if first["log_prob_difference"] > (0.02 if side == "llama.cpp" else 1e-3):
            sys.exit(f"{name}: log-probabilities of {side} differ by {first['log_prob_difference']}")
    if kind == "update":
        ours, theirs = results["gift-host"][0]["grad_norm"], results["torch"][0]["grad_norm"]
        if abs(ours / theirs - 1) > 1e-3:
            sys.exit(f"{name}: the norm of the gradient is {ours} here and {theirs} in torch")
    tokens = case["batch"] * (case["prompt"] + case["new"] if kind == "update" else case["new"] * case.get("turns", 1))
    report = {"kind": kind, "sizes": case, "threads": THREADS, "tokens": tokens, "sides": {},
              "load_average": [before, load_average()]}
    best = {side: min(entry["seconds"] for entry in entries) for side, entries in results.items()}
    processor = {side: min(entry["processor_s"] for entry in entries) for side, entries in results.items()}
    for side, entries in results.items():
        entry = min(entries, key=lambda entry: entry["seconds"])
        entry = {key: value for key, value in entry.items() if key not in ("sequence", "log_probs")}
        entry.update(tokens_per_s=tokens / best[side], rounds=[entry["seconds"] for entry in entries])
        entry["log_prob_difference"] = entries[0].get("log_prob_difference")
        if side != "gift-host":
            entry.update(ratio=best[side] / best["gift-host"], wanted=wanted[side],
                         processor_ratio=processor[side] / processor["gift-host"])
            entry["memory_ratio"] = results["gift-host"][0]["peak_memory_bytes"] / entry["peak_memory_bytes"]
        report["sides"][side] = entry
    return report


def print_table(report):
    print(f"{'case':<22} {'side':<13} {'tokens/s':>9} {'seconds':>8} {'cpu s':>8} {'ratio':>6} {'by cpu':>6} {'aim':>7} {'GiB':>6} {'share':>6}  rounds")
    for name, case in report["cases"].items():
        for side, entry in case["sides"].items():
            ratio = f"{entry['ratio']:.2f}" if "ratio" in entry else ""
            by_cpu = f"{entry['processor_ratio']:.2f}" if "ratio" in entry else ""
            wanted = f"{entry['wanted']:.1f}" if entry.get("wanted") else ""
            floor = f"{100 * entry['share_of_floor']:.0f} %" if "share_of_floor" in entry else ""
            rounds = " ".join(f"{seconds:.2f}" for seconds in entry["rounds"])
            print(f"{name:<22} {side:<13} {entry['tokens_per_s']:>9.1f} {entry['seconds']:>8.2f} {entry['processor_s']:>8.2f}"
                  f" {ratio:>6} {by_cpu:>6} {wanted:>7}"
                  f" {entry['peak_memory_bytes'] / 2**30:>6.2f} {floor:>6}  {rounds}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--out", help="scripts/bench/results/peers-cpu.json if left out, or target/peers-cpu.json with --case")
    for hidden in ["--task", "--folder", "--sizes"]:
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    if arguments.task:
        result = peer_sides.TASKS[arguments.task](arguments.folder, json.loads(arguments.sizes))
        print("RESULT " + json.dumps(result), flush=True)
        # llama.cpp's threads need not be waited for.
        os._exit(0)
    if not os.path.exists(BINARY):
        sys.exit(f"there is no {BINARY}: `cargo build --release` makes it, and GIFT_HOST names another one")
    out = arguments.out or str(ROOT / ("target" if arguments.case else "scripts/bench/results") / "peers-cpu.json")
    globals()["THREADS"] = arguments.threads
    os.environ["PEER_THREADS"] = str(arguments.threads)
    report = {"processor": processor_name(), "threads": THREADS, "rounds": arguments.rounds, "cases": {}}
    for name in arguments.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            report["cases"][name] = measure(name, arguments.rounds, folder)
    pathlib.Path(out).write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)
    print("ratio: the peer's seconds over ours, by cpu: of processor time; share: of the floor, which gift-host bench explains")
    print(f"load average at the end: {load_average():.1f}; written to {out}")


if __name__ == "__main__":
    main()
