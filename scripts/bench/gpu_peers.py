#!/usr/bin/env python3
"""What gpu.py compares with: transformers' `generate` and an update of GRPO in PyTorch, with random weights of the same sizes. Called
with a request in JSON and tasks; each task prints a line `RESULT {task: ...}` as soon as it is done.

- generate: all turns with one cache, which later turns go on with; prompts are those of groups, prefilled for each member, as it does.
- static: one turn with a static cache and compiled, the compilation not counted.
- update: weights, gradients and moments in 32 bits, computed in bf16 by autocast, AdamW fused, every layer checkpointed or none,
  whichever is faster; in parts of as many sequences as fit. Logits are made for the sampled tokens alone.
- agree: a saved model and what gift-host said of its tokens, in f32.
"""

import json
import pathlib
import sys
import time

import torch
import transformers

transformers.utils.logging.set_verbosity_error()
REQUEST = json.loads(sys.argv[1])
DEVICE = torch.device(REQUEST["device"])
HALF = torch.bfloat16 if REQUEST["dtype"] == "bf16" else torch.float32


def wait():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def timed(work):
    wait()
    started = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - started, result


def new_model(dtype):
    config = transformers.AutoConfig.for_model(**REQUEST["config"])
    with DEVICE:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    # No token ends a sequence: both sides sample the same number.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.to(DEVICE)


def random_tokens(model, *shape):
    return torch.randint(0, model.config.vocab_size, shape, device=DEVICE)


def prompts(model):
    members = REQUEST["batch"] // REQUEST["groups"]
    return random_tokens(model, REQUEST["groups"], REQUEST["prompt"]).repeat_interleave(members, 0)


def sample(model, tokens, new, **more):
    return model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new, do_sample=True, temperature=1.0,
                          top_k=0, top_p=1.0, use_cache=True, return_dict_in_generate=True, **more)


@torch.no_grad()
def generate():
    model = new_model(HALF).eval()
    start, new = prompts(model), REQUEST["new"]

    def play(turns, new):
        tokens, cache = start, None
        for turn in range(turns):
            if turn > 0:
                tokens = torch.cat([tokens, random_tokens(model, len(tokens), REQUEST["turn_prompt"])], 1)
            # Without a cache `generate` makes one itself.
            out = sample(model, tokens, new, **({"past_key_values": cache} if cache is not None else {}))
            assert out.sequences.shape[1] == tokens.shape[1] + new
            tokens, cache = out.sequences, out.past_key_values

    play(1, min(new, 4))
    taken, _ = timed(lambda: play(REQUEST["turns"], new))
    return {"seconds": taken}


@torch.no_grad()
def static():
    model = new_model(HALF).eval()
    start, new = prompts(model), REQUEST["new"]
    play = lambda: sample(model, start, new, cache_implementation="static")
    compiling, _ = timed(play)
    taken, _ = timed(play)
    return {"seconds": taken, "first_seconds": compiling}


def objective(model, sequences, positions, old, advantages):
    """The sum over tokens of the loss of GRPO, and log-probabilities; `positions` are those of the sampled tokens."""
    logits = model(sequences, logits_to_keep=positions - 1, use_cache=False).logits
    chosen = sequences[:, positions]
    log_probs = -torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), chosen.flatten(), reduction="none").view_as(chosen)
    ratio = (log_probs - (log_probs.detach() if old is None else old)).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages).sum(), log_probs.detach()


def update():
    """The faster of two ways: what the backward pass needs is computed again, or kept, where memory is enough."""
    model = new_model(torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    start, new, turn_prompt = prompts(model), REQUEST["new"], REQUEST["turn_prompt"]
    length = REQUEST["turns"] * new + (REQUEST["turns"] - 1) * turn_prompt
    sequences = torch.cat([start, random_tokens(model, len(start), length)], 1)
    firsts = [REQUEST["prompt"] + turn * (new + turn_prompt) for turn in range(REQUEST["turns"])]
    positions = torch.cat([torch.arange(first, first + new) for first in firsts]).to(DEVICE)
    advantages = torch.tensor([1.0, -1.0], device=DEVICE).repeat(len(start) // 2).unsqueeze(1)

    def step(sequences, advantages, part):
        for rows, weights in zip(sequences.split(part), advantages.split(part)):
            with torch.autocast(DEVICE.type, HALF, enabled=HALF != torch.float32):
                loss, _ = objective(model, rows, positions, None, weights)
            (loss / (len(sequences) * len(positions))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def measure(part):
        while True:
            try:
                step(sequences[:part], advantages[:part], part)  # warms up, and makes the moments
                taken, _ = timed(lambda: step(sequences, advantages, part))
                return {"seconds": taken, "part": part}
            except torch.OutOfMemoryError:
                optimizer.zero_grad(set_to_none=True)
                if part == 1:
                    raise
                part //= 2

    model.gradient_checkpointing_enable()
    found = [dict(measure(min(16, len(sequences))), how="checkpointed")]
    model.gradient_checkpointing_disable()
    try:
        found.append(dict(measure(min(8, len(sequences))), how="all kept"))
    except torch.OutOfMemoryError:
        pass
    return min(found, key=lambda result: result["seconds"])


def agree():
    folder = pathlib.Path(REQUEST["folder"])
    torch.backends.cuda.matmul.allow_tf32 = False
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").to(DEVICE)
    tokens = json.loads((folder / "tokens.json").read_text())
    sequences, start = torch.tensor(tokens["sequences"], device=DEVICE), tokens["start"]
    old = torch.tensor(tokens["log_probs"], device=DEVICE)
    positions = torch.arange(start, sequences.shape[1], device=DEVICE)
    advantages = torch.tensor(tokens["advantages"], device=DEVICE).unsqueeze(1)
    loss, log_probs = objective(model, sequences, positions, old, advantages)
    (loss / old.numel()).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return {"log_prob_difference": (log_probs - old).abs().max().item(), "grad_norm": norm.item()}


def main():
    for task in sys.argv[2:]:
        try:
            result = {"generate": generate, "static": static, "update": update, "agree": agree}[task]()
        except Exception as error:  # told in the table; the next task may work
            result = {"problem": f"{type(error).__name__}: {str(error)[:400]}"}
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
        print("RESULT " + json.dumps({task: result}), flush=True)


if __name__ == "__main__":
    main()
