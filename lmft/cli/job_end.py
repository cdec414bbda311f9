"""How a job of a sweep ended: its line on the terminal, its log, its failure."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft.cli.sweep_table import scores_of
from lmft.config.hydra_errors import target_errors_are_user_errors
from lmft.errors import EXIT_CODE, as_user_error, one_line
from lmft.runs.folder import RunFolder
from lmft.runs.log import buffering_logs, capturing_logs, logging_to
from lmft.runs.redaction import Redactor
from lmft.system.files import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The end of a job; another process may send it."""

    job: str
    """The name of its folder."""
    line: str | None
    """What the terminal shows of it; None if its own output has told it."""
    failure: dict[str, Any] | None
    """Status, error and exit code, if it failed."""
    output: str = ""
    """What it printed in another process."""

    @property
    def was_stopped(self) -> bool:
        """True if a signal has stopped it."""
        return self.failure is not None and self.failure["status"] == "stopped"


class JobEnd(logging.Handler):
    """The result of a job's run in one line; counts the run's warnings while they are logged."""

    def __init__(self, run: RunFolder):
        super().__init__(logging.WARNING)
        self.run = run
        self.error: Exception | None = None
        self.has_log = False
        self.num_warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a warning."""
        self.num_warnings += 1

    def __str__(self) -> str:
        if self.error:
            phrases = [f"failed: {one_line(self.error)}"]
        else:
            phrases = _result(read_json(self.run.metrics))
        if self.num_warnings and self.has_log:
            plural = "s" if self.num_warnings > 1 else ""
            phrases.append(f"{self.num_warnings} warning{plural} in its train.log")
        if not self.has_log and not self.error:
            phrases.insert(0, "already complete")
        return ", ".join(phrases)


@contextmanager
def logged_only(folder: Path, redactor: Redactor) -> Iterator[JobEnd]:
    """Keep the block's output off the terminal; write an error, with the log, to the job's log."""
    from lmft.reporting.terminal import muted

    run = RunFolder(folder)
    end = JobEnd(run)
    with muted(), buffering_logs(starts_empty=True) as buffer:
        try:
            with capturing_logs(end), target_errors_are_user_errors():
                yield end
        except Exception as error:
            end.error = error
            bug = error if as_user_error(error) is None else None
            # A refused job leaves the log of an earlier run unchanged.
            if not buffer.was_handed_over and (bug or not run.log.exists()):
                with logging_to(run.log, redactor):
                    log.error("%s", one_line(error), exc_info=bug)
        end.has_log = buffer.was_handed_over


def _result(metrics: Mapping[str, Any]) -> list[str]:
    """Return the scores, or else the status, and the time of training if it is known."""
    from lmft.reporting.tables import duration

    scores = scores_of(metrics)
    numbers = [("perplexity {:,.2f}", scores.get("perplexity")), ("loss {:.4f}", scores.get("loss"))]
    phrases = [form.format(number) for form, number in numbers if number is not None]
    if not phrases:
        phrases = [metrics.get("status", "unknown")]
    elif metrics.get("status") == "pruned":
        phrases.insert(0, "pruned")
    seconds = (metrics.get("train") or {}).get("seconds")
    if seconds is not None:
        phrases.append(duration(seconds))
    return phrases


def failure_of(error: Exception, redactor: Redactor) -> dict[str, Any]:
    """Return the entries of a failed job in metrics.json and in the table."""
    user_error = as_user_error(error)
    if user_error is None:
        what = f"{type(error).__name__}: {error}"
        exit_code = 1
    else:
        what = user_error.what
        exit_code = EXIT_CODE
    return {"status": "failed", "error": redactor.text(what), "exit_code": exit_code}
