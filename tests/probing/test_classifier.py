"""The classifier of a linear probe, and how sure its scores are."""

import numpy as np
import pytest

from lmft.probing.classifier import Predicted, change, classify, macro_f1, majority, scores, wilson


def test_wilsons_interval_is_that_of_the_textbook():
    assert wilson(0.5, 10) == pytest.approx([0.2366, 0.7634], abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx([0.7225, 1.0], abs=1e-4)


def test_macro_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(1)
    labels, predictions = draw.choice(list("aabc"), 60), draw.choice(list("abbc"), 60)
    assert macro_f1(labels, predictions) == pytest.approx(f1_score(labels, predictions, average="macro"))


def test_classes_that_a_line_parts_are_told_apart_and_noise_is_not():
    draw = np.random.default_rng(2)
    labels = np.array(["yes", "no"] * 100)
    told = draw.normal(size=(200, 8)) + 4 * (labels == "yes")[:, None]
    noise = draw.normal(size=(200, 8))
    found = [classify(x[:120], labels[:120], x[120:], labels[120:], 1.0, 1) for x in (told, noise)]
    assert found[0].accuracy == 1.0 and found[0].converged
    low, high = scores(found[1], 500, 1)["accuracy_interval"]
    assert low < 0.5 < high


def test_the_most_frequent_class_is_that_of_the_training_rows():
    found = majority(["a", "b", "b"], ["a", "a", "b", "c"])
    assert found.predictions.tolist() == ["b"] * 4 and found.accuracy == 0.25
    assert found.macro_f1 == pytest.approx((2 / 5) / 3)


def test_a_change_is_paired_by_rows():
    labels = np.array(["a", "b"] * 50)
    worse = Predicted(labels, np.where(np.arange(100) < 20, "c", labels))
    better = Predicted(labels, np.where(np.arange(100) < 10, "c", labels))
    found = change(worse, better, 1000, 1)
    assert found["accuracy"] == pytest.approx(0.1)
    low, high = found["accuracy_interval"]
    assert 0 < low < 0.1 < high < 0.2
    assert change(better, better, 100, 1)["accuracy_interval"] == [0, 0]
