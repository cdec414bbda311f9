"""TensorBoard: event files in the run's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmft.training.services.base import REPORT, Answers, Service, Start


class TensorBoard(Service):
    """Event files in the run's folder; those after the checkpoint are declared void on resume."""

    continues = True
    keeps_later_steps = False
    fillable = ("save_dir", "purge_step", "version")

    def options(self, start: Start, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return the folder, and the first step that is void.

        TensorBoard takes the first such mark of a folder for its beginning, so a new run has one too.
        """
        options: dict[str, Any] = {"save_dir": str(start.folder), "purge_step": start.step + 1}
        if start.id is not None:
            options["version"] = start.id
        return options

    def id(self, logger: Any) -> str | None:
        """Return the name of the subfolder."""
        return str(logger.version)

    def log_answers(self, logger: Any, answers: Answers) -> None:
        """Log a text."""
        logger.experiment.add_text(answers.key, answers.markdown(), answers.step)
        logger.save()

    def log_end(self, logger: Any, scores: dict[str, float], settings: Any, step: int) -> None:
        """Log the scores, also for the table of hyperparameters, which needs a score."""
        if scores:
            logger.log_hyperparams(settings, scores, step)

    def attach(self, logger: Any, report: Path, step: int) -> None:
        """Log the report's path."""
        logger.experiment.add_text(REPORT, f"[{report.name}]({report.resolve()})", step)
