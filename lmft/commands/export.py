"""Export a run's model from any of its checkpoints, complete a failed export, convert or push it.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.errors import UserError, did_you_mean
from lmft.models.config import EXPORT_DTYPES
from lmft.runs.checkpoints import EXPORTED, EXPORTED_NAME, remove
from lmft.runs.folder import RunFolder, existing_run
from lmft.runs.lock import locked
from lmft.runs.resume import recorded_settings
from lmft.runs.shown_config import print_if_verbose
from lmft.runs.trained import config_to_use
from lmft.system import converters
from lmft.system.files import read_json, write_json
from lmft.system.outputs import check_is_in_folder
from lmft.system.upload import Upload

if TYPE_CHECKING:
    from lmft.assembly import Parts
    from lmft.modules.base import LanguageModel
    from lmft.training.callbacks.checkpoint import Exported

log = logging.getLogger("lmft")
# Options, and groups of options, that an export reads.
_OWN = (
    *("run", "checkpoint", "dtype", "output", "validate"),
    *("format", "push_to_hub", "private", "dry_run"),
)
_OF_MODEL = ("model", "data", "objective", "seed")
_READ = (*_OWN, *_OF_MODEL, "trainer", "trust", "hydra")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("export", export, argv)


def export(job: Job) -> None:
    """Export the model that the options describe, or list its files. Raises: UserError."""
    exported_by(job)


def exported_by(job: Job) -> Path:
    """Do what the command does; return the folder of the model. Raises: UserError."""
    options = job.config
    run = _checked_run(job)
    print_if_verbose(job, options)
    upload = None
    if options["push_to_hub"] is not None:
        upload = Upload(str(options["push_to_hub"]), bool(options["private"]))
    with ExitStack() as stack:
        stack.enter_context(locked(run))
        folder = Path(options["output"] or run.model)
        source = folder
        if _leaves_as_it_is(job, run):
            source = _copied(run.model, folder, options["dry_run"])
        else:
            if options["dry_run"]:
                temporary = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lmft-")
                source = Path(stack.enter_context(temporary)) / folder.name
            _write(job, run, source)
        if options["dry_run"]:
            _list_files(source, folder, upload)
            return folder
        if options["format"] is not None:
            source = converters.convert(source, options["format"])
            log.info("%s holds the converted model", source)
        if upload is not None:
            log.info("pushed to %s", upload.push(source))
        return source


def _checked_run(job: Job) -> RunFolder:
    """Return the run to export, after the checks of options that take no time. Raises: UserError."""
    options = job.config
    if options["run"] is None:
        raise UserError("no run is named", fix="add run=runs/NAME")
    run = existing_run(Path(str(options["run"])))
    _check_overrides(job)
    known = {"dtype": tuple(EXPORT_DTYPES), "format": converters.FORMATS}
    for option, values in known.items():
        value = options[option]
        if value is not None and value not in values:
            what = f"{option}={value} is unknown{did_you_mean(str(value), values)}"
            raise UserError(what, fix=f"one of: {', '.join(values)}, null")
    if options["output"] is not None:
        _check_output(Path(options["output"]))
    if options["format"] is not None:
        converters.require(options["format"])
        lora = recorded_settings(run)["model"].get("lora") or {}
        merges = lora.get("merge", True) or "model.lora.merge=true" in job.overrides
        if lora.get("r") and not merges:
            what = f"format={options['format']} needs a whole model, and the run has only adapters"
            raise UserError(what, str(run.path), "add model.lora.merge=true output=FOLDER")
    return run


def _check_overrides(job: Job) -> None:
    """Raise UserError for an option on the command line that no export reads."""
    for override in job.overrides:
        key = override.lstrip("+~").partition("=")[0]
        group = key.partition(".")[0].partition("@")[0]
        if key == "model.export":
            what = "lmft.export takes the weights that checkpoint= names"
            raise UserError(what, override, "checkpoint=best, or checkpoint=last")
        if group == "private" and job.config["push_to_hub"] is None:
            what = "private= has no effect, because nothing is pushed"
            raise UserError(what, override, "add push_to_hub=USER/NAME")
        if group not in _READ:
            raise UserError(f"an export does not read {key}", override, "leave it out")


def _check_output(folder: Path) -> None:
    """Raise UserError unless the folder is new, or holds an earlier export."""
    check_is_in_folder(folder, f"output={folder}")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or (names and not names & {"config.json", "adapter_config.json"}):
        what = f"{folder} is not a model folder, and an export would replace it"
        raise UserError(what, "output", "output=NEW_FOLDER")


def _leaves_as_it_is(job: Job, run: RunFolder) -> bool:
    """Return whether the export is model/ as it is."""
    if job.config["checkpoint"] is not None or job.config["dtype"] is not None:
        return False
    keys = [override.lstrip("+~").partition("=")[0] for override in job.overrides]
    changes_it = any(key.partition(".")[0] in _OF_MODEL for key in keys)
    return run.model.is_dir() and not run.has_pending_export() and not changes_it


def _copied(model: Path, folder: Path, is_dry: bool) -> Path:
    """Copy model/ to another folder, which is complete or does not exist; return the folder."""
    if folder.resolve() == model.resolve():
        log.info("%s is complete", model)
        return model
    if is_dry:
        return model
    new = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(model, new)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    log.info("%s holds a copy of %s", folder, model)
    return folder


def _write(job: Job, run: RunFolder, folder: Path) -> None:
    """Write the folder, and if it is the run's own, its metrics.json and report.html as well."""
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly.training")
    from lmft.assembly.exporting import card_of, write_export
    from lmft.reporting import tables
    from lmft.reporting.results import SCORES
    from lmft.runs.report import write_report

    checkpoint = job.config["checkpoint"]
    recorded = read_json(run.metrics)
    is_pending = bool(recorded.pop("export_pending", False))
    completes = is_pending and checkpoint is None and job.config["dtype"] is None
    measures = job.config["validate"] and not completes and not job.config["dry_run"]
    if checkpoint is None:
        checkpoint = _checkpoint_of_export(run, is_pending)
    config = _checked_config(job, checkpoint, measures)
    module, parts, exported = _load(config, _name_of(checkpoint, recorded), recorded, measures)
    metrics = {**recorded, "exported": {**dict.fromkeys(SCORES), **exported.record()}}
    if completes:
        _check_step(run, recorded, exported)
        # A run that its time limit has stopped has the command that continues it.
        metrics = {**recorded, "status": "stopped" if "command" in recorded else "complete"}
    prompts = [*parts.model.probes, *parts.data.probes]
    answers = module.eval().answer(prompts) if prompts else []
    settings = recorded_settings(run)
    settings["model"]["license"] = parts.model.license
    if settings["model"].get("lora"):
        settings["model"]["lora"]["merge"] = parts.model.lora.merge
    write_export(module, parts, folder, exported, card_of(run, settings, metrics, answers))
    if folder.resolve() == run.model.resolve():
        if recorded:
            write_report(run, run.path.name, str(metrics.get("status")), metrics)
            write_json(run.metrics, metrics)
        remove(run.checkpoints / EXPORTED)
    if not job.config["dry_run"]:
        log.info("%s holds %s", folder, exported)
    if exported.scores is not None:
        tables.print_validation(exported.scores)


