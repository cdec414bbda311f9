"""Rows of sources and targets become tokens of which the target's are known, or one line that says what is wrong."""

import json

import numpy as np
import pytest

from lmft.data.formats.pairs import Pair, PairEncoder, pairs
from lmft.data.loading import load_corpus
from lmft.data.sources.rows import Chunk
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.data.training_texts import TrainingTexts
from lmft.errors import UserError
from lmft.objectives.base import ANSWER, SPECIAL
from lmft.objectives.pairs import Pairs
from tests.helpers.models import TEXTS
from tests.helpers.options import data_options
from tests.helpers.stores import counting

COLUMNS = {"source": "source", "target": "target"}
PAIRS = [Pair(text, " ".join(text.split()[:3])) for text in TEXTS]


def read(*rows: dict, columns=COLUMNS, tally=None):
    names = {name: None for row in rows for name in row}
    chunk = Chunk("pairs.jsonl", range(1, len(rows) + 1), {name: [row.get(name) for row in rows] for name in names})
    source = Source("pairs", "", None, lambda columns, tally: iter([chunk]))
    return [pair for _, pair in pairs(source, columns, tally or Tally())]


def test_columns_have_the_users_names():
    row = {"article": "long", "highlights": "short", "id": 3}
    assert read(row, columns={"source": "article", "target": "highlights"}) == [Pair("long", "short")]


def test_texts_are_mended_and_rows_without_values_counted():
    tally = Tally()
    empty = [(None, None), ("a", None), ("a", " "), ("", "b")]
    rows = [{"source": "a\0b", "target": "c"}, *({"source": source, "target": target} for source, target in empty)]
    assert read(*rows, tally=tally) == [Pair("ab", "c")]
    assert tally.counts == {"nul": 1, "none": 4}


def test_a_row_that_is_no_pair_is_skipped_and_named():
    tally = Tally(skips=True)
    rows = [{"source": ["a"], "target": "b"}, {"source": "a", "target": "b"}]
    assert read(*rows, tally=tally) == [Pair("a", "b")]
    assert tally.counts == {"skipped": 1}
    assert "pairs.jsonl, row 1: 'source' holds a list, not text" in tally.warnings()[0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"source": "a", "target": 3}, "'target' holds a number, not text"),
        ({"source": ["a"], "target": "b"}, "'source' holds a list, not text"),
    ],
)
def test_bad_rows_are_named(row, said):
    with pytest.raises(UserError) as error:
        read({"source": "a", "target": "b"}, row)
    assert said in str(error.value) and "pairs.jsonl, row 2" in str(error.value)
    assert error.value.fix and len(str(error.value).splitlines()) == 3


def test_a_column_that_is_not_there():
    with pytest.raises(UserError, match=r"there is no 'target' \(did you mean 'targets'\?\)") as error:
        read({"source": "a", "targets": "b"})
    assert error.value.fix.startswith("data.columns.target=NAME of the column that holds it; or data.on_error=skip")


@pytest.mark.parametrize("kind", ["t5", "bart", "causal"])
def test_each_side_has_its_separators_and_the_target_is_the_answer(kind, request):
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    encoder = PairEncoder(tokenizer)
    tokens, flags, lengths = encoder.encode(PAIRS)
    end = [tokenizer.eos_token_id] if kind == "causal" else []  # whose template ends no text
    for pair, stop, length in zip(PAIRS, np.cumsum(lengths), lengths, strict=True):
        here = slice(stop - length, stop)
        source, target = (tokenizer(side)["input_ids"] + end for side in pair)
        assert tokens[here].tolist() == source + target
        assert ((flags[here] & ANSWER) != 0).tolist() == [False] * len(source) + [True] * len(target)
        assert flags[stop - 1] & SPECIAL


def corpus_of(folder, tokenizer, **options):
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    given = {"train": str(file), "validation_fraction": 0, "cache_dir": str(folder / "cache"), **options}
    config = data_options(**{"format": "pairs", "examples": "lines", "too_long": "cut", **given})
    return load_corpus(config, tokenizer, Pairs(), 1, counting)


def shortened(ids: list[int], limit: int) -> list[int]:
    """Without what is too much before the last token, which ends the text."""
    return ids if len(ids) <= limit else ids[: limit - 1] + ids[-1:]


@pytest.mark.parametrize("kind", ["t5", "bart"])
@pytest.mark.parametrize("limits", [(512, 128), (9, 4), (5, 128), (512, 3), (4, 4)])
def test_sides_are_cut_one_by_one_and_keep_their_separators(kind, limits, request, tmp_path):
    if kind == "bart" and 3 in limits:
        limits = (512, 4)  # one token more stands around a text
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    corpus = corpus_of(tmp_path, tokenizer, max_source_tokens=limits[0], max_target_tokens=limits[1])
    examples = corpus.examples["train"]
    chosen = np.array([3, 0, len(PAIRS) - 1])
    rows = examples.rows(chosen)
    num_cut = 0
    for number, pair in enumerate(PAIRS):
        whole = [tokenizer(side)["input_ids"] for side in pair]
        sides = [shortened(ids, limit) for ids, limit in zip(whole, limits, strict=True)]
        num_cut += sides != whole
        assert examples.lengths[number] == len(sides[0]) + len(sides[1])
        for row in np.flatnonzero(chosen == number):
            length = rows.lengths[row]
            assert rows.tokens[row, :length].tolist() == sides[0] + sides[1]
            is_answer = (rows.flags[row, :length] & ANSWER) != 0
            assert is_answer.tolist() == [False] * len(sides[0]) + [True] * len(sides[1])
            assert (rows.tokens[row, length:] == tokenizer.pad_token_id).all()
    ledger = corpus.ledger["train"]
    assert ledger["tokens"] == ledger["tokens_in_examples"] + ledger["tokens_dropped"]
    assert (ledger["documents_cut"] or 0) == num_cut and (num_cut > 0) == (ledger["tokens_dropped"] > 0)


def test_long_pairs_are_refused_where_asked_for(t5_tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"are longer than data.max_source_tokens=9 or data.max_target") as error:
        corpus_of(tmp_path, t5_tokenizer, max_source_tokens=9, too_long="refuse")
    assert "pairs.jsonl, row 1" in str(error.value)


def test_a_limit_without_room_is_refused(bart_tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"data.max_target_tokens=2 leaves no room"):
        corpus_of(tmp_path, bart_tokenizer, max_target_tokens=2)


@pytest.mark.parametrize("options", [{"examples": "blocks"}, {"examples": "packs"}, {"examples": "lines"}])
def test_pairs_are_not_cut_in_other_ways(options):
    with pytest.raises(UserError, match="pairs are not cut"):
        data_options(format="pairs", **options)


def test_a_vocabulary_is_trained_on_both_sides(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    config = data_options(train=str(file), validation_fraction=0.0, format="pairs", examples="lines", too_long="cut")
    assert list(TrainingTexts(config)) == [side for pair in PAIRS for side in pair]
