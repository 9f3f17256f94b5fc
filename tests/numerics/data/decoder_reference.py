"""Makes the values that `tests/numerics/decoder.rs` compares with: small random models of Hugging Face transformers on
the CPU in f32, one of each family, with their logits, scores, the gradients of a GRPO loss and one AdamW step.

    pip install torch==2.* transformers==5.* safetensors
    python tests/numerics/data/decoder_reference.py

writes `decoder_NAME.safetensors` (tensors) and `decoder_NAME.json` (settings) beside this file. Everything is
derived from the seed; the versions that made the stored files are in the JSON.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent
TEMPERATURE = 0.8
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
ENTROPY_COEFFICIENT = 0.01
OPTIMIZER = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1}
# Token ids that the constrained targets of the second sequence were sampled among: few, and more than an eighth of 64.
FEW = [3, 17, 40, 41, 63]
MANY = list(range(0, 64, 2))


SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "attn_implementation": "eager",
}
# The longest sequence has 70 tokens: past the original context of the scaled one.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS = {
    "llama": (transformers.LlamaConfig, {"tie_word_embeddings": False}),
    "llama3": (transformers.LlamaConfig, {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "mistral": (transformers.MistralConfig, {"tie_word_embeddings": False, "sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"tie_word_embeddings": False, "head_dim": 12}),
}


def make_model(name: str) -> transformers.PreTrainedModel:
    kind, more = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(kind(**(SIZES | more))).float()
    # Larger weights than a fresh model's, so that attention and entropies are far from uniform.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_norm else 0.25 * noise)
    return model


def scores(logits: torch.Tensor, tokens: torch.Tensor, targets: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of every target under the scaled and constrained distribution."""
    log_probs, entropies = [], []
    for target in targets:
        row = logits[target["position"] - 1] / TEMPERATURE
        if target["allowed"] is not None:
            row = torch.full_like(row, float("-inf")).scatter(0, torch.tensor(target["allowed"]), row[target["allowed"]])
        log_row = torch.log_softmax(row, dim=-1)
        log_probs.append(log_row[tokens[target["position"]]])
        seen = log_row[torch.isfinite(log_row)]
        entropies.append(-(seen.exp() * seen).sum())
    return torch.stack(log_probs), torch.stack(entropies)


def make(name: str) -> None:
    torch.manual_seed(20260105)
    model = make_model(name)
    tensors = {f"weight/{key}": parameter.detach().clone() for key, parameter in model.named_parameters()}
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__}
    write(f"decoder_{name}", model, model.config, dict(model.named_parameters()), tensors, {"made_with": made_with})


def write(name: str, model: torch.nn.Module, config, trained: dict, tensors: dict, more: dict) -> None:
    """Adds what the model says and what one step makes of the trained parameters, and writes both files."""
    generator = torch.Generator().manual_seed(7)
    sequences = []
    for length, advantage in [(70, 1.3), (19, -0.7)]:
        tokens = torch.randint(0, 64, (length,), generator=generator)
        targets = [{"position": p, "allowed": None} for p in range(length // 3, length - 2) if p % 5 != 0]
        sequences.append({"tokens": tokens, "advantage": advantage, "targets": targets})
    second = sequences[1]
    second["targets"] += [{"position": 17, "allowed": FEW}, {"position": 18, "allowed": MANY}]
    second["tokens"][17], second["tokens"][18] = 40, 6
    second["targets"] = sorted({t["position"]: t for t in second["targets"]}.values(), key=lambda t: t["position"])

    count = sum(len(sequence["targets"]) for sequence in sequences)
    loss = torch.zeros(())
    for index, sequence in enumerate(sequences):
        logits = model(sequence["tokens"][None]).logits[0]
        log_prob, entropy = scores(logits, sequence["tokens"], sequence["targets"])
        # Behaviour log-probabilities off the current ones, so that some ratios are clipped.
        behaviour = log_prob.detach() + 0.3 * torch.randn(len(log_prob), generator=generator)
        ratio = (log_prob - behaviour).exp()
        clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
        gain = torch.minimum(ratio * sequence["advantage"], clipped * sequence["advantage"])
        loss = loss - (gain + ENTROPY_COEFFICIENT * entropy).sum() / count
        tensors[f"logits/{index}"] = logits.detach()
        tensors[f"log_prob/{index}"] = log_prob.detach()
        tensors[f"entropy/{index}"] = entropy.detach()
        tensors[f"behaviour/{index}"] = behaviour
    loss.backward()
    named = list(trained.items())
    tensors |= {f"gradient/{key}": parameter.grad.clone() for key, parameter in named}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for _, p in named if p.dim() == 2], "weight_decay": OPTIMIZER["weight_decay"]},
            {"params": [p for _, p in named if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=OPTIMIZER["learning_rate"],
        betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]),
        eps=OPTIMIZER["epsilon"],
    )
    optimizer.step()
    tensors |= {f"stepped/{key}": parameter.detach() for key, parameter in named}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, HERE / f"{name}.safetensors")

    for sequence in sequences:
        sequence["tokens"] = sequence["tokens"].tolist()
    settings = more | {
        "config": config.to_dict(),
        "temperature": TEMPERATURE,
        "clip_low": CLIP_LOW,
        "clip_high": CLIP_HIGH,
        "entropy_coefficient": ENTROPY_COEFFICIENT,
        "optimizer": OPTIMIZER,
        "loss": loss.item(),
        "sequences": sequences,
    }
    (HERE / f"{name}.json").write_text(json.dumps(settings) + "\n")


if __name__ == "__main__":
    for each in MODELS:
        make(each)
