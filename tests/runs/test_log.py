"""What comes to stand in train.log: logged, shown and warned of, also before the file is there."""

import logging
import warnings

import pytest

from lmft.reporting.terminal import record
from lmft.runs.log import buffering_logs, capturing_logs, logging_to
from lmft.runs.redaction import Redactor

log = logging.getLogger("lmft.tests")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.log"


def opened(path, config=None):
    return logging_to(path, Redactor(config or {}))


def lines(path):
    """Each line's level, logger and message, without its time."""
    return [line.split(" ", 2)[2] for line in path.read_text().splitlines()]


def test_what_was_before_the_log_stands_first_in_it_once(path):
    with buffering_logs():
        log.info("tokenising")
        record("shown")
        with opened(path):
            log.info("training")
        log.info("later")
    assert lines(path) == ["INFO lmft.tests: tokenising", "INFO lmft: shown", "INFO lmft.tests: training"]


def test_warnings_are_logged_and_shown_as_ever(path):
    with pytest.warns(UserWarning) as shown, buffering_logs():
        warnings.warn("early", stacklevel=1)
        with opened(path):
            warnings.warn("late", stacklevel=1)
    assert [str(each.message) for each in shown] == ["early", "late"]
    text = path.read_text()
    assert text.count("UserWarning: early") == text.count("UserWarning: late") == 1
    assert "WARNING py.warnings: " in text and text.index("early") < text.index("late")


def test_without_a_memory_the_log_hears_all_the_same(path):
    with pytest.warns(UserWarning, match="x"), opened(path):
        warnings.warn("x", stacklevel=1)
        log.info("logged")
    assert "UserWarning: x" in path.read_text() and "lmft.tests: logged" in path.read_text()


def test_what_is_remembered_keeps_its_time(path):
    with buffering_logs() as memory:
        log.warning("early")
        memory.records[0].created -= 86400 * 400
        with opened(path):
            log.warning("late")
    first, second = path.read_text().splitlines()
    assert first[:4] < second[:4]


def test_secrets_are_left_out_of_what_was_before(path):
    config, message = {"api_key": "Sentinel7Q2"}, "login with Sentinel7Q2"
    with pytest.warns(UserWarning, match="Sentinel7Q2"), buffering_logs():
        log.info(message)
        warnings.warn(message, stacklevel=1)
        with opened(path, config):
            record(message)
    assert "Sentinel7Q2" not in path.read_text() and path.read_text().count("login with <redacted>") == 3


def test_a_log_is_appended_to(path):
    for run in ("first", "second"):
        with buffering_logs():
            log.info(run)
            with opened(path):
                pass
    assert lines(path) == ["INFO lmft.tests: first", "INFO lmft.tests: second"]


def test_one_memory_inside_of_another_is_the_same(path):
    with buffering_logs() as memory:
        log.info("command")
        root = logging.getLogger()
        root.removeHandler(memory)  # as Hydra does when it sets up logging
        with buffering_logs() as again:
            assert again is memory
            log.info("job")
            with opened(path):
                pass
    assert lines(path) == ["INFO lmft.tests: command", "INFO lmft.tests: job"]


def test_jobs_do_not_remember_each_other(path):
    with buffering_logs():
        log.info("sweep")
        with buffering_logs(starts_empty=True) as first:
            log.info("first job, refused")
        assert not first.was_handed_over and first.records == []
        with buffering_logs(starts_empty=True) as second, buffering_logs():
            log.info("second job")
            with opened(path):
                pass
        assert second.was_handed_over
    assert lines(path) == ["INFO lmft.tests: second job"]


def test_a_log_that_cannot_be_opened_leaves_nothing_behind(tmp_path):
    root, own = logging.getLogger(), logging.getLogger("lmft")
    before = root.handlers[:], own.level, warnings.showwarning
    with pytest.raises(OSError), buffering_logs(), opened(tmp_path / "absent" / "train.log"):
        pass
    assert (root.handlers[:], own.level, warnings.showwarning) == before


def test_a_logger_that_hands_nothing_on_is_heard(path):
    """As those of transformers and datasets."""
    library = logging.getLogger("some.proud.library")
    library.propagate = False
    try:
        with buffering_logs():
            library.error("early")
            with opened(path):
                library.error("late")
        assert lines(path) == ["ERROR some.proud.library: early", "ERROR some.proud.library: late"]
    finally:
        library.propagate = True


def test_what_torch_compile_writes_for_tools_is_not_asked_for(path):
    """torch makes these records, each with a graph, only where a handler listens."""
    for_tools = logging.getLogger("torch.__trace")
    before = list(for_tools.handlers)
    with opened(path):
        assert not for_tools.propagate and for_tools.handlers == before


def test_where_nobody_listens_warnings_are_still_printed(monkeypatch, capsys):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with capturing_logs(logging.NullHandler()):
        logging.getLogger("some.library").warning("a warning")
        logging.getLogger("lmft").info("no warning")
    assert root.handlers == [] and capsys.readouterr().err == "a warning\n"
