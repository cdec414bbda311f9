"""Finish a training: choose the weights that are exported, write model/, report and metrics.json."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning import Trainer

from lmft.assembly.callbacks import OwnCallbacks
from lmft.assembly.exporting import card_of, export_error, measured_export, write_export
from lmft.assembly.next_commands import next_commands
from lmft.assembly.parts import Parts
from lmft.breakdown.measurement import Measurement
from lmft.data.datamodule import DataModule
from lmft.errors import as_user_error
from lmft.modules.base import LanguageModel
from lmft.reporting import answers, tables
from lmft.reporting.changes import print_changes
from lmft.reporting.next_steps import print_next_steps
from lmft.reporting.notices import notices
from lmft.reporting.phase import phase
from lmft.reporting.results import results
from lmft.runs.report import write_report
from lmft.runs.run import Run
from lmft.system import loop_state
from lmft.system.files import write_json
from lmft.training.callbacks.checkpoint import Checkpoints, Exported
from lmft.training.callbacks.measured import weights_changed_after_validation
from lmft.training.callbacks.spike import spikes_in
from lmft.training.callbacks.time_limit import TimeLimit, time_limit_that_ended
from lmft.training.fully_sharded import put_together

log = logging.getLogger("lmft")
# With fewer targets, chance moves a perplexity by some percent from one validation to the next.
_FEWEST_TARGETS = 1000


def finish(
    trainer: Trainer,
    module: LanguageModel,
    data: DataModule,
    parts: Parts,
    run: Run,
    own: OwnCallbacks,
) -> dict[str, Any]:
    """Measure the last weights, choose those that are exported, and export them. Return the metrics.

    The last weights are validated again if anything has changed them since their validation.
    """

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
    known = None
    if trainer.is_global_zero:
        which = "best" if exported.checkpoint == "best" else "last"
        known = own.details.of_step(which, exported.step)
    # Without any validation in this process there is nothing to measure, as with limit_val_batches=0.
    is_known = trainer.strategy.broadcast(known is not None) or not module.latest_scores
    exported = measured_export(trainer, module, data, parts, exported, shown, is_known)
    own.probes.ask(module, exported.step, "after")
    put_together(trainer, module, everywhere=False)
    if not trainer.is_global_zero:
        return {}
    details = _write_details(module, run, own, exported, known)
    if exported.checkpoint == "best" and not parts.corpus.trained_validations:
        _warn_of_few_targets(own.metrics.validations)
    return _finish(trainer, module, parts, run, own, exported, details)


def _write_details(
    module: LanguageModel,
    run: Run,
    own: OwnCallbacks,
    exported: Exported,
    known: Measurement | None,
) -> dict[str, Any]:
    """Write details.json of the exported weights; return it, empty if there is no validation text."""
    measurement = known
    if exported.scores is not None:
        measurement = Measurement(exported.step, exported.scores["loss"], module.latest_sums)
    if measurement is None:
        return {}
    details = run.redacted(own.run_details.compare(own.details.before, measurement, "exported"))
    write_json(run.paths.details, details)
    return details


def _choose_weights(
    trainer: Trainer, module: LanguageModel, parts: Parts, checkpoints: Checkpoints
) -> Exported:
    """Give the module, on every device, the weights that `model.export` names; return which they are."""
    if parts.model.export != "best" or not parts.corpus.validations:
        return Exported(trainer.global_step, "last")
    trainer.strategy.barrier()  # the first process may still be linking best.ckpt
    exported = checkpoints.load_best(module, trainer.global_step)
    trainer.strategy.barrier()
    return exported


def _finish(
    trainer: Trainer,
    module: LanguageModel,
    parts: Parts,
    run: Run,
    own: OwnCallbacks,
    exported: Exported,
    details: dict[str, Any],
) -> dict[str, Any]:
    """Export the model, write the report and metrics.json, and print the scores. Return the metrics."""
    probes = own.probes
    result = results(
        trainer,
        num_epochs=loop_state.num_epochs(trainer),
        passes=own.metrics.validations,
        exported=exported.record(),
        totals=own.metrics.totals,
        skipped=module.step.outcomes.num_skipped,
        ledger=parts.corpus.ledger,
        spikes=spikes_in(run.paths),
    )
    if run.facts is not None:
        result["facts"] = dict(run.facts)
    if run.parent is not None:
        result["parent"] = run.parent.record()
    if limit := time_limit_that_ended(trainer.callbacks):  # pyright: ignore[reportAttributeAccessIssue]
        result |= {"status": "stopped", "command": run.command}
    if parts.data.validate_on_train:
        result["measured_on"] = "the examples of training"
    run.record_pending_export(result)
    with _failed_exports_can_be_completed(module, run, own.checkpoints, exported):
        _export_and_report(module, parts, run, exported, result, probes.latest)
    own.checkpoints.remove_exported_weights()
    run.write_metrics(result)  # last, since a run whose status is complete is not resumed
    notices.flush()
    answers.print_probes({"before": probes.first, "after": probes.latest})
    tables.print_scores(result)
    print_changes(details, tables.measured_on(result))
    if limit:
        _say_what_continues(limit, trainer, parts, run)
    results_are_in = [("the model is in", run.paths.model), ("the report is in", run.paths.report)]
    goes_on = limit is None and parts.config["checkpoint"]["keep_last"] != 0
    commands = next_commands(parts, run, trainer, has_checkpoint=goes_on)
    print_next_steps(results_are_in, commands)
    return result


def _say_what_continues(limit: TimeLimit, trainer: Trainer, parts: Parts, run: Run) -> None:
    """Log that the time was over, and the command that continues the training."""
    num_steps = trainer.global_step
    if parts.config["checkpoint"]["keep_last"] == 0:
        message = "%s ended the training after %d steps; no checkpoint was kept, so the same command "
        message += "starts over"
        log.warning(message, limit.option, num_steps)
        return
    message = "%s ended the training after %d of %d steps\n  continue: %s"
    log.info(message, limit.option, num_steps, trainer.estimated_stepping_batches, run.command)


@contextmanager
def _failed_exports_can_be_completed(
    module: LanguageModel, run: Run, checkpoints: Checkpoints, exported: Exported
) -> Iterator[None]:
    """Keep the weights if the block fails, and name the command that completes the export.

    What the user or transformers' checks of a model's settings can cause becomes a UserError.
    """

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
    module: LanguageModel,
    parts: Parts,
    run: Run,
    exported: Exported,
    result: dict[str, Any],
    latest_answers: list[dict[str, Any]],
) -> None:
    """Write model/ with its card, and the report. result: the content of metrics.json."""
    settings = run.redacted(parts.config)
    card = card_of(run.paths, settings, result, latest_answers)
    with phase(f"writing {run.paths.model}"):
        write_export(module, parts, run.paths.model, exported, card)
    with phase("writing the report"):
        write_report(run.paths, run.name, result["status"], result)
