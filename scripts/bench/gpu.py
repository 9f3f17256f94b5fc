#!/usr/bin/env python3
"""The steps of gpu.sh, which says what it is for. Only Python's own library is needed here; the peers (gpu_peers.py) need torch.

Each step has a limit, and all of them together the time of --seconds; what does not fit any more is told as missing. Floors are
measured on the card by `gift-host bench`: bytes at the rate of a copy, operations at the rate of a product of large matrices.
"""

import argparse
import importlib.util
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Tokens a second of a single sequence, prompt of 1 token and 2,048 new ones, bf16, vLLM 0.6.3 on one NVIDIA A100 80GB: published by
# Qwen's authors (docs/source/benchmark/speed_benchmark.rst of github.com/QwenLM/Qwen2.5, commit 010c37c), not measured here.
PUBLISHED_VLLM = {"qwen2.5-0.5b": 311.55, "qwen2.5-1.5b": 183.33}
# What is asked for: ratio to the peer, share of the floor.
WANTED = {"rollout": "3 x, decode 60 %", "update": "1 x, 40 % of the matrix rate"}
# Bytes of a parameter: weights in 32 and 16 bits; to train also a gradient and two moments.
SAMPLING_BYTES, TRAINING_BYTES = 6, 18
PARAMETERS = {"qwen2.5-0.5b": 0.494e9, "qwen2.5-1.5b": 1.544e9, "qwen2.5-7b": 7.616e9}


class Sizes:
    """What is measured, and on which device."""

    def __init__(self, is_dry, is_emulated):
        self.is_dry = is_dry
        self.device, self.dtype = ("cpu", "f32") if is_dry and not is_emulated else ("cuda", "bf16")
        self.episodes = dict(batch=16, groups=2, prompt=40, new=8, turns=3, turn_prompt=10) if is_dry else dict(
            batch=128, groups=8, prompt=400, new=200, turns=3, turn_prompt=50)
        self.agreement = dict(batch=4, groups=2, prompt=12, new=6) if is_dry else dict(batch=8, groups=2, prompt=64, new=32)
        self.single = dict(batch=1, groups=1, prompt=1, new=16 if is_dry else 256)
        self.batches = [1, 8] if is_dry else [1, 8, 64, 512]
        self.contexts = [64, 256] if is_dry else [256, 2048, 16384]
        self.turns = dict(batch=4 if is_dry else 16, groups=1, prompt=64, turn_prompt=64, new=4 if is_dry else 16,
                          turns=4 if is_dry else 16)

    def shape(self, name):
        return "tiny" if self.is_dry else name

    def title(self, name):
        return f"tiny, for {name}" if self.is_dry else name


class Memory:
    """The most memory that the device has had in use while a step ran."""

    def __init__(self):
        self.peak, self.stop = 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        if shutil.which("nvidia-smi"):
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()

    def watch(self):
        while not self.stop.wait(0.5):
            self.peak = max(self.peak, query("memory.used") or 0)


def query(field):
    """A number that nvidia-smi tells of the first card, MiB for memory."""
    call = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(call, capture_output=True, text=True, timeout=20).stdout.split("\n")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def environment():
    """With the CUDA libraries of this interpreter's PyTorch behind those that are named already."""
    folders = [pathlib.Path(path) / "nvidia" / "cu13" / "lib" for path in sys.path if path]
    folders = [*filter(pathlib.Path.is_dir, folders), pathlib.Path("/usr/local/cuda/lib64")]
    known = os.environ.get("LD_LIBRARY_PATH")
    library_path = os.pathsep.join([*([known] if known else []), *map(str, folders)])
    return dict(os.environ, LD_LIBRARY_PATH=library_path, CARGO_MANIFEST_DIR=str(ROOT), HF_HUB_OFFLINE="1")


