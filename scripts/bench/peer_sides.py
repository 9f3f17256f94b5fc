"""The peers of peers.py, each a function that is called in a process of its own with the folder that gift-host saved (weights and
token ids) and the sizes of the case. It measures once to warm up and once more.
"""

import json
import os
import pathlib
import threading
import time

THREADS = int(os.environ.get("PEER_THREADS", os.cpu_count()))


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


# --- TRL --------------------------------------------------------------------------------------------------------------


def made_up_tokenizer(count):
    """Token `n` is the word `tn`; only ids count here. No prompt holds the end of a text, 0."""
    import tokenizers
    import transformers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"t{index}": index for index in range(count)}, unk_token="t0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t0", pad_token="t0", unk_token="t0")


def run_trl(folder, case):
    """Whole steps of its trainer: it samples, rewards, and updates once on what it sampled."""
    torch, model = torch_model(folder)
    import datasets
    import transformers
    import trl

    tokens = json.load(open(pathlib.Path(folder) / "tokens.json"))
    ours = torch.tensor(tokens["log_probs"])
    theirs = log_probs_of(torch, model, torch.tensor(tokens["sequences"]), tokens["start"])
    difference = (ours - theirs).abs().max().item()
    prompts = [" ".join(f"t{max(token, 1)}" for token in prompt) for prompt in tokens["prompts"]]
    counts = set()

    def reward(prompts, completions, completion_ids, **_):
        counts.update(len(ids) for ids in completion_ids)
        return [float(sum(ids) % 7) for ids in completion_ids]

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            reset_peak_memory()
            self.started, self.processor = time.perf_counter(), time.process_time()

        def on_step_end(self, *_, **__):
            self.seconds = time.perf_counter() - self.started
            self.processor_s = time.process_time() - self.processor
            self.peak = peak_memory()

    clock = Clock()
    settings = trl.GRPOConfig(
        output_dir=str(pathlib.Path(folder) / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True, max_steps=2, learning_rate=1e-6, lr_scheduler_type="constant",
        optim="adamw_torch_fused", max_grad_norm=1.0, per_device_train_batch_size=case["batch"], steps_per_generation=1,
        num_generations=case["batch"] // case["groups"], num_iterations=1, beta=0.0, epsilon=0.2, epsilon_high=0.28,
        max_completion_length=case["new"], temperature=1.0, top_p=1.0, top_k=0, generation_kwargs={"min_new_tokens": case["new"]})
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=reward, args=settings, processing_class=made_up_tokenizer(model.config.vocab_size),
        train_dataset=datasets.Dataset.from_list([{"prompt": prompt} for prompt in prompts]), callbacks=[clock])
    trainer.train()
    if counts != {case["new"]}:
        raise SystemExit(f"TRL sampled {counts} tokens, not {case['new']} each")
    return {"seconds": clock.seconds, "processor_s": clock.processor_s, "peak_memory_bytes": clock.peak, "log_prob_difference": difference}


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


TASKS = {"transformers": run_transformers, "torch": run_torch_update, "trl": run_trl, "llama.cpp": run_llama, "check-llama": check_llama}
