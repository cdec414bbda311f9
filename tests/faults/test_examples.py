"""Rows 16, 17, 19, 20 and 31 to 33: texts, examples and models that do not fit each other."""

import json
import math

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from lmft.models.loading.vocabulary import train_vocabulary
from tests.helpers.causal import SCRATCH, chat_arguments, saved, text_arguments, train, write_rows
from tests.helpers.models import TEXTS
from tests.helpers.runs import rows, write_text
from tests.helpers.runs import train as train_tiny

pytestmark = pytest.mark.timeout(60)


def is_finite(run) -> bool:
    """Whether every loss that was logged, and every weight at the end, is a number."""
    logged = [float(row[name]) for row in rows(run) for name in row if "loss" in name and row[name]]
    weights = load_file(run.paths.model / "model.safetensors").values()
    return bool(logged) and all(map(math.isfinite, logged)) and all(bool(w.isfinite().all()) for w in weights)


def test_fault_16_a_batch_without_a_target_adds_nothing(tmp_path):
    """A long question is cut into blocks, each a batch, of which most hold nothing of the answer."""
    turns = [{"role": "user", "content": "the lazy dog " * 60}, {"role": "assistant", "content": "jumps"}]
    file = write_rows(tmp_path / "long.jsonl", [{"messages": turns}] * 3)
    files = (f"data.train={file}", f"data.validation={file}", "data.examples=blocks", "data.block_size=32")
    options = ("data.batch_size=1", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    run, result = train(*chat_arguments(tmp_path), *files, *options)
    answer = len(AutoTokenizer.from_pretrained(run.paths.model)("jumps<|im_end|>")["input_ids"])
    assert 0 < result["train"]["targets"] <= 3 * answer < result["steps"], "most steps have no target"
    assert result["train"]["targets"] == result["after"]["targets"]
    assert is_finite(run)
    assert result["after"]["loss"] < result["before"]["loss"]


def test_fault_17_a_text_of_one_token_is_dropped_and_counted(tmp_path):
    model = saved(tmp_path, "llama", bos_token_id=None)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token = tokenizer.bos_token = None  # whose separators would make two tokens of one
    tokenizer.save_pretrained(model)
    arguments = text_arguments(tmp_path)
    (tmp_path / "text.txt").write_text("a\n" + "the quick brown fox\n" * 8)
    options = ("data.examples=lines", "trainer.log_every_n_steps=1", "data.batch_size=1")
    run, result = train("model=causal", f"model.name_or_path={model}", *arguments, *options)
    assert result["data"]["train"]["documents_dropped"] == {"too short": 1}
    assert result["data"]["train"]["examples"] == 8
    assert is_finite(run)


def test_fault_19_an_empty_validation_is_said_or_asked_for(terminal):
    (terminal.folder / "empty.txt").write_text("\n \n")
    said = terminal.refuses_to_train("data.validation_fraction=null", "data.validation=empty.txt")
    assert "there is no text in empty.txt" in said and "2 blank" in said
    said = terminal.refuses_to_train("data.validation_fraction=0.0001")
    assert "none of the 60 documents is selected for validation" in said and "data.validation_fraction=0." in said
    said = terminal.trains("data.validation_fraction=null", "trainer.max_steps=2", "run.name=by-default")
    assert "0.05 of the training documents, held out" in " ".join(said.split())
    terminal.trains("data.validation_fraction=0", "trainer.max_steps=2", "run.name=train-only")
    folder = terminal.folder / "runs" / "train-only"
    result = json.loads((folder / "metrics.json").read_text())
    assert (result["status"], result["steps"], result["after"]) == ("complete", 2, None)
    assert (folder / "checkpoints" / "last.ckpt").exists() and (folder / "model").is_dir()


def test_fault_20_too_little_to_train_on_is_said_with_the_counts(terminal):
    said = " ".join(terminal.trains("data.batch_size=1000", "trainer.max_steps=2", "run.name=short").split())
    assert "the training text makes 34 examples, fewer than one batch of 1000: each epoch is one small batch" in said
    (terminal.folder / "text.txt").write_text("\n\n \n")
    assert "text.txt (dropped: 3 blank)" in terminal.refuses_to_train()
    (terminal.folder / "text.txt").write_text("")
    assert "there is no text in" in terminal.refuses_to_train()


def test_fault_31_a_missing_mask_or_padding_token(terminal, monkeypatch):
    monkeypatch.setattr("lmft.system.hub.require", lambda *asked: pytest.fail(f"the hub is asked for {asked}"))
    write_text(terminal.folder / "text.txt")
    said = terminal.refuses("train", "model=gpt2", "objective=mlm", "data=files", "data.train=text.txt")
    assert "it is a causal model" in said and "objective=causal" in said
    bytes_of_gpt2 = ("model.tokenizer.special_tokens=gpt2", "model.tokenizer.algorithm=bpe")
    said = terminal.refuses_to_train(*bytes_of_gpt2, "model.tokenizer.vocab_size=320")
    assert "no mask token" in said


@pytest.mark.slow
def test_fault_31_where_the_end_of_text_pads_it_is_still_learnt(tmp_path):
    """Of a document all tokens but the first are targets, its end among them; of padding none."""
    arguments = text_arguments(tmp_path)
    line = "the quick brown fox"
    (tmp_path / "text.txt").write_text(f"{line}\n{line} jumps\n" * 8)
    (tmp_path / "held_out.txt").write_text(f"{line}\n{line} jumps over a lazy dog\n" * 2)
    options = ("data.examples=lines", "trainer.max_epochs=40", "optimizer.lr=1e-2", f"data.probes=['{line} jumps']")
    run, result = train(*SCRATCH, *arguments, *options)
    tokenizer = AutoTokenizer.from_pretrained(run.paths.model)
    assert tokenizer.pad_token_id in (None, tokenizer.eos_token_id)
    held_out = result["data"]["validation"]
    assert result["after"]["targets"] == held_out["tokens"] - held_out["documents"]
    answer = json.loads(run.paths.samples.read_text().splitlines()[-1])
    assert answer["texts"]["greedy"] == "", "the text ends here"


def test_fault_32_long_lines_are_cut_to_what_the_model_takes(terminal):
    (terminal.folder / "text.txt").write_text("the quick brown fox\n" * 20 + "a lazy dog " * 500)
    lines = ("data.examples=lines", "data.validation_fraction=0", "model.config.max_position_embeddings=64")
    said = terminal.refuses_to_train(*lines, "data.block_size=65")
    assert "data.block_size=65 is longer than the 64 positions of distilbert" in said and "data.block_size=64" in said
    terminal.trains(*lines, "data.block_size=64", "run.name=cut")
    ledger = json.loads((terminal.folder / "runs" / "cut" / "metrics.json").read_text())["data"]["train"]
    assert ledger["examples"] > ledger["documents"] and not ledger["tokens_dropped"]


def test_fault_32_a_vocabulary_that_the_model_has_no_rows_for(terminal):
    model = saved(terminal.folder, "gpt2")
    other = train_vocabulary([text[::-1] for text in TEXTS], "bpe", 330, lowercase=False, style="gpt2")
    other.save_pretrained(terminal.folder / "other")
    said = terminal.refuses(
        *("train", "model=causal", f"model.name_or_path={model}", "model.tokenizer.name_or_path=other"),
        *text_arguments(terminal.folder),
    )
    assert "% of the tokenizer's 330 ids stand for other tokens than in the model's own" in said
    assert "model.tokenizer.replace=true" in said


@pytest.mark.parametrize("examples", ["blocks", "lines"])
def test_fault_33_permuted_examples_of_odd_lengths(examples, tmp_path):
    (tmp_path / "text.txt").write_text("the\nthe quick\nthe quick brown\n" * 40)
    (tmp_path / "held_out.txt").write_text("the quick brown\nthe quick brown fox jumps\n" * 10)
    files = ("data.validation_fraction=null", f"data.validation={tmp_path}/held_out.txt")
    odd = ("data.block_size=33", f"data.examples={examples}", "trainer.log_every_n_steps=1")
    run, result = train_tiny(tmp_path, *files, *odd, "trainer.max_steps=3", model="xlnet_tiny")
    assert result["steps"] == 3 and math.isfinite(result["after"]["loss"]) and is_finite(run)
