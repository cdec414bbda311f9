"""A run's train.log: all log records and warnings, and the terminal's output."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmft.reporting import python_warnings
from lmft.runs.redaction import Redactor

_buffer: "LogBuffer | None" = None
# What torch.compile writes for tools: records without a text, which it makes only for a handler.
_FOR_TOOLS = "torch.__trace"


class LogBuffer(logging.Handler):
    """Keeps log records until a run's log is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.was_handed_over = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, unless the buffer has been handed over."""
        if not self.was_handed_over:
            self.records.append(record)

    def hand_over(self, to: logging.Handler) -> None:
        """Give all records to another handler, once."""
        for record in self.records:
            to.handle(record)
        self.records.clear()
        self.was_handed_over = True


@contextmanager
def buffering_logs(starts_empty: bool = False) -> Iterator[LogBuffer]:
    """Keep the block's log records and warnings until a run's log opens, which gets them first.

    Nested in another such block whose buffer has not been handed over, this uses the same buffer, unless
    it
    `starts_empty`: then no earlier record belongs to the run. The buffer is cleared at the end of the
    block.
    """
    global _buffer
    before = _buffer
    if before is None or before.was_handed_over or starts_empty:
        if before is not None:
            before.hand_over(logging.NullHandler())
        buffer = LogBuffer()
        capturing = capturing_logs(buffer)
    else:
        buffer = before
        # Again, since Hydra may have removed all handlers, and new libraries may have been loaded.
        capturing = _capturing_records(buffer)
    _buffer = buffer
    try:
        with capturing:
            yield buffer
    finally:
        buffer.records.clear()
        _buffer = before


@contextmanager
def logging_to(path: Path, redactor: Redactor) -> Iterator[logging.Handler]:
    """Append buffered records, then the block's records and warnings, to a file, without secrets."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(_RedactingFormatter(redactor))
    try:
        if _buffer is not None:
            _buffer.hand_over(handler)
        with capturing_logs(handler):
            yield handler
    finally:
        handler.close()


@contextmanager
def capturing_logs(handler: logging.Handler) -> Iterator[None]:
    """Give a handler the block's log records (lmft's own from level INFO) and Python's warnings."""
    show = warnings.showwarning

    def show_and_log(
        message: Any,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        if file is not None or not python_warnings.taken(message, filename):
            show(message, category, filename, lineno, file, line)
        if file is None:
            text = warnings.formatwarning(message, category, filename, lineno, line).rstrip()
            record = {
                "name": "py.warnings",
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": text,
            }
            handler.handle(logging.makeLogRecord(record))

    warnings.showwarning = show_and_log
    try:
        with _capturing_records(handler):
            yield
    finally:
        warnings.showwarning = show


@contextmanager
def _capturing_records(handler: logging.Handler) -> Iterator[None]:
    """Add a handler to the root logger and to each logger that does not propagate."""
    root = logging.getLogger()
    lmft_logger = logging.getLogger("lmft")
    known = list(logging.Logger.manager.loggerDict.values())
    loggers = [logger for logger in known if isinstance(logger, logging.Logger)]
    non_propagating = [each for each in loggers if not each.propagate and each.name != _FOR_TOOLS]
    added = [(logger, handler) for logger in (root, *non_propagating) if handler not in logger.handlers]
    if logging.lastResort and not root.handlers:  # it shows warnings only if there is no other handler
        added.append((root, logging.lastResort))
    level = lmft_logger.level
    if not lmft_logger.isEnabledFor(logging.INFO):
        lmft_logger.setLevel(logging.INFO)
    for logger, added_handler in added:
        logger.addHandler(added_handler)
    try:
        yield
    finally:
        for logger, added_handler in added:
            logger.removeHandler(added_handler)
        lmft_logger.setLevel(level)


class _LogFile(logging.FileHandler):
    """A log that reports a full disk once, in one line, not by a traceback for each record."""

    _has_reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_reported:
            self._has_reported = True
            print(f"{self.baseFilename} could not be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        try:
            super().close()
        except OSError:  # buffered text that could not be written
            self.handleError(logging.makeLogRecord({}))


class _RedactingFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor):
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))
