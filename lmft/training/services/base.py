"""What all services of experiment tracking share: TensorBoard, Weights & Biases, MLflow and Trackio.

Each is told where its files go and which record of it a resumed run continues, and gets the answers to
probes and the report in a form of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPORT = "report"
"""The name of the report in a record."""


@dataclass(frozen=True)
class Start:
    """The start of a run, as a service has to know it."""

    folder: Path
    """The run's folder."""
    runs: Path
    """The folder of all runs, `run.dir`."""
    name: str
    """The run's name."""
    step: int
    """The optimizer step of the checkpoint that the run resumes from; −1: it starts at the beginning."""
    id: str | None = None
    """The service's name of the record that the run continues; None: it begins one."""


@dataclass(frozen=True)
class Answers:
    """The model's answers to the probes."""

    step: int
    stage: str
    """`before`, `validation` or `after`."""
    rows: Sequence[tuple[str, str]]
    """Each prompt with its answer in plain text."""

    @property
    def key(self) -> str:
        """The service's name for them; the exported weights may be those of another step."""
        return "probes/exported" if self.stage == "after" else "probes"

    def markdown(self) -> str:
        """Return a table of Markdown."""
        lines = ["| prompt | answer |", "|---|---|"]
        for prompt, answer in self.rows:
            cells = [text.replace("|", "\\|").replace("\n", "<br>") for text in (prompt, answer)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


class Service:
    """A logger that lmft does not know; subclasses override what they need."""

    continues = False
    """Whether a resumed run continues the record of the earlier one."""
    keeps_later_steps = True
    """Whether the record keeps the steps after the checkpoint that a run resumes from."""
    fillable: tuple[str, ...] = ()
    """The options that `options` may fill in."""

    def check(self, node: Mapping[str, Any], where: str) -> None:
        """Raise UserError if it is known, before any work, that the service is not set up."""

    def options(self, start: Start, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments of the logger's class, for those that the config leaves open.

        Args:
            start: where the run starts.
            node: the logger's arguments in the config.
        """
        return {}

    def started(self, logger: Any, is_continued: bool) -> None:
        """Do what has to be done when the logger has been started."""

    def id(self, logger: Any) -> str | None:
        """Return the service's name of the record."""
        return None

    def logged_steps(self, logger: Any) -> dict[str, int] | None:
        """Return the last step of each number in the record; None if the service does not tell."""
        return None

    def log_answers(self, logger: Any, answers: Answers) -> None:
        """Log answers to probes."""

    def log_end(self, logger: Any, scores: dict[str, float], settings: Any, step: int) -> None:
        """Log the scores of the exported weights.

        Args:
            logger: the logger.
            scores: name -> number.
            settings: the run's config, without secrets.
            step: the optimizer step.
        """
        logger.log_metrics(scores, step)

    def attach(self, logger: Any, report: Path, step: int) -> None:
        """Attach the report, or say where it is."""

    def close(self, logger: Any, status: str) -> None:
        """End the record in this process. status: `success` or `failed`."""
        logger.finalize(status)
