"""Measures the kinds of opponents: how well each plays, how fast, and what it costs a training iteration.

    cargo build --release
    python3 scripts/bench/opponents.py [--binary target/release/gift-host] [--game games/tictactoe.lua] [SPEC ...]

The first table puts each SPEC into a seat drawn for each episode, against random play: `gift-host eval --player SPEC
--opponent random`. Episodes a second are of the whole command, with its start, on all cores. The second table trains the
tiny model against random play and each SPEC for some iterations and divides the time that the model waits for scripts and
opponents (`time/env_s`) by that of rollout and update; the last column is what is left without the time against random play,
which is that of the scripts.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

SPECS = ["random", "bot", "search:epsilon=0.5", "search:depth=2", "search", "random*0.5+search*0.5"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("specs", nargs="*", default=SPECS, metavar="SPEC")
    arguments.add_argument("--binary", default="target/release/gift-host")
    arguments.add_argument("--game", default="games/tictactoe.lua")
    arguments.add_argument("--episodes", type=int, default=1000)
    arguments.add_argument("--iterations", type=int, default=20, help="of training; 0 leaves the second table out")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="handed to gift-host")
    arguments = arguments.parse_args()
    settings = [word for pair in arguments.set for word in ("--set", pair)]

    print(f"{'player':<24} {'success':>8} {'95 % interval':>16} {'score':>6} {'illegal':>8} {'episodes/s':>11}", flush=True)
    for spec in arguments.specs:
        command = [arguments.binary, "eval", "--games", arguments.game, "--player", spec, "--opponent", "random"]
        command += ["--episodes", str(arguments.episodes), "--json", *settings]
        started = time.monotonic()
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = time.monotonic() - started
        (rate,) = json.loads(output)["games"]
        low, high = (f"{100 * bound:.1f}" for bound in rate["interval"])
        print(
            f"{spec:<24} {100 * rate['success']:>6.1f} % {low + ' - ' + high + ' %':>16} {rate['score']:>6.3f} "
            f"{100 * rate['illegal']:>6.1f} % {rate['episodes'] / seconds:>11.0f}",
            flush=True,
        )

    if arguments.iterations == 0:
        return
    print(f"\n{'opponent':<24} {'iteration':>10} {'scripts and opponents':>22} {'share':>7} {'opponent':>9}", flush=True)
    scripts = None
    for spec in ["random", *(spec for spec in arguments.specs if spec != "random")]:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            command = [arguments.binary, "train", "--games", arguments.game, "--opponent", spec, "--out", str(run)]
            command += ["--steps", str(arguments.iterations), "--set", "evaluation.episodes=0", *settings]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        whole = sum(line["time/rollout_s"] + line["time/update_s"] for line in lines) / len(lines)
        env = sum(line["time/env_s"] for line in lines) / len(lines)
        scripts = env if scripts is None else scripts
        own = max(0, env - scripts)
        print(
            f"{spec:<24} {whole:>8.2f} s {env:>20.3f} s {100 * env / whole:>5.1f} % {100 * own / whole:>7.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
