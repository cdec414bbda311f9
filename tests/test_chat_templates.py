"""docs/templates.md tells what becomes of every chat template that installed packages have."""

import re

import pytest

from tests.helpers.chat_templates import PACKAGES, PAGE, SHAPES, Named, outcome, templates, version_of

TEMPLATES = templates()
OTHERS = [package for package in PACKAGES if str(version_of(package)) not in PAGE.read_text("utf-8")]
ROW = re.compile(r"^\| (\w+) \| ([\w.]+)(?: \(marked\))? \| (.*) \|$", re.MULTILINE)


def cells_of(template: Named) -> list[str]:
    """The page's cells of a template."""
    rows = ROW.findall(PAGE.read_text("utf-8"))
    (cells,) = [cells for package, name, cells in rows if (package, name) == (template.package, template.name)]
    return cells.split(" | ")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: f"{template.package}-{template.name}")
def test_a_template_learns_exactly_the_answers_or_refuses_the_conversation_itself(template):
    outcomes = {shape: outcome(template, shape) for shape in SHAPES}
    bad = {shape: found for shape, found in outcomes.items() if found.startswith(("FAULT", "refused"))}
    assert bad == {}
    if template.package in OTHERS:
        return  # the page is of another version
    cells = cells_of(template)
    expected = [found.replace("right", "✓") if found.startswith("right") else "–" for found in outcomes.values()]
    assert [cell if cell.startswith("✓") else cell[0] for cell in cells] == expected


@pytest.mark.skipif(bool(OTHERS), reason="the page is of other versions, or packages are missing")
def test_the_page_lists_every_template():
    listed = [(package, name) for package, name, _ in ROW.findall(PAGE.read_text("utf-8"))]
    assert [row for row in listed if row[0] != "From"] == [(each.package, each.name) for each in TEMPLATES]


def test_lmfts_own_templates_are_listed():
    assert {each.name for each in TEMPLATES if each.package == "lmft"} == {"chatml", "plain"}
    assert "FAULT" not in PAGE.read_text("utf-8")
