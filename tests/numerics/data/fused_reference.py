"""Makes fused_reference.safetensors: norms, rotary positions, gates, attention, scores and AdamW from PyTorch in float64.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors && venv/bin/python fused_reference.py

Each operation is PyTorch's own where there is one (rms_norm, silu, scaled_dot_product_attention with a mask and grouped
queries, log_softmax, Categorical, AdamW) and Hugging Face's formula for rotary positions. Inputs are rounded to float32, as
the Rust side holds them. Gradients are those of the sum of `output * weights`.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
EPSILON = 1e-5
TEMPERATURE = 1.3
# Rows of each stretch and what stands before it, as in tests/numerics/fused/reference.rs.
STRETCHES = [((0, 4), []), ((4, 6), [(0, 4)]), ((6, 9), [(0, 4)]), ((9, 10), [(0, 4), (6, 9)]), ((10, 13), [])]
ALLOWED = [None, [2, 5, 11], None, [7]]
TARGETS = [3, 5, 0, 7]
STEP = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}

generator = torch.Generator().manual_seed(11)
stored = {}


def normal(*shape, scale=1.0, mean=0.0):
    return (mean + scale * torch.randn(*shape, generator=generator)).to(torch.float32).to(torch.float64)


def store(name, **tensors):
    for part, tensor in tensors.items():
        stored[f"{name}/{part}"] = tensor.detach().to(torch.float32).contiguous()


def differentiate(name, function, **inputs):
    """Stores inputs, outputs, the weights of the outputs and the gradients of the inputs."""
    for tensor in inputs.values():
        tensor.requires_grad_()
    outputs = function(**inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [normal(*output.shape) for output in outputs]
    sum((output * weight).sum() for output, weight in zip(outputs, weights)).backward()
    store(name, **inputs)
    store(name, **{f"output{index}": output for index, output in enumerate(outputs)})
    store(name, **{f"weights{index}": weight for index, weight in enumerate(weights)})
    store(name, **{f"gradient_{part}": tensor.grad for part, tensor in inputs.items()})


def norm(x, weight):
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, EPSILON)


def add_norm(x, change, weight):
    return x + change, norm(x + change, weight)


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def rotation(positions, cosines, sines):
    def rotate(x):
        cosine, sine = (torch.cat([table[positions]] * 2, dim=-1).unsqueeze(1) for table in (cosines, sines))
        return x * cosine + rotate_half(x) * sine

    return rotate


def visible(rows):
    mask = torch.zeros(rows, rows, dtype=torch.bool)
    for (start, end), before in STRETCHES:
        for row in range(start, end):
            mask[row, start : row + 1] = True
            for first, last in before:
                mask[row, first:last] = True
    return mask


def attention(queries, keys, values):
    heads_first = [x.transpose(0, 1).unsqueeze(0) for x in (queries, keys, values)]
    mask = visible(queries.shape[0])
    found = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=mask, enable_gqa=True)
    return found.squeeze(0).transpose(0, 1)


def scores(logits):
    log_probs, entropies = [], []
    for row, allowed, target in zip(logits, ALLOWED, TARGETS):
        ids = list(range(len(row))) if allowed is None else allowed
        distribution = torch.distributions.Categorical(logits=row[ids] / TEMPERATURE)
        log_probs.append(distribution.log_prob(torch.tensor(ids.index(target))))
        entropies.append(distribution.entropy())
    return torch.stack(log_probs), torch.stack(entropies)


def main():
    differentiate("norm", norm, x=normal(5, 24, scale=2.0), weight=normal(24, scale=0.2, mean=1.0))
    inputs = {"x": normal(3, 40), "change": normal(3, 40), "weight": normal(40, scale=0.2, mean=1.0)}
    differentiate("add_norm", add_norm, **inputs)
    positions = torch.tensor([3, 0, 7, 7])
    angles = torch.arange(8).unsqueeze(1) * 10.0 ** -(torch.arange(5) / 5)
    cosines, sines = (table.to(torch.float32).to(torch.float64) for table in (angles.cos(), angles.sin()))
    store("rotation", cosines=cosines, sines=sines, positions=positions)
    differentiate("rotation", rotation(positions, cosines, sines), x=normal(4, 3, 10))
    gate = lambda gate, up: torch.nn.functional.silu(gate) * up
    differentiate("gate", gate, gate=normal(4, 9, scale=2.0), up=normal(4, 9))
    inputs = {"queries": normal(13, 4, 32), "keys": normal(13, 2, 32), "values": normal(13, 2, 32)}
    differentiate("attention", attention, **inputs)
    differentiate("scores", scores, logits=normal(4, 23, scale=3.0))

    weight = normal(6, 7).requires_grad_()
    optimizer = torch.optim.AdamW([weight], **STEP)
    store("adamw", start=weight)
    for step in range(3):
        gradient = normal(6, 7)
        weight.grad = gradient.clone()
        optimizer.step()
        store("adamw", **{f"gradient{step}": gradient, f"weight{step}": weight.clone()})
    save_file(stored, Path(__file__).with_suffix(".safetensors"))


main()
