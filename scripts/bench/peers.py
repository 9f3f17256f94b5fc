#!/usr/bin/env python3
"""The Python side of peers.sh: what is measured, the peers, and the table.

Every case is measured in rounds; in each, all sides take a turn in a process of their own, which measures once to warm up
and once more. Ratios are of the best rounds, because other programs on the machine only ever slow a side down. They are given
by the clock and by processor time: on a machine that others use, take one thread and believe the latter, as the peers' threads
wait for each other at every product. Log-probabilities (and for updates the norm of the gradient) must agree, or the run fails.

- transformers: `generate` with its cache for one turn; for several turns the same forward passes by hand, so that nothing is
  computed twice. Prompts of a group are prefilled for each member, as `generate` does.
- llama.cpp: its server inside the process (xllamacpp), one slot a sequence, in f32. It takes a group's prompt once where the
  server offers that (`n`), else for each member.
- update: the GRPO loss of the first update on a batch (ratio 1), one backward pass, clipping by norm, fused AdamW.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GIFT_HOST", str(ROOT / "target" / "release" / "gift-host"))
THREADS = int(os.environ.get("PEER_THREADS", os.cpu_count()))

# What is measured: arguments of `gift-host bench`, the peers, and the ratio that is wanted of each.
CASES = {
    "tiny-episodes": ("rollout", dict(shape="tiny", batch=128, groups=8, prompt=40, new=3, turns=4, turn_prompt=24),
                      {"transformers": 3.0}),
    "smollm2-group": ("rollout", dict(shape="smollm2", batch=16, groups=1, prompt=200, new=64),
                      {"transformers": 3.0, "llama.cpp": 1.0}),
    "smollm2-distinct": ("rollout", dict(shape="smollm2", batch=16, groups=16, prompt=200, new=64),
                         {"transformers": 1.5, "llama.cpp": 1.0}),
    "smollm2-single": ("rollout", dict(shape="smollm2", batch=1, groups=1, prompt=200, new=64),
                       {"transformers": 2.0, "llama.cpp": None}),
    "tiny-update": ("update", dict(shape="tiny", batch=64, groups=64, prompt=100, new=60), {"torch": 1.2}),
    "smollm2-update": ("update", dict(shape="smollm2", batch=16, groups=16, prompt=1, new=255), {"torch": 1.2}),
    "smollm2-update-group": ("update", dict(shape="smollm2", batch=16, groups=1, prompt=192, new=64), {"torch": None}),
}


def peak_memory():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak_memory():
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def load_average():
    return os.getloadavg()[0]


def processor_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


# --- this program -----------------------------------------------------------------------------------------------------


def measure_host(kind, case, folder, is_first):
    arguments = [BINARY, "bench", kind, "--json", "--rounds", "1", "--threads", str(THREADS), "--device", "cpu"]
    for name, value in case.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    if is_first:
        if case.get("turns", 1) > 1:
            # Only one turn is saved: its weights and tokens are those of the case.
            saved = [argument for argument in arguments]
            saved[saved.index("--turns") + 1] = "1"
            subprocess.run([*saved, "--save", folder], check=True, capture_output=True, cwd=ROOT)
        else:
            arguments += ["--save", folder]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    report = json.loads(done.stdout)
    line = report["rollout" if kind == "rollout" else "update"]
    result = {
        "seconds": line["seconds"],
        "processor_s": line["processor_seconds"][0],
        "peak_memory_bytes": report["peak_memory_bytes"],
        "floor_s": line["floor_s"],
        "share_of_floor": line["share_of_floor"],
    }
    if kind == "rollout":
        result["prefill_s"] = report["prefill"]["seconds"]
        result["decode_s"] = report["decode"]["seconds"]
    else:
        result["loss"], result["grad_norm"] = report["loss"], report["grad_norm"]
    return result


# --- transformers and torch -------------------------------------------------------------------------------------------


def torch_model(folder):
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(THREADS)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    # No token ends a sequence: every side samples the same number.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return torch, model


def log_probs_of(torch, model, sequences, start):
    """Log-probabilities of the tokens from `start` on, `[sequences, tokens - start]`."""
    with torch.no_grad():
        kept = sequences.shape[1] - start + 1
        logits = model(sequences, logits_to_keep=kept).logits[:, :-1]
        chosen = sequences[:, start:].unsqueeze(-1)
        return logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)


def run_transformers(folder, case):
    torch, model = torch_model(folder)
    model.eval()
    tokens = json.load(open(pathlib.Path(folder) / "tokens.json"))
    members = case["batch"] // case["groups"]
    prompts = torch.tensor([prompt for prompt in tokens["prompts"] for _ in range(members)])
    turns, new = case.get("turns", 1), case["new"]

    def one_turn(new):
        mask = torch.ones_like(prompts)
        out = model.generate(prompts, attention_mask=mask, max_new_tokens=new, do_sample=True, temperature=1.0, top_k=0,
                             top_p=1.0, use_cache=True)
        assert out.shape[1] == prompts.shape[1] + new

    def several_turns(new):
        cache, text = None, prompts
        for _ in range(turns):
            for _ in range(new):
                out = model(text, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = out.past_key_values
                text = torch.multinomial(out.logits[:, -1].softmax(-1), 1)
            more = torch.randint(0, model.config.vocab_size, (case["batch"], case["turn_prompt"]), device=text.device)
            text = torch.cat([text, more], 1)

    play = one_turn if turns == 1 else several_turns
    with torch.no_grad():
        play(min(new, 4))
        reset_peak_memory()
        started, processor = time.perf_counter(), time.process_time()
        play(new)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        peak = peak_memory()
        started = time.perf_counter()
        model(prompts, use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - started
    ours = torch.tensor(tokens["log_probs"])
    theirs = log_probs_of(torch, model, torch.tensor(tokens["sequences"]), tokens["start"])
    difference = (ours - theirs).abs().max().item()
    return {"seconds": seconds, "processor_s": processor, "prefill_s": prefill, "peak_memory_bytes": peak, "log_prob_difference": difference}


def run_torch_update(folder, case):
    torch, model = torch_model(folder)
    model.train()
    tokens = json.load(open(pathlib.Path(folder) / "tokens.json"))
    sequences, start = torch.tensor(tokens["sequences"]), tokens["start"]
    old = torch.tensor(tokens["log_probs"])
    advantages = torch.tensor(tokens["advantages"]).unsqueeze(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)

    def update():
        optimizer.zero_grad(set_to_none=True)
        kept = sequences.shape[1] - start + 1
        logits = model(sequences, logits_to_keep=kept, use_cache=False).logits[:, :-1]
        # Of all ways to write it, the one that keeps least: no copy of the probabilities.
        chosen = sequences[:, start:]
        log_probs = -torch.nn.functional.cross_entropy(logits.flatten(0, 1), chosen.flatten(), reduction="none")
        log_probs = log_probs.view_as(old)
        ratio = (log_probs - old).exp()
        loss = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), norm.item(), (log_probs.detach() - old).abs().max().item()

    loss, norm, difference = update()
    reset_peak_memory()
    started, processor = time.perf_counter(), time.process_time()
    update()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return {"seconds": seconds, "processor_s": processor, "peak_memory_bytes": peak_memory(), "log_prob_difference": difference, "loss": loss,
            "grad_norm": norm}


# --- llama.cpp --------------------------------------------------------------------------------------------------------


def write_gguf(folder, file):
    """The model as llama.cpp reads it, in f32; its vocabulary is made up, as only ids count here."""
    import gguf
    import numpy
    from safetensors.numpy import load_file

    config = json.load(open(pathlib.Path(folder) / "config.json"))
    tensors = load_file(str(pathlib.Path(folder) / "model.safetensors"))
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{index}" for index in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)

    def interleaved(weight, count):
        # From Hugging Face's rotary halves to llama.cpp's rotary pairs.
        return weight.reshape(count, 2, dim // 2, -1).swapaxes(1, 2).reshape(weight.shape)

    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name, tensor in tensors.items():
        if name == "model.embed_tokens.weight":
            place = "token_embd.weight"
        elif name == "model.norm.weight":
            place = "output_norm.weight"
        elif name == "lm_head.weight":
            place = "output.weight"
        else:
            layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            place = f"blk.{layer}.{names[part]}.weight"
            if part.endswith("q_proj"):
                tensor = interleaved(tensor, heads)
            if part.endswith("k_proj"):
                tensor = interleaved(tensor, kv_heads)
        writer.add_tensor(place, numpy.ascontiguousarray(tensor, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_llama(folder, case):
    import xllamacpp

    file = str(pathlib.Path(folder) / "model.gguf")
    if not os.path.exists(file):
        write_gguf(folder, file)
    tokens = json.load(open(pathlib.Path(folder) / "tokens.json"))
    members = case["batch"] // case["groups"]
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_parallel = case["batch"]
    params.n_ctx = case["batch"] * (case["prompt"] + case["new"] + 56)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.n_gpu_layers = 0
    params.n_batch = params.n_ubatch = 2048
    params.cache_ram_mib = 0
    params.verbosity = -1
    # Keys and values in f32 as on the other sides.
    params.cache_type_k = params.cache_type_v = 0
    server = xllamacpp.Server(params)

    def ask(prompt, more, new=case["new"]):
        request = {"prompt": prompt, "n_predict": new, "ignore_eos": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
                   "min_p": 0.0, "samplers": ["temperature"], "cache_prompt": False, "return_tokens": True, **more}
        return server.handle_completions(request)

    def play(new):
        together = members > 1 and play.has_groups

        def group(index):
            ask(tokens["prompts"][index], {"n": members} if together else {}, new)

        if members > 1 and not together:
            prompts = [prompt for prompt in tokens["prompts"] for _ in range(members)]
            threads = [threading.Thread(target=ask, args=(prompt, {}, new)) for prompt in prompts]
        else:
            threads = [threading.Thread(target=group, args=(index,)) for index in range(case["groups"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    play.has_groups = members > 1
    if members > 1:
        answer = ask(tokens["prompts"][0], {"n": members}, 1)
        play.has_groups = len(answer.get("choices", [])) == members
    play(min(case["new"], 4))
    reset_peak_memory()
    started, processor = time.perf_counter(), time.process_time()
    play(case["new"])
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    peak = peak_memory()
    # What it says of the most probable tokens: compared with what torch says of them.
    answer = ask(tokens["prompts"][0], {"temperature": 0.0, "logprobs": 1}, 16)
    said = answer["choices"][0]["logprobs"]["content"]
    sequence = tokens["prompts"][0] + [entry["id"] for entry in said]
    theirs = [entry["logprob"] for entry in said]
    return {"seconds": seconds, "processor_s": processor, "peak_memory_bytes": peak, "shares_prompts": play.has_groups, "sequence": sequence,
            "log_probs": theirs}


def check_llama(folder, result):
    """The largest difference between llama.cpp's log-probabilities and torch's."""
    torch, model = torch_model(folder)
    sequence, said = result["sequence"], result["log_probs"]
    mine = log_probs_of(torch, model, torch.tensor([sequence]), len(sequence) - len(said))[0]
    return {"log_prob_difference": (mine - torch.tensor(said)).abs().max().item()}


# --- in turn ----------------------------------------------------------------------------------------------------------


def in_process(task, folder, case):
    """Runs a task in a process of its own, so that memory and threads are its own."""
    call = [sys.executable, __file__, "--task", task, "--folder", folder, "--sizes", json.dumps(case)]
    done = subprocess.run(call, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{task} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def measure(name, rounds, folder):
    kind, case, wanted = CASES[name]
    tasks = {"transformers": "transformers", "llama.cpp": "llama", "torch": "torch-update"}
    results = {side: [] for side in ["gift-host", *wanted]}
    before = load_average()
    for index in range(rounds):
        print(f"{name}, round {index + 1} of {rounds}, load {load_average():.1f}", file=sys.stderr)
        results["gift-host"].append(measure_host(kind, case, folder, index == 0))
        for side in wanted:
            results[side].append(in_process(tasks[side], folder, case))
    for side in wanted:
        first = results[side][0]
        if side == "llama.cpp":
            first.update(in_process("check-llama", folder, {**case, **first}))
        # f32 over 30 layers with another order of sums: 1e-3 nats is far above what is seen, far below any mistake. llama.cpp
        # was seen to differ by 6e-3 although weights, keys and values are f32 there.
        if first["log_prob_difference"] > (0.02 if side == "llama.cpp" else 1e-3):
            sys.exit(f"{name}: log-probabilities of {side} differ by {first['log_prob_difference']}")
    if kind == "update":
        ours, theirs = results["gift-host"][0]["grad_norm"], results["torch"][0]["grad_norm"]
        if abs(ours / theirs - 1) > 1e-3:
            sys.exit(f"{name}: the norm of the gradient is {ours} here and {theirs} in torch")
    tokens = case["batch"] * (case["new"] * case.get("turns", 1) if kind == "rollout" else case["prompt"] + case["new"])
    report = {"kind": kind, "sizes": case, "threads": THREADS, "tokens": tokens, "sides": {},
              "load_average": [before, load_average()]}
    best = {side: min(entry["seconds"] for entry in entries) for side, entries in results.items()}
    processor = {side: min(entry["processor_s"] for entry in entries) for side, entries in results.items()}
    for side, entries in results.items():
        entry = min(entries, key=lambda entry: entry["seconds"])
        entry = {key: value for key, value in entry.items() if key not in ("sequence", "log_probs")}
        entry.update(tokens_per_s=tokens / best[side], rounds=[entry["seconds"] for entry in entries])
        entry["log_prob_difference"] = entries[0].get("log_prob_difference")
        if side != "gift-host":
            entry.update(ratio=best[side] / best["gift-host"], wanted=wanted[side],
                         processor_ratio=processor[side] / processor["gift-host"])
            entry["memory_ratio"] = results["gift-host"][0]["peak_memory_bytes"] / entry["peak_memory_bytes"]
        report["sides"][side] = entry
    return report


def print_table(report):
    print(f"{'case':<22} {'side':<13} {'tokens/s':>9} {'seconds':>8} {'cpu s':>8} {'ratio':>6} {'by cpu':>6} {'wanted':>7} {'GiB':>6} {'floor':>6}  rounds")
    for name, case in report["cases"].items():
        for side, entry in case["sides"].items():
            ratio = f"{entry['ratio']:.2f}" if "ratio" in entry else ""
            by_cpu = f"{entry['processor_ratio']:.2f}" if "ratio" in entry else ""
            wanted = f"{entry['wanted']:.1f}" if entry.get("wanted") else ""
            floor = f"{100 * entry['share_of_floor']:.0f} %" if "share_of_floor" in entry else ""
            rounds = " ".join(f"{seconds:.2f}" for seconds in entry["rounds"])
            print(f"{name:<22} {side:<13} {entry['tokens_per_s']:>9.1f} {entry['seconds']:>8.2f} {entry['processor_s']:>8.2f}"
                  f" {ratio:>6} {by_cpu:>6} {wanted:>7}"
                  f" {entry['peak_memory_bytes'] / 2**30:>6.2f} {floor:>6}  {rounds}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--out", default=str(ROOT / "scripts/bench/results/peers-cpu.json"))
    for hidden in ["--task", "--folder", "--sizes"]:
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        tasks = {"transformers": run_transformers, "torch-update": run_torch_update, "llama": run_llama,
                 "check-llama": check_llama}
        result = tasks[arguments.task](arguments.folder, json.loads(arguments.sizes))
        print("RESULT " + json.dumps(result), flush=True)
        # llama.cpp's threads need not be waited for.
        os._exit(0)
    globals()["THREADS"] = arguments.threads
    os.environ["PEER_THREADS"] = str(arguments.threads)
    report = {"processor": processor_name(), "threads": THREADS, "rounds": arguments.rounds, "cases": {}}
    for name in arguments.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            report["cases"][name] = measure(name, arguments.rounds, folder)
    pathlib.Path(arguments.out).write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)
    print(f"load average at the end: {load_average():.1f}; written to {arguments.out}")


if __name__ == "__main__":
    main()
