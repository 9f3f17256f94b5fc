"""Compares what gift-host and transformers make of the same model: token ids, log-probabilities, prompts. SOURCE is a
folder in Hugging Face's layout (a model or a run's checkpoint), or a GGUF file.

    python3 -m venv venv && venv/bin/pip install torch 'transformers==5.*' gguf accelerate
    venv/bin/python scripts/interop/check_model.py SOURCE [--binary target/release/gift-host]

Exit status 1 unless ids and prompts are the same, the most probable token is the same at every position, and no
log-probability among the five most probable is further off than 0.001.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
import transformers

TOP = 5
TOLERANCE = 1e-3
TEXTS = [
    "The capital of France is Paris. In 2024, it had 2,102,650 people.\n\n  def f(x):\n\treturn x+1 # don't — naïve 東京 🙂",
    "Player X takes 5. Which of 1 2 3 4 6 7 8 9 is best now?",
]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("source", type=Path)
    arguments.add_argument("--binary", default="target/release/gift-host")
    arguments = arguments.parse_args()

    def ask(*command):
        result = subprocess.run([arguments.binary, "model", *command, "--json"], capture_output=True, text=True, check=True)
        return json.loads(result.stdout)

    source = arguments.source
    where = (source.parent, {"gguf_file": source.name}) if source.is_file() else (source, {})
    tokenizer = transformers.AutoTokenizer.from_pretrained(where[0], **where[1])
    model = transformers.AutoModelForCausalLM.from_pretrained(where[0], **where[1], dtype=torch.float32).eval()

    problems = []
    info = ask("info", str(source))
    texts = list(TEXTS)
    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "OBSERVATION"}], tokenize=False, add_generation_prompt=True
        )
        texts.append(prompt)
        if info["first_prompt"] != prompt:
            problems.append(f"prompt {info['first_prompt']!r}, transformers {prompt!r}")
    worst, positions = 0.0, 0
    for text in texts:
        ours = ask("logits", str(source), "--text", text, "--top", str(TOP))["positions"]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if [position["id"] for position in ours] != ids:
            problems.append(f"ids of {text!r}: {[position['id'] for position in ours]}, transformers {ids}")
            continue
        with torch.no_grad():
            log_probs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        for index, position in enumerate(ours):
            positions += 1
            if position["top"][0]["id"] != int(log_probs[index].argmax()):
                problems.append(f"position {index} of {text!r}: another most probable token")
            for entry in position["top"]:
                worst = max(worst, abs(entry["logprob"] - float(log_probs[index, entry["id"]])))
    if worst > TOLERANCE:
        problems.append(f"log-probabilities differ by up to {worst:.2e}")
    print(f"{len(texts)} texts, {positions} positions, largest difference of a log-probability {worst:.2e}")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
