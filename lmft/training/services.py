"""Adapters to the services of experiment tracking: TensorBoard, Weights & Biases, MLflow and Trackio.

Each is told where its files go and which record of it a resumed run continues, and gets the answers to
probes and the report in a form of its own.
"""

import netrc
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.fabric.utilities.logger import _flatten_dict
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lmft.errors import UserError
from lmft.training.trackio_logger import TrackioLogger
from lmft.training.wandb_files import last_steps

_REPORT = "report"
_SECONDS_TO_CONNECT = 5


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


class CsvFiles(Service):
    """Lightning's CSVLogger."""

    fillable = ("save_dir",)

    def options(self, start: Start, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return the folder."""
        return {"save_dir": str(start.folder)}


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
        logger.experiment.add_text(_REPORT, f"[{report.name}]({report.resolve()})", step)


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

        logger.log_metrics({_REPORT: wandb.Html(report.read_text("utf-8"), inject=False)}, step)

    def close(self, logger: Any, status: str) -> None:
        """Finish the run, since another one of this process would be written into it."""
        logger.finalize(status)
        logger.experiment.finish(exit_code=0 if status == "success" else 1)


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

        logger.log_metrics({_REPORT: trackio.Html(report)}, step)


_SERVICES: dict[type, Service] = {
    TensorBoardLogger: TensorBoard(),
    WandbLogger: WeightsAndBiases(),
    MLFlowLogger: MLflow(),
    TrackioLogger: Trackio(),
    CSVLogger: CsvFiles(),
}


def service_of(target: Any) -> Service:
    """Return the service of a logger's class, or the base class."""
    for kind, service in _SERVICES.items():
        if isinstance(target, type) and issubclass(target, kind):
            return service
    return Service()


def _is_server(node: Mapping[str, Any]) -> bool:
    """Return whether an MLflow logger has its record on a server."""
    return str(node.get("tracking_uri")).startswith(("http://", "https://"))


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
