#!/usr/bin/env python3
"""Does the tiny model learn? Trains it on the shipped games with several seeds, measures it on seeds that training never
sees, and writes every figure with its curves to one JSON file; prints one table.

    cargo build --release
    python3 scripts/bench/learning.py --out results.json [--only NAME …] [--seeds 3] [--jobs 2]

Experiments:
  tictactoe   against `random`; what counts is how close it comes to `search` on the same episodes
  matrix      the nine matrix games; success is an action of an equilibrium
  f_i2_*      math at level 1 and tic-tac-toe, nested, mixed and CST, with the same number of episodes each

Set GIFT_HOST to measure another binary. Every job is one thread, so that the times of several jobs at once compare;
results do not depend on the number of threads.
Needs only Python's own library.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import sys
import tempfile
import time

from host import call

EVALUATION_SEED = 1_000_000  # no training run uses it
MATH_AND_BOARD = ["games/math.lua", "games/tictactoe.lua"]

EXPERIMENTS = {
    "tictactoe": {"games": ["games/tictactoe.lua"], "steps": 300, "groups": 32},
    "matrix": {"games": ["games/matrix.lua"], "steps": 100, "groups": 32},
    # A nested trajectory holds two episodes, a mixed one holds one: twice the groups make the same number of episodes. CST
    # plays every stage with as many groups as nested training.
    "f_i2_nested": {"games": MATH_AND_BOARD, "nest": "f_i2_nested", "steps": 150, "groups": 32},
    "f_i2_mixed": {"games": MATH_AND_BOARD, "nest": "f_i2_mixed", "steps": 150, "groups": 64},
    "f_i2_cst": {"games": MATH_AND_BOARD, "nest": "f_i2_cst", "steps": 150, "groups": 32},
}
CURVES = ["entropy", "grad_norm", "reward/mean"]
BINS = 20


def evaluate(games, episodes, player):
    out = call(["eval", "--games", *games, "--opponent", "random", "--episodes", str(episodes),
                "--seed", str(EVALUATION_SEED), "--json", *player], threads=1)
    return {game["game"]: {"success": game["success"], "interval": game["interval"], "score": game["score"]}
            for game in json.loads(out)["games"]}


def curves(path):
    """Means over BINS equal parts of the run."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = CURVES + sorted({name for line in lines for name in line if name.startswith("success/")})
    parts = [lines[len(lines) * part // BINS:len(lines) * (part + 1) // BINS] for part in range(BINS)]

    def mean(part, name):
        values = [line[name] for line in part if line.get(name) is not None]
        return round(sum(values) / len(values), 4) if values else None

    return {name: [mean(part, name) for part in parts] for name in names}


def train(name, seed, episodes):
    experiment = EXPERIMENTS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        arguments = ["train", "--games", *experiment["games"], "--opponent", "random", "--steps", str(experiment["steps"]),
                     "--seed", str(seed), "--out", str(out)]
        if "nest" in experiment:
            arguments += ["--nest", f"scripts/nests/{experiment['nest']}.lua"]
        for pair in [f"rollout.groups={experiment['groups']}", "optimizer.learning_rate=5e-4", "optimizer.schedule=cosine",
                     "threads=1", "evaluation.episodes=0", "checkpoint_every=0", "episodes_every=0"]:
            arguments += ["--set", pair]
        started = time.monotonic()
        call(arguments, threads=1)
        seconds = time.monotonic() - started
        return {
            "experiment": name,
            "seed": seed,
            "command": "gift-host " + " ".join(arguments).replace(str(out), "RUN"),
            "seconds": round(seconds),
            "before": evaluate(experiment["games"], episodes, ["--model", "tiny"]),
            "after": evaluate(experiment["games"], episodes, ["--model", str(out)]),
            "curves": curves(out / "metrics.jsonl"),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--only", nargs="*", default=list(EXPERIMENTS), choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=1000, help="episodes of each evaluation")
    arguments = parser.parse_args()
    reference = {player: evaluate(["games/tictactoe.lua"], arguments.episodes, ["--player", player])["tictactoe"]
                 for player in ("random", "bot", "search")}
    work = [(name, seed) for name in arguments.only for seed in range(arguments.seeds)]
    results = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for future in [pool.submit(train, name, seed, arguments.episodes) for name, seed in work]:
            result = future.result()
            results.append(result)
            print(f"{result['experiment']} seed {result['seed']}: {result['seconds']} s", file=sys.stderr, flush=True)
            document = {"machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
                        "episodes": arguments.episodes, "tictactoe_players": reference, "runs": results}
            pathlib.Path(arguments.out).write_text(json.dumps(document, indent=1) + "\n")
    print(f"tic-tac-toe against random, {arguments.episodes} episodes: " + ", ".join(
        f"{player} {100 * rate['success']:.1f} %" for player, rate in reference.items()))
    print(f"{'experiment':14} {'game':10} {'before':>7} {'after, by seed':>24}  seconds")
    for name in arguments.only:
        runs = [run for run in results if run["experiment"] == name]
        for game in runs[0]["after"]:
            after = "  ".join(f"{100 * run['after'][game]['success']:.1f} %" for run in runs)
            before = f"{100 * runs[0]['before'][game]['success']:.1f} %"
            print(f"{name:14} {game:10} {before:>7} {after:>24}  {', '.join(str(run['seconds']) for run in runs)}")


if __name__ == "__main__":
    main()
