"""Makes the values that `tests/numerics/chat.rs` compares with: the tokens that transformers' `apply_chat_template` gives
for conversations of one and two turns, with a small byte-level BPE tokenizer and chat templates in the manner of five
families of models (written for this test, with the features of Jinja that the families' own templates use).

    pip install transformers==5.* tokenizers
    python tests/numerics/data/chat_reference.py

writes `chat_reference.json` beside this file; the versions that made the stored file are in it.
"""

import json
import tempfile
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eot_id|>", "<s>", "</s>", "[INST]", "[/INST]"]

CHATML = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\\nYou play games.<|im_end|>\\n' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Blocks on lines of their own, tools that are not given, and methods of Python's strings.
TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a player.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# White space around a turn is removed, the first token is the template's, the day is named.
HEADERS = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined and false %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today: " + date_string + "\\n\\n<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

INSTRUCTIONS = """\
{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% else %}\
{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

# Thoughts of earlier turns are left out; the last question is looked for backwards.
THOUGHTS = """\
{%- set ns = namespace(searching=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == "assistant" %}
        {%- generation %}
        {%- if '</think>' in content and loop.index0 < ns.last_query_index %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
        {%- endgeneration %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# Template, tokens that it may name, and the token that ends a turn.
FAMILIES = {
    "chatml": (CHATML, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}, "<|im_end|>"),
    "tools": (TOOLS, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, "<|im_end|>"),
    "headers": (HEADERS, {"bos_token": "<|begin_of_text|>", "eos_token": "<|endoftext|>"}, "<|eot_id|>"),
    "instructions": (INSTRUCTIONS, {"bos_token": "<s>", "eos_token": "</s>"}, "</s>"),
    "thoughts": (THOUGHTS, {"eos_token": "<|im_end|>"}, "<|im_end|>"),
}
TEXTS = [
    "You are X. The board is 1 2 3 / 4 x 6. Which number do you take?",
    "  \n<b>It's</b> the \"last\" turn: naïve, 東京 🙂\n\n# 1,024\n ",
]
ANSWER = "<answer>5</answer>"


def make_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    pattern = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
    )
    tokenizer.train_from_iterator([*TEXTS, ANSWER, "system user assistant player number the board think"] * 4, trainer)
    return tokenizer


def main() -> None:
    tokenizer = make_tokenizer()
    cases = []
    for name, (template, named, end) in FAMILIES.items():
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **named)

        def tokens(messages):
            return fast.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)

        conversations = []
        for first, later in [TEXTS, TEXTS[::-1]]:
            user = [{"role": "user", "content": first}]
            both = [*user, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": later}]
            conversations.append({"first": first, "later": later, "first_tokens": tokens(user), "tokens": tokens(both)})
        with tempfile.TemporaryDirectory() as folder:
            fast.save_pretrained(folder)
            files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}
        shared = files.pop("tokenizer.json")
        cases.append({"name": name, "end": end, "files": files, "conversations": conversations})
    document = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "answer": ANSWER,
        "tokenizer.json": json.loads(shared),
        "cases": cases,
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (HERE / "chat_reference.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
