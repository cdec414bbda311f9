import html
import math
import re
from html.parser import HTMLParser

import pytest
import yaml

from lmft.reporting.report import MAX_POINTS, line_plot, ticks, write_report

M = {"loss": 8.31, "perplexity": 4064.2, "accuracy": 0.01, "bits_per_byte": 2.5, "targets": 1000}
METRICS = {
    "status": "complete",
    "steps": 60,
    "before": M,
    "after": {**M, "loss": 3.2, "perplexity": 24.53},
    "best": None,
    "data": {"train": {"documents": 7, "tokens": 900, "tokens_in_examples": 890, "tokens_dropped": 10}},
    "environment": {"device": "<H200>"},
}
CONFIG = {"seed": 1, "data": {"path": "a&b", "probes": ["é [MASK]"]}}


def rows() -> list[dict]:
    train = [{"step": str(s), "train/loss": str(5 - s / 60), "val/loss": "", "lr": "2e-5"} for s in range(10, 61, 10)]
    return [*train, *({"step": s, "train/loss": None, "val/loss": 4.0, "lr": None} for s in (20, 40, 60))]


def sample(step: int, stage: str, prompt: str = "A <b>[MASK]</b>.") -> dict:
    return {"step": step, "stage": stage, "prompt": prompt, "fills": [[{"token": "<film>", "probability": 0.312}]]}


@pytest.fixture
def report(tmp_path):
    def write(metrics=METRICS, rows=(), samples=(), name="run") -> str:
        write_report(tmp_path / "report.html", name, CONFIG, metrics, rows, samples)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def polyline(page: str, name: str) -> list[str]:
    found = re.search(rf'<polyline class="{name}" points="([^"]*)"', page)
    return found.group(1).split() if found else []


class Balance(HTMLParser):
    """Raises where an element is closed that is not the innermost open one."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_point_for_each_row(report):
    page = report(rows=rows())
    assert len(polyline(page, "train")) == 6
    assert len(polyline(page, "val")) == 4  # three rows, and the score before training at step 0
    assert len(re.findall('<circle class="val"', page)) == 4
    assert "<title>step 0: 8.31</title>" in page
    assert page.count("<svg") == 2  # loss and learning rate; no speed was measured


def test_no_second_point_at_step_zero(report):
    page = report(rows=[{"step": 0, "val/loss": 8.31}, *rows()])
    assert len(polyline(page, "val")) == 4


def test_points_lie_inside_the_plot(report):
    for point in polyline(report(rows=rows()), "train"):
        x, y = map(float, point.split(","))
        assert 80 <= x <= 760 and 0 <= y <= 300


def test_values_that_are_not_finite_are_not_drawn(report):
    page = report(rows=[*rows(), {"step": 70, "train/loss": "nan"}, {"step": 80, "train/loss": "inf"}])
    assert len(polyline(page, "train")) == 6


def test_everything_is_escaped(report):
    bad = "<script>alert('x')</script>"
    metrics = {**METRICS, "environment": {bad: bad}, "data": {bad: METRICS["data"]["train"]}}
    page = report(metrics, samples=[sample(0, "before", bad)], name=bad)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;film&gt;" in page and "<film>" not in page


def test_the_page_is_well_formed_and_needs_nothing_else(report, tmp_path):
    (tmp_path / "command.txt").write_text("python -m lmft.train data=imdb\n")
    page = report(rows=rows(), samples=[sample(0, "before"), sample(20, "validation"), sample(60, "after")])
    parser = Balance()
    parser.feed(page.removeprefix("<!doctype html>"))
    assert parser.open == []
    assert not re.search(r"https?://|@import|url\(|src=|<link", page)
    assert "python -m lmft.train data=imdb" in page


def test_numbers_ledger_and_config(report):
    page = report()
    assert "<td>4,064.20</td><td>24.53</td>" in page
    assert "train: 900 tokens = 890 in examples + 10 dropped" in page
    assert "&lt;H200&gt;" in page
    folded = re.search("<details>.*?<pre>(.*?)</pre>", page, re.DOTALL)
    assert folded and yaml.safe_load(html.unescape(folded.group(1))) == CONFIG


def test_probes_in_the_order_they_were_asked(report):
    page = report(samples=[sample(0, "before"), sample(20, "validation"), sample(60, "after")])
    assert page.count("<h3>") == 1
    assert re.findall(r"<tr><th>([^<]*)</th><td style", page) == ["before", "step 20", "after"]
    assert "31.2%" in page


def test_texts_over_the_steps(report):
    def asked(step: int, stage: str, greedy: str) -> dict:
        return {"step": step, "stage": stage, "prompt": "Once\n<b>", "texts": {"greedy": greedy, "sampled": "a\x1bb"}}

    page = report(
        samples=[asked(0, "before", ""), asked(20, "validation", "<i>fox</i>\nfox"), asked(60, "after", "king")]
    )
    assert page.count("<h3>") == 1 and "Once\n&lt;b&gt;" in page
    assert "<th>greedy</th><th>sampled</th>" in page
    texts = re.findall(r"<tr><th>([^<]+)</th><td><span[^>]*>([^<]*)</span></td>", page)
    assert texts == [("before", "(empty)"), ("step 20", "&lt;i&gt;fox&lt;/i&gt;\nfox"), ("after", "king")]
    assert "\x1b" not in page
    Balance().feed(page.removeprefix("<!doctype html>"))


def test_a_run_that_failed_at_once(report):
    page = report({"status": "failed", "before": None, "after": None})
    assert "failed" in page and "<svg" not in page and "Scores" not in page


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
