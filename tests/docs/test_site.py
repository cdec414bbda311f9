"""The site of the documentation: built without a warning, read in a browser."""

import os
import subprocess
import sys

import pytest

from docs.make.links import CHECKOUT
from tests.helpers.browser import VIEWS, browser, needs_browser, opened

pytestmark = pytest.mark.slow
__all__ = ["browser"]
PAGES = [
    "index",
    "templates",
    "concepts/objectives",
    "coming-from/trainer",
    "reference/options/data",
    "reference/api",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def address(site, page: str) -> str:
    return (site / f"{page}.html").as_uri()


def test_it_has_every_page_and_asks_for_nothing_elsewhere(site):
    for page in PAGES:
        text = (site / f"{page}.html").read_text("utf-8")
        assert "unpkg.com" not in text and "fonts.g" not in text
    assert not (site / "make").exists()


def test_commands_and_options_are_those_of_the_program(site):
    commands = (site / "reference" / "commands.html").read_text("utf-8")
    assert "python -m lmft.train model=distilbert data=imdb" in commands and "--multirun key=a,b" in commands
    options = (site / "reference" / "options" / "data.html").read_text("utf-8")
    assert '<h4 id="datablock_size">' in options and "tokens of a block or a pack" in options.lower()


def test_docstrings_are_on_the_page_of_python(site):
    page = (site / "reference" / "api.html").read_text("utf-8")
    assert "Tokenise before a training" in page and 'id="lmft.api.train"' in page


@needs_browser
@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_pages_fit_and_report_no_fault(site, browser, size, scheme):
    for page in PAGES:
        with opened(browser, address(site, page), size, scheme) as tab:
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), page
            is_dark = tab.evaluate("document.body.dataset.mdColorScheme") == "slate"
            assert is_dark == (scheme == "dark")
            loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 100)"
            assert tab.evaluate(loaded), page


@needs_browser
@pytest.mark.parametrize(("page", "size"), [("index", "desktop"), ("concepts/packing", "phone")])
def test_the_search_finds(site, browser, page, size):
    with opened(browser, address(site, page), size) as tab:
        field = "[data-md-component=search-query]"
        tab.click(field if size == "desktop" else "label.md-header__button[for=__search]")  # which loads the index
        tab.keyboard.type("resume")
        results = tab.locator(".md-search-result__item")
        results.first.wait_for()
        found = " ".join(results.all_inner_texts())
        assert "Exact resuming" in found and "resume" in found
        link = results.first.locator("a").first
        page_found = link.get_attribute("href").partition("?")[0].partition("#")[0].rpartition("/")[2]
        link.click()
        tab.wait_for_url(f"**/{page_found}*")
