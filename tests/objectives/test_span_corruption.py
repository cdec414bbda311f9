"""Spans are hidden as T5 hides them: how many, how long, and what stands for them."""

from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.objectives.mixture import Mixture
from lmft.objectives.span_corruption import SpanCorruption, sentinel, sentinel_ids
from tests.helpers.rows import drawn_rows, near
from tests.helpers.seq2seq import EOS, SENTINELS, VOCABULARY, examples_of, numbered, texts_of

NUMBER_OF = {i: number for number, i in enumerate(SENTINELS.values())}


def sizes_by_the_paper(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Tokens of inputs and targets, counted for one length at a time."""
    num_hidden = min(max(round(length * density), 1), length - 1)
    num_spans = min(max(round(num_hidden / mean_span), 1), length - num_hidden)
    return length - num_hidden + num_spans + 1, num_hidden + num_spans + 1


def merged(inputs: list[int], targets: list[int]) -> list[int]:
    """The text again: each sentinel of the inputs replaced by what follows it in the targets."""
    assert inputs[-1] == targets[-1] == EOS
    spans: dict[int, list[int]] = {}
    for token in targets[:-1]:
        if token in NUMBER_OF:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    assert [NUMBER_OF[i] for i in inputs if i in NUMBER_OF] == [NUMBER_OF[i] for i in spans] == list(range(len(spans)))
    assert all(spans.values())
    return [token for shown in inputs[:-1] for token in spans.get(shown, [shown])]


@pytest.mark.parametrize(("block_size", "num_raw", "num_targets"), [(128, 141, 29), (512, 568, 114), (1024, 1137, 229)])
def test_the_sizes_of_t5(block_size, num_raw, num_targets):
    objective = SpanCorruption()
    assert objective.num_raw_tokens(block_size) == num_raw
    sentinels = {f"<extra_id_{i}>": 3000 + i for i in range(100)}
    example = examples_of(objective, numbered(2, num_raw), replace(VOCABULARY, size=4000, ids=sentinels))[1]
    assert (len(example.inputs), len(example.said)) == (block_size, num_targets)


@pytest.mark.parametrize("density", [0.01, 0.15, 0.3, 0.5, 0.85])
@pytest.mark.parametrize("mean_span", [1.0, 3.0, 8.0, 64.0])
def test_the_longest_text_that_fits(density, mean_span):
    objective = SpanCorruption(density, mean_span)
    for block_size in (3, 4, 5, 17, 64, 128, 511, 1024):
        num_raw = objective.num_raw_tokens(block_size)
        assert sizes_by_the_paper(num_raw, density, mean_span)[0] <= block_size
        assert sizes_by_the_paper(num_raw + 1, density, mean_span)[0] > block_size


@settings(max_examples=60, deadline=None)
@given(rows=drawn_rows(), density=st.floats(0.01, 0.99), mean_span=st.floats(1, 9), epoch=st.integers(0, 3))
def test_inputs_and_targets_make_the_text(rows, density, mean_span, epoch):
    found = examples_of(SpanCorruption(density, mean_span), rows, epoch=epoch)
    for text, example in zip(texts_of(rows), found, strict=True):
        if len(text) == 1:
            assert (example.inputs, example.said) == ([*text, EOS], [EOS])
            continue
        assert merged(example.inputs, example.said) == text
        assert (len(example.inputs), len(example.said)) == sizes_by_the_paper(len(text), density, mean_span)
        assert example.inputs[0] == text[0]  # a shown part comes first
        assert example.inputs[-2] in NUMBER_OF  # and a hidden one last


def test_every_way_of_cutting_is_as_probable():
    num = 6000
    examples = examples_of(SpanCorruption(0.4, 2.0), numbered(num, 10))  # 4 hidden tokens in 2 spans among 6 others
    ways = Counter()
    for example in examples:
        hidden = set(range(100, 110)) - set(example.inputs)
        runs = [len(list(run)) for _, run in groupby(range(100, 110), key=lambda token: token in hidden)]
        ways[tuple(runs)] += 1
    assert set(ways) == {(a, b, 6 - a, 4 - b) for a in range(1, 6) for b in range(1, 4)}
    assert all(near(count, num, 1 / 15) for count in ways.values())


@pytest.mark.parametrize("ids", [[99, 98, 97, 96], [60, 61, 62, 63], [62, 60, 63, 61]])
def test_sentinels_go_by_their_text(ids):
    vocabulary = replace(VOCABULARY, ids={f"<extra_id_{i}>": ids[i] for i in (2, 0, 3, 1)})
    example = examples_of(SpanCorruption(0.4, 2.0), numbered(1, 20), vocabulary)[0]
    assert [token for token in example.inputs if token in ids] == ids


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ids": {}}, r"no sentinels \(<extra_id_0>"), ({"eos_id": None}, "end-of-sequence"),
        ({"ids": {"<extra_id_1>": 9}}, "no sentinels"),
        ({"ids": {f"<extra_id_{i}>": 50 + i for i in range(27)}}, "need 28 sentinels and the tokenizer has 27"),
    ],
)  # fmt: skip
def test_vocabularies_that_do_not_do(wrong, message):
    SpanCorruption().check(VOCABULARY, 512)
    with pytest.raises(ValueError, match=message):
        SpanCorruption().check(replace(VOCABULARY, **wrong), 512)


@pytest.mark.parametrize("block_size", [0, 1, 2])
def test_blocks_that_are_too_short(block_size):
    with pytest.raises(ValueError, match="too short"):
        SpanCorruption().check(VOCABULARY, block_size)


@pytest.mark.parametrize("wrong", [(0, 3), (1, 3), (15, 3), (float("nan"), 3), (0.15, 0.9), (0.15, float("nan"))])
def test_options_that_make_no_spans(wrong):
    with pytest.raises(ValueError, match=r"objective\."):
        SpanCorruption(*wrong)


@pytest.mark.parametrize("form", ["<extra_id_{}>", "▁<extra_id_{}>"])
def test_sentinels_are_found_as_tokens_and_as_pieces(form):
    vocabulary = {form.format(number): 90 - number for number in (2, 0, 1)} | {"<extra_id_x>": 3, "a<extra_id_0>": 4}
    assert list(sentinel_ids(vocabulary).items()) == [(0, 90), (1, 89), (2, 88)]


def test_a_tokenizer_without_sentinels_is_given_a_hundred():
    new = SpanCorruption().new_tokens({"<pad>", "</s>"})
    assert new == [sentinel(number) for number in range(100)]
    assert SpanCorruption().new_tokens({sentinel(0)}) == []
    assert Mixture([SpanCorruption(), SpanCorruption(0.5)], [1, 1]).new_tokens({sentinel(0)}) == []
