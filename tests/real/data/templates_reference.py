"""Makes the values that `tests/real/templates.rs` compares with: what transformers' `apply_chat_template` makes of ten
conversations with public chat templates, as token ids of a small byte-level tokenizer that has the templates' special tokens.

    scripts/fetch-templates.sh models/templates
    pip install transformers==5.* tokenizers
    python tests/real/data/templates_reference.py models/templates

writes `templates_reference.json` beside this file. The templates themselves are not stored, only their hashes.
"""

import datetime
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import tokenizers
import transformers
import transformers.utils.chat_template_utils as chat_template_utils
from tokenizers import AddedToken, decoders, models, pre_tokenizers

HERE = Path(__file__).parent

# Template, `bos_token`, `eos_token` (as the models' own settings have them).
TEMPLATES = {
    "trl/llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "trl/llama3_1": ("<|begin_of_text|>", "<|eot_id|>"),
    "trl/llama3_2": ("<|begin_of_text|>", "<|eot_id|>"),
    "trl/qwen2_5": (None, "<|im_end|>"),
    "trl/qwen3": (None, "<|im_end|>"),
    "trl/qwen3_instruct_2507": (None, "<|im_end|>"),
    "trl/phi3": ("<s>", "<|endoftext|>"),
    "trl/phi3_5": ("<s>", "<|endoftext|>"),
    "trl/gemma": ("<bos>", "<eos>"),
    "trl/gemma3": ("<bos>", "<eos>"),
    "trl/cohere": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "trl/glm4moe": (None, "<|endoftext|>"),
    "trl/lfm2": ("<|startoftext|>", "<|im_end|>"),
    "trl/deepseekv3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "trl/deepseek_r1_distill": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "axolotl/mistral_v1": ("<s>", "</s>"),
    "axolotl/mistral_v2v3": ("<s>", "</s>"),
    "axolotl/mistral_v3_tekken": ("<s>", "</s>"),
    "axolotl/mistral_v7_tekken": ("<s>", "</s>"),
    "axolotl/chatml": (None, "<|im_end|>"),
    "axolotl/phi_4": (None, "<|im_end|>"),
    "axolotl/exaone": ("[BOS]", "[|endofturn|]"),
    "axolotl/falcon_h1": (None, "<|im_end|>"),
    "axolotl/qwen_25": (None, "<|im_end|>"),
}
# Further tokens that end a turn in these templates.
MORE = ["<|end|>", "<end_of_turn>", "<start_of_turn>", "<|im_start|>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>"]

# An observation, an answer, and the observation after it.
CONVERSATIONS = [
    ("You are X. The board is 1 2 3 / 4 x 6. Which number do you take?", "5", "The board is now 1 2 3 / o x 6."),
    ("Hello", "Hi!", "Bye"),
    ("What is 1,024 + 7?", "1,031", "And 2 < 3 & 4 > 1?"),
    ("Two lines\nof text", "yes\nno", "three\n\n\nlines"),
    ("naïve café 東京 🙂", "Ω", "“quoted” – dashes — done"),
    ("It's the \"last\" turn: {curly} {{double}} {% raw %}", "\\boxed{5}", "C:\\path\\n"),
    ("<b>tags</b> & entities &amp;", "<answer>5</answer>", "<think>not a thought"),
    ("| a | b |\n|---|---|\n| 1 | 2 |", "- item", "# Heading\n\n1. one\n2. two"),
    ("def f(x):\n\treturn x + 1  # tab", "```python\nf(1)\n```", "print('%d' % f(2))"),
    ("a" * 200, "b", "c " * 50 + "end"),
]


class Day(datetime.datetime):
    """Templates that name the day get the one that this program gives them."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def make_tokenizer() -> tokenizers.Tokenizer:
    """Byte by byte, with every special token."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = sorted({token for pair in TEMPLATES.values() for token in pair if token} | set(MORE))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def main() -> None:
    folder = Path(sys.argv[1])
    chat_template_utils.datetime = Day
    tokenizer = make_tokenizer()
    cases = []
    for name, (bos, eos) in TEMPLATES.items():
        template = (folder / f"{name}.jinja").read_text()
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos} | ({"bos_token": bos} if bos else {})
        with tempfile.TemporaryDirectory() as place:
            tokenizer.save(f"{place}/tokenizer.json")
            Path(place, "tokenizer_config.json").write_text(json.dumps(settings))
            Path(place, "chat_template.jinja").write_text(template)
            model = transformers.AutoTokenizer.from_pretrained(place)
            conversations = []
            for first, answer, later in CONVERSATIONS:
                turns = [{"role": "user", "content": first}, {"role": "assistant", "content": answer},
                         {"role": "user", "content": later}]
                render = lambda turns: model.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
                whole = render(turns)
                encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
                # All that follows the answer's text, wherever the template puts the answer.
                after = whole[whole.index(answer, whole.index(first.strip()) + len(first.strip())) + len(answer):]
                conversations.append({"first": encode(render(turns[:1])), "after": encode(after)})
        sha256 = hashlib.sha256(template.encode()).hexdigest()
        cases.append({"name": name, "sha256": sha256, "settings": settings, "conversations": conversations})
    document = {
        "made_with": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "tokenizer.json": json.loads(tokenizer.to_str()),
        "conversations": CONVERSATIONS,
        "cases": cases,
    }
    (HERE / "templates_reference.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{len(cases)} templates")


if __name__ == "__main__":
    main()
