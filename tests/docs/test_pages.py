"""The pages of the documentation: their links, and what is written by commands."""

import re
import shlex

import pytest
import yaml
from rich.text import Text

import benchmarks.__main__ as benchmarks
from docs.make import examples, figures, options, pictures, terminal
from docs.make.links import CHECKOUT, SiteLinks, links_in
from lmft.config.shipped import config_dir
from tests.helpers.printed import DOCUMENTS

YAMLS = sorted(file for file in config_dir().rglob("*.yaml") if file.parent.name != "hydra")


def anchors(markdown: str) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_links_lead_to_files_and_headings(file):
    markdown = file.read_text("utf-8")
    for link in links_in(markdown):
        target = file.parent / link["target"] if link["target"] else file
        if "reference/options/" in link["target"]:
            continue  # a page that is made when the site is built, which reports broken links to it
        assert target.exists(), link[0]
        if link["anchor"] and file.name != "api.md" and target.name != "api.md":
            assert link["anchor"][1:] in anchors(target.read_text("utf-8")), link[0]


def test_links_of_code_are_none():
    assert [link["target"] for link in links_in("[a](b.md) `[c](d.md)`\n```\n[e](f.md)\n```\n[g](#h)")] == ["b.md", ""]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("../RELIABILITY.md", "RELIABILITY.md"),
        ("../conf", "reference/options/index.md"),
        ("../README.md#install", "index.md#install"),
        ("numbers.md#a", "numbers.md#a"),
        ("../LICENSE", "files/LICENSE.md"),
        ("../nowhere.md", "../nowhere.md"),
    ],
)
def test_links_out_of_the_docs_lead_to_pages_of_the_site(target, expected):
    links = SiteLinks()
    assert links.rewrite(f"[x]({target})", "recipes.md", "docs") == f"[x]({expected})"
    assert list(links.shown) == (["files/LICENSE.md"] if "LICENSE" in target else [])


def test_every_answer_has_a_command():
    _, *questions = (CHECKOUT / "docs" / "faq.md").read_text("utf-8").split("\n### ")
    assert len(questions) >= 33
    for question in questions:
        assert "python -m lmft." in question, question


class TestOptions:
    @pytest.mark.parametrize("file", YAMLS, ids=lambda file: f"{file.parent.name}/{file.stem}")
    def test_every_option_of_a_file_is_found_with_its_value(self, file):
        values = yaml.safe_load(file.read_text("utf-8")) or {}
        values.pop("defaults", None)
        found = {}
        for option in options.options_in(file):
            *outer, last = option.name.split(".")
            place = found
            for key in outer:
                place = place.setdefault(key, {})
            if option.default:
                place[last] = yaml.safe_load(option.default)
        assert found == values

    def test_every_file_is_on_a_page(self):
        text = "\n".join(options.pages().values())
        for file in YAMLS:
            group = file.parent.name
            if file.stem != "_base":
                wanted = f"`{group}={file.stem}`" if file.parent != config_dir() else f"`lmft.{file.stem}`"
                assert f"## {wanted}\n" in text

    def test_the_navigation_has_every_page(self):
        navigation = (CHECKOUT / "mkdocs.yml").read_text("utf-8")
        assert all(page in navigation for page in options.pages())

    def test_a_group_that_no_page_is_made_for_is_an_error(self, monkeypatch):
        monkeypatch.delitem(options.SAYS, "debug")
        with pytest.raises(ValueError, match="no line for conf/debug/"):
            options.pages()

    def test_a_comment_is_told_as_it_stands(self, tmp_path):
        file = tmp_path / "x.yaml"
        file.write_text("# python -m lmft.train a=b   c\n# Says d.\na: [1, 2] # <e> | f_g `h_i`\nj: '#' # k\n")
        assert options.options_in(file) == [
            options.Option("a", "[1, 2]", "<e> | f_g `h_i`"),
            options.Option("j", "'#'", "k"),
        ]
        text = options.section(file, "x", "x")
        assert "- `python -m lmft.train a=b`: c" in text and "Says d." in text
        assert "#### `x.a`\n\n&lt;e> \\| f\\_g `h_i`. Default: `[1, 2]`" in text


