"""Statistics of a text are counted again, from the rows and the examples themselves."""

import json
from collections import Counter

import numpy as np
import pytest

from lmft import api
from lmft.inspection.statistics import summary
from tests.helpers.runs import tiny_arguments

TEXTS = ["the lazy dog", "the fox jumps over the dog", "the lazy dog", "a fox", "the lazy dog", "a fox"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Statistics of the texts, by their rows."""
    folder = tmp_path_factory.mktemp("statistics")
    arguments = tiny_arguments(folder)
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    train = ["data.examples=lines", f"data.train={rows}", "data.validation_fraction=0"]
    arguments = [*arguments, *train, "inspect.epochs=1"]
    return api.inspect(arguments), arguments


def test_lengths_words_and_frequencies_are_those_of_the_text(found):
    view, _ = found
    statistics = view.data["statistics"]["train"]
    tokens = [
        [token for token in each["text"] if "special" not in token and token["role"] != "padding"]
        for each in view.examples
    ]
    counts = Counter(token["id"] for own in tokens for token in own)
    assert len(tokens) == len(TEXTS)
    assert statistics["tokens_per_word"] == pytest.approx(counts.total() / sum(len(text.split()) for text in TEXTS))
    shares = {each["id"]: each["share"] for each in statistics["frequent"]}
    assert shares == {token: pytest.approx(count / counts.total()) for token, count in counts.most_common(len(shares))}
    assert statistics["vocabulary"]["used"] == len(counts)
    lengths = np.array([len(own) for own in tokens]) + 2  # the separators
    for kind in ("documents", "examples"):
        summary = statistics["lengths"][kind]
        assert summary["number"] == len(TEXTS) and summary["mean"] == pytest.approx(lengths.mean())
        assert (summary["quantiles"]["min"], summary["quantiles"]["max"]) == (lengths.min(), lengths.max())
        for part in summary["histogram"]:
            assert part["count"] == ((lengths >= part["low"]) & (lengths < part["high"])).sum()
        assert sum(part["count"] for part in summary["histogram"]) == len(TEXTS)


def test_a_few_long_documents_leave_the_others_in_many_ranges():
    lengths = np.array([*range(5, 131), 16_254])
    found = summary(lengths)
    assert found["log"] and not summary(lengths[:-1])["log"]
    parts = found["histogram"]
    assert sum(part["count"] > 0 for part in parts) > 8 and sum(part["count"] for part in parts) == len(lengths)
    assert parts[0]["low"] == 5 and parts[-1]["high"] == 16_255
    assert [part["high"] for part in parts[:-1]] == [part["low"] for part in parts[1:]]


def test_repeated_documents_are_counted_and_shown(found):
    view, _ = found
    repeated = view.data["statistics"]["train"]["repeated"]
    assert repeated["documents"] == len(TEXTS) - len(set(TEXTS)) and repeated["share"] == 3 / len(TEXTS)
    assert {each["text"]: each["times"] for each in repeated["texts"]} == {"the lazy dog": 3, "a fox": 2}


def test_unknown_text_is_counted_and_shown(found, tmp_path):
    _, arguments = found
    (tmp_path / "odd.jsonl").write_text(json.dumps({"text": "the 狗 dog 狗"}))
    run = ["data.examples=lines", "data.validation_fraction=0", "inspect.epochs=1"]
    api.train([*arguments[:-1], "run.name=known", f"run.dir={tmp_path}", "trainer.max_steps=1"])
    known = ["model=masked", f"model.name_or_path={tmp_path}/known/model", "data=files"]
    odd = [f"data.train={tmp_path}/odd.jsonl", f"data.cache_dir={tmp_path}/cache", "data.block_size=32"]
    unknown = api.inspect([*known, *odd, *run]).data["statistics"]["train"]["unknown"]
    assert unknown["tokens"] == 2 and unknown["texts"] == ["狗"]
