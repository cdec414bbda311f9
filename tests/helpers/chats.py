"""Chats, templates and tokenizers for them."""

from functools import cache

from lmft.models.loading.vocabulary import train_vocabulary
from tests.helpers.models import TEXTS

CHATML = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


MARKED = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == \
'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ \
message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


LLAMA = """{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + \
'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""


ZEPHYR = """{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""


MISTRAL = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') \
}}{% endif %}{% endfor %}"""


GEMMA = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' + message['content'] | trim + \
'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""


LINES = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"


TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "zephyr": ZEPHYR, "mistral": MISTRAL, "gemma": GEMMA}


NEW_TOKENS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@cache
def tokenizer_with(template: str | None = None, algorithm: str = "bpe"):
    """A throwaway tokenizer that knows the templates' special tokens."""
    tokenizer = train_vocabulary(TEXTS, algorithm, {"bpe": 400, "unigram": 70, "wordpiece": 120}[algorithm], False)
    for token in NEW_TOKENS:  # each call forgets the tokens of the one before; they stay special all the same
        tokenizer.add_special_tokens({"extra_special_tokens": [token]})
    tokenizer.chat_template = template
    return tokenizer


def chat(*turns: str, system: str | None = None) -> list[dict]:
    """Turns of the user and the assistant, in turns."""
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def answers(conversation) -> list[str]:
    return [conversation.text[start:end] for start, end in conversation.answers]
