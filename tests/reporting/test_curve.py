"""The curve beside a model card: its coordinates."""

import math

import pytest

from lmft.reporting.curve import MAX_POINTS, line_plot, loss_plot, ticks

ROWS = [{"step": str(step), "train/loss": str(5 - step / 60), "val/loss": ""} for step in range(10, 61, 10)]


def test_points_lie_inside_the_plot():
    plot = loss_plot(
        [*ROWS, {"step": 70, "train/loss": "nan"}, {"step": 80, "train/loss": "inf"}], {"before": {"loss": 8}}
    )
    assert plot and [line["name"] for line in plot["lines"]] == ["train", "val"]
    places = [place for line in plot["lines"] for place in line["points"]]
    assert len(places) == 6 + 1  # values that are not finite have no place
    assert all(plot["left"] <= x <= plot["right"] and plot["top"] <= y <= plot["bottom"] for x, y in places)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 600), (2.97, 8.31), (0, 2e-5), (4.0, 4.0), (0, 0), (24000.1, 24000.2), (0, 1), (-3, 7e9)]
)
def test_ticks_are_round_and_enclose(low, high):
    found = ticks(low, high, 5)
    apart = found[1] - found[0]
    assert 2 <= len(found) <= 8
    assert found[0] <= low and found[-1] >= high
    assert round(apart / 10 ** math.floor(math.log10(apart) + 1e-6), 3) in (1, 2, 5)


def test_long_runs_are_thinned_and_one_point_is_a_dot():
    long = line_plot({"rate": [(float(step), 1.0) for step in range(100_000)]}, "y", height=150)
    single = line_plot({"rate": [(0.0, 1.0)]}, "y", height=150)
    assert long and MAX_POINTS / 2 < len(long["lines"][0]["points"]) <= MAX_POINTS
    assert single and len(single["lines"][0]["dots"]) == 1
    assert line_plot({"rate": []}, "y", height=150) is None
