#!/usr/bin/env python3
"""Self-play with and without a league: trains the tiny model on tic-tac-toe from scratch, with the same seed and the same
number of episodes, measures every few iterations against `search`, which plays perfectly, and writes both curves to one JSON
file; prints a table.

    cargo build --release
    python3 scripts/bench/league.py --out results.json [--steps 250] [--every 25] [--folder runs/league] [--seeds 1] [--first-seed 0] [--jobs 2]

Every evaluation plays the same episodes, which no run trains on. Half of them begin with a random move of each side, after which
some are decided: `search` in the model's place tells how many. Set GIFT_HOST to measure another binary. Every training is
one thread; results do not depend on it. Needs only Python's own library.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import tempfile

from host import call

EVALUATION_SEED = 1_000_000  # no training run uses it
GAME = "games/tictactoe.lua"
OPPONENTS = {"self": "self", "league": "league"}
SETTINGS = [
    "optimizer.schedule=cosine", "loss.entropy_coefficient=0.003", "threads=1", "evaluation.episodes=0", "episodes_every=0",
    "league.snapshot_every=25", "league.max_snapshots=4", "league.power=4", "league.self_share=0.3",
]


def evaluate(player, opponent, episodes):
    arguments = ["eval", "--games", GAME, *player, "--opponent", opponent, "--episodes", str(episodes)]
    (rate,) = json.loads(call([*arguments, "--seed", str(EVALUATION_SEED), "--json"], threads=1))["games"]
    names = ["success", "interval", "draw", "draw_interval", "loss", "loss_interval", "score", "illegal"]
    return {name: rate[name] for name in names}


def train(name, seed, options):
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.folder or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        out = folder / f"{name}-{seed}"
        arguments = ["train", "--games", GAME, "--opponent", OPPONENTS[name], "--steps", str(options.steps)]
        arguments += ["--seed", str(seed), "--out", str(out)]
        for pair in [*SETTINGS, f"checkpoint_every={options.every}", *options.set]:
            arguments += ["--set", pair]
        # A run that was stopped goes on as if it had not been.
        call(["train", "--resume", str(out)] if out.exists() else arguments, threads=1)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        seconds = sum(line["time/rollout_s"] + line["time/update_s"] for line in lines)
        curve = [{"step": 0, **evaluate(["--model", "tiny"], "search", options.episodes)}]
        for checkpoint in sorted((out / "checkpoints").glob("step-*")):
            rates = evaluate(["--model", str(checkpoint)], "search", options.episodes)
            curve.append({"step": int(checkpoint.name.removeprefix("step-")), **rates})
        document = {
            "opponent": OPPONENTS[name],
            "seed": seed,
            "command": "gift-host " + " ".join(arguments).replace(str(out), "RUN"),
            "seconds": round(seconds),
            "against_search": curve,
            "against_random": evaluate(["--model", str(out)], "random", options.episodes),
        }
        league = out / "league.json"
        if league.exists():
            document["league"] = json.loads(league.read_text())["league"]
        return document


def percent(share):
    return f"{100 * share:.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--every", type=int, default=25, help="iterations between two evaluations")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=500, help="episodes of each evaluation")
    parser.add_argument("--folder", help="where the runs are kept; runs that are there go on, or are only measured")
    parser.add_argument("--only", nargs="*", default=list(OPPONENTS), choices=list(OPPONENTS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="handed to gift-host train")
    options = parser.parse_args()
    players = {player: evaluate(["--player", player], "search", options.episodes) for player in ("random", "bot", "search")}
    work = [(name, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)
            for name in options.only]
    runs = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(train, name, seed, options) for name, seed in work]:
            runs.append(future.result())
            document = {"machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
                        "episodes": options.episodes, "players_against_search": players, "runs": runs}
            pathlib.Path(options.out).write_text(json.dumps(document, indent=1) + "\n")
    for player, rate in players.items():
        print(f"{player:8} wins {percent(rate['success'])}, draws {percent(rate['draw'])}, loses {percent(rate['loss'])}")
    print(f"\n{'opponent':9} {'seed':>4} {'iteration':>9} {'win':>7} {'draw':>7} {'loss':>7}  95 % interval of the losses")
    for run in runs:
        for point in run["against_search"]:
            low, high = point["loss_interval"]
            print(f"{run['opponent']:9} {run['seed']:>4} {point['step']:>9} {percent(point['success']):>7} "
                  f"{percent(point['draw']):>7} {percent(point['loss']):>7}  {percent(low)} to {percent(high)}")
    for run in runs:
        losses = [point["loss"] for point in run["against_search"]]
        print(f"{run['opponent']}, seed {run['seed']}: loses {percent(losses[-1])} at the end, {percent(min(losses))} at its "
              f"best; {run['seconds']} s of training")


if __name__ == "__main__":
    main()
