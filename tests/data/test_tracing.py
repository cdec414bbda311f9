"""The document of each target, where every token of the text tells its document."""

from dataclasses import dataclass

import numpy as np
import pytest

from lmft.data.batches import Batches
from lmft.data.examples.base import Sample
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents
from lmft.data.examples.windows import Lines, Packs
from lmft.data.schedule.sampler import MicroBatch
from lmft.objectives.base import IGNORED, Objective, Vocabulary, body_inputs, padded_targets
from lmft.objectives.causal import NextToken
from lmft.objectives.fim import SENTINELS, FillInTheMiddle
from lmft.objectives.mixture import Mixture
from lmft.objectives.mlm import MaskedDenoising, MaskedTokens
from lmft.objectives.permutation import Permutation
from lmft.objectives.prefix_lm import PrefixLM
from lmft.objectives.span_corruption import SpanCorruption
from lmft.objectives.text_infilling import TextInfilling
from lmft.objectives.whole_word import MaskedWords
from tests.helpers.stores import PAD, Store

BOS, EOS = 1, 5
BODIES = [
    [*range(start, stop)] for start, stop in ((10, 17), (17, 18), (18, 18), (18, 60), (60, 64), (64, 90), (90, 93))
]
SENTINEL = {f"<extra_id_{number}>": 200 + number for number in range(50)} | dict(
    zip(SENTINELS[0], range(300, 303), strict=True)
)
VOCABULARY = Vocabulary(400, 4, np.arange(10, 93), pad_id=PAD, eos_id=EOS, ids=SENTINEL, decoder_start_id=0)
OBJECTIVES = [
    *(NextToken(), FillInTheMiddle(1.0, 0.5), MaskedTokens(0.5), MaskedWords(0.5), MaskedDenoising(0.5)),
    *(PrefixLM(), SpanCorruption(0.4, 2.0), TextInfilling(), Permutation(0.5)),
    Mixture([SpanCorruption(), PrefixLM(), TextInfilling()], [1.0, 1.0, 1.0]),
]
CHOSEN = np.array([0, 1, 3, 4, 5, 6])  # not the third, which is empty
store = Store(BODIES, [BOS], [EOS])
documents = Documents(store, CHOSEN)


def cut(how: str):
    if how == "sample":
        return Sample(Blocks(documents, 12, PAD, numbered=True), 5, seed=1)
    return {
        "blocks": lambda: Blocks(documents, 12, PAD, numbered=True),
        "isolated": lambda: Blocks(documents, 13, PAD, isolated=True),
        "lines": lambda: Lines(documents, 14, PAD, stride=5),
        "packs": lambda: Packs(documents, 16, PAD),
    }[how]()


def document_of(token: int) -> int | None:
    """The index, among those chosen, of the document that a token is in; None for separators and sentinels."""
    return next((index for index, number in enumerate(CHOSEN) if token in BODIES[number]), None)


@pytest.mark.parametrize("how", ["blocks", "isolated", "lines", "packs", "sample"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_each_target_knows_its_document(objective, how):
    examples = cut(how)
    batches = Batches(examples, objective, VOCABULARY, 3, "validation", names_documents=True)
    num_placed = 0
    for numbers in (np.arange(len(examples)), np.arange(len(examples))[1::2][::-1]):
        batch = batches[MicroBatch(0, numbers)]
        found = batch.target_documents
        assert found.shape == batch.targets.shape
        targets = batch.targets.numpy()
        assert (found[targets == IGNORED] == -1).all()
        for token, document in zip(targets, found, strict=True):
            if token != IGNORED and document_of(token) is not None:
                assert document == document_of(token)
                num_placed += 1
            elif token != IGNORED:
                assert 0 <= document < len(CHOSEN)
    assert num_placed > 20


def test_separators_are_of_their_own_document():
    examples = Blocks(documents, 1000, PAD)
    batch = Batches(examples, NextToken(), VOCABULARY, 3, "validation", names_documents=True)[
        MicroBatch(0, np.arange(1))
    ]
    real = batch.targets.numpy() != IGNORED
    of_separators = batch.target_documents[real][np.isin(batch.targets.numpy()[real], [BOS, EOS])]
    assert of_separators.tolist() == [0, *np.repeat(np.arange(1, 6), 2)]


def test_sentinels_are_of_the_span_that_follows_and_the_end_of_the_span_before():
    batch = Batches(Blocks(documents, 40, PAD), SpanCorruption(0.4, 2.0), VOCABULARY, 3, "v", names_documents=True)[
        MicroBatch(0, np.arange(2))
    ]
    real = batch.targets.numpy() != IGNORED
    targets, found = batch.targets.numpy()[real], batch.target_documents[real]
    spans = np.flatnonzero(targets >= 200)
    assert len(spans) > 4
    np.testing.assert_array_equal(found[spans], found[spans + 1])
    ends = np.flatnonzero((targets == EOS) & (np.append(targets[1:], 200) == 200))  # the next row begins
    np.testing.assert_array_equal(found[ends], found[ends - 1])


@dataclass(frozen=True)
class Every(Objective):
    """Of a user: the tokens with even ids are targets."""

    shift: int = 0
    families = ("masked",)

    def __call__(self, rows, vocabulary, noise):
        row, column = np.nonzero((rows.tokens % 2 == 0) & (rows.tokens >= 10) & (rows.tokens < 100))
        index = row * rows.tokens.shape[1] + column + self.shift
        return body_inputs(rows, rows.tokens) | padded_targets(index, rows.tokens[row, column])


def test_a_users_objective_that_reads_ids_is_understood_where_targets_stand_at_their_places():
    def found(examples, shift):
        batches = Batches(examples, Every(shift), VOCABULARY, 3, "validation", names_documents=True)
        batch = batches[MicroBatch(0, np.arange(2))]
        return batch.targets, batch.target_documents

    targets, of_targets = found(Blocks(documents, 12, PAD), 0)
    for token, document in zip(targets.tolist(), of_targets, strict=True):
        assert document == (-1 if token == IGNORED else document_of(token))
    assert found(Blocks(documents, 12, PAD), -1)[1] is None
    targets, of_targets = found(Lines(documents, 14, PAD), -1)
    assert [document_of(token) for token in targets.tolist() if token != IGNORED] == of_targets[
        of_targets >= 0
    ].tolist()


def test_batches_that_are_not_asked_tell_no_documents():
    batches = Batches(Blocks(documents, 12, PAD), NextToken(), VOCABULARY, 3, "validation")
    assert batches[MicroBatch(0, np.arange(2))].target_documents is None
