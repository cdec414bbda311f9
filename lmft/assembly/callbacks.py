"""lmft's own callbacks of a training."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lmft.assembly.by_heart import examples_as_prompts
from lmft.assembly.details import RunDetails
from lmft.assembly.held_out import held_out_conversations
from lmft.assembly.parts import Parts
from lmft.breakdown.measurement import Measurement
from lmft.runs.folder import RunFolder
from lmft.runs.report import write_report
from lmft.runs.run import Run
from lmft.sweeps.trial import TrialReference
from lmft.system.files import write_json
from lmft.training.callbacks.checkpoint import Checkpoints
from lmft.training.callbacks.details import Details
from lmft.training.callbacks.metrics import Metrics
from lmft.training.callbacks.probes import Probes
from lmft.training.callbacks.progress import Progress
from lmft.training.callbacks.pruning import Pruning
from lmft.training.callbacks.report import Report
from lmft.training.callbacks.stop_on_signal import StopOnSignal
from lmft.training.latest_metrics import LatestMetrics
from lmft.training.metrics_file import MetricsFile


@dataclass(frozen=True)
class OwnCallbacks:
    """lmft's own callbacks of a training, and its metrics.csv."""

    csv: MetricsFile
    metrics: Metrics
    probes: Probes
    report: Report
    progress: Progress
    checkpoints: Checkpoints
    details: Details
    run_details: RunDetails
    stop: StopOnSignal
    pruning: Pruning | None
    """Of a trial that its search may end early."""


def make_callbacks(config: dict[str, Any], parts: Parts, run: Run) -> OwnCallbacks:
    """Return lmft's own callbacks of a run."""
    live = LatestMetrics()
    csv = MetricsFile(run.paths.metrics_csv, sources=parts.corpus.measured_sources)
    checkpoints = Checkpoints(
        run.paths.checkpoints,
        **config["checkpoint"],
        appended_files=appended_files(run),
        keeps_best_weights=parts.model.export == "best",
    )
    metrics = Metrics(live, csv)
    run_details = RunDetails(parts)

    def write_latest(before: Measurement | None, latest: Measurement) -> None:
        write_json(run.paths.details, run.redacted(run_details.compare(before, latest, "latest")))

    probes = [
        *(examples_as_prompts(parts) or (*parts.model.probes, *parts.data.probes)),
        *held_out_conversations(parts),
    ]
    inherited = None
    if run.checkpoint is not None:
        inherited = RunFolder(run.checkpoint.parent.parent).measurements
    trial = TrialReference.of_environment()
    return OwnCallbacks(
        csv=csv,
        metrics=metrics,
        probes=Probes(probes, run.paths.samples),
        report=Report(partial(write_report, run.paths, run.name, "running")),
        progress=Progress(live),
        checkpoints=checkpoints,
        details=Details(run.paths.measurements, write_latest, inherited),
        run_details=run_details,
        stop=StopOnSignal(checkpoints),
        pruning=Pruning(trial, metrics) if trial else None,
    )


def appended_files(run: Run) -> list[Path]:
    """Return the files of a run that callbacks append to."""
    return [run.paths.metrics_csv, run.paths.samples]
