"""Train a model and leave a run folder.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.errors import UserError, as_user_error
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
    from lightning import Trainer

    from lmft.assembly import Parts
    from lmft.data.datamodule import DataModule
    from lmft.modules.base import LanguageModel
    from lmft.training.callbacks.checkpoint import Checkpoints, Exported
    from lmft.training.callbacks.metrics import Metrics, MetricsFile
    from lmft.training.callbacks.probes import Probes
    from lmft.training.callbacks.progress import Progress
    from lmft.training.callbacks.stop_on_signal import StopOnSignal

log = logging.getLogger("lmft")
# With fewer targets, chance moves a perplexity by some percent from one validation to the next.
_FEWEST_TARGETS = 1000
# Options of the export, whose change exports a complete run once more, and their values in older runs.
_OF_EXPORT = {"export": "last", "export_dtype": None, "license": None}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("train", train, argv, makes_runs=True)


def train(job: Job) -> float | None:
    """Train by the job's config; return the exported weights' validation loss, in nats per target."""
    from lmft.cli import checks

    checks.check(job.config)
    run = Run(job.config, job.choices, job.arguments)
    run.check_settings()
    metrics = fit(job.config, run)
    return (metrics.get("exported") or {}).get("loss")


def fit(config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Train by a config; return the content of metrics.json. Raises: UserError.

    The run's folder is made after all checks that are possible before training.
    """
    from lmft.assembly import assemble, make_optimizer
    from lmft.config import trainer_options
    from lmft.config.schema import build
    from lmft.data.ledger import check_enough_examples
    from lmft.reporting import tables
    from lmft.training.extensions import lightnings_refusals_are_user_errors, monitors
    from lmft.training.optimizer import ScheduleConfig, check_schedule
    from lmft.training.scores import names_of_logged
    from lmft.training.trainer import silence_libraries, try_out
    from lmft.training.validations import check_validations

    with buffering_logs():  # again, since the libraries just imported have their own loggers
        silence_libraries()
        trainer_options.check(config)
        check_schedule(build(ScheduleConfig, config["scheduler"], "scheduler"))
        make_optimizer(config)
        num_devices = try_out(config).world_size
        parts = assemble(config, kept_tokenizer=run.paths.tokenizer)
        check_enough_examples(len(parts.corpus.examples["train"]), parts.data.batch_size, num_devices)
        limits = parts.step_limits(num_devices)
        scores = names_of_logged(parts.corpus.measured_sources) if parts.corpus.validations else []
        check_validations(
            config["trainer"],
            monitors(config),
            num_batches=parts.layout(num_devices).num_used,
            num_steps=min(limits.values()),
            measured=scores,
        )
        if run.status() == "complete" and _is_done(config, run, limits):
            return read_json(run.paths.metrics)
        with run, lightnings_refusals_are_user_errors():
            tables.print_config(run.choices, run.given_settings(), run.paths.config)
            tables.print_ledger(parts.corpus.ledger)
            _log_limits(config["trainer"], limits)
            return _train(config, parts, run)


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


@dataclass(frozen=True)
class _Callbacks:
    """lmft's own callbacks of a training, and its metrics.csv."""

    csv: "MetricsFile"
    metrics: "Metrics"
    probes: "Probes"
    progress: "Progress"
    checkpoints: "Checkpoints"
    stop: "StopOnSignal"


def _make_callbacks(config: dict[str, Any], parts: "Parts", run: Run) -> _Callbacks:
    from lmft.training.callbacks.checkpoint import Checkpoints
    from lmft.training.callbacks.metrics import LatestMetrics, Metrics, MetricsFile
    from lmft.training.callbacks.probes import Probes
    from lmft.training.callbacks.progress import Progress
    from lmft.training.callbacks.stop_on_signal import StopOnSignal

    live = LatestMetrics()
    csv = MetricsFile(run.paths.metrics_csv, sources=parts.corpus.measured_sources)
    checkpoints = Checkpoints(
        run.paths.checkpoints,
        **config["checkpoint"],
        appended_files=_appended_files(run),
        keeps_best_weights=parts.model.export == "best",
    )
    return _Callbacks(
        csv=csv,
        metrics=Metrics(live, csv),
        probes=Probes([*parts.model.probes, *parts.data.probes], run.paths.samples),
        progress=Progress(live),
        checkpoints=checkpoints,
        stop=StopOnSignal(checkpoints),
    )