class Run:
    def __init__(self, arguments, folder):
        self.sizes, self.folder = Sizes(arguments.dry, arguments.emulated), folder
        self.deadline = time.monotonic() + arguments.seconds
        # What the driver has compiled once is not compiled again by each of the processes.
        self.environment = dict(environment(), CUDA_CACHE_PATH=str(folder / "compiled"), CUDA_CACHE_MAXSIZE=str(2**31))
        self.program, self.tests = self.find(arguments)
        self.report = {"steps": {}}
        self.rows, self.failures, self.notes = [], [], []
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        self.has_peers = not missing
        if missing:
            self.notes.append(f"the peers: {sys.executable} has no {' and no '.join(missing)}; PYTHON names an interpreter that has")

    def find(self, arguments):
        """The program and its tests, unpacked where they are packed."""
        if not arguments.carried:
            tests = sorted((ROOT / "target/release/deps").glob("numerics-*"), key=lambda path: path.stat().st_mtime)
            tests = [path for path in tests if not path.suffix]
            return ROOT / "target/release/gift-host", tests[-1] if tests else None
        found = []
        for name in ("gift-host", "numerics"):
            packed, plain = (pathlib.Path(arguments.carried) / f"{name}{ending}" for ending in (".xz", ""))
            if packed.exists():
                plain = self.folder / name
                with lzma.open(packed) as source, open(plain, "wb") as target:
                    shutil.copyfileobj(source, target)
                plain.chmod(0o755)
            found.append(plain.resolve() if plain.exists() else None)
        return found

    def call(self, name, command, limit, is_needed=True, **more):
        """What a command writes to standard output; None if it fails, which counts if the step is needed."""
        left = self.deadline - time.monotonic()
        if left < 5:
            self.miss(name, "not run: the time was over", is_needed)
            return None
        print(f"{name} ({left:.0f} s left)", file=sys.stderr, flush=True)
        started = time.monotonic()
        with Memory() as memory:
            try:
                done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=self.folder,
                                      timeout=min(limit, left), env=dict(self.environment, **more))
                output, problem = done.stdout, None
                if done.returncode != 0:
                    problem = f"exit status {done.returncode}: {(done.stdout[-1500:] + done.stderr[-1500:]).strip()}"
            except subprocess.TimeoutExpired as timeout:
                output = (timeout.stdout or b"").decode(errors="replace")
                problem = f"took more than {min(limit, left):.0f} s"
            except OSError as error:
                output, problem = "", str(error)
        self.report["steps"][name] = {"seconds": time.monotonic() - started, "device_mib": memory.peak or None, "problem": problem}
        if problem:
            self.miss(name, problem, is_needed)
        return output if not problem or output.startswith("RESULT ") or "\nRESULT " in output else None

    def miss(self, name, why, is_needed):
        (self.failures if is_needed else self.notes).append(f"{name}: {why}")

    def bench(self, name, kind, shape, limit, is_needed=True, dtype=None, flags=(), **sizes):
        """The report of `gift-host bench`."""
        command = [self.program, "bench", kind, "--json", "--rounds", "1", "--device", self.sizes.device]
        command += ["--dtype", dtype or self.sizes.dtype, "--shape", self.sizes.shape(shape), *flags]
        for size, value in sizes.items():
            command += [f"--{size.replace('_', '-')}", value]
        output = self.call(name, command, limit, is_needed)
        report = json.loads(output) if output else None
        self.report["steps"].setdefault(name, {})["report"] = report
        return report

    def peers(self, name, tasks, limit, is_needed=True, **request):
        """Results by task of gpu_peers.py; none without PyTorch, which is told once."""
        if not self.has_peers:
            return {}
        request.update(device="cpu" if self.sizes.is_dry else self.sizes.device, dtype=self.sizes.dtype)
        command = [sys.executable, ROOT / "scripts/bench/gpu_peers.py", json.dumps(request), *tasks]
        output = self.call(name, command, limit, is_needed) or ""
        results = {}
        for line in output.splitlines():
            if line.startswith("RESULT "):
                results.update(json.loads(line.removeprefix("RESULT ")))
        for task, result in results.items():
            if "problem" in result:
                self.miss(f"{name}, {task}", result["problem"], is_needed)
        self.report["steps"].setdefault(name, {})["report"] = results
        return {task: result for task, result in results.items() if "problem" not in result}

    def row(self, figure, measured, floor="", share="", peer="", ratio="", wanted=""):
        # The tiny shape on a CPU has no aims.
        self.rows.append((figure, measured, floor, share, peer, ratio, "" if self.sizes.is_dry else wanted))

    def check_device(self):
        """Ends at once where the program finds no device."""
        if self.sizes.device != "cuda":
            return
        sizes = ["--batch", "1", "--groups", "1", "--prompt", "1", "--new", "2", "--rounds", "1", "--device", "cuda"]
        done = subprocess.run([self.program, "bench", "rollout", *sizes], capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            sys.exit(f"nothing can be measured on a device here:\n{done.stderr.strip()}")

    # --- steps --------------------------------------------------------------------------------------------------------

    def correctness(self):
        if self.tests is None:
            self.miss("tests", "there is no test program; `cargo test --release --test numerics --no-run` builds it, and `--pack` both",
                      not self.sizes.is_dry)
            return
        more = {"GIFT_TEST_DEVICE": "cuda"} if self.sizes.device == "cuda" else {}
        # All of them take minutes on a CPU, where they run in `cargo test` anyway, and the emulator asks for the kernels' source.
        some = ["fused::product", "fused::half", "decoder::the_two"] if self.sizes.is_dry else []
        output = self.call("tests", [self.tests, *some], 150, **more) or ""
        counts = re.search(r"test result: ok\. (\d+) passed; 0 failed", output)
        passed = int(counts.group(1)) if counts else 0
        where = "on the device and the CPU" if self.sizes.device == "cuda" else "on the CPU alone"
        self.row("tests of kernels and decoders", f"{passed} passed {where}" if passed else "**failed**", wanted="all")
        if passed == 0 and not any(failure.startswith("tests") for failure in self.failures):
            self.failures.append("tests: none ran")

    def agreement(self):
        folder = self.folder / "model"
        ours = self.bench("one update in 32 bits", "update", "qwen2.5-0.5b", 90, dtype="f32", flags=["--save", folder],
                          **self.sizes.agreement)
        theirs = self.peers("the same by PyTorch", ["agree"], 90, folder=str(folder)).get("agree") if ours else None
        shutil.rmtree(folder, ignore_errors=True)
        if not ours or not theirs:
            self.row("log-probabilities, gradient norm against PyTorch, f32", "missing", peer="PyTorch", wanted="1e-3")
            return
        difference, ratio = theirs["log_prob_difference"], ours["grad_norm"] / theirs["grad_norm"]
        self.row("log-probabilities, gradient norm against PyTorch, f32", f"{difference:.1e} nats, {ratio - 1:+.1e}",
                 peer="PyTorch", wanted="1e-3")
        if not (difference < 1e-3 and abs(ratio - 1) < 1e-3):
            self.failures.append(f"agreement: log-probabilities differ by {difference}, gradient norms by {ratio - 1}")

    def episodes(self, shape, limit, is_needed=True):
        """Case 3: rollout and, where it fits, the update on what was sampled; then the peers."""
        name, sizes = self.sizes.title(shape), self.sizes.episodes
        total = query("memory.total")
        fits = self.sizes.is_dry or total is None or PARAMETERS[shape] * TRAINING_BYTES / 2**20 + 8000 < total
        if not fits and PARAMETERS[shape] * SAMPLING_BYTES / 2**20 + 8000 > total:
            self.notes.append(f"{shape}: the card has no room for it")
            return
        if not fits:
            self.notes.append(f"{shape}: an update takes {PARAMETERS[shape] * TRAINING_BYTES / 1e9:.0f} GB beside its activations, "
                              "which this card has no room for")
        ours = self.bench(f"{shape}, rollout and update", "rollout", shape, limit, is_needed,
                          flags=["--update"] if fits else [], **sizes)
        if not ours:
            return
        tasks = ["generate", *(["update"] if fits else [])]
        theirs = self.peers(f"{shape}, transformers and PyTorch", tasks, limit, is_needed, config=ours["config"], **sizes)
        if "card" not in self.report:
            self.report["card"] = {key: ours[key] for key in ("copy_bytes_per_s", "flops")}
            self.row("the machine: copies, products of matrices",
                     f"{ours['copy_bytes_per_s'] / 1e9:.0f} GB/s, {ours['flops'] / 1e12:.1f} TFLOP/s")
        episodes = f"{name}, {sizes['batch']} episodes of {sizes['turns']} turns"
        for part in ("prefill", "decode", "rollout", "update"):
            line = ours.get(part)
            if not line:
                continue
            task = {"rollout": "generate", "update": "update"}.get(part)
            peer = theirs.get(task)
            share = f"{100 * line['share_of_floor']:.0f} %"
            if part == "update":
                share += f"; {100 * ours['share_of_matrix_rate']:.0f} % of the matrix rate"
            known = {"rollout": "transformers `generate`", "update": "PyTorch eager"}.get(part, "")
            if peer and "how" in peer:
                known += f", {peer['how']}"
            self.row(f"{episodes}: {part}", seconds(line), f"{line['floor_s']:.2f} s", share,
                     f"{known} {peer['seconds']:.2f} s" if peer else known and f"{known}: missing",
                     f"{peer['seconds'] / line['seconds']:.2f}" if peer else "", WANTED.get(part, ""))
        if "kl_rollout_train" in ours:
            divergence = ours["kl_rollout_train"]
            self.row(f"{episodes}: sampling against training", f"{divergence:.1e} nats, ratios to {ours['ratio_deviation']:.1e} of 1",
                     wanted="1e-3 nats")
            if not divergence < 1e-3:
                self.failures.append(f"{shape}: sampling and training differ by {divergence} nats")

    def single(self, shape):
        ours = self.bench(f"{shape}, one sequence", "rollout", shape, 60, **self.sizes.single)
        if not ours:
            return
        line, published = ours["decode"], PUBLISHED_VLLM[shape]
        self.row(f"{self.sizes.title(shape)}, one sequence: decode", seconds(line), f"{line['floor_s']:.2f} s",
                 f"{100 * line['share_of_floor']:.0f} %", f"vLLM 0.6.3 on an A100, {shape}, published: {published:.0f} tokens/s",
                 "" if self.sizes.is_dry else f"{line['tokens_per_s'] / published:.2f}")

    def growth(self):
        shape = "qwen2.5-0.5b"

        def line(title, report, parts):
            if report:
                rates = " and ".join(f"{report[part]['tokens_per_s']:.0f}" for part in parts)
                shares = " and ".join(f"{100 * report[part]['share_of_floor']:.0f} %" for part in parts)
                self.row(f"{self.sizes.title(shape)}, {title}", f"{rates} tokens/s", share=shares)

        for batch in self.sizes.batches:
            report = self.bench(f"growth, {batch} sequences", "rollout", shape, 60, batch=batch, groups=1, prompt=64, new=16)
            line(f"{batch} sequences: decode", report, ["decode"])
        for context in self.sizes.contexts:
            report = self.bench(f"growth, context {context}", "rollout", shape, 60, batch=4, groups=4, prompt=context - 16, new=16)
            line(f"context of {context}: prefill and decode", report, ["prefill", "decode"])
        report = self.bench("growth, turns", "rollout", shape, 60, **self.sizes.turns)
        if report:
            first, last = report["turn_seconds"][1], report["turn_seconds"][-1]
            self.row(f"{self.sizes.title(shape)}, turn {len(report['turn_seconds'])} against turn 2", f"{last / first:.2f} x the seconds",
                     wanted="near 1: only attention grows")

    def compiled(self):
        """Optional: it takes long to compile, and does not work with every release."""
        config = (self.report["steps"].get("qwen2.5-1.5b, rollout and update", {}).get("report") or {}).get("config")
        if not config:
            return
        sizes = dict(self.sizes.episodes, turns=1)
        name = "qwen2.5-1.5b, `generate` with a static cache, compiled"
        theirs = self.peers(name, ["static"], 120, is_needed=False, config=config, **sizes).get("static")
        ours = self.bench("qwen2.5-1.5b, one turn", "rollout", "qwen2.5-1.5b", 60, is_needed=False, **sizes) if theirs else None
        if ours:
            line = ours["rollout"]
            self.row(f"{self.sizes.title('qwen2.5-1.5b')}, one turn: rollout", seconds(line), f"{line['floor_s']:.2f} s",
                     f"{100 * line['share_of_floor']:.0f} %", f"`generate`, static and compiled {theirs['seconds']:.2f} s",
                     f"{theirs['seconds'] / line['seconds']:.2f}")

    def everything(self):
        self.correctness()
        self.agreement()
        self.episodes("qwen2.5-1.5b", 120)
        self.episodes("qwen2.5-0.5b", 90)
        self.single("qwen2.5-1.5b")
        self.single("qwen2.5-0.5b")
        self.growth()
        self.episodes("qwen2.5-7b", 90, is_needed=False)
        self.compiled()


def seconds(line):
    return f"{line['seconds']:.2f} s, {line['tokens_per_s']:.0f} tokens/s"


def pack(folder):
    """Builds the program and its tests with CUDA, and packs both."""
    folder = pathlib.Path(folder)
    common = ["--release", "--locked", "--features", os.environ.get("GIFT_FEATURES", "cuda"), "--message-format", "json-render-diagnostics"]
    for command, name in ((["build", "--bin", "gift-host"], "gift-host"), (["test", "--no-run", "--test", "numerics"], "numerics")):
        done = subprocess.run(["cargo", *command, *common], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit("the build with CUDA failed; without a toolkit: scripts/cuda-toolkit.sh target/cuda scripts/bench/gpu.sh --pack FOLDER")
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        programs = [message["executable"] for message in messages
                    if message.get("executable") and message["target"]["name"] == name]
        folder.mkdir(parents=True, exist_ok=True)
        stripped = folder / name
        subprocess.run(["strip", "-o", stripped, programs[-1]], check=True)
        with open(stripped, "rb") as source, lzma.open(f"{stripped}.xz", "wb", preset=6) as target:
            shutil.copyfileobj(source, target)
        stripped.unlink()
        print(f"{stripped}.xz: {os.path.getsize(f'{stripped}.xz') / 2**20:.1f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", metavar="FOLDER", help="build with CUDA and pack both programs; measure nothing")
    parser.add_argument("--carried", metavar="FOLDER", help="where `--pack` has put them; target/release if left out")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--emulated", action="store_true", help="with --dry: sizes as there, on the device of scripts/cuda-emulator.sh")
    parser.add_argument("--seconds", type=float, default=465, help="time for all steps together")
    parser.add_argument("--out", metavar="FILE", help="write all reports as JSON")
    arguments = parser.parse_args()
    if arguments.pack:
        return pack(arguments.pack)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(arguments, pathlib.Path(folder))
        if run.program is None or not run.program.exists():
            sys.exit("there is no `gift-host`: build it, or name the folder of `--pack` with `--carried`")
        run.check_device()
        run.everything()
    card = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
                          capture_output=True, text=True).stdout.strip() if shutil.which("nvidia-smi") else "no graphics processor"
    run.report.update(machine=card, seconds=time.monotonic() - started, failures=run.failures, notes=run.notes, table=run.rows)
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps(run.report, indent=2) + "\n")
    print(f"{card}; {run.report['seconds']:.0f} s; {run.sizes.dtype}{', a dry run' if run.sizes.is_dry else ''}\n")
    print("| figure | measured | floor | share of the floor | peer | ratio | aim |\n|---|---|---|---|---|---|---|")
    for row in run.rows:
        print(f"| {' | '.join(row)} |")
    for title, lines in (("Missing, not asked for", run.notes), ("FAILED", run.failures)):
        for line in lines:
            print(f"\n{title}: {line}")
    sys.exit(1 if run.failures else 0)


if __name__ == "__main__":
    main()
