"""The program that the benchmarks measure: the release build, or what GIFT_HOST names."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GIFT_HOST", str(ROOT / "target" / "release" / "gift-host"))


def call(arguments, threads=None):
    """What a command writes to standard output; one that fails ends the benchmark with what it says."""
    environment = dict(os.environ) if threads is None else dict(os.environ, RAYON_NUM_THREADS=str(threads))
    done = subprocess.run([BINARY, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"gift-host {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout
