"""Makes the values that `tests/real/smollm2.rs` compares with: SmolLM2-135M-Instruct in transformers on the CPU in f32, its
weights read from the GGUF file by the package gguf. Logits, the gradients of a GRPO loss and one AdamW step; of so many
numbers, logits at some ids and digests of tensors.

    scripts/fetch-smollm2.sh models
    pip install torch==2.* transformers==5.* gguf accelerate
    python tests/real/data/smollm2_reference.py models

writes `smollm2_reference.json` beside this file.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).parent
TEXTS = [
    ("The capital of France is Paris. In 2024, it had 2,102,650 people.\n\n  def f(x):\n\treturn x+1 # don't", 1.3, 20),
    ("Player X takes 5. Which of 1 2 3 4 6 7 8 9 is best now?", -0.7, 9),
]
IDS = [7 + 2003 * step for step in range(24)]
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
TEMPERATURE, ENTROPY_COEFFICIENT = 0.8, 0.01
OPTIMIZER = {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "weight_decay": 0.1}


def digest(tensor: torch.Tensor) -> list[float]:
    """The norm, and the product with `cos(0.37 i + 1)` over the flat index `i`: together they see any difference."""
    flat = tensor.detach().double().flatten()
    wave = torch.cos(0.37 * torch.arange(flat.numel(), dtype=torch.float64) + 1)
    return [float(flat.norm()), float(flat @ wave)]


def main() -> None:
    folder, name = sys.argv[1], "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(7)
    sequences, loss = [], torch.zeros(())
    count = sum(len(tokenizer(text)["input_ids"]) - first for text, _, first in TEXTS)
    for text, advantage, first in TEXTS:
        ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
        logits = model(ids[None]).logits[0]
        log_probs = torch.log_softmax(logits[first - 1:-1] / TEMPERATURE, -1)
        chosen = log_probs.gather(1, ids[first:, None])[:, 0]
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        behaviour = chosen.detach() + 0.3 * torch.randn(len(chosen), generator=generator)
        ratio = (chosen - behaviour).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH) * advantage)
        loss = loss - (gain + ENTROPY_COEFFICIENT * entropy).sum() / count
        sequences.append({
            "text": text, "tokens": ids.tolist(), "first": first, "advantage": advantage,
            "behaviour": behaviour.tolist(), "log_probs": chosen.tolist(), "entropies": entropy.tolist(),
            "logits": [[round(float(row[index]), 6) for index in IDS] for row in logits.detach()],
            "largest": float(logits.detach().abs().max()),
        })
    loss.backward()
    named = dict(model.named_parameters())
    gradients = {key: digest(parameter.grad) for key, parameter in named.items()}
    before = {key: parameter.detach().clone() for key, parameter in named.items()}
    matrices = [p for p in named.values() if p.dim() == 2]
    vectors = [p for p in named.values() if p.dim() == 1]
    torch.optim.AdamW(
        [{"params": matrices, "weight_decay": OPTIMIZER["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
        lr=OPTIMIZER["learning_rate"], betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]), eps=OPTIMIZER["epsilon"],
    ).step()
    changes = {key: digest(parameter.detach().double() - before[key].double()) for key, parameter in named.items()}
    document = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "ids": IDS, "temperature": TEMPERATURE, "clip_low": CLIP_LOW, "clip_high": CLIP_HIGH,
        "entropy_coefficient": ENTROPY_COEFFICIENT, "optimizer": OPTIMIZER, "count": count, "loss": float(loss.detach()),
        "sequences": sequences, "gradients": gradients, "changes": changes,
    }
    (HERE / "smollm2_reference.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
