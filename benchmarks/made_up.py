"""Vocabularies, texts and chats of made-up words: what a step costs does not depend on the text."""

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = {
    "masked": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "causal": ("<|endoftext|>",),
    "chats": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "user", "assistant"),
    "seq2seq": ("<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(100))),
}
NAMES = {
    "masked": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "causal": {"eos": "<|endoftext|>", "pad": "<|endoftext|>"},
    "chats": {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    "seq2seq": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


def words(job: str, vocab_size: int) -> list[str]:
    """Return the words of a vocabulary, a token each."""
    return [f"w{number}" for number in range(vocab_size - len(SPECIAL[job]))]


def tokenizer(job: str, vocab_size: int) -> "PreTrainedTokenizerFast":
    """Return a tokenizer whose tokens are the special ones of such models, and words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL[job], *words(job, vocab_size)]
    unknown = NAMES[job].get("unk", SPECIAL[job][0])
    backend = Tokenizer(
        models.WordLevel({token: number for number, token in enumerate(tokens)}, unknown)
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = {"masked": "[CLS] $A [SEP]", "seq2seq": "$A </s>"}.get(job)
    if around:
        ends = [(token, tokens.index(token)) for token in around.split() if token != "$A"]
        backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=ends)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=[token for token in SPECIAL[job] if token.startswith("<")],
        **{f"{name}_token": token for name, token in NAMES[job].items()},
    )
    if job == "chats":
        made.chat_template = CHAT_TEMPLATE
    return made


def write_text(path: Path, known: list[str], num_tokens: int, longest: int) -> None:
    """Write documents of 20 to `longest` words, a line each."""
    draw = random.Random(0)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < num_tokens:
            document = draw.choices(known, k=draw.randint(20, longest))
            written += len(document)
            file.write(" ".join(document) + "\n")


def write_chats(path: Path, known: list[str], num_chats: int, longest: int) -> None:
    """Write chats of one question and one answer; half of the questions are short."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_chats):
            length = max(3, round(longest * draw.random() ** 2))
            question = " ".join(draw.choices(known, k=length))
            answer = " ".join(draw.choices(known, k=draw.randint(1, max(1, longest // 20))))
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")


def write(
    folder: Path, job: str, vocab_size: int, num_tokens: int, num_chats: int, longest: int
) -> None:
    """Write `tokenizer/` and `text.txt` or `chats.jsonl`."""
    tokenizer(job, vocab_size).save_pretrained(folder / "tokenizer")
    known = words(job, vocab_size)
    if job == "chats":
        write_chats(folder / "chats.jsonl", known, num_chats, longest)
    else:
        write_text(folder / "text.txt", known, num_tokens, longest)
