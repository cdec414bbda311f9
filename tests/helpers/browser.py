"""Pages in headless Chromium, at the sizes and in the modes in which people read them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path(os.environ.get("LMFT_CHROMIUM", "/usr/bin/chromium"))
needs_browser = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"no Chromium: {CHROMIUM} is missing; LMFT_CHROMIUM names another one"
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
VIEWS = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]
"""Size and mode of each view that a page has to look right in."""
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for all tests of a module."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(_ARGUMENTS))
        yield started
        started.close()


@contextmanager
def opened(browser: Any, page: Path | str, size: str = "desktop", scheme: str = "light") -> Iterator[Any]:
    """Open a page: a file, or an address. On leaving, it must have reported no fault and asked for nothing else.

    size: a key of `SIZES`; scheme: `light` or `dark`.
    """
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab = context.new_page()
    address = page.resolve().as_uri() if isinstance(page, Path) else page
    faults: list[str] = []
    tab.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    origin = address if isinstance(page, Path) else "/".join(address.split("/")[:3])
    tab.on("request", lambda request: faults.append(request.url) if _is_foreign(request.url, origin) else None)
    tab.goto(address)
    if tab.locator("#charts").count():
        tab.wait_for_selector("html[data-drawn]", state="attached", timeout=20_000)
    yield tab
    context.close()
    assert faults == []


def _is_foreign(address: str, origin: str) -> bool:
    return not address.startswith((origin, "data:", "blob:"))


def assert_fits(tab: Any) -> None:
    """Assert that the page itself does not scroll sideways; a wide table may, inside its own frame."""
    wide = tab.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter((each) => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".wide, .tall, svg"))
            .map((each) => each.outerHTML.slice(0, 120))"""
    )
    assert wide == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def color_of(tab: Any, selector: str, name: str = "color") -> str:
    """The computed value of a colour of the first element."""
    return tab.evaluate("([at, name]) => getComputedStyle(document.querySelector(at))[name]", [selector, name])
