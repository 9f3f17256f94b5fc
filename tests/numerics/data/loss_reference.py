"""Makes loss_reference.json: the objective and its gradients from torch.autograd in float64.

    python3 -m venv venv && venv/bin/pip install torch numpy && venv/bin/python loss_reference.py

The inputs are four trajectories of 11 sampled tokens, rounded to float32 as the Rust side holds them. The cases are all
combinations of aggregation, ratio, bounds, KL term, importance weight and overlong mask. The objective is written here as
the papers do, over padded tensors with a mask, with torch.min, torch.clamp and no closed form.
"""

import itertools
import json
from pathlib import Path

import torch

torch.set_default_dtype(torch.float64)
COUNTS = [3, 1, 5, 2]
ADVANTAGES = [1.25, -0.5, 0.75, -1.5]
TRUNCATED = [False, False, True, False]
CONSTANT = 7.0
KL_COEFFICIENT = 0.2
ENTROPY_COEFFICIENT = 0.05
MAX_WEIGHT = 1.1


def tokens(generator, low, high):
    """One float32 number a token, padded with zeros: [sequences, longest]."""
    rows = torch.zeros(len(COUNTS), max(COUNTS))
    for row, count in enumerate(COUNTS):
        numbers = low + (high - low) * torch.rand(count, generator=generator)
        rows[row, :count] = numbers.to(torch.float32).to(torch.float64)
    return rows


def objective(case, inputs, mask):
    """The loss of a minibatch from `[sequences, longest]` log-probabilities and entropies."""
    log_prob, entropy = inputs["log_prob"], inputs["entropy"]
    old = inputs["proximal"] if case["importance"] else inputs["behaviour"]
    log_ratio = log_prob - old
    if case["ratio"] == "sequence":
        mean = (log_ratio * mask).sum(1) / mask.sum(1).clamp(min=1)
        log_ratio = mean.unsqueeze(1).expand_as(log_ratio)
    ratio = log_ratio.exp()
    advantage = torch.tensor(ADVANTAGES).unsqueeze(1)
    clipped = torch.clamp(ratio, 1 - case["clip_low"], 1 + case["clip_high"])
    surrogate = torch.min(ratio * advantage, clipped * advantage)
    if case["importance"]:
        weight = torch.clamp((inputs["proximal"] - inputs["behaviour"]).exp(), max=MAX_WEIGHT)
        surrogate = weight.detach() * surrogate
    loss = -surrogate - ENTROPY_COEFFICIENT * entropy
    if case["kl"]:
        difference = inputs["reference"] - log_prob
        loss = loss + KL_COEFFICIENT * (difference.exp() - difference - 1)
    loss = loss * mask
    sequences = (mask.sum(1) > 0).sum()
    if case["aggregation"] == "token_mean":
        return loss.sum() / mask.sum()
    if case["aggregation"] == "sequence_mean":
        return (loss.sum(1) / mask.sum(1).clamp(min=1)).sum() / sequences
    return (loss.sum(1) / CONSTANT).sum() / sequences


def group_advantages(generator):
    """Rewards as games give them (score plus penalties) and RAGEN's normalisation of them."""
    groups = []
    for size in [2, 3, 4, 8, 16, 16]:
        scores = torch.randint(0, 3, (size,), generator=generator) / 2
        penalties = torch.randint(0, 3, (size,), generator=generator) * -0.1
        rewards = scores + penalties
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        groups.append({"rewards": rewards.tolist(), "std": rewards.std().item(), "advantages": advantages.tolist()})
    return groups


def by_sequence(rows):
    return [[float(x) for x in row[:count]] for row, count in zip(rows, COUNTS)]


def main():
    generator = torch.Generator().manual_seed(7)
    inputs = {"behaviour": tokens(generator, -3.0, -0.1)}
    for name, spread in {"log_prob": 0.6, "proximal": 0.2, "reference": 0.8}.items():
        # Added in float32, so that every stored number is one.
        rows = (inputs["behaviour"] + tokens(generator, -spread, spread)).to(torch.float32).to(torch.float64)
        inputs[name] = rows
    inputs["entropy"] = tokens(generator, 0.0, 2.0)
    stored_inputs = {name: by_sequence(rows) for name, rows in inputs.items()}

    cases = []
    choices = itertools.product(
        ["token_mean", "sequence_mean", "constant"],
        ["token", "sequence"],
        [(0.2, 0.28), (0.05, 0.05), (0.9, 9.0)],
        [False, True],
        [False, True],
        [False, True],
    )
    for aggregation, ratio, (low, high), kl, importance, mask_truncated in choices:
        case = {
            "aggregation": aggregation,
            "ratio": ratio,
            "clip_low": low,
            "clip_high": high,
            "kl": kl,
            "importance": importance,
            "mask_truncated": mask_truncated,
        }
        mask = torch.zeros(len(COUNTS), max(COUNTS))
        for row, count in enumerate(COUNTS):
            if not (mask_truncated and TRUNCATED[row]):
                mask[row, :count] = 1
        inputs["log_prob"] = inputs["log_prob"].detach().requires_grad_()
        inputs["entropy"] = inputs["entropy"].detach().requires_grad_()
        loss = objective(case, inputs, mask)
        log_prob, entropy = torch.autograd.grad(loss, [inputs["log_prob"], inputs["entropy"]])
        case["loss"] = float(loss.detach())
        case["log_prob"] = by_sequence(log_prob)
        case["entropy"] = by_sequence(entropy)
        cases.append(case)

    stored = {
        "torch": torch.__version__,
        "constant": CONSTANT,
        "kl_coefficient": KL_COEFFICIENT,
        "entropy_coefficient": ENTROPY_COEFFICIENT,
        "max_importance_weight": MAX_WEIGHT,
        "advantages": ADVANTAGES,
        "truncated": TRUNCATED,
        "inputs": stored_inputs,
        "cases": cases,
        "groups": group_advantages(generator),
    }
    path = Path(__file__).with_name("loss_reference.json")
    path.write_text(json.dumps(stored, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
