"""What is known of a training is told, and what is not is null."""

import json
import re

import numpy as np
import pytest

from lmft.breakdown.classes import NUM_CLASSES
from lmft.breakdown.details import Context, Text, compared
from lmft.breakdown.measurement import Measurement
from lmft.breakdown.sums import BrokenDown, Sums
from lmft.data.examples.documents import Documents
from lmft.reporting.changes import lines_of
from tests.helpers.stores import Store


def text(name, num_documents, weight=1.0):
    return Text(name, weight, Documents(Store([[*range(10, 11 + number % 50)] for number in range(num_documents)])))


def sums_of(num_documents, mean, seed=1):
    """Ten targets a document; token 3 is in every document, token 4 in none."""
    sums = Sums.of(BrokenDown(num_documents, 60, np.zeros(60, np.uint8), NUM_CLASSES))
    nats = 10 * mean + np.random.default_rng(seed).normal(0, 0.1, num_documents)
    documents = np.arange(num_documents)
    groups = documents % sums.num_groups
    sums.add("document", documents, nats)
    sums.add("token", np.full(num_documents, 3), nats)
    sums.add("class", groups * NUM_CLASSES + 3, nats)
    sums.add("position", groups * 32 + 5, nats)
    for values in sums.arrays.values():
        if values.dtype == np.int64:
            values *= 10
    return sums


def context(*texts):
    return Context(texts, np.arange(60.0), lambda ids: " ".join(map(str, ids)))


def test_a_mixture_is_the_mean_by_weights_and_texts_without_weight_do_not_count():
    texts = text("a", 30, 3.0), text("b", 30, 1.0), text("c", 30, 0.0)
    before = Measurement(0, 0.0, {"a": sums_of(30, 4.0), "b": sums_of(30, 4.0, 2), "c": sums_of(30, 4.0, 3)})
    after = Measurement(9, 0.0, {"a": sums_of(30, 3.0, 7), "b": sums_of(30, 4.2, 8), "c": sums_of(30, 9.0, 9)})
    details = compared(before, after, context(*texts), "latest")
    overall = details["overall"]
    assert overall["change"] == pytest.approx(0.75 * -1.0 + 0.25 * 0.2, abs=0.01)
    assert overall["low"] <= overall["change"] <= overall["high"] and overall["high"] - overall["low"] < 0.1
    assert [each["name"] for each in details["texts"]] == ["a", "b", "c"]
    first, second = lines_of(details)
    assert re.match(r"better on 30 of 90 documents: loss \S+ → \S+ \(-0\.[67]", first)
    assert re.match(r"a: -(1\.0|0\.9)\d+ nats per target.*; c: \+(5\.0|4\.9)", second)


def test_without_a_measurement_before_there_is_no_change():
    details = compared(None, Measurement(9, 0.0, {"": sums_of(30, 3.0)}), context(text("", 30)), "exported")
    (each,) = details["texts"]
    assert details["steps"] == {"before": None, "after": 9} and lines_of(details) == []
    assert each["after"] == pytest.approx(3.0, abs=0.01) and each["documents"] == 30
    nulls = ("before", "change", "low", "high", "better", "worse", "points")
    assert all(each[name] is None for name in nulls)
    assert each["tokens"] == each["documents_changed"] == {"gained": [], "lost": []}
    assert each["by_position"][0]["after"] == pytest.approx(3.0, abs=0.01)
    json.dumps(details, allow_nan=False)


def test_validations_of_other_targets_are_not_compared():
    """As when trainer.limit_val_batches has changed on resume."""
    after = sums_of(30, 3.0)
    for name in ("document_targets", "token_targets", "position_targets"):
        after.arrays[name] = after.arrays[name] // 2
    details = compared(
        Measurement(0, 0.0, {"": sums_of(30, 4.0)}), Measurement(9, 0.0, {"": after}), context(text("", 30)), "latest"
    )
    assert details["texts"][0]["before"] is None and details["overall"]["change"] is None


def test_where_documents_are_not_known_there_are_no_intervals():
    before, after = sums_of(30, 4.0), sums_of(30, 3.0)
    before.has_documents = after.has_documents = False
    details = compared(
        Measurement(0, 0.0, {"": before}), Measurement(9, 0.0, {"": after}), context(text("", 30)), "latest"
    )
    (each,) = details["texts"]
    assert each["change"] == pytest.approx(-1.0, abs=0.01)
    assert [each[name] for name in ("low", "documents", "better", "by_length", "points")] == [None] * 5
    assert each["documents_changed"]["gained"] == [] and len(each["tokens"]["gained"]) == 1
    assert re.fullmatch(r"loss \S+ → \S+ \(\S+ nats per target\)", lines_of(details)[0])


def test_the_file_is_bounded_however_much_text_there_is():
    many = text("", 30_000)
    details = compared(
        Measurement(0, 0.0, {"": sums_of(30_000, 4.0)}),
        Measurement(9, 0.0, {"": sums_of(30_000, 3.0)}),
        context(many),
        "x",
    )
    assert len(json.dumps(details)) < 200_000
    (each,) = details["texts"]
    assert len(each["points"]["before"]) == 1000 and len(each["documents_changed"]["gained"]) == 10
    assert (
        each["documents"] == 30_000 == each["better"] and sum(one["documents"] for one in each["by_length"]) == 30_000
    )


def test_what_got_worse_is_said():
    before, after = sums_of(40, 4.0), sums_of(40, 4.5)
    details = compared(
        Measurement(0, 0.0, {"": before}), Measurement(9, 0.0, {"": after}), context(text("", 40)), "latest"
    )
    lines = lines_of(details)
    assert re.match(r"better on 0 of 40 documents: loss \S+ → \S+ \(\+0\.5", lines[0])
    assert re.match(r"clearly worse: documents of \S+ tokens \(\+0\.5\d+\), .*positions 5 \(", lines[-1])
    same = Measurement(9, 0.0, {"": sums_of(40, 4.0, 5)})
    assert (
        "no clear change" in lines_of(compared(Measurement(0, 0.0, {"": before}), same, context(text("", 40)), "x"))[0]
    )
