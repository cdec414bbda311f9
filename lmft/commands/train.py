"""Train a model and leave a run folder.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.config.stages import described
from lmft.errors import UserError
from lmft.runs.log import buffering_logs
from lmft.runs.resume import (
    check_bound,
    ends_alike,
    log_changes,
    newest_checkpoint,
    recorded_settings,
)
from lmft.runs.run import Run
from lmft.system.files import read_json

if TYPE_CHECKING:
    from lmft.assembly import Parts

log = logging.getLogger("lmft")
# Options of the export, whose change exports a complete run once more, and their values in older runs.
_OF_EXPORT = {"export": "last", "export_dtype": None, "license": None}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("train", train, argv, makes_runs=True, link_best=_link_best)


def _link_best(sweep_folder: Path) -> Path | None:
    """Link a sweep's best run, as lmft.compare does; return its folder, None if no run is complete."""
    from lmft.comparison.best import link_best
    from lmft.comparison.found import runs_at
    from lmft.comparison.ranking import ranked
    from lmft.comparison.records import read_record

    try:
        runs = runs_at([str(sweep_folder)])
    except UserError:  # no job has begun a run
        return None
    winner = ranked([read_record(run, sweep_folder) for run in runs]).winner
    if winner is None or link_best(sweep_folder, winner) is None:
        return None
    return winner.folder.path


def train(job: Job) -> float | None:
    """Train by the job's config; return the exported weights' validation loss, in nats per target."""
    from lmft.cli import checks

    checks.check(job.config)
    run = Run(job.config, job.choices, job.arguments, job.is_verbose)
    run.check_settings()
    metrics = fit(job.config, run)
    return (metrics.get("exported") or {}).get("loss")


def fit(config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Train by a config; return the content of metrics.json. Raises: UserError.

    With run.dry=true return the facts and estimates of the training, which is not begun.

    The run's folder is made after all checks that are possible before training.
    """
    from lmft.reporting.notices import collecting_notices
    from lmft.reporting.phase import load_libraries

    with collecting_notices(holds_notes=True):
        load_libraries("lmft.assembly.training")
        return _fit(config, run)


def _fit(config: dict[str, Any], run: Run) -> dict[str, Any]:
    from lmft.assembly import assemble, make_optimizer
    from lmft.assembly.dry_run import dry_run
    from lmft.assembly.training import train_parts
    from lmft.config import trainer_options
    from lmft.config.schema import build
    from lmft.reporting.notices import collecting_notices
    from lmft.training.compiling import check_compiler
    from lmft.training.extensions import lightnings_refusals_are_user_errors
    from lmft.training.optimizer import ScheduleConfig, check_schedule
    from lmft.training.trainer import silence_libraries, try_out

    # Again, since the libraries just imported have their own loggers.
    with buffering_logs(), collecting_notices():
        silence_libraries()
        trainer_options.check(config)
        check_schedule(build(ScheduleConfig, config["scheduler"], "scheduler"))
        make_optimizer(config)
        trainer = try_out(config)
        num_devices = trainer.world_size
        if config["model"]["compile"] is True:
            check_compiler(trainer.strategy.root_device)
        parts = assemble(config, kept_tokenizer=run.kept_tokenizer)
        limits = _checked_limits(parts, num_devices)
        if config["run"].get("dry"):  # older configs do not have it
            return dry_run(parts, run)
        if run.status() == "complete" and _is_done(config, run, limits):
            return read_json(run.paths.metrics)
        with run, lightnings_refusals_are_user_errors():
            _log_limits(config["trainer"], limits)
            for line in described(config["objective"], "objective"):
                log.info(line)
            return train_parts(config, parts, run)


def _checked_limits(parts: "Parts", num_devices: int) -> dict[str, int]:
    """Return, for each option that can end the training, after how many optimizer steps it does.

    Raises: UserError for options that do not fit the number of examples and of steps.
    """
    from lmft.config.schema import build
    from lmft.data.ledger import check_enough_examples
    from lmft.training.callbacks.pruning import pruning_monitors
    from lmft.training.further_callbacks import check_averaging
    from lmft.training.monitors import monitors
    from lmft.training.optimizer import ScheduleConfig, check_schedule
    from lmft.training.scores import names_of_logged
    from lmft.training.validations import check_validations

    config = parts.config
    check_enough_examples(
        len(parts.corpus.examples["train"]),
        parts.data.batch_size,
        num_devices,
        are_few_meant=parts.data.validate_on_train,
    )
    limits = parts.step_limits(num_devices)
    num_steps = min(limits.values())
    num_batches = parts.layout(num_devices).num_used
    check_schedule(build(ScheduleConfig, config["scheduler"], "scheduler"), num_steps)
    scores = names_of_logged(parts.corpus.measured_sources) if parts.corpus.validations else []
    check_validations(
        config["trainer"],
        [*monitors(config), *pruning_monitors()],
        num_batches=num_batches,
        num_steps=num_steps,
        measured=scores,
    )
    check_averaging(config, num_steps, num_batches)
    return limits


def _log_limits(trainer: Mapping[str, Any], limits: Mapping[str, int]) -> None:
    """Log which of two limits ends the training, so that neither is passed over in silence."""
    (first, num_steps), *others = sorted(limits.items(), key=lambda limit: limit[1])
    for other, num_more in others:
        if num_more > num_steps:
            settings = {name: trainer[name.removeprefix("trainer.")] for name in limits}
            steps = "1 step" if num_steps == 1 else f"{num_steps} steps"
            message = "%s=%s ends the training after %s, before %s=%s"
            log.info(message, first, settings[first], steps, other, settings[other])


def _is_done(config: dict[str, Any], run: Run, limits: Mapping[str, int]) -> bool:
    """Return whether a complete run has nothing left to do. Raises: UserError if its settings differ.

    limits: optimizer steps after which each option ends the training.
    """
    limit = min(limits, key=limits.__getitem__)
    num_steps = limits[limit]
    num_done = read_json(run.paths.metrics)["steps"]
    recorded = recorded_settings(run.paths)
    settings = run.redacted(config)
    check_bound(recorded, settings, run.paths.config)
    # With unchanged limits, a run of fewer steps was stopped by a callback.
    if num_done < num_steps and not ends_alike(recorded, settings):
        if newest_checkpoint(run.paths) is None:
            what = f"{run.name} is complete after {num_done} steps, and no checkpoint of it was kept"
            raise UserError(what, str(run.folder), "another run.name trains from the beginning")
        return False
    if any(
        recorded["model"].get(name, old) != config["model"][name] for name, old in _OF_EXPORT.items()
    ):
        return newest_checkpoint(run.paths) is None
    log_changes(recorded, settings, run.paths.config)
    if num_done < num_steps:
        log.info("%s is complete: a callback ended it after %d steps", run.name, num_done)
    else:
        message = "%s is complete: %d of %d steps; a larger %s continues it"
        log.info(message, run.name, num_done, max(num_steps, num_done), limit)
    return True


if __name__ == "__main__":
    main()
