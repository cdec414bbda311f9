"""Sums do not depend on how targets come, and survive a file."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lmft.breakdown.measurement import Measurement
from lmft.breakdown.sums import MOST_GROUPS, NUM_POSITIONS, BrokenDown
from lmft.breakdown.validation import Breakdown

ALONE = SimpleNamespace(world_size=1)
CLASSES = np.arange(50) % 3


def targets_of(count, num_documents, longest):
    rng = np.random.default_rng(count)
    return (
        torch.from_numpy(rng.exponential(2.0, count).astype(np.float32)),
        torch.from_numpy(rng.integers(0, 50, count)),
        torch.from_numpy(rng.integers(0, longest, count)),
        rng.integers(0, num_documents, count),
    )


def summed(parts, num_documents):
    breakdown = Breakdown(BrokenDown(num_documents, 50, CLASSES, 3))
    for part in parts:
        breakdown.add(*part)
    return breakdown.take(ALONE)


@pytest.mark.parametrize(("num_documents", "longest"), [(7, 20), (3000, 1000)])
def test_sums_are_those_of_a_loop_however_targets_are_batched(num_documents, longest):
    nats, ids, positions, documents = targets_of(4000, num_documents, longest)
    sums = summed([(nats, ids, positions, documents)], num_documents)
    groups = min(num_documents, MOST_GROUPS)
    width = 1
    while longest > width * NUM_POSITIONS:
        width *= 2
    expected = {
        "document": np.zeros(num_documents),
        "token": np.zeros(50),
        "class": np.zeros((groups, 3)),
        "position": np.zeros((groups, NUM_POSITIONS)),
    }
    for nat, token, position, document in zip(nats.double().tolist(), ids, positions, documents, strict=True):
        expected["document"][document] += nat
        expected["token"][token] += nat
        expected["class"][document % groups, CLASSES[token]] += nat
        expected["position"][document % groups, position // width] += nat
    assert sums.positions_per_range == width
    for way, values in expected.items():
        np.testing.assert_allclose(sums.arrays[f"{way}_nats"], values, rtol=1e-12)
        assert sums.arrays[f"{way}_targets"].sum() == 4000
    cuts = [*range(0, 4000, 101), 4000]
    parts = [tuple(each[a:b] for each in (nats, ids, positions, documents)) for a, b in itertools.pairwise(cuts)]
    batched = summed(parts[::-1], num_documents)
    for name, values in sums.arrays.items():
        np.testing.assert_allclose(batched.arrays[name], values, rtol=1e-12)


def test_padding_is_no_target_and_sums_begin_anew():
    breakdown = Breakdown(BrokenDown(2, 50, CLASSES, 3))
    breakdown.add(torch.tensor([1.0, 0.0]), torch.tensor([7, -100]), torch.tensor([3, 0]), np.array([1, -1]))
    first, second = breakdown.take(ALONE), breakdown.take(ALONE)
    assert first.arrays["document_targets"].tolist() == [0, 1] and first.arrays["token_nats"].sum() == 1.0
    assert second.arrays["token_targets"].sum() == 0


def test_unknown_documents_leave_tokens_and_positions_known():
    part = targets_of(100, 5, 10)
    sums = summed([part, (*part[:3], None)], 5)
    assert not sums.has_documents
    assert sums.arrays["token_targets"].sum() == sums.arrays["position_targets"].sum() == 200


def test_a_measurement_is_read_as_it_was_written(tmp_path):
    texts = {"": summed([targets_of(100, 5, 100)], 5), "news.x": summed([targets_of(50, 2000, 10)], 2000)}
    texts["news.x"].has_documents = False
    Measurement(7, 2.5, texts).save(tmp_path / "deep" / "best.npz")
    read = Measurement.load(tmp_path / "deep" / "best.npz")
    assert (read.step, read.loss, [*read.texts]) == (7, 2.5, ["", "news.x"])
    for name, sums in texts.items():
        found = read.texts[name]
        assert (found.positions_per_range, found.has_documents) == (sums.positions_per_range, sums.has_documents)
        assert found.arrays.keys() == sums.arrays.keys()
        assert all(np.array_equal(found.arrays[key], values) for key, values in sums.arrays.items())
