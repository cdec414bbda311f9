"""docs/models.md tells what becomes of every model type of transformers."""

import re

import pytest

from tests.helpers.model_types import NAMES, PAGE, VERSION, tried

ROW = re.compile(r"^\| ([\w.-]+) \| (yes|no) \| (.*) \|$", re.MULTILINE)
SAMPLE = {
    "masked": ["big_bird", "esm", "mpnet", "xmod", "bart", "reformer"],
    "seq2seq": ["led", "m2m_100", "mt5", "pegasus", "encoder-decoder", "prophetnet", "qwen2_audio"],
}


def rows_of(family: str) -> dict[str, tuple[str, str]]:
    """{model type: whether it trains, and why not} in the page's table of a family."""
    parts = PAGE.read_text("utf-8").split("\n## ")
    part = next(part for part in parts if f"`model={family}`" in part)
    return {name: (trains, reason) for name, trains, reason in ROW.findall(part)}


@pytest.mark.skipif(VERSION not in PAGE.read_text("utf-8"), reason="the page is of another version of transformers")
@pytest.mark.parametrize("family", NAMES)
def test_the_page_lists_every_type_with_a_reason_where_it_does_not_train(family):
    rows = rows_of(family)
    assert sorted(rows) == sorted(NAMES[family])
    for trains, reason in rows.values():
        assert (reason == "") == (trains == "yes")
        assert "FAULT" not in reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "model_type"), [(family, name) for family, names in SAMPLE.items() for name in names]
)
def test_a_sample_of_the_page_is_true(family, model_type):
    trains, reason = rows_of(family)[model_type]
    outcome = tried(family, model_type)
    assert outcome.trains == (trains == "yes")
    assert outcome.reason == reason.replace("\\|", "|")
