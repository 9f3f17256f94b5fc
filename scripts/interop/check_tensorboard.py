"""Reads a run's event files with TensorBoard itself and compares every figure with metrics.jsonl.

    python3 -m venv venv && venv/bin/pip install tensorboard 'setuptools<81'
    venv/bin/python scripts/interop/check_tensorboard.py RUN_DIR

Exit status 1, with the first differences, unless both hold the same: scalars to float32, texts where they change, nothing
where metrics.jsonl says null, and after a resumed run no step twice.
"""

import json
import sys
from pathlib import Path

import numpy
# The reader behind TensorBoard's pages. The older `event_accumulator` does not purge texts when a run resumes.
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


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
    found = {"scalars": {}, "text": {}}
    for tag in events.Tags()["tensors"]:
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        found[plugin][tag] = [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
    problems = []

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

    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    print(f"{len(lines)} steps, {len(found['scalars'])} scalars, {len(found['text'])} texts, {len(problems)} differences")
    return 1 if problems or not lines else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
