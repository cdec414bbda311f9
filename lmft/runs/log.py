"""A run's train.log: what is logged and warned of from the command's start on, and what the terminal shows."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmft.runs.redaction import Redactor

_remembered: "LogBuffer | None" = None


class LogBuffer(logging.Handler):
    """Keeps what is logged before a run has its log."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.was_handed_over = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record, unless they have been handed over."""
        if not self.was_handed_over:
            self.records.append(record)

    def hand_over(self, to: logging.Handler) -> None:
        """Gives all records to another handler, once."""
        for record in self.records:
            to.handle(record)
        self.records.clear()
        self.was_handed_over = True


@contextmanager
def buffering_logs(anew: bool = False) -> Iterator[LogBuffer]:
    """Inside, what is logged and warned of is kept until the log of a run opens, which gets it first.

    Inside of another one that has not been handed over it is the same memory, unless it is to begin `anew`:
    then nothing from before belongs to the run. What a memory holds when this is left is forgotten.
    """
    global _remembered
    before = _remembered
    if before is None or before.was_handed_over or anew:
        if before is not None:
            before.hand_over(logging.NullHandler())
        memory = LogBuffer()
        hearing = capturing_logs(memory)
    else:
        memory = before
        hearing = _capturing_records(
            memory
        )  # Hydra may have taken all handlers away, new libraries may have been loaded
    _remembered = memory
    try:
        with hearing:
            yield memory
    finally:
        memory.records.clear()
        _remembered = before


@contextmanager
def logging_to(path: Path, redactor: Redactor) -> Iterator[logging.Handler]:
    """Inside, what is logged, shown and warned of is appended to a file, without secrets; what was remembered
    first.
    """
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(_RedactingFormatter(redactor))
    try:
        if _remembered is not None:
            _remembered.hand_over(handler)
        with capturing_logs(handler):
            yield handler
    finally:
        handler.close()


@contextmanager
def capturing_logs(handler: logging.Handler) -> Iterator[None]:
    """Inside, a handler gets what is logged, of lmft itself from level INFO on, and what Python warns of."""
    shown = warnings.showwarning

    def show_and_log(
        message: Any,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        shown(message, category, filename, lineno, file, line)
        if file is None:
            text = warnings.formatwarning(message, category, filename, lineno, line).rstrip()
            record = {"name": "py.warnings", "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
            handler.handle(logging.makeLogRecord(record))

    warnings.showwarning = show_and_log
    try:
        with _capturing_records(handler):
            yield
    finally:
        warnings.showwarning = shown


@contextmanager
def _capturing_records(handler: logging.Handler) -> Iterator[None]:
    """Adds a handler wherever records end: at the root, and at loggers that hand nothing on."""
    root, own = logging.getLogger(), logging.getLogger("lmft")
    known = list(logging.Logger.manager.loggerDict.values())
    ends = [root, *(each for each in known if isinstance(each, logging.Logger) and not each.propagate)]
    added = [(logger, handler) for logger in ends if handler not in logger.handlers]
    if logging.lastResort and not root.handlers:  # which shows warnings only where there is no other handler
        added.append((root, logging.lastResort))
    level = own.level
    if not own.isEnabledFor(logging.INFO):
        own.setLevel(logging.INFO)
    for logger, each in added:
        logger.addHandler(each)
    try:
        yield
    finally:
        for logger, each in added:
            logger.removeHandler(each)
        own.setLevel(level)


class _LogFile(logging.FileHandler):
    """A log whose disk may be full: said once, in one line, where logging would print a traceback at each
    message.
    """

    _was_said = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._was_said:
            self._was_said = True
            print(f"{self.baseFilename} could not be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        try:
            super().close()
        except OSError:  # what could not be written before
            self.handleError(logging.makeLogRecord({}))


class _RedactingFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor):
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))
