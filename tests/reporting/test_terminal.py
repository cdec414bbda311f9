import io
import logging
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from lmft.reporting.terminal import (
    NARROWEST,
    draws,
    flowing,
    is_muted,
    muted,
    parted,
    record,
    show,
    table_page,
    terminal,
)


@pytest.fixture
def logged():
    """What a run's log would get, as it comes."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda each: messages.append(each.getMessage())
    logger = logging.getLogger("lmft.terminal")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def console(width=80, **options):
    return Console(file=io.StringIO(), width=width, **options)


def shown(page, width):
    out = console(width)
    show(*page, console=out)
    return out.file.getvalue()


def test_the_log_gets_what_the_terminal_shows_without_its_colours(logged):
    plain, coloured = console(), console(force_terminal=True, _environ={"TERM": "xterm"})
    page = table_page("scores [bold]", ("", "loss"), [("before", "3.5"), ("after", "2.25")], ["a note"], 80)
    show(*page, console=plain)
    show(*page, console=coloured)
    assert "\x1b[1m" in coloured.file.getvalue() and "\x1b" not in plain.file.getvalue()
    assert logged == ["\n" + plain.file.getvalue().rstrip("\n")] * 2
    assert logged[0].startswith("\nscores [bold]\n") and "3.5" in logged[0]


def test_what_is_shown_does_not_come_back_by_the_handlers_of_the_terminal(capsys):
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        show(Text("once"))
        record("never")
    finally:
        logging.getLogger().removeHandler(handler)
    said = capsys.readouterr()
    assert said.out == "once\n" and said.err == ""


def test_muted_leaves_the_terminal_alone(capsys, logged):
    handler, log = logging.StreamHandler(sys.stdout), logging.getLogger("some.library")
    other = logging.StreamHandler(io.StringIO())  # somebody's file
    for each in (handler, other):
        logging.getLogger().addHandler(each)
    try:
        with muted():
            assert is_muted()
            show(Text("shown"))
            log.error("logged")
            warnings.warn("warned", stacklevel=1)
        assert not is_muted() and logged == ["\nshown"] and other.stream.getvalue() == "logged\n"
        said = capsys.readouterr()
        assert said.out + said.err == ""
        show(Text("again"))
        log.error("and again")
        assert capsys.readouterr().out == "again\nand again\n"
    finally:
        for each in (handler, other):
            logging.getLogger().removeHandler(each)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_numbers_stay_whole_and_names_fold(width):
    heads = ("job", "loss", "perplexity", "seconds", "loss before", "perplexity before")
    numbers = ["123456789012", "-1.23457e-05", "999999", "1.2", "987654321098"]
    rows = [("optimizer.lr=1e-05,data.train=" + "@" * 90, *numbers), ("short", *numbers)]
    text = shown(table_page("title", heads, rows, [], width), width)
    words = text.split()
    assert all(len(line) <= width for line in text.splitlines()) and "…" not in text
    assert all(words.count(number) == 2 for number in numbers)
    assert text.count("@") == 90 * len(parted(heads, rows, width))


CELL = st.from_regex(r"[0-9]{1,12}|[0-9]{1,3} \([0-9]{1,9} x, [0-9]{1,9} y\)|-?[0-9]\.[0-9]{1,6}", fullmatch=True)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(NARROWEST, 120), st.integers(1, 8))
def test_every_number_of_any_table_stands_whole(data, width, num_columns):
    label = st.text("abc =,-", max_size=60)
    rows = data.draw(st.lists(st.tuples(label, *[CELL] * num_columns), min_size=1, max_size=3))
    heads = ("", *(f"column {i}" for i in range(num_columns)))
    text = shown(table_page("title", heads, rows, [], width), width)
    assert all(len(line) <= width for line in text.splitlines())
    words = text.split()
    for number in {word for row in rows for cell in row[1:] for word in cell.split()}:
        assert words.count(number) >= sum(cell.split().count(number) for row in rows for cell in row[1:])


def test_a_table_that_fits_is_one_table():
    heads, rows = ("", "before", "after"), [("loss", "3.5", "2.25")]
    assert parted(heads, rows, 80) == [[0, 1, 2]]
    assert parted(heads, rows, 18) == [[0, 1], [0, 2]]
    assert shown(table_page("t", heads, rows, [], 80), 80).count("loss") == 1


def test_a_page_without_rows_has_no_table():
    assert shown(table_page("training", ("", "before"), [], ["a note"], 80), 80).split("\n") == [
        "training",
        "  a note",
        "",
        "",
    ]


def test_a_terminal_is_never_too_narrow_for_a_number(monkeypatch):
    for columns, width in (("10", NARROWEST), ("90", 90)):
        monkeypatch.setenv("COLUMNS", columns)
        assert terminal().width == width


def test_bars_are_drawn_on_terminals_only():
    assert not draws(console())
    assert draws(console(force_terminal=True, _environ={"TERM": "xterm"}))
    assert not draws(console(force_terminal=True, _environ={"TERM": "dumb"}))


def test_lines_in_a_pipe_do_not_end_in_blanks(capsys):
    show(*table_page("t", ("", "before"), [("a label", "1")], [], 80), console=Console(width=80))
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) > 4 and lines == [line.rstrip() for line in lines]


@given(st.text(alphabet="ab /\n", max_size=80), st.integers(1, 20))
def test_texts_are_broken_between_words_alone(text, width):
    broken = flowing(text, width)
    assert broken.replace("\n", " ") == text.replace("\n", " ")
    assert all(len(line) <= width or " " not in line.strip() for line in broken.split("\n"))
