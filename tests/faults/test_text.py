"""Rows 28 to 30, 34 and 35: text that is not what it should be, and text and models that are not there."""

import json

import pytest
from huggingface_hub import constants

from lmft.assembly import assemble
from lmft.commands.prepare import tokenise as prepare
from lmft.data.formats.base import id_of
from lmft.data.store import TokenStore
from tests.helpers.runs import tiny, tiny_arguments

pytestmark = pytest.mark.timeout(60)

LINES = "the quick brown fox\njumps over a lazy dog\n" * 30
TRAIN_ONLY = ("data.validation_fraction=0", "trainer.max_steps=1")


def test_fault_28_a_byte_that_is_not_utf8_is_named_by_file_line_and_byte(terminal):
    (terminal.folder / "text.txt").write_bytes(LINES.encode() + b"the caf" + b"\xe9\n")
    said = terminal.refuses_to_train()
    assert "not utf-8 text: byte 0xe9" in said
    assert "text.txt, line 61, byte 8" in said and "data.encoding=latin-1" in said
    terminal.trains("data.encoding=latin-1", *TRAIN_ONLY)


def test_fault_29_nul_bom_blank_lines_and_line_separators(tmp_path):
    text = "\ufeffthe quick\0 brown fox\n\n \u2028\t\nlazy\u2028dog\n"
    (tmp_path / "text.txt").write_text(text * 20, encoding="utf-8")
    config = tiny(tmp_path, "data.validation_fraction=0")
    parts = assemble(config)
    ledger = prepare(config)["train"]
    assert ledger["cleaned"] == {"bom": 20, "nul": 20, "blank": 40}
    assert ledger["documents"] == 40, "U+2028 ends no line"
    ids = parts.corpus.documents["train"].store.tokens
    assert id_of(parts.tokenizer, "unk") not in ids and "quick brown" in parts.tokenizer.decode(ids[:12])


def test_fault_30_rows_without_a_text_are_counted_and_other_values_refused_by_their_row(terminal):
    rows = [{"text": line} for line in LINES.splitlines()]
    file = terminal.folder / "rows.jsonl"

    def write(*more):
        file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
        return f"data.train={file}"

    assert "2 none" in terminal.trains(write({"text": None}, {"text": None}), *TRAIN_ONLY)
    said = terminal.refuses_to_train(write({"text": None}, {"text": 7}))
    assert "holds a int, not text" in said and "rows.jsonl, row 62" in said
    said = terminal.trains(write({"text": None}, {"text": 7}), "data.on_error=skip", *TRAIN_ONLY)
    assert "1 skipped" in said and "rows.jsonl, row 62: column 'text' holds a int, not text" in said


def test_fault_34_a_damaged_cache_is_built_anew_once_and_said_so(terminal):
    command = ("prepare", *tiny_arguments(terminal.folder))
    terminal.succeeds(*command)
    (tokens,) = (terminal.folder / "cache" / "stores").glob("*/tokens.bin")
    whole = tokens.read_bytes()
    for damaged in (whole[:-2], whole[:99] + bytes([whole[99] ^ 1]) + whole[100:], b""):
        tokens.write_bytes(damaged)
        assert "the token store is damaged and is built again" in terminal.succeeds(*command)
        assert tokens.read_bytes() == whole
        assert "damaged" not in terminal.succeeds(*command)
    TokenStore(tokens.parent).verify()


def test_fault_34_a_damaged_vocabulary_is_trained_anew_and_said_so(terminal):
    command = ("prepare", *tiny_arguments(terminal.folder))
    terminal.succeeds(*command)
    (vocabulary,) = (terminal.folder / "cache").rglob("tokenizer.json")
    whole = vocabulary.read_bytes()
    vocabulary.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in terminal.succeeds(*command)
    assert vocabulary.read_bytes() == whole


@pytest.mark.parametrize(
    ("options", "option", "download"),
    [
        (("model=distilbert", "data.train=text.txt"), "model.name_or_path=FOLDER", "hf download distilbert/"),
        (("model=masked", "data=imdb"), "data.path=FOLDER", "hf download stanfordnlp/imdb --repo-type dataset"),
    ],
)
def test_fault_35_offline_and_not_cached(options, option, download, terminal, tokenizer, monkeypatch):
    cache = terminal.folder / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    tokenizer.save_pretrained(terminal.folder / "tokenizer")
    (terminal.folder / "text.txt").write_text("a text\n")
    ours = ("model.tokenizer.name_or_path=tokenizer", "model.from_scratch=true", "model.architecture=bert")
    said = terminal.refuses("train", "data=files", *(ours if "data=imdb" in options else ()), *options)
    assert "nor in the cache" in said and option in said and download in said
    assert str(cache) in said
