"""Training speed and memory of T5-small's shape: lmft against the Hugging Face Trainer, and with or without a mask.

    python benchmarks/train_seq2seq.py trainer [--rounds 3] [--steps 8]
    python benchmarks/train_seq2seq.py mask [--rounds 3] [--steps 8]

T5-small (6 layers, widths 512 and 2,048, 8 heads of 64, 32,128 tokens) with random weights; a step has 8 rows of 512
input tokens and 114 targets, in bf16. Only input tokens are counted. The first two steps are warm-up.

trainer: lmft runs its whole command, which corrupts the text step by step. Text and vocabulary are random words, since
a step's cost does not depend on them. The Trainer gets ready-made rows with labels and no attention mask.
mask: one step of lmft on one batch, without an attention mask, with a mask of ones (which transformers may drop), and
with a mask that hides a single token, as for a padded row.
"""

import argparse
import itertools
import json
import random
import statistics
import string
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training import NUM_WARM_UP, lmft_train
from turns import compare, in_turns, last_json

NUM_ROWS, NUM_INPUTS, NUM_TARGETS, NUM_RAW = 8, 512, 114, 568
VOCAB_SIZE, NUM_SENTINELS = 32_128, 100


def made_up(folder: Path, num_blocks: int) -> None:
    """Write a tokenizer like T5's, whose pieces are words of four letters, and documents of such words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    letters = string.ascii_lowercase
    words = [
        f"{letters[i // 17576 % 26]}{letters[i // 676 % 26]}{letters[i // 26 % 26]}{letters[i % 26]}"
        for i in range(VOCAB_SIZE - NUM_SENTINELS - len(special))
    ]
    pieces = [(token, 0.0) for token in special.values()] + [(f"▁{word}", -10.0) for word in words]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=[f"<extra_id_{i}>" for i in reversed(range(NUM_SENTINELS))],
        **{f"{name}_token": token for name, token in special.items()},
    ).save_pretrained(folder / "tokenizer")
    choose = random.Random(0)
    documents = (" ".join(choose.choices(words, k=NUM_RAW)) for _ in range(num_blocks))
    (folder / "text.txt").write_text("\n".join(documents), encoding="utf-8")


def ours(steps: int, folder: Path) -> dict[str, float]:
    """One run of `python -m lmft.train`; the median of its steps."""
    options = [
        *("model=t5", "model.from_scratch=true", f"model.tokenizer.name_or_path={folder / 'tokenizer'}"),
        *("model.config.d_model=512", "model.config.d_ff=2048", "model.config.num_layers=6"),
        *("model.config.num_heads=8", "data=files", f"data.train={folder / 'text.txt'}"),
        *(f"data.block_size={NUM_INPUTS}", f"data.batch_size={NUM_ROWS}", f"trainer.max_steps={steps}"),
        *("trainer.precision=bf16-mixed", "optimizer.lr=2e-5"),
    ]
    speeds, peak = lmft_train(folder, options)
    step = NUM_ROWS * NUM_RAW / statistics.median(speeds)  # a run counts the tokens of its text
    return {"tokens_per_s": NUM_ROWS * NUM_INPUTS / step, "step_s": step, "peak_gb": peak}


def model_and_batch() -> tuple[Any, dict[str, Any]]:
    """The model, and random tokens for it."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    config = AutoConfig.for_model("t5", vocab_size=VOCAB_SIZE, decoder_start_token_id=0)  # T5-small's by default
    inputs, labels = (torch.randint(3, 32_000, (NUM_ROWS, width)) for width in (NUM_INPUTS, NUM_TARGETS))
    return AutoModelForSeq2SeqLM.from_config(config).train(), {"input_ids": inputs, "labels": labels}


def figures(seconds: list[float]) -> dict[str, float]:
    """The figures of the steps after the warm-up, and this process's peak memory."""
    from lmft.reporting.results import peak_memory_gb

    step = statistics.median(seconds[NUM_WARM_UP:])
    return {"tokens_per_s": NUM_ROWS * NUM_INPUTS / step, "step_s": step, "peak_gb": peak_memory_gb()}


def hugging_face(steps: int) -> dict[str, float]:
    """The Trainer in this process."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model, batch = model_and_batch()
    rows: Any = [{name: tensor[row] for name, tensor in batch.items()} for row in range(NUM_ROWS)] * steps
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=NUM_ROWS,
            max_steps=steps,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            learning_rate=2e-5,
            weight_decay=0.01,
            logging_steps=10**6,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        Trainer(model, arguments, train_dataset=rows, callbacks=[Clock()]).train()
    return figures([end - start for start, end in itertools.pairwise(ends)])


def alone(steps: int, num_hidden: int | None) -> dict[str, float]:
    """A step of lmft on one batch in this process. num_hidden: tokens that the attention mask hides; None: no mask."""
    import torch

    from lmft.models.head import target_nats
    from lmft.training.cpu import keep_freed_memory_in_process

    keep_freed_memory_in_process()
    model, batch = model_and_batch()
    targets = batch.pop("labels")
    batch["decoder_input_ids"] = targets.roll(1, dims=1)
    if num_hidden is not None:
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        batch["attention_mask"][0, NUM_INPUTS - num_hidden :] = 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            inputs = batch | {"use_cache": False}
            nats = target_nats(model, model.get_decoder(), inputs, torch.arange(targets.numel()), targets.ravel())
        (nats / targets.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return figures(seconds)


def in_a_process(side: str, steps: int) -> dict[str, float]:
    """Run one of the sides above in a new process, so that it has its own peak memory."""
    return last_json([sys.executable, __file__, side, "--steps", str(steps)])


SIDES = {
    "hugging_face": hugging_face,
    "no_mask": lambda steps: alone(steps, None),
    "all_ones": lambda steps: alone(steps, 0),
    "one_hidden": lambda steps: alone(steps, 1),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["trainer", "mask", *SIDES], metavar="trainer|mask")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    if given.what in SIDES:
        print(json.dumps(SIDES[given.what](given.steps)))
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        if given.what == "trainer":
            made_up(Path(name), NUM_ROWS * (given.steps + 1))
            sides = {"lmft": lambda: ours(given.steps, Path(name))}
            sides["Trainer"] = lambda: in_a_process("hugging_face", given.steps)
        else:
            sides = {
                side: (lambda side=side: in_a_process(side, given.steps)) for side in SIDES if side != "hugging_face"
            }
        found = in_turns(sides, given.rounds)
    for figure in ("tokens_per_s", "peak_gb"):
        compare(found, figure, next(iter(sides)))
