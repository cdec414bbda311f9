"""Weights & Biases, on its server or offline."""

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmft.errors import UserError
from lmft.training.services.base import REPORT, Answers, Service, Start
from lmft.training.services.wandb_files import last_steps


class WeightsAndBiases(Service):
    """Weights & Biases, on its server or offline."""

    continues = True
    fillable = ("save_dir", "name", "id", "resume")

    def check(self, node: Mapping[str, Any], where: str) -> None:
        """Refuse a run that would log to the server without a key."""
        mode = str(node.get("mode") or os.environ.get("WANDB_MODE", "online")).lower()
        if node.get("offline") or mode not in ("online", "shared") or _has_key():
            return
        what = f"{where} cannot start: Weights & Biases has no key on this machine"
        fix = f"`wandb login`, or WANDB_API_KEY; or {where}.offline=true, and later `wandb sync`"
        raise UserError(what, where, fix)

    def options(self, start: Start, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return folder, name, and the record to continue."""
        options = {"save_dir": str(start.folder), "name": start.name}
        if start.id is not None:
            options |= {"id": start.id, "resume": "allow"}
        return options

    def id(self, logger: Any) -> str | None:
        """Return the id of the run."""
        return str(logger.experiment.id)

    def logged_steps(self, logger: Any) -> dict[str, int] | None:
        """Return the steps in the files of an offline run; a process that is killed loses its last."""
        if not logger.experiment.offline:
            return None
        found = Path(logger.save_dir).glob(f"wandb/offline-run-*-{logger.experiment.id}/*.wandb")
        return last_steps(sorted(found))

    def log_answers(self, logger: Any, answers: Answers) -> None:
        """Log a table."""
        logger.log_table(
            answers.key, ["prompt", "answer"], [list(row) for row in answers.rows], None, answers.step
        )

    def attach(self, logger: Any, report: Path, step: int) -> None:
        """Log the page."""
        import wandb

        logger.log_metrics({REPORT: wandb.Html(report.read_text("utf-8"), inject=False)}, step)

    def close(self, logger: Any, status: str) -> None:
        """Finish the run, since another one of this process would be written into it."""
        logger.finalize(status)
        logger.experiment.finish(exit_code=0 if status == "success" else 1)


def _has_key() -> bool:
    """Return whether Weights & Biases may find a key: in the environment or in a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    paths = [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]
    for path in (path.expanduser() for path in paths):
        if path.is_file():
            try:
                return bool(netrc.netrc(path).hosts)
            except netrc.NetrcParseError:
                return True  # Weights & Biases reads it in its own way
    return False
