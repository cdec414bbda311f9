import logging
import sys
import warnings

import pytest

from lmft.reporting.notices import collecting_notices, notices
from lmft.reporting.terminal import muted, show
from lmft.runs.log import buffering_logs
from tests.helpers.pseudo_terminal import called_on_terminal


class OnStdout(logging.StreamHandler):
    """What Hydra sets up: log records on stdout, whatever that is when they come."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stdout


@pytest.fixture(autouse=True)
def handler():
    handler = OnStdout()
    logging.getLogger().addHandler(handler)
    level = logging.getLogger("lmft").level
    logging.getLogger("lmft").setLevel(logging.INFO)
    yield handler
    logging.getLogger("lmft").setLevel(level)
    logging.getLogger().removeHandler(handler)


log = logging.getLogger("lmft.somewhere")


def test_warnings_wait_and_notes_do_not(capsys):
    with collecting_notices():
        log.warning("odd")
        log.info("a note")
        assert capsys.readouterr().out == "a note\n"
        show("the facts")
        notices.flush()
        assert capsys.readouterr().out == "the facts\nwarning\n  ! odd\n"
    assert capsys.readouterr().out == ""


def test_notes_wait_where_they_are_held_and_stand_before_warnings(capsys):
    with collecting_notices(holds_notes=True):
        log.warning("odd")
        log.info("a note")
        log.info("a note")
        assert capsys.readouterr().out == ""
    assert capsys.readouterr().out == "a note\nwarning\n  ! odd\n"


def test_each_warning_is_printed_once_with_its_number(capsys):
    with collecting_notices():
        for _ in range(3):
            log.warning("odd")
        log.warning("strange")
        notices.flush()
        assert capsys.readouterr().out == "warnings\n  ! odd (3 times)\n  ! strange\n"
        log.warning("odd")
    assert capsys.readouterr().out == ""
    with collecting_notices():  # the next command tells it again
        log.warning("odd")
    assert capsys.readouterr().out == "warning\n  ! odd\n"


def test_warnings_of_libraries_are_told_with_the_library(capsys):
    own = logging.getLogger("some_library.module")
    with collecting_notices():
        own.warning("deprecated")
    assert capsys.readouterr().out == "warning\n  ! some_library: deprecated\n"


def test_a_library_with_a_handler_of_its_own_tells_it_once(capsys):
    own = logging.getLogger("another_library")
    its_handler = logging.StreamHandler(sys.stderr)
    own.addHandler(its_handler)
    try:
        with collecting_notices():
            own.warning("deprecated")
    finally:
        own.removeHandler(its_handler)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("warning\n  ! another_library: deprecated\n", "")


def test_pythons_warnings_are_among_them_and_in_the_log(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "_showwarnmsg_impl", _as_outside_of_pytest)
    with buffering_logs() as buffer, collecting_notices():
        warnings.warn_explicit("old", UserWarning, "/x/site-packages/torch/optim.py", 3)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("warning\n  ! torch: old\n", "")
    assert not buffer.records  # cleared at the end
    with buffering_logs() as buffer, collecting_notices():
        warnings.warn_explicit("older", UserWarning, "/x/site-packages/torch/optim.py", 4)
        assert [record.getMessage().split(": ", 1)[1].split("\n")[0] for record in buffer.records] == [
            "UserWarning: older"
        ]


def _as_outside_of_pytest(message):
    sys.stderr.write(f"{message}\n")


def test_what_somebody_records_is_left_to_them(capsys):
    with warnings.catch_warnings(record=True) as recorded, buffering_logs(), collecting_notices():
        warnings.simplefilter("always")
        warnings.warn("mine", stacklevel=1)
    assert [str(each.message) for each in recorded] == ["mine"]
    assert capsys.readouterr().out == ""


def test_errors_are_printed_at_once_after_what_waits(capsys):
    with collecting_notices():
        log.warning("odd")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("it failed")
        out = capsys.readouterr().out
    assert out.startswith("warning\n  ! odd\nit failed\nTraceback") and "ValueError: broken" in out


def test_an_error_loses_none(capsys):
    with pytest.raises(ValueError, match="x"), collecting_notices(holds_notes=True):
        log.info("a note")
        log.warning("odd")
        raise ValueError("x")
    assert capsys.readouterr().out == "a note\nwarning\n  ! odd\n"


def test_a_muted_terminal_shows_none(capsys):
    with muted(), collecting_notices():
        log.warning("odd")
        warnings.warn("also", stacklevel=1)
    said = capsys.readouterr()
    assert said.out == ""


def test_warnings_that_do_not_wait_are_printed_as_they_come(capsys):
    with collecting_notices():
        notices.holds_warnings = False
        log.warning("odd")
        assert capsys.readouterr().out == "warning\n  ! odd\n"
    with collecting_notices():
        assert notices.holds_warnings


@pytest.mark.parametrize("columns", [40, 80])
def test_a_long_warning_is_broken_between_words_and_indented(columns):
    text = " ".join(f"word{number}" for number in range(40))

    def work():
        with collecting_notices():
            log.warning(text)

    lines = called_on_terminal(work, columns).lines
    shown = lines[lines.index("warning") + 1 :]
    assert shown[0].startswith("  ! word0") and all(line.startswith("    word") for line in shown[1:])
    assert " ".join(" ".join(shown).split())[2:].startswith(text)
