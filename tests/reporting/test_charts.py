"""Plots of pages: what is drawn, in a browser."""

import json
import math
import re
from pathlib import Path

import pytest
from jinja2 import FileSystemLoader

from lmft.reporting import templates
from lmft.reporting.axes import STEPS, Axis
from lmft.reporting.charts import bars, histogram, intervals, lines, scatter
from lmft.reporting.page import fill_page
from lmft.reporting.plotted_rows import MAX_POINTS
from tests.helpers.browser import VIEWS, assert_fits, browser, color_of, needs_browser, opened

__all__ = ["browser"]
LOSS = Axis("loss", "nats per target")
GROUP = Axis("group", "group")
CHANGE = Axis("change", "change, nats")
DEMO = """{% extends "page.html.jinja" %}{% from "parts.html.jinja" import chart with context %}
{% block content %}{% for name in charts %}{{ chart(name, name) }}{% endfor %}{% endblock %}"""


def curve(num_rows, name="training", value=lambda step: 1.0 + step % 7):
    return [{"step": step, "loss": value(step), "series": name} for step in range(num_rows)]


def rows_of(spec):
    return spec["datasets"]["rows"]


@pytest.fixture
def page(tmp_path, monkeypatch):
    def written(charts, title="<b>a page</b>"):
        file = tmp_path / "page.html"
        (tmp_path / "demo.html.jinja").write_text(DEMO)
        folders = [tmp_path, Path(templates.__file__).parent]
        monkeypatch.setattr(templates, "FileSystemLoader", lambda _: FileSystemLoader(folders))
        file.write_text(fill_page("demo.html.jinja", title, charts, {}), encoding="utf-8")
        return file

    return written


def test_a_long_line_is_thinned_and_keeps_its_spikes():
    spec = lines(curve(50_000, value=lambda step: 99.0 if step == 31_337 else 1.0), STEPS, LOSS)
    steps = [row["step"] for row in rows_of(spec)]
    assert len(steps) <= MAX_POINTS + 1 and steps == sorted(steps) and steps[-1] == 49_999
    assert max(row["loss"] for row in rows_of(spec)) == 99.0


def test_values_without_a_place_are_left_out():
    rows = [{"step": step, "loss": loss} for step, loss in enumerate([1.0, math.nan, math.inf, None, 0.0, 2.0])]
    assert [row["step"] for row in rows_of(lines(rows, STEPS, LOSS))] == [0, 4, 5]
    assert [row["step"] for row in rows_of(lines(rows, STEPS, Axis("loss", "", log=True)))] == [0, 5]
    json.dumps(lines(rows, STEPS, LOSS), allow_nan=False)


def test_a_page_without_plots_has_no_script_of_plots(page):
    assert len(page({}).read_text()) < 20_000
    assert "&lt;b&gt;" in page({}).read_text()


def test_a_page_with_plots_is_one_small_file(page):
    text = page({"loss": lines(curve(10_000), STEPS, LOSS)}).read_text()
    assert len(text) < 600_000
    assert not re.search(r"src=|<link|@import|url\(", text)


def labels(plot):
    return sorted(plot.locator("text").all_text_contents())


ALL = {
    "loss": lines([*curve(900), *curve(3, "validation")], STEPS, LOSS, ["training", "validation"]),
    "one point": lines(curve(1), STEPS, LOSS),
    "rate": lines(curve(9), STEPS, Axis("loss", "rate", ticks="~e", log=True, zero=True)),
    "intervals": intervals(
        [{"group": name, "change": -0.5, "low": -0.7, "high": 0.1} for name in ("rare", "a long name " * 8)],
        *(GROUP, CHANGE, "low", "high"),
    ),
    "no intervals": intervals(
        [{"group": "rare", "change": -0.5, "low": None, "high": None}], *(GROUP, CHANGE, "low", "high")
    ),
    "bars": bars([{"group": name, "change": 2.0} for name in "abc"], GROUP, CHANGE),
    "lengths": histogram([{"low": low, "high": low + 1, "n": low} for low in range(9)], CHANGE, Axis("n", "documents")),
    "scatter": scatter([{"change": x, "loss": x * x} for x in range(1, 9)], CHANGE, LOSS),
}


@needs_browser
@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_every_kind_of_plot_is_drawn(size, scheme, browser, page):
    with opened(browser, page(ALL), size, scheme) as tab:
        assert tab.locator(".chart svg").count() == len(ALL)
        assert_fits(tab)
        drawn = tab.locator("[data-chart=loss] .mark-line path")
        assert drawn.count() == 2
        back = color_of(tab, "body", "backgroundColor")
        assert back == {"light": "rgb(252, 251, 249)", "dark": "rgb(22, 24, 28)"}[scheme]
        line = color_of(tab, "[data-chart=loss] .mark-line path", "stroke")
        assert line == {"light": "rgb(74, 120, 173)", "dark": "rgb(123, 167, 217)"}[scheme]


@needs_browser
def test_the_pointer_shows_the_nearest_value(browser, page):
    charts = {"loss": lines([*curve(40), *curve(2, "validation")], STEPS, LOSS, ["training", "validation"])}
    with opened(browser, page(charts), "phone") as tab:
        box = tab.locator("[data-chart=loss] svg").bounding_box()
        tab.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 100)
        tab.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 101)
        shown = tab.locator("#vg-tooltip-element.visible")
        shown.wait_for()
        text = " ".join(shown.inner_text().split())
        assert re.fullmatch(r"line training optimizer steps \d+ nats per target \d", text)
        assert shown.bounding_box()["x"] >= 0


@needs_browser
def test_dragging_moves_a_plot_and_a_double_click_brings_it_back(browser, page):
    with opened(browser, page({"loss": lines(curve(40), STEPS, LOSS)})) as tab:
        plot = tab.locator("[data-chart=loss] svg")
        before = labels(plot)
        box = plot.bounding_box()
        tab.mouse.move(box["x"] + 500, box["y"] + 100)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 200, box["y"] + 100, steps=4)
        tab.mouse.up()
        assert labels(plot) != before
        tab.mouse.dblclick(box["x"] + 500, box["y"] + 100)
        assert labels(plot) == before
