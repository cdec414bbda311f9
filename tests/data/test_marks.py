"""The ledger tells whether a text has words and sentences that an objective can use, and a warning if not."""

import logging

import pytest

from lmft.assembly import assemble
from lmft.config.load import compose
from lmft.reporting.tables import ledger_table

THAI = "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจและวิ่งไปตามถนนในเมืองเก่าที่เงียบสงบ"
ENGLISH = "The fox jumps over the dog. It runs away! Does it come back? It does."
CHINESE = "狐狸跳过了狗。它跑了！它回来吗？它回来。"


def corpus_of(folder, text: str, *more: str):
    path = folder / "text.txt"
    path.write_text("\n".join(f"{text}{number}" for number in range(60)), encoding="utf-8")
    arguments = ["data=lines", f"data.train={path}", "data.validation_fraction=0.2", f"data.cache_dir={folder}/cache"]
    return assemble(compose([*arguments, "data.batch_size=4", "trainer.max_steps=2", *more])).corpus


def masked(algorithm: str, size: int, objective: str) -> list[str]:
    tokenizer = [f"model.tokenizer.algorithm={algorithm}", f"model.tokenizer.vocab_size={size}"]
    return ["model=distilbert_tiny", *tokenizer, f"objective={objective}"]


BART = ["model=bart_tiny", "model.tokenizer.vocab_size=350"]


@pytest.mark.parametrize(("text", "is_told"), [(THAI, True), (ENGLISH, False)], ids=["Thai", "English"])
def test_tokens_per_word_are_counted_and_long_ones_warned_of(text, is_told, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        ledger = corpus_of(tmp_path, text, *masked("unigram", 90, "whole_word")).ledger
    assert (ledger["train"]["tokens_per_word"] > 6) == is_told
    assert any("cannot tell words" in line and "objective=mlm" in line for line in caplog.messages) == is_told
    assert "tokens per word" in [row[0] for row in ledger_table(ledger).rows]


def test_words_of_one_token_are_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        corpus_of(tmp_path, CHINESE, *masked("wordpiece", 90, "whole_word"))
    assert any("every word is one token" in line for line in caplog.messages)


def test_objectives_on_tokens_count_no_words(tmp_path):
    assert "tokens_per_word" not in corpus_of(tmp_path, ENGLISH, *masked("wordpiece", 90, "mlm")).ledger["train"]


@pytest.mark.parametrize(
    ("text", "is_told"), [(THAI, True), (ENGLISH, False), (CHINESE, False)], ids=["Thai", "English", "Chinese"]
)
def test_examples_of_one_sentence_are_counted_and_warned_of(text, is_told, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        ledger = corpus_of(tmp_path, text, *BART).ledger
    assert ledger["train"]["one_sentence"] == float(is_told)
    assert any("objective.permute_sentences=0" in line for line in caplog.messages) == is_told


def test_sentences_are_not_counted_where_none_is_permuted(tmp_path):
    ledger = corpus_of(tmp_path, THAI, *BART, "objective.permute_sentences=0").ledger
    assert "one_sentence" not in ledger["train"]