class TestFigures:
    def test_the_page_has_the_tables_of_the_results(self):
        page = figures.PAGE.read_text("utf-8")
        assert page == figures.written(page, figures.of_machines())

    def test_every_result_is_in_a_table(self):
        sections = {row["section"] for machine in figures.of_machines() for row in machine["results"]}
        assert sections < set(re.findall(r"<!-- table: (.+?) -->", figures.PAGE.read_text("utf-8")))

    def test_every_command_is_one_that_there_is(self):
        commands = {row["command"] for machine in figures.of_machines() for row in machine["results"]}
        commands |= set(re.findall(r"python -m benchmarks[^`\n#]*", figures.PAGE.read_text("utf-8")))
        measuring = [command for command in commands if "benchmarks" in command and not command.startswith("git")]
        assert len(measuring) > 5
        for command in measuring:
            words = shlex.split(command.removeprefix("python -m benchmarks"))
            given = [word for word in words if word != "--help"]
            assert set(benchmarks.parser().parse_args(given).suites) <= benchmarks.SUITES, command
        assert all(each in measuring or each.startswith("git show ") or "lmft.train" in each for each in commands)

    def test_a_result_is_told_with_machine_range_and_rounds(self):
        result = {"ratio": 2.2, "against": "a", "low": 2.1, "high": 2.4, "rounds": 2}
        row = {"section": "s", "figure": "f", "command": "c", "results": [result], "script": "earlier"}
        machine = {"machine": "two cores", "measured": "2026-11", "results": [row]}
        page = figures.written("<!-- table: s -->\nold\n<!-- end -->\n", [machine])
        assert "| f | 2.2× a (2.1 to 2.4, 2 rounds) † | `c` |" in page and "old" not in page
        assert "Measured in 2026-11 on two cores:" in page

    def test_a_section_has_a_table_of_each_machine(self):
        row = {"section": "s", "figure": "f", "command": "c", "results": [{"value": 1234, "rounds": 3}]}
        machines = [{"machine": name, "measured": "2026", "results": [row]} for name in ("A", "B")]
        page = figures.written("<!-- table: s -->\n<!-- end -->\n", machines)
        assert page.index("on A:") < page.index("on B:") and page.count("| f | 1,234 | `c` |") == 2

    def test_a_section_without_results_is_an_error(self):
        with pytest.raises(ValueError, match="a section 'x'"):
            figures.written("<!-- table: x -->\n<!-- end -->", [])


class TestPictures:
    def test_each_picture_is_shown_on_a_page(self):
        text = "\n".join(file.read_text("utf-8") for file in DOCUMENTS)
        assert {path.stem for path in pictures.FOLDER.glob("*.svg")} == set(pictures.PICTURES)
        assert all(f"pictures/{name}.svg" in text for name in pictures.PICTURES)

    @pytest.fixture(scope="class")
    def cache(self):
        with examples.own_cache():
            yield

    @pytest.mark.slow
    @pytest.mark.parametrize("name", pictures.PICTURES)
    def test_each_is_what_lmft_does_now(self, name, cache):
        assert pictures.PICTURES[name]() == (pictures.FOLDER / f"{name}.svg").read_text("utf-8")


class TestTerminal:
    WRITTEN = b"loading 0:01\r\x1b[2Kstep 4/4\r\n\x1b[1mscores\x1b[0m\r\n\x1b[2mdim\x1b[0m \x1b[31mred\x1b[0m\r\n"

    def test_lines_are_those_that_stay_with_their_styles(self):
        shown = terminal.lines(self.WRITTEN, 20)
        assert [line.plain for line in shown] == ["step 4/4", "scores", "dim red"]
        styles = [[str(span.style) for span in line.spans] for line in shown]
        assert "bold" in styles[1][0] and "bright_black" in styles[2][0] and "red" in styles[2][-1]

    def test_lines_that_scrolled_off_stay(self):
        many = b"".join(b"%d\r\n" % number for number in range(100))
        assert [line.plain for line in terminal.lines(many, 20)] == [str(number) for number in range(100)]

    def test_the_picture_has_the_text_and_fetches_nothing(self):
        svg = terminal.picture(terminal.lines(self.WRITTEN, 20), 20, "title")
        assert all(text in svg for text in ("step&#160;4/4", "scores", "title"))
        assert not re.search(r"url\((?!#)|@import|@font-face|href", svg)

    def test_what_is_left_out_is_marked(self):
        shown = terminal.without_middle([Text(word) for word in ["a", "b", "c", "d", "e", "f"]], "c", "e")
        assert [line.plain for line in shown] == ["a", "b", "…", "e", "f"]
        with pytest.raises(StopIteration):
            terminal.without_middle(shown, "x", "e")

    def test_the_picture_of_readme_is_of_the_command_that_draws_it(self):
        shown = re.sub(r"<[^>]+>", "", terminal.FILE.read_text("utf-8")).replace("&#160;", " ")
        assert f"$ {' '.join(terminal.COMMAND)}" in shown
        assert "scores on the validation text" in shown and "the report is in runs/" in shown
