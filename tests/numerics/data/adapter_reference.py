"""Makes the values that `tests/numerics/adapter.rs` compares with: the small random models of `decoder_reference.py` with
adapters of PEFT on them, their logits, scores, the gradients of a GRPO loss and one AdamW step.

    pip install torch==2.* transformers==5.* peft safetensors
    python tests/numerics/data/adapter_reference.py

writes `adapter_NAME.safetensors` (tensors) and `adapter_NAME.json` (settings) beside this file.
"""

import json

import peft
import torch
import transformers
from decoder_reference import make_model, write

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    # Biases beside the adapted projections; some projections without an adapter beside adapted ones.
    "lora": ("qwen2", {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}),
    "dora": ("qwen3", {"r": 3, "lora_alpha": 6, "target_modules": ALL, "use_dora": True, "use_rslora": True}),
}


def make(name: str) -> None:
    torch.manual_seed(20260106)
    base_name, settings = ADAPTERS[name]
    base = make_model(base_name)
    tensors = {f"weight/{key}": parameter.detach().clone() for key, parameter in base.named_parameters()}
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    # Away from the first values, where every B is zero and A gets no gradient.
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))

    def ours(key: str) -> str:
        key = key.removeprefix("base_model.model.").replace(".default", "")
        return key.removesuffix(".weight") if key.endswith("lora_magnitude_vector.weight") else key

    trained = {ours(key): parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    saved = peft.get_peft_model_state_dict(model)
    assert {key.removeprefix("base_model.model.") for key in saved} == set(trained)
    tensors |= {f"adapter/{key}": parameter.detach().clone() for key, parameter in trained.items()}
    config = model.peft_config["default"].to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    more = {"adapter": json.loads(json.dumps(config, default=str)), "made_with": made_with}
    write(f"adapter_{name}", model, base.config, trained, tensors, more)


if __name__ == "__main__":
    for each in ADAPTERS:
        make(each)
