"""Reads a run's event files with TensorBoard itself and compares every figure with metrics.jsonl.

    python3 -m venv venv && venv/bin/pip install tensorboard 'setuptools<81'
    venv/bin/python scripts/interop/check_tensorboard.py RUN_DIR

Lists what TensorBoard found. Exit status 1, with the first differences, unless both hold the same: scalars to float32, texts
where they change, nothing where metrics.jsonl says null, and after a resumed run no step twice; unless every iteration has its
histograms, whose means and numbers agree with the figures, and every stored iteration its samples; unless the settings are there
as hyperparameters; and unless every metric that a run always has is there.
"""

import json
import sys
from pathlib import Path

import numpy
# The reader behind TensorBoard's pages. The older `event_accumulator` does not purge texts when a run resumes.
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util.tensor_util import make_ndarray

# What every run reports at least once, by run and by game.
METRICS = (
    "reward/mean success/all entropy loss grad_norm clip_fraction kl/rollout_train ratio_max groups/kept groups/zero_std "
    "truncated length/response tokens/rollout_per_s tokens/update_per_s time/rollout_s time/env_s time/scripts_s time/update_s"
).split()
GAME_METRICS = "reward success format_error illegal voided turns".split()


def games_of(tags):
    return sorted({tag.split("/")[1] for tag in tags if tag.startswith("success/")} - {"all"})


def main(run_dir: Path) -> int:
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    expected_scalars, expected_texts, last_text = {}, {}, {}
    for line in lines:
        record = json.loads(line)
        step = record.pop("step")
        for tag, value in record.items():
            if isinstance(value, str):
                if last_text.get(tag) != value:
                    expected_texts.setdefault(tag, {})[step] = value
                last_text[tag] = value
            elif value is not None:
                expected_scalars.setdefault(tag, {})[step] = float(numpy.float32(value))

    events = EventAccumulator(str(run_dir), size_guidance={"tensors": 0})
    events.Reload()
    found = {"scalars": {}, "text": {}, "histograms": {}, "hparams": {}}
    for tag in events.Tags()["tensors"]:
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        found[plugin][tag] = [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
    samples = {tag: found["text"].pop(tag) for tag in list(found["text"]) if tag.startswith("sample/")}
    problems = []
    games = games_of(expected_scalars)
    wanted = METRICS + [f"{name}/{game}" for game in games for name in GAME_METRICS]
    problems += [f"no metric {tag}" for tag in wanted if tag not in found["scalars"]]
    problems += [f"no version of scripts/{game}" for game in games if f"scripts/{game}" not in found["text"]]

    def compare(kind, tag, found, expected, may_repeat):
        steps = [step for step, _ in found]
        if len(set(steps)) != len(steps):
            problems.append(f"{kind} {tag}: a step appears twice in {steps}")
        for step, value in found:
            # A resumed run writes its texts once more, changed or not.
            if step not in expected and not may_repeat:
                problems.append(f"{kind} {tag}, step {step}: only TensorBoard has {value!r}")
            elif step in expected and value != expected[step]:
                problems.append(f"{kind} {tag}, step {step}: TensorBoard {value!r}, metrics.jsonl {expected[step]!r}")
        for step in expected.keys() - set(steps):
            problems.append(f"{kind} {tag}, step {step}: TensorBoard lacks {expected[step]!r}")

    for tag in sorted(expected_scalars.keys() | found["scalars"].keys()):
        points = [(step, value.item()) for step, value in found["scalars"].get(tag, [])]
        compare("scalar", tag, points, expected_scalars.get(tag, {}), may_repeat=False)
    for tag in sorted(expected_texts.keys() | found["text"].keys()):
        points = [(step, value[0].decode()) for step, value in found["text"].get(tag, [])]
        compare("text", tag, points, expected_texts.get(tag, {}), may_repeat=True)

    for tag in ["reward", "length", *(f"{kind}/{game}" for kind in ("reward", "length") for game in games)]:
        points = found["histograms"].get(f"histogram/{tag}", [])
        rows = dict(points)
        if len(rows) != len(points):
            problems.append(f"histogram {tag}: a step appears twice in {[step for step, _ in points]}")
        means = expected_scalars["reward/mean" if tag == "reward" else tag] if tag.startswith("reward") else {}
        for step in expected_scalars["reward/mean"]:
            if step not in rows or rows[step].shape[1:] != (3,) or rows[step][:, 2].sum() < 1:
                problems.append(f"histogram {tag}, step {step}: there is none")
            elif step in means:
                low, high = (numpy.average(rows[step][:, side], weights=rows[step][:, 2]) for side in (0, 1))
                if not low - 1e-6 <= means[step] <= high + 1e-6:
                    problems.append(f"histogram {tag}, step {step}: its mean is {low} to {high}, that of metrics.jsonl {means[step]}")
    stored = {int(path.name[5:11]) for path in (run_dir / "episodes").glob("step-*.jsonl.zst")}
    for game in games:
        if {step for step, _ in samples.get(f"sample/{game}", [])} != stored:
            problems.append(f"sample/{game}: not one for each of the stored iterations {sorted(stored)}")
    tag = hparams.SESSION_START_INFO_TAG
    settings = {}
    if tag in found["hparams"]:
        content = events.SummaryMetadata(tag).plugin_data.content
        settings = hparams.parse_session_start_info_plugin_data(content).hparams
    if not {"seed", "model", "optimizer.learning_rate", "rollout.group_size"} <= set(settings):
        problems.append(f"hyperparameters: only {sorted(settings)}")

    for kind in ("scalars", "text", "histograms"):
        print(f"{kind}: {' '.join(sorted(found[kind]))}")
    print(f"samples: {' '.join(sorted(samples))}")
    print(f"hyperparameters: {len(settings)}")
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    print(f"{len(lines)} steps, {len(found['scalars'])} scalars, {len(found['text'])} texts, "
          f"{len(found['histograms'])} histograms, {len(samples)} samples, {len(problems)} differences")
    return 1 if problems or not lines else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
