"""The page of `lmft inspect` in a browser: next, epochs, search, and the facts of a token."""

import pytest

from lmft.reporting.inspection_page import inspection_page
from lmft.reporting.tokens import drawn, examples_html, visible
from tests.helpers.browser import VIEWS, assert_fits, browser, needs_browser, opened  # noqa: F401

WORDS = (" the", " quick", " brown", " fox", " jumps")


def token(number, text, role, **more):
    return {"id": number, "text": text, "role": role, **more}


def masked(number, epoch, hidden):
    """An example of five words and some padding, of which one word is hidden."""
    text = [token(10 + place, word, "context", seam=True) for place, word in enumerate(WORDS)]
    for place in (0, 1, 2, 4):
        del text[place]["seam"]
    inputs = [{**each, "source": place} for place, each in enumerate(text)]
    text[hidden] |= {"role": "hidden", "shown": {"id": 4, "text": " [MASK]"}}
    target = {"id": 10 + hidden, "text": WORDS[hidden], "source": hidden}
    inputs[hidden] = token(4, " [MASK]", "marker", special=True, target=target, stands_for=hidden, sees=[[0, 5]])
    padding = [token(0, "[PAD]", "padding", special=True) for _ in range(7)]
    return {
        "split": "train",
        "epoch": epoch,
        "number": number,
        "text": [*text, *padding],
        "documents": [{"number": 3, "start": 0, "stop": 5, "place": f"films.csv, row {number + 1}"}],
        "streams": [{"name": "input_ids", "tokens": [*inputs, *padding]}],
        "counts": {"context": 4, "hidden": 1, "padding": 7, "targets": 1},
        "traced": True,
    }


def inspected(num_examples=3, num_epochs=2):
    shapes = {"input_ids": [num_examples, 12], "target_index": [8], "targets": [8]}
    lengths = {
        "number": 40,
        "mean": 7.5,
        "quantiles": {"min": 2, "p10": 3, "median": 7, "p90": 9, "max": 12},
        "log": False,
        "histogram": [{"low": low, "high": low + 1, "count": low} for low in range(2, 13)],
    }
    statistics = {
        "lengths": {"documents": lengths, "examples": lengths},
        "tokens_per_word": 1.25,
        "frequent": [{"id": 10, "text": " the", "share": 0.2}],
        "vocabulary": {"size": 100, "used": 60},
        "unknown": {"tokens": 3, "share": 0.01, "texts": ["語"]},
        "repeated": {"documents": 2, "share": 0.05, "texts": [{"text": "the <b>fox</b> " * 9, "times": 3}]},
    }
    ledger = {"documents": 40, "tokens": 300, "tokens_in_examples": 300, "tokens_dropped": 0}
    return {
        "objective": {"name": "MaskedTokens", "options": {"mlm_probability": 0.15}},
        "model": "bert",
        "batches": [
            {
                "split": "train",
                "epoch": epoch,
                "position": 0,
                "shapes": shapes,
                "examples": [masked(number, epoch, (number + epoch) % 5) for number in range(num_examples)],
            }
            for epoch in range(num_epochs)
        ],
        "statistics": {"train": statistics},
        "ledger": {"train": ledger},
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "inspect.html"
    path.write_text(inspection_page(inspected()), encoding="utf-8")
    return path


def shown(tab):
    """Number and epoch of the one example that is visible."""
    (section,) = tab.locator("section.example:visible").all()
    return int(section.get_attribute("data-example")), int(section.get_attribute("data-epoch"))


@needs_browser
@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_it_fits_every_screen_and_reports_no_fault(browser, page, size, scheme):  # noqa: F811
    with opened(browser, page, size, scheme) as tab:
        assert_fits(tab)
        tab.click("#next")
        tab.locator("section.example:visible i.marker").hover()
        assert_fits(tab)
        assert tab.locator("#examples").is_visible() and tab.locator(".chart svg").count() == 2


@needs_browser
def test_one_example_of_one_epoch_is_shown_and_the_next_follows_by_click_and_key(browser, page):  # noqa: F811
    with opened(browser, page) as tab:
        assert shown(tab) == (0, 0) and tab.inner_text("#which") == "example 1 of 3"
        tab.click("#next")
        assert shown(tab) == (1, 0)
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        assert shown(tab) == (0, 0)
        tab.click("#previous")
        assert shown(tab) == (2, 0) and tab.inner_text("#which") == "example 3 of 3"
        tab.click("#later")
        assert shown(tab) == (2, 1) and tab.inner_text("#epoch") == "epoch 1"
        hidden = tab.locator("section.example:visible .row[data-row=text] i.hidden").inner_text()
        assert hidden == WORDS[(2 + 1) % 5].strip()


@needs_browser
def test_a_token_tells_its_id_its_target_and_where_else_it_stands(browser, page):  # noqa: F811
    with opened(browser, page, "phone") as tab:
        tab.locator("section.example:visible i.marker").click()
        assert tab.inner_text("#detail") == "[MASK]: id 4, marker, predicts the (id 10)"
        lit = tab.locator("section.example:visible i.lit").all_inner_texts()
        assert [each.split("\n")[0] for each in lit] == ["the", "[MASK]"]


@needs_browser
def test_search_finds_examples_and_marks_the_words(browser, page):  # noqa: F811
    path = page.with_name("others.html")
    found = inspected()
    for batch in found["batches"]:
        batch["examples"][1]["text"][3]["text"] = " cat"
    path.write_text(inspection_page(found), encoding="utf-8")
    with opened(browser, path) as tab:
        tab.fill("#search", "Brown cat")
        assert shown(tab) == (1, 0) and tab.inner_text("#which") == "example 1 of 1"
        marked = tab.locator("section.example:visible .row[data-row=text] i.found").all_inner_texts()
        assert marked == ["brown", "cat"]
        tab.fill("#search", "no such text")
        assert "No example" in tab.inner_text("#detail")
        tab.fill("#search", "")
        assert tab.inner_text("#which") == "example 2 of 3"


def test_the_page_holds_every_example_and_needs_no_script_to_show_them(page):
    text = page.read_text(encoding="utf-8")
    assert text.count('<section class="example"') == 6 and "section.example[hidden]" not in text
    assert "films.csv, row 3" in text and "[PAD] × 7" in text
    assert "&lt;b&gt;fox" in text and "<b>fox" not in text


def test_a_notebook_gets_every_token_with_its_facts():
    html = examples_html([masked(0, 0, 1)])
    assert "<script" not in html and "train example 0, epoch 0" in html
    assert "predicts quick (id 11)" in html and "the inputs show [MASK] (id 4)" in html
    assert html.count('title="a further document begins"') == 2  # in the text, and in the inputs


def test_the_text_is_left_out_where_the_inputs_are_the_same():
    example = masked(0, 0, 1)
    assert [row["name"] for row in drawn(example)["rows"]] == ["text", "input_ids"]
    example["streams"][0]["tokens"] = [{**each, "source": place} for place, each in enumerate(example["text"][:5])]
    example["text"] = example["text"][:5]
    assert [row["name"] for row in drawn(example)["rows"]] == ["input_ids"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" the", "the"), ("the", "the"), ("", "·"), (" ", "␣"), ("  ", "␣"), ("\n\n", "↵↵"), ("\t", "⇥"), (" a b", "a b")],
)
def test_white_space_is_written_out(text, shown):
    assert visible(text) == shown
