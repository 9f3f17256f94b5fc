#!/usr/bin/env python3
"""What SmolLM2 learned in a run of configs/smollm2_short.toml: draws its curves, and prints the evaluations before and after
and, for each game, one episode of the beginning, of the middle and of the end.

    scripts/fetch-smollm2.sh models
    gift-host train --config configs/smollm2_short.toml --out runs/smollm2
    pip install matplotlib zstandard
    python3 scripts/bench/smollm2.py runs/smollm2

writes scripts/bench/results/smollm2.svg and smollm2.json (the metrics that are drawn, and the evaluations), or below --out.
"""

import argparse
import io
import json
import pathlib

import matplotlib
import zstandard

matplotlib.use("svg")
# Text stays text, and the same run gives the same file.
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["svg.hashsalt"] = "gift-host"
from matplotlib import pyplot

from host import ROOT

RESULTS = ROOT / "scripts/bench/results"
GAMES = ["matrix", "tictactoe"]
SMOOTH = 10  # iterations that the thick lines are means of
CURVES = {
    "answers that cannot be read": "format_error/{game}",
    "illegal answers": "illegal/{game}",
    "success": "success/{game}",
    "mean reward": "reward/{game}",
}


def episodes(folder, step):
    path = folder / "episodes" / f"step-{step:06}.jsonl.zst"
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file)
        return [json.loads(line) for line in io.TextIOWrapper(reader, encoding="utf-8")]


def transcript(episode):
    lines = []
    for turn in episode["turns"]:
        who = "model" if turn["seat"] == episode["seat"] else "bot  "
        fate = "" if turn["legal"] else ", not readable" if not turn["well_formed"] else ", illegal"
        lines.append(f"  {who} {turn['answer']!r}{fate}")
    return "\n".join(lines + [f"  reward {episode['reward']:.2f}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="the folder for both files")
    options = parser.parse_args()
    folder = options.run
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = folder / "evaluations.jsonl"
    evaluations = [json.loads(line) for line in measured.read_text().splitlines()] if measured.exists() else []

    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(13, 3))
    kept = {}
    for axis, (title, name) in zip(axes, CURVES.items()):
        for game in GAMES:
            points = [(line["step"], line[key]) for line in metrics if (key := name.format(game=game)) in line]
            if not points:
                continue  # not played yet
            kept[name.format(game=game)] = [[step, round(value, 4)] for step, value in points]
            steps, values = zip(*points)
            (line,) = axis.plot(steps, values, linewidth=0.6, alpha=0.3)
            smooth = [sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - SMOOTH):end])]
            axis.plot(steps, smooth, linewidth=1.6, color=line.get_color(), label=game)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("iteration", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(options.out / "smollm2.svg", metadata={"Date": None})
    seconds = sum(line["time/rollout_s"] + line["time/update_s"] for line in metrics)
    document = {"seconds": round(seconds), "iterations": len(metrics), "curves": kept, "evaluations": evaluations}
    (options.out / "smollm2.json").write_text(json.dumps(document, indent=1) + "\n")

    print(f"{len(metrics)} iterations, {seconds:.0f} s of rollout and update")
    for line in evaluations:
        print(json.dumps(line))
    for game in GAMES:
        steps = [line["step"] for line in metrics if f"success/{game}" in line]
        if not steps:
            continue
        for step in (steps[0], steps[len(steps) // 2], steps[-1]):
            played = [episode for episode in episodes(folder, step) if episode["game"] == game]
            # The one in the middle by reward: neither the best nor the worst.
            played.sort(key=lambda episode: (episode["reward"], episode["id"]))
            print(f"\n{game}, iteration {step}:\n{transcript(played[len(played) // 2])}")


if __name__ == "__main__":
    main()
