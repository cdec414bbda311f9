"""Permutation language modelling is that of transformers, token for token, and a model sees what it may and no more."""

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorForPermutationLanguageModeling, XLNetConfig, XLNetLMHeadModel

from lmft.data.schedule.noise import TokenNoise
from lmft.models.head import nats, target_logits
from lmft.objectives.base import IGNORED, SPECIAL, Rows
from lmft.objectives.permutation import Permutation
from tests.helpers.closeness import FLOAT32, NETWORK, assert_close, size_of
from tests.helpers.rows import MASK, PAD, VOCABULARY, alone, drawn_rows, near
from tests.helpers.seq2seq import numbered

few = settings(max_examples=60, deadline=None)
DENSE = Permutation(0.5, 3)  # many targets in few tokens


def batch_of(objective, rows, epoch=0):
    return objective(rows, VOCABULARY, TokenNoise(0, epoch, rows.numbers))


def rectangle(batch):
    """The targets' ids where they are in the rows [B, T], IGNORED elsewhere."""
    mapping = batch["target_mapping"]
    labels = np.full(batch["input_ids"].shape, IGNORED)
    real = batch["targets"] != IGNORED
    row, query = np.divmod(batch["target_index"][real], mapping.shape[1])
    assert (mapping[row, query].sum(axis=1) == 1).all() and mapping.sum() == real.sum()
    labels[row, mapping[row, query].argmax(axis=1)] = batch["targets"][real]
    return labels


def by_transformers(objective, rows, row, epoch):
    """What the collator of transformers makes of a row, made even by a token of padding, if chance decides as here."""
    length = int(rows.lengths[row])
    half = (length + 1) // 2
    noise = TokenNoise(0, epoch, rows.numbers)
    spans, places = (noise.bits(stream, np.arange(2 * half))[row].tolist() for stream in ("span", "place"))
    chances = (chance for pair in zip(spans, places, strict=True) for chance in pair)
    order = torch.from_numpy(noise.bits("order", np.arange(half))[row].argsort().argsort())

    def randint(low, high, size=None):
        low, high = (0, low) if size is None else (low, high)
        return torch.tensor([low + next(chances) % (high - low)])

    tokens = torch.full((1, 2 * half), PAD)
    tokens[0, :length] = torch.from_numpy(rows.tokens[row, :length])
    special = [*((rows.flags[row, :length] & SPECIAL) != 0), *[True] * (length % 2)]
    tokenizer = SimpleNamespace(
        mask_token="",
        mask_token_id=MASK,
        pad_token="",
        pad_token_id=PAD,
        get_special_tokens_mask=lambda *_, **__: special,
    )
    collator = DataCollatorForPermutationLanguageModeling(
        tokenizer, objective.plm_probability, objective.max_span_length
    )
    with patch("torch.randint", randint), patch("torch.randperm", lambda num: order):
        inputs, perm_mask, _, labels = collator.torch_mask_tokens(tokens)
    return (part[0].numpy() for part in (inputs[:, :length], perm_mask[:, :length, :length], labels[:, :length]))


@few
@given(rows=drawn_rows(), rate=st.floats(0.1, 1), max_span=st.integers(1, 6), epoch=st.integers(0, 3))
def test_permuted_batches_are_those_of_transformers_collator(rows, rate, max_span, epoch):
    objective = Permutation(rate, max_span)
    batch = batch_of(objective, rows, epoch)
    labels = rectangle(batch)
    for row, length in enumerate(rows.lengths):
        inputs, perm_mask, their_labels = by_transformers(objective, rows, row, epoch)
        np.testing.assert_array_equal(batch["input_ids"][row, :length], inputs)
        np.testing.assert_array_equal(batch["perm_mask"][row, :length, :length], perm_mask)
        np.testing.assert_array_equal(labels[row, :length], their_labels)
        assert (labels[row, length:] == IGNORED).all()


@few
@given(rows=drawn_rows(), epoch=st.integers(0, 3))
def test_an_example_is_the_same_in_any_company(rows, epoch):
    together = batch_of(DENSE, rows, epoch)
    labels = rectangle(together)
    for row, length in enumerate(rows.lengths):
        single = batch_of(DENSE, alone(rows, row), epoch)
        np.testing.assert_array_equal(single["input_ids"][0], together["input_ids"][row, :length])
        np.testing.assert_array_equal(single["perm_mask"][0], together["perm_mask"][row, :length, :length])
        np.testing.assert_array_equal(rectangle(single)[0], labels[row, :length])
    assert ("attention_mask" in together) == (rows.lengths.min() < rows.lengths.max())


