import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lmft.reporting.live import Position, bar_line, flowed, sparkline, validation_line


def test_a_sparkline_goes_from_the_least_to_the_largest():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 1.0]) == "█▁"


def test_equal_numbers_have_half_the_height():
    assert set(sparkline([2.5] * 4)) == {"▅"}


def test_many_numbers_are_averaged():
    values = [9.0] * 500 + [1.0] * 500
    assert sparkline(values, 4) == "██▁▁"
    # Of two columns each is the mean of its half: one large value of a hundred shows a little.
    assert sparkline([*[0.0] * 99, 100.0, *[4.0] * 100], 2) == "▁█"


def test_what_is_not_finite_is_a_cross_and_leaves_the_others_as_they_are():
    assert sparkline([1.0, math.nan, 2.0, math.inf]) == "▁×█×"
    assert sparkline([math.nan] * 3) == "×××"
    assert sparkline([]) == ""


@given(st.lists(st.floats(), max_size=200), st.integers(1, 60))
def test_a_sparkline_never_fails_and_never_is_too_long(values, width):
    assert len(sparkline(values, width)) == min(len(values), width)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_bar_fits_and_has_its_numbers(width):
    line = bar_line(Position("epoch 2/3", 840, 1173, "2:31 left"), width)
    assert line.cell_len <= width
    assert line.plain.startswith("epoch 2/3 ") and line.plain.endswith(" 840/1,173  2:31 left")
    assert "━" in line.plain


def test_a_bar_is_as_full_as_the_work_is_done():
    line = bar_line(Position("x", 1, 4), 80)
    parts = {str(span.style): line.plain[span.start : span.end] for span in line.spans}
    assert parts["green"] == "━" * 10 and parts["bright_black"] == "━" * 30
    assert bar_line(Position("x", 0, 0), 80).plain.endswith("0/0")


def test_a_long_label_leaves_room_for_the_numbers():
    line = bar_line(Position("tokenising " + "/very/long" * 20, 10, 20, "0:03 left", "bytes"), 60)
    assert line.cell_len <= 60 and line.plain.endswith("10/20 bytes  0:03 left") and "…" in line.plain


def test_a_total_that_is_not_known_has_no_bar():
    assert bar_line(Position("epoch 1", 12345, None), 80).plain == "epoch 1 12,345"


def test_without_unicode_the_bar_is_of_plain_characters():
    assert bar_line(Position("x", 1, 2), 30, is_ascii=True).plain == "x ############------------ 1/2"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_numbers_flow_into_lines_and_none_is_broken(width):
    parts = ["loss 4.612", "val 4.354", "gradient norm 1.2", "12,345 tokens/s"]
    lines = flowed(parts, width).plain.split("\n")
    assert all(cell_len(line) <= width for line in lines)
    assert "   ".join(lines) == "   ".join(parts)


def test_the_line_that_stays_fits_into_80_columns():
    line = validation_line(Position("epoch 12/20", 12345, 20000), ["loss 10.612", "val 10.354"], 7263)
    assert line == "step 12,345/20,000  epoch 12/20  loss 10.612  val 10.354  2:01:03"
    assert len(line) <= 80