def _train(config: dict[str, Any], parts: "Parts", run: Run) -> dict[str, Any]:
    """Train, export and report. Return the content of metrics.json."""
    import torch
    from lightning.pytorch.callbacks import LambdaCallback

    from lmft.training.cpu import keep_freed_memory_in_process
    from lmft.training.extensions import add_loggers
    from lmft.training.trainer import build_trainer

    if not torch.cuda.is_available():
        keep_freed_memory_in_process()
    own = _make_callbacks(config, parts, run)
    # When training starts, the checkpoint has been loaded and nothing can be refused any more.
    begin = LambdaCallback(on_train_start=lambda *_: _begin(parts, run))
    callbacks = [begin, own.metrics, own.probes, own.progress, own.checkpoints, own.stop]
    trainer = build_trainer(config, run.folder, callbacks, [own.csv])
    module = parts.module()
    data = parts.datamodule()
    add_loggers(trainer, config, run.folder, run.name)

    if run.checkpoint is None and config["validate_before"] and parts.corpus.validations:
        _begin(parts, run)
        trainer.validate(module, data, verbose=False)
    with _training_errors_are_user_errors(trainer, data, parts, run):
        trainer.fit(module, data, ckpt_path=run.checkpoint, weights_only=True)
    return _export(trainer, module, data, parts, run, own)


def _export(
    trainer: "Trainer",
    module: "LanguageModel",
    data: "DataModule",
    parts: "Parts",
    run: Run,
    own: _Callbacks,
) -> dict[str, Any]:
    """Measure the last weights, choose those that are exported, and export them. Return the metrics.

    The last weights are validated again if anything has changed them since their validation.
    """
    from lmft.assembly.exporting import measured_export
    from lmft.training.callbacks.measured import weights_changed_after_validation

    checkpoints = own.checkpoints
    checkpoints.has_other_weights = bool(parts.config["callbacks"]) or parts.model.module is not None
    is_validated = own.metrics.last_validated_step == trainer.global_step
    has_validation = bool(parts.corpus.validations)
    has_changed = is_validated and weights_changed_after_validation(trainer)
    if has_validation and (not is_validated or has_changed):
        trainer.validate(module, data, verbose=False)
    exported = _choose_weights(trainer, module, parts, checkpoints)
    if has_changed and exported.checkpoint == "best" and not checkpoints.is_best_now:
        message = (
            "the weights that a callback made when training ended have a higher validation loss than "
            "those of step %d, which are exported; model.export=last exports the callback's"
        )
        log.warning(message, exported.step)
    shown = [own.progress, own.stop]
    exported = measured_export(trainer, module, data, parts, exported, shown)
    if not trainer.is_global_zero:
        return {}
    if exported.checkpoint == "best":
        _warn_of_few_targets(own.metrics.validations)
    return _finish(trainer, module, parts, run, own, exported)


def _appended_files(run: Run) -> list[Path]:
    return [run.paths.metrics_csv, run.paths.samples]


def _begin(parts: "Parts", run: Run) -> None:
    """Write the run's first files, and delete those of an earlier start that left no checkpoint."""
    from lmft.models.loading.tokenizer import is_made_for_run, keep_vocabulary

    if not run.begin():
        return
    checkpoint = run.checkpoint
    if checkpoint is None or checkpoint.resolve().parent != run.paths.checkpoints.resolve():
        for path in _appended_files(run):
            path.unlink(missing_ok=True)
    if is_made_for_run(parts.model.tokenizer):
        keep_vocabulary(parts.tokenizer, run.paths.tokenizer)


def _choose_weights(
    trainer: "Trainer", module: "LanguageModel", parts: "Parts", checkpoints: "Checkpoints"
) -> "Exported":
    """Give the module, on every device, the weights that `model.export` names; return which they are."""
    from lmft.training.callbacks.checkpoint import Exported

    if parts.model.export != "best" or not parts.corpus.validations:
        return Exported(trainer.global_step, "last")
    trainer.strategy.barrier()  # the first process may still be linking best.ckpt
    exported = checkpoints.load_best(module, trainer.global_step)
    trainer.strategy.barrier()
    return exported