def _checkpoint_of_export(run: RunFolder, is_pending: bool) -> str | None:
    """Return the checkpoint that has the weights which model/ has or was to get; None: model/ itself."""
    if is_pending and (run.checkpoints / EXPORTED).exists():
        return EXPORTED_NAME
    if is_pending or (run.model / "adapter_config.json").exists():
        return str(read_json(run.metrics)["exported"]["checkpoint"])
    return None


def _name_of(checkpoint: Any, recorded: dict[str, Any]) -> str:
    """Return the name of the weights for metrics.json; that of the run's export if they are the same."""
    if checkpoint in (None, EXPORTED_NAME):
        return str((recorded.get("exported") or {}).get("checkpoint", "last"))
    return str(checkpoint)


def _check_step(run: RunFolder, recorded: dict[str, Any], exported: "Exported") -> None:
    """Raise UserError if the run has been trained further since its export failed."""
    step = recorded["exported"]["step"]
    if exported.step != step:
        what = (
            f"the export that failed was of step {step}, and the checkpoint is of step {exported.step}"
        )
        fix = f"finish the run with the command in {run.command}, or name a checkpoint: checkpoint=last"
        raise UserError(what, str(run.checkpoints), fix)


def _checked_config(job: Job, checkpoint: Any, measures: bool) -> dict[str, Any]:
    """Return the config that builds the run's model and its validation text. Raises: UserError."""
    from lmft.cli import checks

    config = config_to_use({**job.config, "checkpoint": checkpoint}, job.overrides)
    if job.config["dtype"] is not None:
        config["model"]["export_dtype"] = job.config["dtype"]
    if not measures:
        checks.check_model(config)
        return config
    try:
        checks.check(config, trains=False)
    except UserError as error:
        fix = "validate=false exports without measuring"
        raise UserError(error.what, error.where, f"{error.fix}; {fix}" if error.fix else fix) from error
    return config


def _load(
    config: dict[str, Any], name: str, recorded: dict[str, Any], measures: bool
) -> tuple["LanguageModel", "Parts", "Exported"]:
    """Return the module with the weights to export, its parts, and what is known of the weights."""
    from lmft.assembly import assemble, load_chosen_weights
    from lmft.assembly.exporting import measured_export
    from lmft.training.callbacks.checkpoint import Exported
    from lmft.training.callbacks.progress import Progress
    from lmft.training.extensions import lightnings_refusals_are_user_errors
    from lmft.training.latest_metrics import LatestMetrics
    from lmft.training.trainer import build_trainer, silence_libraries, try_out

    silence_libraries()
    with lightnings_refusals_are_user_errors():
        try_out(config)
        parts = assemble(config, splits=("validation",) if measures else ())
        progress = Progress(LatestMetrics())
        trainer = build_trainer(config, None, [progress], [])
        module = parts.module()
        step = load_chosen_weights(config, module)
        if step is None:
            step = (recorded.get("exported") or {}).get("step", 0)
        exported = Exported(step, name, is_measured=False)
        exported = measured_export(trainer, module, parts.datamodule(), parts, exported, [progress])
    return module, parts, exported


def _list_files(source: Path, folder: Path, upload: Upload | None) -> None:
    """Print the files that would be written or pushed."""
    from lmft.reporting.tables import print_files

    title = f"{folder} would hold"
    if upload is not None:
        title = f"{upload.repo_id} ({'private' if upload.private else 'public'}) would get"
    print_files(source, title)


if __name__ == "__main__":
    main()
