"""A run's train.log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmft.redaction import Redactor


@contextmanager
def logging_to(path: Path, redactor: Redactor) -> Iterator[logging.Handler]:
    """Inside, what is logged is appended to a file, without secrets; of lmft itself from level INFO on."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(_RedactingFormatter(redactor))
    own = logging.getLogger("lmft")
    level = own.level
    own.setLevel(min(own.getEffectiveLevel(), logging.INFO))
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)
        own.setLevel(level)
        handler.close()


class _LogFile(logging.FileHandler):
    """A log whose disk may be full: said once, in one line, where logging would print a traceback at each message."""

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
