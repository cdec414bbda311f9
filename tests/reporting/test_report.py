"""The page of a run: what it shows, in text and in a browser."""

import html
import json
import re
from html.parser import HTMLParser

import pytest
import yaml

from lmft.reporting import report
from lmft.reporting.report import Told, report_page
from tests.helpers.browser import VIEWS, assert_fits, browser, needs_browser, opened
from tests.helpers.reports import DETAILS, FACTS

__all__ = ["browser"]
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
PARENT = {"name": "base", "step": 1200, "checksum": "ab12", "checkpoint": "runs/base/checkpoints/last.ckpt"}


def rows() -> list[dict]:
    train = [
        {"step": float(step), "train/loss": 5 - step / 60, "lr": 2e-5, "train/grad_norm": 1.0 + step}
        for step in range(10, 61, 10)
    ]
    return [*train, *({"step": step, "val/loss": 4.0, "val/accuracy": 0.5} for step in (20.0, 40.0, 60.0))]


def sample(step: int, stage: str, prompt: str = "A <b>[MASK]</b>.") -> dict:
    return {"step": step, "stage": stage, "prompt": prompt, "fills": [[{"token": "<film>", "probability": 0.312}]]}


def page_of(metrics=METRICS, name="run", **told) -> str:
    return report_page(Told(name=name, metrics=metrics, config=CONFIG, **told))


def charts_of(page: str) -> dict:
    found = re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)
    return json.loads(found.group(1)) if found else {}


def drawn(page: str, chart: str) -> list[dict]:
    return charts_of(page)[chart]["datasets"]["rows"]


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


FULL = {
    "rows": rows(),
    "samples": [sample(0, "before"), sample(20, "validation"), sample(60, "after")],
    "facts": FACTS,
    "details": DETAILS,
    "lineage": [PARENT],
    "command": "python -m lmft.train data=imdb",
    "time": "2026-11-26 16:00:00",
}


def test_a_point_for_each_row():
    page = page_of(rows=rows())
    points = drawn(page, "Loss")
    assert [point["series"] for point in points].count("training") == 6
    validation = [point for point in points if point["series"] == "validation"]
    assert len(validation) == 4  # three rows, and the score before training at step 0
    assert any(point["step"] == 0 and point["value"] == 8.31 for point in validation)
    assert set(charts_of(page)) == {"Loss", "Validation accuracy", "Gradient norm", "Learning rate"}  # no speed


def test_no_second_point_at_step_zero():
    page = page_of(rows=[{"step": 0, "val/loss": 8.31}, *rows()])
    assert len(drawn(page, "Loss")) == 6 + 4


def test_each_validation_text_and_each_learning_rate_is_a_line():
    page = page_of(rows=[{"step": 1.0, "lr": 1.0, "lr/head": 2.0, "val/news/loss": 3.0, "val/wiki/loss": 4.0}])
    assert {point["series"] for point in drawn(page, "Learning rate")} == {"first group", "head"}
    assert {point["series"] for point in drawn(page, "Validation loss by text")} == {"news", "wiki"}


def test_everything_is_escaped():
    bad = "</script><script>alert('x')</script>"
    metrics = {**METRICS, "environment": {bad: bad}, "data": {bad: METRICS["data"]["train"]}}
    details = json.loads(json.dumps(DETAILS).replace("news", "<script>alert(1)//"))
    page = page_of(metrics, bad, samples=[sample(0, "before", bad)], details=details, rows=rows())
    assert not re.search(r"<script>\s*alert", page)
    assert "&lt;script&gt;" in page
    assert "&lt;film&gt;" in page and "<film>" not in page


def test_the_page_is_well_formed_and_needs_nothing_else():
    page = page_of(**FULL)
    parser = Balance()
    parser.feed(page.removeprefix("<!doctype html>"))
    assert parser.open == []
    assert not re.search(r"@import|url\(|src=|<link", page)
    assert "python -m lmft.train data=imdb" in page
    assert len(page) < 1_000_000


def test_numbers_ledger_and_config():
    page = page_of()
    assert "<td>4,064.20</td><td>24.53</td>" in page
    assert "train: 900 tokens = 890 in examples + 10 dropped" in page
    assert "&lt;H200&gt;" in page
    folded = re.search("<details>.*?<pre>(.*?)</pre>", page, re.DOTALL)
    assert folded and yaml.safe_load(html.unescape(folded.group(1))) == CONFIG


def test_the_facts_stand_on_top():
    page = page_of(**FULL)
    top = page[page.index("<header>") : page.index("</header>")]
    assert "<dt>parameters</dt><dd>66,985,530, 1,198,530 of them trained (1.79%)</dd>" in top
    assert "<dt>learning rate</dt><dd>2e-05, linear, 117 steps of warm-up</dd>" in top
    assert "8 × NVIDIA H100" in top and "812 of 4,096" in top
    older = page_of()
    assert "<dt>data</dt><dd>a&amp;b</dd>" in older[: older.index("</header>")]


def test_where_it_helped():
    page = page_of(**FULL)
    assert "better on 390 of 400 documents" in page
    assert "<td>-2.4300</td><td>-2.4800 to -2.3800</td>" in page
    ranges = drawn(page, "text 0: By token frequency")
    assert [each["label"] for each in ranges] == ["special", "never", "10–99"]
    assert ranges[0]["interval"] == "unknown" and ranges[1]["interval"] == "-2.1 to -1.9"
    assert len(drawn(page, "text 0: Documents")) == 40
    assert page.index("Tokens that gained most") < page.index("␣park")


def test_losses_without_a_measurement_before_the_training():
    unknown = {"before": None, "change": None, "low": None, "high": None}
    text = {**DETAILS["texts"][0], **unknown, "points": None}
    text["by_frequency"] = [{**each, **unknown} for each in text["by_frequency"]]
    text["by_position"] = [{**each, **unknown} for each in text["by_position"]]
    text["tokens"] = text["documents_changed"] = {"gained": [], "lost": []}
    steps = {"before": None, "after": 60}
    page = page_of(details={**DETAILS, "overall": {**DETAILS["overall"], **unknown}, "texts": [text], "steps": steps})
    assert {each["series"] for each in drawn(page, "text 0: By position")} == {"after step 60"}
    assert "change" not in json.dumps(charts_of(page)["text 0: By token frequency"]["layer"])


def test_the_noise_of_an_example():
    words = [{"id": 5, "text": " park", "role": "context", "source": 0}, {"id": 9, "text": "[MASK]", "role": "marker"}]
    text = [{"id": 5, "text": " park", "role": "context"}, {"id": 7, "text": " <i>", "role": "hidden"}]
    example = {"text": text, "streams": [{"name": "input_ids", "tokens": words}], "traced": True}
    page = page_of(example=example)
    assert re.search(r'<i class="hidden"[^>]*>\s*&lt;i&gt;', page) and "what the model reads" in page
    long = {**example, "streams": [{"name": "input_ids", "tokens": words * 5000}]}
    cut = page_of(example=long)
    assert len(cut) < 600_000 and "The first 500 tokens" in cut and "The first 500" not in page


def test_lineage_and_errors():
    page = page_of({"status": "failed", "error": "the loss is not finite", "command": "continue it"}, lineage=[PARENT])
    assert "run ← step 1,200 of base" in page and "the loss is not finite" in page and "continue it" in page


def test_probes_in_the_order_they_were_asked():
    page = page_of(samples=FULL["samples"])
    assert re.findall(r"<tr>\s*<th>([^<]*)</th><td style", page) == ["before", "step 20", "after"]
    assert "31.2%" in page


def test_too_many_answers_are_left_out_by_step_and_none_is_cut(monkeypatch):
    monkeypatch.setattr(report, "_MOST_CHARACTERS", 1000)
    long = "word " * 100
    asked = [{"step": step, "stage": "validation", "prompt": "a", "texts": {"greedy": long}} for step in range(50)]
    page = page_of(samples=asked)
    assert re.findall(r"<th>step (\d+)</th>", page) == ["0", "24", "49"]
    assert "3 of 50 answers" in page and page.count(long) == 3


def test_texts_over_the_steps():
    def asked(step: int, stage: str, greedy: str) -> dict:
        return {"step": step, "stage": stage, "prompt": "Once\n<b>", "texts": {"greedy": greedy, "sampled": "a\x1bb"}}

    page = page_of(
        samples=[asked(0, "before", ""), asked(20, "validation", "<i>fox</i>\nfox"), asked(60, "after", "king")]
    )
    assert "Once\n&lt;b&gt;" in page
    assert "<th>greedy</th><th>sampled</th>" in page
    texts = re.findall(r"<tr>\s*<th>([^<]+)</th><td><span[^>]*>([^<]*)</span></td>", page)
    assert texts == [("before", "(empty)"), ("step 20", "&lt;i&gt;fox&lt;/i&gt;\nfox"), ("after", "king")]
    assert "\x1b" not in page
    Balance().feed(page.removeprefix("<!doctype html>"))


def test_a_run_that_failed_at_once():
    page = page_of({"status": "failed", "before": None, "after": None})
    assert "failed" in page and not charts_of(page) and "Did it help" not in page


@needs_browser
@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_the_page_in_a_browser(size, scheme, browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page_of(**FULL), encoding="utf-8")
    with opened(browser, file, size, scheme) as tab:
        assert tab.locator(".chart svg").count() == len(charts_of(page_of(**FULL))) == 7
        for folded in tab.locator("summary").all():
            folded.click()
        assert tab.get_by_text("␣park").first.is_visible()
        assert_fits(tab)
        tab.locator("[data-chart='text 0: By token frequency'] .mark-symbol path").nth(1).hover()
        shown = tab.locator("#vg-tooltip-element.visible")
        shown.wait_for()
        assert "-2.1 to -1.9" in shown.inner_text()
        tab.get_by_role("link", name="Origin").click()
        assert tab.locator("#origin").evaluate("each => each.getBoundingClientRect().top") < 850