def _finish(
    trainer: "Trainer",
    module: "LanguageModel",
    parts: "Parts",
    run: Run,
    own: _Callbacks,
    exported: "Exported",
) -> dict[str, Any]:
    """Export the model, write the report and metrics.json, and print the scores. Return the metrics."""
    from lmft.reporting import answers, tables
    from lmft.reporting.results import results
    from lmft.system import loop_state

    probes = own.probes
    result = results(
        trainer,
        num_epochs=loop_state.num_epochs(trainer),
        passes=own.metrics.validations,
        exported=exported.record(),
        totals=own.metrics.totals,
        skipped=module.step.num_skipped,
        ledger=parts.corpus.ledger,
    )
    probes.ask(module, exported.step, "after")
    run.record_pending_export(result)
    with _failed_exports_can_be_completed(module, run, own.checkpoints, exported):
        _export_and_report(module, parts, run, exported, result, probes.latest)
    own.checkpoints.remove_exported_weights()
    run.write_metrics(result)  # last, since a run whose status is complete is not resumed
    answers.print_probes({"before": probes.first, "after": probes.latest})
    tables.print_scores(result)
    log.info("the model is in %s, the report in %s", run.paths.model, run.paths.report)
    return result


@contextmanager
def _failed_exports_can_be_completed(
    module: "LanguageModel", run: Run, checkpoints: "Checkpoints", exported: "Exported"
) -> Iterator[None]:
    """Keep the weights if the block fails, and name the command that completes the export.

    What the user or transformers' checks of a model's settings can cause becomes a UserError.
    """
    from lmft.assembly.exporting import export_error

    try:
        yield
    except Exception as error:
        checkpoints.keep_for_export(module, exported)
        user_error = export_error(error, run.paths)
        if as_user_error(error) is None and not isinstance(error, ValueError):
            log.error("%s; %s", user_error.what, user_error.fix)
            raise  # an error of the program, with its traceback
        raise user_error from error


def _warn_of_few_targets(validations: Sequence[Mapping[str, Any]]) -> None:
    """Log a warning if the validations by which weights were chosen have few targets."""
    if validations and validations[-1]["targets"] < _FEWEST_TARGETS:
        message = "the validation text has %d targets: too few to choose weights by"
        log.warning(message, validations[-1]["targets"])


def _export_and_report(
    module: "LanguageModel",
    parts: "Parts",
    run: Run,
    exported: "Exported",
    result: dict[str, Any],
    latest_answers: list[dict[str, Any]],
) -> None:
    """Write model/ with its card, and the report. result: the content of metrics.json."""
    from lmft.assembly.exporting import card_of, report_run, write_export

    settings = run.redacted(parts.config)
    card = card_of(run.paths, settings, result, latest_answers)
    write_export(module, parts, run.paths.model, exported, card)
    report_run(run.paths, run.name, settings, result)


@contextmanager
def _training_errors_are_user_errors(
    trainer: "Trainer", data: "DataModule", parts: "Parts", run: Run
) -> Iterator[None]:
    """Turn non-finite steps and lack of memory in the block into a UserError."""
    from lmft.system import loop_state
    from lmft.training.nonfinite import NonFiniteStepError, non_finite_error
    from lmft.training.step import is_out_of_memory

    try:
        yield
    except NonFiniteStepError as error:
        position = loop_state.micro_batch_position(trainer)
        first = position - position % trainer.accumulate_grad_batches
        positions = range(first, position + 1)
        examples = data.describe_examples(trainer.current_epoch, positions, parts.tokenizer.decode)
        raise non_finite_error(error, run.redacted(examples), run.folder) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fix = (
            "a smaller data.batch_size and a larger trainer.accumulate_grad_batches to match, "
            "or a smaller model"
        )
        raise UserError("out of memory", f"step {trainer.global_step + 1}", fix) from error


if __name__ == "__main__":
    main()
