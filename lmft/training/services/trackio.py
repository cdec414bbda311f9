"""Trackio, in a file or on a Space."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmft.training.services.base import REPORT, Answers, Service, Start


class Trackio(Service):
    """Trackio, in a file or on a Space."""

    continues = True
    fillable = ("name", "resume")

    def options(self, start: Start, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run's name, and whether its record is continued.

        Trackio reads the variable of its folder when it is imported, for the whole process.
        """
        os.environ.setdefault("TRACKIO_DIR", str(start.runs.resolve() / "trackio"))
        return {"name": start.name, "resume": "never" if start.id is None else "allow"}

    def id(self, logger: Any) -> str | None:
        """Return the id of the run."""
        return str(logger.experiment.id)

    def logged_steps(self, logger: Any) -> dict[str, int] | None:
        """Return the steps in the file: a process that is killed loses those of its last half second."""
        from trackio.sqlite_storage import SQLiteStorage

        if logger.is_remote:
            return None
        steps: dict[str, int] = {}
        run = logger.experiment
        for row in SQLiteStorage.get_logs(run.project, run.name, run_id=run.id):
            steps |= dict.fromkeys(row.keys() - {"step", "timestamp"}, row["step"])
        return steps

    def log_answers(self, logger: Any, answers: Answers) -> None:
        """Log a table."""
        import trackio

        table = trackio.Table(columns=["prompt", "answer"], data=[list(row) for row in answers.rows])
        logger.log_metrics({answers.key: table}, answers.step)

    def attach(self, logger: Any, report: Path, step: int) -> None:
        """Log the page."""
        import trackio

        logger.log_metrics({REPORT: trackio.Html(report)}, step)
