import numpy as np

from lmft.breakdown.classes import FREQUENCY_CLASSES, frequency_classes, length_classes, position_classes


def test_each_count_is_in_its_decade():
    counts = np.array([0, 1, 9, 10, 99, 100, 999, 1000, 10**9, 10**12, 50])
    classes = frequency_classes(counts, [10])
    for count, number in zip(counts[:-1], classes, strict=False):
        each = FREQUENCY_CLASSES[number]
        assert each.low <= count and (each.high is None or count <= each.high)
    assert FREQUENCY_CLASSES[classes[-1]].label == "special"
    labels = [each.label for each in FREQUENCY_CLASSES[:5]]
    assert labels == ["special", "never", "1–9", "10–99", "100–999"]
    assert FREQUENCY_CLASSES[-1].label == "1,000,000,000 or more"


def test_lengths_double_from_class_to_class():
    lengths = np.array([1, 2, 3, 4, 7, 8, 1000])
    numbers, classes = length_classes(lengths)
    assert [classes[number].label for number in numbers] == ["1", "2–3", "2–3", "4–7", "4–7", "8–15", "512–1,023"]
    assert len(length_classes(np.zeros(0, np.int64))[1]) == 1


def test_positions_begin_at_zero():
    assert [each.label for each in position_classes(3, 1)] == ["0", "1", "2"]
    assert [(each.low, each.high) for each in position_classes(2, 8)] == [(0, 7), (8, 15)]
