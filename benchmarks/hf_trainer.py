"""The peer: the same jobs with transformers.Trainer, its collators and `datasets.map`, timed in this process.

    python benchmarks/hf_trainer.py masked --model distilbert --tokenizer FOLDER --text FILE.parquet
    python benchmarks/hf_trainer.py causal --model FOLDER --text FILE.parquet --batch-size 4 --block-size 256
    python benchmarks/hf_trainer.py chat --model FOLDER --text CHATS.jsonl --batch-size 8 --block-size 512
    python benchmarks/hf_trainer.py prepare --tokenizer FOLDER --text FILE.parquet

masked and causal train on blocks of equal length, cut out of the joined texts; the end of every 1,000 rows that fills
no block is dropped. chat trains on the last answer of each conversation, padded to the longest of its batch; longer
conversations than --block-size are dropped. `--model distilbert` has random weights. prepare tokenises and cuts blocks.

The last line printed is a JSON object. Training: step_s, the median of the steps after the warm-up; tokens_per_s of
these steps, without padding; peak_gb; loss. Preparing: tokens_per_s and seconds.

The other benchmarks run this script. It must not import lmft, which would change how torch's threads wait.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from datasets import Dataset, disable_progress_bars
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DistilBertConfig,
    DistilBertForMaskedLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from training import NUM_WARM_UP


def read_texts(path: str, num_rows: int | None) -> Dataset:
    """The column `text` of a parquet file, or the lines of a text file."""
    if path.endswith(".parquet"):
        texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    else:
        texts = Path(path).read_text(encoding="utf-8").splitlines()
    return Dataset.from_dict({"text": texts[:num_rows]})


def load_tokenizer(folder: str) -> Any:
    """A tokenizer that takes texts of any length and can pad."""
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=sys.maxsize)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def tokenised(texts: Dataset, tokenizer: Any) -> Dataset:
    """One row of token ids for each text."""

    def tokenise(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = tokenizer(rows["text"])
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    return texts.map(tokenise, batched=True, remove_columns=["text"], load_from_cache_file=False)


def grouped(rows: Dataset, block_size: int) -> Dataset:
    """Blocks of equal length."""

    def group(columns: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {name: list(chain.from_iterable(column)) for name, column in columns.items()}
        num_tokens = len(joined["input_ids"]) // block_size * block_size
        starts = range(0, num_tokens, block_size)
        blocks = {name: [tokens[i : i + block_size] for i in starts] for name, tokens in joined.items()}
        return blocks | {"labels": [list(block) for block in blocks["input_ids"]]}

    return rows.map(group, batched=True, load_from_cache_file=False)


def answered(path: str, tokenizer: Any, max_tokens: int) -> Dataset:
    """Conversations as token ids, with labels where the last message is."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        tokens, prompt = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (whole, asked))
        if len(tokens) <= max_tokens:
            labels = [-100] * len(prompt) + tokens[len(prompt) :]
            rows.append({"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels})
    return Dataset.from_list(rows)


def load_model(job: str, name: str, vocab_size: int) -> Any:
    """A model with float32 weights, which bf16 training keeps as well."""
    if name == "distilbert":
        return DistilBertForMaskedLM(DistilBertConfig(vocab_size=vocab_size))
    auto_class = AutoModelForMaskedLM if job == "masked" else AutoModelForCausalLM
    return auto_class.from_pretrained(name, dtype=torch.float32)


class Clock(TrainerCallback):
    """Notes when training begins and when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self._note()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the device and note the time."""
        self._note()

    def _note(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


class Counting:
    """A collator that notes how many tokens of each batch are no padding."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.num_tokens: list[int] = []

    def __call__(self, rows: list[dict[str, list[int]]]) -> Any:
        """Collate a batch."""
        self.num_tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self.collator(rows)


def train(arguments: argparse.Namespace) -> dict[str, float]:
    """Train some steps and return what they took."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(arguments.tokenizer or arguments.model)
    model = load_model(arguments.job, arguments.model, len(tokenizer))
    if arguments.job == "chat":
        data = answered(arguments.text, tokenizer, arguments.block_size)
        collator = DataCollatorForSeq2Seq(tokenizer)
    else:
        texts = read_texts(arguments.text, arguments.max_rows)
        data = grouped(tokenised(texts, tokenizer), arguments.block_size)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=arguments.job == "masked", mlm_probability=0.15)
    counting, clock = Counting(collator), Clock()
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            per_device_train_batch_size=arguments.batch_size,
            max_steps=arguments.steps,
            bf16=arguments.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            learning_rate=2e-5,
            weight_decay=0.01,
            train_sampling_strategy="group_by_length" if arguments.group_by_length else "random",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=0,
        )
        done = Trainer(model, options, train_dataset=data, data_collator=counting, callbacks=[clock]).train()
    seconds = [end - start for start, end in pairwise(clock.times)][NUM_WARM_UP:]
    num_tokens = counting.num_tokens[NUM_WARM_UP : arguments.steps]
    return {
        "step_s": statistics.median(seconds),
        "tokens_per_s": sum(num_tokens) / sum(seconds),
        "peak_gb": peak_memory_gb(),
        "loss": done.training_loss,
    }


def peak_memory_gb() -> float:
    """Peak of the GPU's allocated memory, or of this process's resident memory; as lmft reports it."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e9


def prepare(arguments: argparse.Namespace) -> dict[str, float]:
    """Tokenise a file and cut it into blocks; return what that took. Reading the file is not timed."""
    tokenizer = load_tokenizer(arguments.tokenizer or arguments.model)
    texts = read_texts(arguments.text, arguments.max_rows)
    start = time.perf_counter()
    blocks = grouped(tokenised(texts, tokenizer), arguments.block_size)
    seconds = time.perf_counter() - start
    return {"tokens_per_s": len(blocks) * arguments.block_size / seconds, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["masked", "causal", "chat", "prepare"])
    parser.add_argument("--model", help="a folder with weights, or distilbert for random ones")
    parser.add_argument("--tokenizer", help="a folder; the model's if left out")
    parser.add_argument("--text", required=True)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--max-rows", type=int, help="read only this many rows of the text")
    parser.add_argument("--group-by-length", action="store_true")
    given = parser.parse_args()
    if (given.job != "prepare" and given.model is None) or not (given.model or given.tokenizer):
        parser.error("training needs --model, preparing needs --tokenizer")
    disable_progress_bars()
    print(json.dumps(prepare(given) if given.job == "prepare" else train(given)))
