"""How far each logger of a run has got, so that a resumed run continues its record without gaps."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from lmft.errors import UserError
from lmft.reporting.answers import plain
from lmft.system.files import write_json
from lmft.training.extensions import one_line
from lmft.training.services.base import Answers, Service, Start

log = logging.getLogger(__name__)


@dataclass
class _Record:
    """The rows that a logger has got so far."""

    where: str
    """The logger's key in the config."""
    logger: Any
    service: Service
    sent: dict[str, int]
    """The last step of each number."""
    known: dict[str, int] = field(init=False)
    """Those that earlier processes have sent, which are not sent again."""

    def __post_init__(self) -> None:
        self.known = dict(self.sent)

    def is_new(self, name: str, step: int | None) -> bool:
        """Return whether a number of a step is not in the record of an earlier process."""
        return step is None or step > self.known.get(name, -1)


class Records:
    """The loggers of a run, and the last step that each has got, kept in the run's loggers.json.

    A run that is resumed repeats the steps after its last checkpoint, with the same numbers.
    TensorBoard marks the old ones as void; the other services keep them, and do not get them again.
    A service that was added to the run later gets the earlier rows from metrics.csv.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        """Create the records.

        Args:
            path: loggers.json.
            settings: the run's config, without secrets.
        """
        self.path = path
        self.settings = settings
        self._records: list[_Record] = []

    def add(
        self, where: str, logger: Any, service: Service, start: Start, steps: Mapping[str, int]
    ) -> None:
        """Add a logger that has been started.

        Args:
            where: its key in the config.
            logger: the logger.
            service: its service.
            start: where the run starts.
            steps: the last step of each number that earlier processes have sent.
        """
        is_continued = start.id is not None and service.id(logger) == start.id
        service.started(logger, is_continued)
        sent: dict[str, int] = {}
        if is_continued and service.keeps_later_steps:
            stored = service.logged_steps(logger)
            sent = dict(steps) if stored is None else stored
        elif is_continued:
            sent = {name: min(step, start.step) for name, step in steps.items()}
        elif start.step >= 0 and not service.continues:
            log.info("%s begins a new record: lmft cannot continue one of this class", where)
        record = _Record(where, logger, service, sent)
        logger.log_metrics = self._sender(record, logger.log_metrics)
        logger.finalize = _do_nothing  # Lightning would end the record with each of its loops
        self._records.append(record)
        self._write()

    def catch_up(self, rows: Sequence[Mapping[str, str]], answers: Iterable[Mapping[str, Any]]) -> None:
        """Send what the services have not got.

        Args:
            rows: the rows of metrics.csv so far.
            answers: the lines of samples.jsonl so far.
        """
        records = [record for record in self._records if record.service.continues]
        for record in records:
            for row in rows:
                step = int(row["step"])
                numbers = {name: float(value) for name, value in row.items() if value and name != "step"}
                record.logger.log_metrics(numbers, step)
            record.logger.save()
        for (step, stage), asked in groupby(answers, key=lambda line: (line["step"], line["stage"])):
            self.log_answers(step, stage, list(asked))

    def log_answers(self, step: int, stage: str, answers: Sequence[Mapping[str, Any]]) -> None:
        """Log the model's answers to the probes. Arguments as of `Probes.ask`."""
        rows = [(answer["prompt"], plain(answer)) for answer in answers]
        asked = Answers(step, stage, rows)
        for record in self._records if rows else ():
            if record.is_new(asked.key, step):
                with _failures_are_user_errors(record):
                    record.service.log_answers(record.logger, asked)
                self._note(record, [asked.key], step)

    def log_end(self, scores: Mapping[str, float], report: Path, step: int) -> None:
        """Log the scores of the exported weights, and attach the report.

        The run is complete by then, so a service that fails does not make it fail.
        """
        for record in self._records:
            try:
                record.service.log_end(record.logger, dict(scores), self.settings, step)
                record.service.attach(record.logger, report, step)
                record.logger.save()
            except Exception as error:
                log.warning("%s did not get the report: %s", record.where, one_line(error))

    def close(self, status: str) -> None:
        """End the records in this process. status: `success` or `failed`."""
        for record in self._records:
            del record.logger.finalize
            try:
                record.service.close(record.logger, status)
            except Exception as error:
                log.warning("%s could not be closed: %s", record.where, one_line(error))
        self._records = []

    def _sender(self, record: _Record, send: Callable[..., None]) -> Callable[..., None]:
        def log_metrics(metrics: Mapping[str, Any], step: int | None = None) -> None:
            new = {name: value for name, value in metrics.items() if record.is_new(name, step)}
            if new.keys() <= {"epoch"}:
                return
            with _failures_are_user_errors(record):
                send(new, step)
            if step is not None:
                self._note(record, new, step)

        return log_metrics

    def _note(self, record: _Record, names: Iterable[str], step: int) -> None:
        for name in names:
            record.sent[name] = max(step, record.sent.get(name, -1))
        self._write()

    def _write(self) -> None:
        entries = {
            record.where: {"id": record.service.id(record.logger), "steps": record.sent}
            for record in self._records
        }
        write_json(self.path, entries)


def _do_nothing(status: str) -> None:
    pass


@contextmanager
def _failures_are_user_errors(record: _Record) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        fix = f"the same command continues; with {record.where}=null it does without this logger"
        raise UserError(f"{record.where} failed: {one_line(error)}", record.where, fix) from error
