"""What is shown of a batch is counted again, from the batch itself."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lmft.data.schedule.sampler import MicroBatch
from lmft.inspection import Viewer, first_example
from lmft.objectives.base import IGNORED, Objective, body_inputs, padded_targets
from lmft.objectives.causal import NextToken
from lmft.objectives.mlm import MaskedTokens

OBJECTIVES = {
    "mlm": ("distilbert_tiny",),
    "whole_word": ("distilbert_tiny", "objective=whole_word"),
    "causal": ("gpt2_tiny",),
    "causal_isolated": ("gpt2_tiny", "data.examples=packs"),
    "causal_lines": ("gpt2_tiny", "data.examples=lines", "data.stride=20"),
    "fim": ("gpt2_tiny", "objective=fim", "objective.fim_rate=1"),
    "span_corruption": ("t5_tiny",),
    "span_corruption_lines": ("t5_tiny", "data.examples=lines"),
    "prefix_lm": ("t5_tiny", "objective=prefix_lm"),
    "mixture": ("t5_tiny", "objective=mixture"),
    "text_infilling": ("bart_tiny", "objective.token_delete_ratio=0.1", "objective.rotate=0.5"),
    "mlm_of_a_decoder": ("bart_tiny", "objective=mlm"),
    "permutation": ("xlnet_tiny",),
}
EXAMPLES = np.arange(6)


def viewer_of(parts, objective=None):
    data = parts.datamodule()
    data.objective = objective or data.objective
    return Viewer(data, parts.tokenizer, parts.module_class.family.is_causal)


@pytest.fixture(params=OBJECTIVES)
def shown(request, parts_of):
    """A batch as it is shown, and the batch."""
    viewer = viewer_of(parts_of(*OBJECTIVES[request.param]))
    return viewer.batch("train", MicroBatch(1, EXAMPLES)), viewer.data.batch(EXAMPLES, epoch=1), viewer


def stream_of(example, name):
    return next(stream["tokens"] for stream in example["streams"] if stream["name"] == name)


def targets_shown(batch):
    """(row, sequence, column, id) of every target that is shown."""
    return [
        (row, stream["name"], column, token["target"]["id"])
        for row, example in enumerate(batch["examples"])
        for stream in example["streams"]
        for column, token in enumerate(stream["tokens"])
        if "target" in token
    ]


def targets_in(batch):
    """The same of a batch, by the definition of `target_index`."""
    name = "decoder_input_ids" if "decoder_input_ids" in batch.inputs else "input_ids"
    width = batch.inputs[name].shape[1]
    mapping = batch.inputs.get("target_mapping")
    found = []
    for index, target in zip(batch.target_index.tolist(), batch.targets.tolist(), strict=True):
        if target == IGNORED:
            continue
        row, column = divmod(index, width if mapping is None else mapping.shape[1])
        if mapping is not None:
            (column,) = mapping[row, column].nonzero()[0].tolist()
        found.append((row, name, column, target))
    return found


def test_every_target_is_shown_once_where_it_is_predicted(shown):
    view, batch, _ = shown
    assert sorted(targets_shown(view)) == sorted(targets_in(batch))
    assert sum(example["counts"]["targets"] for example in view["examples"]) == batch.num_targets == view["num_targets"]


def test_the_ids_are_those_of_the_batch_and_of_the_stored_text(shown):
    view, batch, viewer = shown
    rows = viewer.data.corpus.examples["train"].rows(EXAMPLES)
    for row, example in enumerate(view["examples"]):
        assert [token["id"] for token in example["text"]] == rows.tokens[row].tolist()
        names = [stream["name"] for stream in example["streams"]]
        assert names == [name for name in ("input_ids", "decoder_input_ids") if name in batch.inputs]
        for name in names:
            assert [token["id"] for token in stream_of(example, name)] == batch.inputs[name][row].tolist()
    shapes = {name: list(tensor.shape) for name, tensor in batch.inputs.items()}
    assert view["shapes"] == shapes | {"target_index": [len(batch.targets)], "targets": [len(batch.targets)]}


def test_a_token_comes_from_an_equal_token_of_the_text_and_each_from_another(shown):
    view, _, _ = shown
    for example in view["examples"]:
        text = example["text"]
        assert example["traced"]
        for stream in example["streams"]:
            sources = [token["source"] for token in stream["tokens"] if "source" in token]
            assert len(sources) == len(set(sources))
            assert all(token["id"] == text[token["source"]]["id"] for token in stream["tokens"] if "source" in token)
            targets = [token["target"] for token in stream["tokens"] if "target" in token]
            assert all(each["id"] == text[each["source"]]["id"] for each in targets if "source" in each)


def test_a_role_says_whether_a_token_is_read_and_predicted(shown):
    view, _, _ = shown
    read = {"context", "kept", "predicted"}
    predicted = {"hidden", "replaced", "kept", "predicted"}
    for example in view["examples"]:
        in_inputs = {token.get("source") for token in stream_of(example, "input_ids")}
        targets = [
            token["target"].get("source") for s in example["streams"] for token in s["tokens"] if "target" in token
        ]
        for place, token in enumerate(example["text"]):
            if token["role"] == "padding":
                assert place not in in_inputs and place not in targets
                continue
            assert (token["role"] in read) == (place in in_inputs)
            assert (token["role"] in predicted) == (place in targets)
        roles = [token["role"] for token in example["text"]]
        counts = {role: roles.count(role) for role in dict.fromkeys(roles)}
        assert counts == {role: count for role, count in example["counts"].items() if role != "targets"}


def test_decoding_the_texts_gives_the_text(shown):
    view, _, viewer = shown
    for example in view["examples"]:
        tokens = [token for token in example["text"] if "special" not in token]
        whole = viewer.tokenizer.decode([token["id"] for token in tokens], clean_up_tokenization_spaces=False)
        assert "".join(token["text"] for token in tokens).strip() == whole.strip()


@pytest.mark.parametrize("name", ["mlm", "whole_word"])
def test_masked_replaced_and_kept_tokens_are_counted_as_in_the_batch(name, parts_of):
    parts = parts_of(*OBJECTIVES[name])
    viewer = viewer_of(parts)
    numbers = np.arange(len(parts.corpus.examples["train"]))
    view = viewer.batch("train", MicroBatch(0, numbers))
    batch = viewer.data.batch(numbers)
    real = batch.targets != IGNORED
    inputs = batch.inputs["input_ids"].ravel()[batch.target_index[real]]
    is_mask = inputs == parts.vocabulary.mask_id
    is_kept = inputs == batch.targets[real]
    expected = {"hidden": int(is_mask.sum()), "kept": int(is_kept.sum())}
    expected["replaced"] = len(inputs) - sum(expected.values())
    counts = {role: sum(e["counts"].get(role, 0) for e in view["examples"]) for role in expected}
    assert counts == expected and min(counts.values()) > 0
    for example in view["examples"]:
        for place, token in enumerate(example["text"]):
            there = stream_of(example, "input_ids")[place]
            if token["role"] in ("hidden", "replaced"):
                assert token["shown"]["id"] == there["id"] != token["id"]
                assert there["stands_for"] == place and there["target"]["source"] == place


def test_a_sentinel_stands_for_the_first_token_of_its_span(parts_of):
    parts = parts_of(*OBJECTIVES["span_corruption"])
    view = viewer_of(parts).batch("train", MicroBatch(0, EXAMPLES))
    for example in view["examples"]:
        sentinels = [
            token for token in stream_of(example, "input_ids") if token["text"].strip().startswith("<extra_id_")
        ]
        assert sentinels
        text = example["text"]
        for token in sentinels:
            place = token["stands_for"]
            assert text[place]["role"] == "hidden" and text[place]["shown"]["id"] == token["id"]
            assert text[place - 1]["role"] == "context"  # a span begins behind a shown token
        # The decoder predicts each sentinel and then its span.
        targets = [token["target"] for token in stream_of(example, "decoder_input_ids") if "target" in token]
        firsts = {
            sentinel["id"]: target["source"]
            for sentinel, target in pairwise(targets)
            if "source" not in sentinel and "source" in target
        }
        assert firsts == {token["id"]: token["stands_for"] for token in sentinels}


def columns_seen(token):
    return [column for start, stop in token["sees"] for column in range(start, stop)]


def predictions(view, name="input_ids"):
    for row, example in enumerate(view["examples"]):
        for column, token in enumerate(stream_of(example, name)):
            if "target" in token:
                yield row, column, token


def test_a_causal_prediction_sees_what_comes_before_it_in_its_document(parts_of):
    for name in ("causal", "causal_isolated"):
        viewer = viewer_of(parts_of(*OBJECTIVES[name]))
        view = viewer.batch("train", MicroBatch(0, EXAMPLES))
        documents = viewer.data.batch(EXAMPLES).inputs.get("document_ids")
        for row, column, token in predictions(view):
            expected = [*range(column + 1)]
            if documents is not None:
                expected = [each for each in expected if documents[row, each] == documents[row, column]]
            assert columns_seen(token) == expected


def test_a_masked_prediction_sees_the_whole_row_but_its_padding(parts_of):
    viewer = viewer_of(parts_of("distilbert_tiny", "data.examples=lines"))
    view = viewer.batch("train", MicroBatch(0, EXAMPLES))
    lengths = viewer.data.corpus.examples["train"].rows(EXAMPLES).lengths
    assert lengths.min() < lengths.max()
    for row, _, token in predictions(view):
        assert token["sees"] == [[0, lengths[row]]]


def test_a_permuted_prediction_sees_what_its_mask_lets_it_see_in_the_order_shown(parts_of):
    viewer = viewer_of(parts_of(*OBJECTIVES["permutation"]))
    view = viewer.batch("train", MicroBatch(0, EXAMPLES))
    mask = viewer.data.batch(EXAMPLES).inputs["perm_mask"]
    for row, column, token in predictions(view):
        assert columns_seen(token) == (mask[row, column] == 0).nonzero()[:, 0].tolist()
        others = [each for each in stream_of(view["examples"][row], "input_ids") if "target" in each]
        assert sorted(each["order"] for each in others) == [*range(1, len(others) + 1)]
        for place, other in enumerate(stream_of(view["examples"][row], "input_ids")):
            if "target" in other and place in columns_seen(token):
                assert other["order"] < token["order"]


def test_seams_are_where_another_document_begins(parts_of):
    parts = parts_of(*OBJECTIVES["causal"])
    documents = parts.corpus.documents["train"]
    view = viewer_of(parts).batch("train", MicroBatch(0, EXAMPLES))
    begins = set((np.cumsum(documents.lengths) - documents.lengths).tolist())  # in the stream of documents
    size = parts.data.block_size
    found = {
        number * size + column
        for number, example in zip(EXAMPLES.tolist(), view["examples"], strict=True)
        for column, token in enumerate(example["text"])
        if "seam" in token
    }
    assert found == {place for place in begins if place % size and place < len(EXAMPLES) * size} != set()


def test_the_noise_is_that_of_the_epoch(parts_of):
    viewer = viewer_of(parts_of(*OBJECTIVES["mlm"]))
    first, again, other = (viewer.batch("train", MicroBatch(epoch, EXAMPLES))["examples"] for epoch in (0, 0, 1))
    assert first == again
    roles = [[[token["role"] for token in example["text"]] for example in each] for each in (first, other)]
    assert roles[0] != roles[1]


def test_the_first_example_is_that_of_the_training_text(parts_of):
    parts = parts_of(*OBJECTIVES["span_corruption"])
    viewer = viewer_of(parts)
    batch = viewer.batch("train", MicroBatch(0, np.zeros(1, np.int64)))
    assert first_example(viewer.data, parts.tokenizer, False) == batch["examples"][0]


class Backwards(Objective):
    """Hides the first half of each row, and shows the second half in reverse."""

    families = ("masked",)

    def __call__(self, rows, vocabulary, noise):
        tokens = rows.tokens.copy()
        half = tokens.shape[1] // 2
        tokens[:, :half] = vocabulary.mask_id
        tokens[:, half:] = tokens[:, half:][:, ::-1]
        row, column = np.indices((len(tokens), half)).reshape(2, -1)
        return body_inputs(rows, tokens) | padded_targets(row * tokens.shape[1] + column, rows.tokens[row, column])


class FrequentOnly(MaskedTokens):
    """Reads which tokens it is given: only those with a small id are hidden."""

    def __call__(self, rows, vocabulary, noise):
        weight = np.zeros(vocabulary.size)
        weight[5:60] = 1.0
        return self.hide(rows, weight[rows.tokens] > 0, vocabulary, noise)


def test_an_objective_of_ones_own_is_followed_wherever_it_moves_tokens(parts_of):
    parts = parts_of(*OBJECTIVES["mlm"])
    view = viewer_of(parts, Backwards()).batch("train", MicroBatch(0, EXAMPLES))
    for example in view["examples"]:
        num_tokens = len(example["text"])
        assert example["traced"]
        assert [token["role"] for token in example["text"]] == ["hidden"] * (num_tokens // 2) + ["context"] * (
            num_tokens - num_tokens // 2
        )
        sources = [token.get("source") for token in stream_of(example, "input_ids")]
        assert sources == [None] * (num_tokens // 2) + [*range(num_tokens // 2, num_tokens)][::-1]


def test_an_objective_that_reads_ids_is_shown_by_comparing_them(parts_of):
    parts = parts_of(*OBJECTIVES["mlm"])
    objective = FrequentOnly(mask_share=1.0, random_share=0.0)
    viewer = viewer_of(parts, objective)
    view = viewer.batch("train", MicroBatch(0, EXAMPLES))
    batch = viewer.data.batch(EXAMPLES)
    assert sorted(targets_shown(view)) == sorted(targets_in(batch))
    rows = viewer.data.corpus.examples["train"].rows(EXAMPLES)
    for row, example in enumerate(view["examples"]):
        assert not example["traced"]
        expected = ["hidden" if 5 <= token < 60 else "context" for token in rows.tokens[row].tolist()]
        assert [token["role"] for token in example["text"]] == expected


def test_an_objective_with_random_numbers_of_its_own_is_shown_as_it_was(parts_of):
    """It would do otherwise the second time, so nothing could be followed."""

    class Unsteady(NextToken):
        def __call__(self, rows, vocabulary, noise):
            tokens = np.where(np.random.default_rng().random(rows.tokens.shape) < 0.3, vocabulary.eos_id, rows.tokens)
            return super().__call__(replace(rows, tokens=tokens), vocabulary, noise)

    view = viewer_of(parts_of(*OBJECTIVES["causal"]), Unsteady()).batch("train", MicroBatch(0, EXAMPLES))
    assert not any(example["traced"] for example in view["examples"])
    assert len(targets_shown(view)) == view["num_targets"]
