"""The report is rewritten at validations, by the first process, as often as it takes little time."""

from types import SimpleNamespace

import pytest

from lmft.training.callbacks import report
from lmft.training.callbacks.report import SHARE, Report


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(report.time, "monotonic", lambda: clock.now)
    return clock


def validations(callback, clock, times, rank=0):
    for each in times:
        clock.now = each
        callback.on_validation_end(SimpleNamespace(is_global_zero=rank == 0), None)


def test_it_takes_no_more_than_its_share_of_the_time(clock):
    written = []

    def write():
        written.append(clock.now)
        clock.now += 0.1

    validations(Report(write), clock, [1, 2, 3, 6.2, 7, 11, 12])
    assert written == [1, 6.2, 12]
    assert 0.1 / SHARE == 5


def test_only_the_first_process_writes(clock):
    written = []
    validations(Report(lambda: written.append(1)), clock, [1, 2], rank=1)
    assert written == []


def test_a_report_that_fails_does_not_end_the_training(clock, caplog):
    def write():
        raise OSError("the disk is full")

    validations(Report(write), clock, [1])
    assert "the disk is full" in caplog.text
