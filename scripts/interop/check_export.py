"""Exports SOURCE (a run, a checkpoint, or another model that `--model` takes) to every layout, loads each export with the
program that it is for, and compares log-probabilities of next tokens with those of `gift-host model logits`:

    python3 scripts/interop/check_export.py SOURCE [--binary target/release/gift-host]

hf with transformers, the adapter (of runs that trained one) with PEFT on its base, GGUF files of all three types with
llama.cpp (the package `xllamacpp`). What is missing is installed by pip into a virtual environment of the script's own,
`target/check_export_venv`. Prints the largest difference of each, and ends with status 1 if one is too large.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

NEEDED = ["torch", "transformers", "peft", "xllamacpp"]
VENV = Path("target/check_export_venv")
TEXTS = [
    "The capital of France is Paris. In 2024, it had 2,102,650 people.\n\n  def f(x):\n\treturn x+1 # don't",
    "Player X takes 5. Which of 1 2 3 4 6 7 8 9 is best now?",
]
TOP = 5
# Weights are the same on both sides, or rounded to 16 or 8 bits (where llama.cpp rounds activations too).
TOLERANCE = {"hf": 1e-3, "peft": 1e-3, "f32": 1e-3, "f16": 3e-2, "q8_0": 0.5}


def use_own_environment() -> None:
    """Goes on in an environment that has what is needed."""
    if all(importlib.util.find_spec(name) for name in NEEDED):
        return
    python = VENV / "bin" / "python"
    if Path(sys.prefix).resolve() == VENV.resolve():
        sys.exit(f"{VENV} lacks one of {', '.join(NEEDED)} although they were installed")
    if not python.exists():
        venv.create(VENV, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDED], check=True)
    os.execv(python, [str(python), *sys.argv])


def ours(binary: str, source: str, text: str, top: int) -> list[dict]:
    command = [binary, "model", "logits", source, "--text", text, "--top", str(top), "--device", "cpu", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    return json.loads(result.stdout)["positions"]


def export(binary: str, source: str, form: str, out: Path, *more: str) -> None:
    command = [binary, "export", source, "--format", form, "--out", str(out), *more]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")


def with_torch(model, expected: list[list[dict]]) -> float:
    import torch

    worst = 0.0
    for positions in expected:
        ids = torch.tensor([[position["id"] for position in positions]])
        with torch.no_grad():
            log_probs = torch.log_softmax(model(ids).logits[0].double(), -1)
        for row, position in zip(log_probs, positions):
            worst = max(worst, *(abs(entry["logprob"] - float(row[entry["id"]])) for entry in position["top"][:TOP]))
    return worst


def with_llama_cpp(path: Path, expected: list[list[dict]]) -> float:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.n_gpu_layers = 512, 1, False, 0
    # Its threads wait for each other without sleeping, which on a busy machine takes for ever.
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    # By default keys and values are rounded to 16 bits, which would hide smaller differences.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    worst, compared = 0.0, 0
    for positions in expected:
        ids = [position["id"] for position in positions]
        for length in sorted({1, 2, len(ids) // 3, len(ids) // 2, len(ids)} - {0}):
            # The probabilities are those before sampling; an end token, once sampled, would have none.
            request = {"prompt": ids[:length], "n_predict": 1, "n_probs": TOP, "temperature": 0.0, "ignore_eos": True}
            answer = server.handle_completions(request | {"cache_prompt": False})
            answer = json.loads(answer) if isinstance(answer, str) else answer
            told = answer["choices"][0]["logprobs"]
            # A token that ends inside a character is held back, and its probabilities with it.
            if told is None:
                continue
            compared += 1
            top = told["content"][0]["top_logprobs"]
            known = {entry["id"]: entry["logprob"] for entry in positions[length - 1]["top"]}
            for entry in top[:TOP]:
                worst = max(worst, abs(known[entry["id"]] - entry["logprob"]) if entry["id"] in known else float("inf"))
    return worst if compared else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--binary", default="target/release/gift-host")
    arguments = parser.parse_args()
    binary, source = arguments.binary, arguments.source
    info = subprocess.run([binary, "model", "info", source, "--json"], capture_output=True, text=True, check=True)
    has_adapter = json.loads(info.stdout)["adapter"] is not None

    import torch
    import transformers

    # More than are compared: another program may order close ones differently.
    expected = [ours(binary, source, text, 8 * TOP) for text in TEXTS]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        export(binary, source, "hf", scratch / "hf")
        model = transformers.AutoModelForCausalLM.from_pretrained(scratch / "hf", dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(scratch / "hf")
        for text, positions in zip(TEXTS, expected):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if ids != [position["id"] for position in positions]:
                sys.exit(f"transformers has the token ids {ids} for {text!r}")
        found["hf"] = with_torch(model, expected)
        if has_adapter:
            import peft

            export(binary, source, "peft", scratch / "peft")
            base = json.loads((scratch / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"]
            if base.endswith(".gguf"):
                export(binary, base, "hf", scratch / "base")
                base = scratch / "base"
            base = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            found["peft"] = with_torch(peft.PeftModel.from_pretrained(base, scratch / "peft").eval(), expected)
        for kind in ["f32", "f16", "q8_0"]:
            path = scratch / f"{kind}.gguf"
            export(binary, source, "gguf", path, "--type", kind)
            found[kind] = with_llama_cpp(path, expected)
            path.unlink()
    for name, worst in found.items():
        verdict = "" if worst <= TOLERANCE[name] else f", more than {TOLERANCE[name]}"
        print(f"{name:5} largest difference of a log-probability {worst:.2e}{verdict}")
    return int(any(worst > TOLERANCE[name] for name, worst in found.items()))


if __name__ == "__main__":
    use_own_environment()
    sys.exit(main())
