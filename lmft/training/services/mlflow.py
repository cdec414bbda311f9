"""MLflow, on a server or in a file."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.fabric.utilities.logger import _flatten_dict

from lmft.errors import UserError
from lmft.training.services.base import Answers, Service, Start

_SECONDS_TO_CONNECT = 5


class MLflow(Service):
    """MLflow, on a server or in a file."""

    continues = True
    fillable = ("run_name", "run_id", "tracking_uri", "artifact_location")

    def check(self, node: Mapping[str, Any], where: str) -> None:
        """Refuse a server that does not answer: MLflow itself would try for minutes."""
        if not _is_server(node):
            return
        address = urlsplit(str(node["tracking_uri"]))
        port = address.port or (443 if address.scheme == "https" else 80)
        host = str(address.hostname)
        try:
            socket.create_connection((host, port), _SECONDS_TO_CONNECT).close()
        except OSError as error:
            reason = error.strerror or error
            what = f"{where} cannot start: no answer from {host}:{port} ({reason})"
            fix = f"start the server; or {where}.tracking_uri=sqlite:///runs/mlflow.db, a file"
            raise UserError(what, f"{where}.tracking_uri", fix) from error

    def options(self, start: Start, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return name, store, and the record to continue."""
        runs = start.runs.resolve()
        options = {"run_name": start.name, "tracking_uri": f"sqlite:///{runs}/mlflow.db"}
        if not _is_server(node):
            options["artifact_location"] = str(runs / "mlflow-artifacts")
        if start.id is not None:
            options["run_id"] = start.id
        return options

    def id(self, logger: Any) -> str | None:
        """Return the id of the run."""
        return str(logger.run_id)

    def started(self, logger: Any, is_continued: bool) -> None:
        """Mark a continued run as running. Its parameters cannot change; changes become tags."""
        if not is_continued:
            return
        client = logger.experiment
        client.update_run(logger.run_id, status="RUNNING")
        known = client.get_run(logger.run_id).data.params

        def log_changes(params: Any) -> None:
            for name, value in _flatten_dict(dict(params)).items():
                typed = str(value)[:250]
                if name not in known:
                    client.log_param(logger.run_id, name, typed)
                elif known[name] != typed:
                    client.set_tag(logger.run_id, f"changed/{name}", typed)

        logger.log_hyperparams = log_changes

    def log_answers(self, logger: Any, answers: Answers) -> None:
        """Write a file of the run; the same step again replaces it."""
        name = f"{answers.key}/step={answers.step}.md"
        logger.experiment.log_text(logger.run_id, answers.markdown(), name)

    def attach(self, logger: Any, report: Path, step: int) -> None:
        """Copy the page to the run's files, and name it in the run's description."""
        logger.experiment.log_artifact(logger.run_id, str(report))
        note = f"{report.name} is among the artifacts; the run's folder is {report.resolve().parent}"
        logger.experiment.set_tag(logger.run_id, "mlflow.note.content", note)


def _is_server(node: Mapping[str, Any]) -> bool:
    """Return whether an MLflow logger has its record on a server."""
    return str(node.get("tracking_uri")).startswith(("http://", "https://"))