def test_the_share_of_targets_and_their_chances():
    labels = rectangle(batch_of(Permutation(), numbered(500, 300)))
    chosen = labels[:, :270] != IGNORED  # the last stretches stick out of the row
    assert abs(chosen.mean() * 6 - 1) < 0.02
    first_halves = batch_of(DENSE, numbered(4000, 4))["perm_mask"][:, :2, :2]
    both = first_halves[:, 0, 0] & first_halves[:, 1, 1]  # both tokens are targets: one is before the other
    first_sees = ~first_halves[both][:, 0, 1]
    assert (first_sees == first_halves[both][:, 1, 0]).all()
    assert near(int(first_sees.sum()), int(both.sum()), 0.5)


@pytest.fixture(scope="module")
def xlnet():
    config = XLNetConfig(vocab_size=VOCABULARY.size, d_model=16, n_layer=2, n_head=2, d_inner=32, dropout=0.0)
    torch.manual_seed(0)
    model = XLNetLMHeadModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # so that whatever is seen is felt
    return model


def logits_of(model, batch, **changed):
    inputs = {name: torch.from_numpy(array) for name, array in batch.items() if name not in ("target_index", "targets")}
    index = torch.from_numpy(batch["target_index"])
    with torch.no_grad():
        return target_logits(model, model.base_model, inputs | changed, index)


def rows_of(lengths, seed=0):
    lengths = np.array(lengths)
    inside = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.where(inside, np.random.default_rng(seed).integers(5, VOCABULARY.size, inside.shape), PAD)
    return Rows(tokens, np.where(inside, 0, SPECIAL).astype(np.uint8), lengths, np.arange(len(lengths)))


def test_a_target_feels_what_it_may_see_and_nothing_else(xlnet):
    rows = rows_of([10, 10, 7, 10])
    batch = batch_of(DENSE, rows)
    before = logits_of(xlnet, batch)
    num = int((batch["targets"] != IGNORED).sum())
    row, query = np.divmod(batch["target_index"][:num], batch["target_mapping"].shape[1])
    place = batch["target_mapping"][row, query].argmax(axis=1)
    seen = 0
    for column in range(10):
        tokens = torch.from_numpy(batch["input_ids"]).clone()
        tokens[:, column] = (tokens[:, column] + 7) % VOCABULARY.size
        change = (logits_of(xlnet, batch, input_ids=tokens) - before)[:num].abs().amax(dim=1).numpy() / size_of(before)
        may_see = ~batch["perm_mask"][row, place, column] & (column < rows.lengths[row])
        assert (change[~may_see] < NETWORK * FLOAT32).all()
        assert (change[may_see] > 1e-4).all()
        seen += (may_see & (batch["input_ids"][row, column] == MASK)).sum()
    assert seen  # some targets see some of the others


def test_a_query_for_each_target_alone_changes_no_loss(xlnet):
    batch = batch_of(Permutation(1 / 3, 3), rows_of([24, 24, 17]))
    targets, labels = torch.from_numpy(batch["targets"]), torch.from_numpy(rectangle(batch))
    ours = nats(logits_of(xlnet, batch), targets)
    with torch.no_grad():
        theirs = xlnet(
            torch.from_numpy(batch["input_ids"]),
            attention_mask=torch.from_numpy(batch["attention_mask"]),
            perm_mask=torch.from_numpy(batch["perm_mask"]).float(),
            target_mapping=torch.eye(24).expand(3, 24, 24),
        ).logits
    assert batch["target_mapping"].shape[1] < 24
    assert_close(ours, nats(theirs.flatten(0, 1), labels.flatten()))


def test_rows_without_targets():
    rows = rows_of([1, 6])
    rows.flags[:] = SPECIAL
    batch = batch_of(Permutation(), rows)
    assert batch["target_mapping"].shape == (2, 8, 6)
    assert not batch["target_mapping"].any() and not batch["perm_mask"].any()
    assert (batch["targets"] == IGNORED).all()


def test_blocks_are_even():
    assert [Permutation().num_raw_tokens(size) for size in (2, 511, 512)] == [2, 510, 512]


@pytest.mark.parametrize("wrong", [{"plm_probability": 0}, {"plm_probability": 1.5}, {"max_span_length": 0}])
def test_options_that_hide_nothing(wrong):
    with pytest.raises(ValueError, match=r"objective\."):
        Permutation(**wrong)


def test_a_vocabulary_or_block_that_permutation_cannot_use_is_refused():
    Permutation().check(VOCABULARY, 2)
    with pytest.raises(ValueError, match="mask token"):
        Permutation().check(replace(VOCABULARY, mask_id=None), 64)
    with pytest.raises(ValueError, match="too short"):
        Permutation().check(VOCABULARY, 1)
