"""The contract: thresholds, padded targets, and which inputs a body gets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.objectives.base import IGNORED, body_inputs, padded_targets, threshold
from tests.helpers.rows import drawn_rows


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1), other=st.floats(0, 1))
def test_thresholds_are_shares_of_all_bits(share, other):
    assert threshold(share).dtype == np.uint64
    assert int(threshold(share)) == pytest.approx(share * 2**64, rel=1e-15, abs=1)
    assert (threshold(share) <= threshold(other)) or share > other


def test_no_share_and_every_share():
    assert threshold(0.0) == 0
    assert threshold(1.0) == 2**64 - 1


class TestPaddedTargets:
    @settings(max_examples=60, deadline=None)
    @given(num=st.integers(0, 70_000))
    def test_little_is_wasted(self, num):
        padded = padded_targets(np.arange(num) + 3, np.arange(num) + 7)
        index, targets = padded["target_index"], padded["targets"]
        assert index.dtype == targets.dtype == np.int64
        assert len(index) == len(targets) >= max(num, 8)
        np.testing.assert_array_equal(index[:num], np.arange(num) + 3)
        np.testing.assert_array_equal(targets[:num], np.arange(num) + 7)
        assert (index[num:] == 0).all()
        assert (targets[num:] == IGNORED).all()
        assert len(index) - num <= max(7, num / 16) if num else len(index) == 8

    def test_sizes_are_few(self):
        sizes = [len(padded_targets(np.arange(n), np.arange(n))["targets"]) for n in range(1, 5000)]
        assert sizes == sorted(sizes)
        assert len({size for size in sizes if size > 2048}) <= 20
        assert len(set(sizes)) <= 120
        assert len({sizes[n] for n in range(1150, 1310)}) <= 4  # 64 blocks of 128 tokens at 15 %, by chance


class TestBodyInputs:
    @settings(max_examples=60, deadline=None)
    @given(rows=drawn_rows())
    def test_a_mask_only_where_something_is_padded(self, rows):
        inputs = body_inputs(rows, rows.tokens)
        assert inputs["input_ids"] is rows.tokens
        if len(set(rows.lengths.tolist())) == 1:
            assert set(inputs) == {"input_ids"}
        else:
            assert set(inputs) == {"input_ids", "attention_mask"}
            assert inputs["attention_mask"].dtype == np.int64
            assert inputs["attention_mask"].sum(axis=1).tolist() == rows.lengths.tolist()
            assert (np.diff(inputs["attention_mask"], axis=1) <= 0).all()

    @settings(max_examples=20, deadline=None)
    @given(rows=drawn_rows())
    def test_isolated_documents_tell_the_padding_too(self, rows):
        documents = np.zeros_like(rows.tokens)
        inputs = body_inputs(replace(rows, documents=documents, isolated=True), rows.tokens)
        assert set(inputs) == {"input_ids", "document_ids"}
        assert inputs["document_ids"] is documents
        together = body_inputs(replace(rows, documents=documents), rows.tokens)
        assert together.keys() == body_inputs(rows, rows.tokens).keys()  # documents alone change nothing
