"""Text as transformers' examples prepare it: `map(tokenize)`, `map(group_texts)`, or a chat template."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, DataCollatorForSeq2Seq

from benchmarks.workloads import Workload

disable_progress_bars()


def load_tokenizer(folder: str) -> Any:
    """Return a tokenizer that takes texts of any length and can pad."""
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=sys.maxsize)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def lines(path: Path) -> Dataset:
    """Return the lines of a file, or the column `text` of a parquet file."""
    if path.suffix == ".parquet":
        return Dataset.from_parquet(str(path)).select_columns(["text"])  # pyright: ignore
    return Dataset.from_dict({"text": path.read_text("utf-8").splitlines()})


def tokenised(texts: Dataset, tokenizer: Any) -> Dataset:
    """Return a row of token ids for each text."""

    def tokenise(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = tokenizer(rows["text"])
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    return texts.map(tokenise, batched=True, remove_columns=["text"], load_from_cache_file=False)


def grouped(rows: Dataset, block_size: int) -> Dataset:
    """Return blocks of equal length; the end of each 1,000 rows that fills no block is dropped."""

    def group(columns: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {name: list(itertools.chain.from_iterable(column)) for name, column in columns.items()}
        num_tokens = len(joined["input_ids"]) // block_size * block_size
        starts = range(0, num_tokens, block_size)
        blocks = {
            name: [row[start : start + block_size] for start in starts] for name, row in joined.items()
        }
        return blocks | {"labels": [list(block) for block in blocks["input_ids"]]}

    return rows.map(group, batched=True, load_from_cache_file=False)


def answered(chats: Path, tokenizer: Any, max_tokens: int | None = None) -> list[dict[str, list[int]]]:
    """Return chats as token ids, with labels where the last message is; longer ones are left out."""
    rows = []
    for line in chats.read_text("utf-8").splitlines():
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        tokens = tokenizer(whole, add_special_tokens=False)["input_ids"]
        prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
        if max_tokens is None or len(tokens) <= max_tokens:
            labels = [-100] * len(prompt) + tokens[len(prompt) :]
            rows.append({"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels})
    return rows


def sequences(workload: Workload, vocab_size: int) -> Dataset:
    """Return rows of random inputs and targets, ready to train on."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(workload.rows * 8):
        inputs = torch.randint(103, vocab_size, (workload.tokens,), generator=generator).tolist()
        labels = torch.randint(103, vocab_size, (workload.num_targets,), generator=generator).tolist()
        rows.append({"input_ids": inputs, "labels": labels})
    return Dataset.from_list(rows)


def rows_of(workload: Workload, folder: Path, tokenizer: Any) -> Any:
    """Return the rows that a peer trains on."""
    if workload.job == "chats":
        return Dataset.from_list(answered(folder / "chats.jsonl", tokenizer, workload.tokens))
    if workload.job == "seq2seq":
        return sequences(workload, len(tokenizer))
    return grouped(tokenised(lines(folder / "text.txt"), tokenizer), workload.tokens)


class Counting:
    """The collator of transformers for a job, which notes how many tokens of a batch are no padding."""

    def __init__(self, workload: Workload, tokenizer: Any, noted: list[int]) -> None:
        is_padded = workload.job in ("chats", "seq2seq")
        is_masked = workload.job == "masked"
        usual = DataCollatorForLanguageModeling(tokenizer, mlm=is_masked, mlm_probability=0.15)
        self.collator = DataCollatorForSeq2Seq(tokenizer) if is_padded else usual
        self.is_seq2seq = workload.job == "seq2seq"
        self.noted = noted

    def __call__(self, rows: list[dict[str, list[int]]]) -> Any:
        """Collate a batch."""
        self.noted.append(sum(len(row["input_ids"]) for row in rows))
        batch = self.collator(rows)
        if self.is_seq2seq:  # rows are full; with a mask T5 would add it in each layer
            batch.pop("attention_mask", None)
        return batch


def build_model(workload: Workload, vocab_size: int) -> Any:
    """Return the model with random float32 weights."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
    )

    classes = {
        "masked": AutoModelForMaskedLM,
        "causal": AutoModelForCausalLM,
        "seq2seq": AutoModelForSeq2SeqLM,
    }
    torch.manual_seed(0)
    more = {"decoder_start_token_id": 0} if workload.job == "seq2seq" else {}
    config = AutoConfig.for_model(workload.architecture, vocab_size=vocab_size, **workload.shape, **more)
    return classes[workload.family].from_config(config)
