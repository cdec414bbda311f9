"""Train what a config describes, in its run's folder."""

import gc
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from lmft.assembly.callbacks import OwnCallbacks, appended_files, make_callbacks
from lmft.assembly.finishing import finish
from lmft.assembly.opening_page import print_opening
from lmft.assembly.parts import Parts
from lmft.assembly.preflight import find_facts
from lmft.data.datamodule import DataModule
from lmft.errors import UserError
from lmft.inspection import first_example
from lmft.models.loading.tokenizer import is_made_for_run, keep_vocabulary
from lmft.reporting.results import environment, peak_memory_gb, scores_of
from lmft.runs.report import write_report
from lmft.runs.rows import read_lines
from lmft.runs.run import Run
from lmft.sweeps.trial import Pruned
from lmft.system import loop_state
from lmft.system.files import write_json
from lmft.system.processes import processes_end
from lmft.training.beginning import Beginning
from lmft.training.callbacks.spike import Rewound
from lmft.training.cpu import keep_freed_memory_in_process
from lmft.training.fully_sharded import receives_weights
from lmft.training.loggers import running_loggers
from lmft.training.memory import is_out_of_memory
from lmft.training.metrics_file import read_rows
from lmft.training.nonfinite import NonFiniteStepError, non_finite_error
from lmft.training.records import Records
from lmft.training.scores import LOGGED
from lmft.training.trainer import build_trainer

log = logging.getLogger("lmft")


def train_parts(config: dict[str, Any], parts: Parts, run: Run) -> dict[str, Any]:
    """Train, export and report. Return the content of metrics.json."""
    if not torch.cuda.is_available():
        keep_freed_memory_in_process()
    while True:
        try:
            with processes_end():
                return _train(config, parts, run)
        except Rewound as rewound:
            log.warning("%s", rewound)
            run.checkpoint = rewound.checkpoint
        gc.collect()  # the model and the optimizer of the training that ended
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _train(config: dict[str, Any], parts: Parts, run: Run) -> dict[str, Any]:
    """Train from the run's checkpoint, or from the beginning. Raises: Rewound."""
    own = make_callbacks(config, parts, run)
    # When training starts, the checkpoint has been loaded and nothing can be refused any more.
    begin = LambdaCallback(on_train_start=lambda trainer, _: _begin(trainer, parts, run))
    callbacks = [begin, own.metrics, own.probes, own.details, own.report]
    callbacks += [own.progress, own.checkpoints, own.stop]
    if own.pruning is not None:
        callbacks.append(own.pruning)
    trainer = build_trainer(config, run.folder, callbacks, [own.csv])
    if "trainer.max_tokens" in (limits := parts.step_limits(trainer.world_size)):
        loop_state.end_after(trainer, min(limits.values()))
    module = parts.module(has_weights=not receives_weights(trainer))
    if run.facts is None:  # else it has gone back after a spike, and begins once more
        run.facts = find_facts(parts, module, trainer, run.folder, run.choices)
        print_opening(trainer, run.facts, parts, run)
    data = parts.datamodule(names_documents=True)
    module.break_losses_down(own.run_details.broken_down_by)
    if run.checkpoint is None and run.origin is not None:  # else it has begun
        beginning = Beginning(run.origin, config["optimizer"])
        beginning.begin(module, data)
        trainer.callbacks.insert(0, beginning)  # pyright: ignore[reportAttributeAccessIssue]
    with running_loggers(trainer, config, run) as records:
        own.probes.tell = records.log_answers
        if run.checkpoint is None and config["validate_before"] and parts.corpus.validations:
            _begin(trainer, parts, run)
            trainer.validate(module, data, verbose=False)
        if run.checkpoint is not None:
            _add_callback(trainer, _catching_up(records, run))
        try:
            with _training_errors_are_user_errors(trainer, data, parts, run):
                trainer.fit(module, data, ckpt_path=run.checkpoint, weights_only=True)
        except Pruned as pruned:
            return _record_pruned(trainer, run, own, pruned)
        result = finish(trainer, module, data, parts, run, own)
        if trainer.is_global_zero:
            records.log_end(_exported_scores(result), run.paths.report, trainer.global_step)
    return result


def _add_callback(trainer: Any, callback: Callback) -> None:
    trainer.callbacks.append(callback)


def _catching_up(records: Records, run: Run) -> Callback:
    """Return the callback that sends loggers what a resumed run has in its files and they have not."""

    def catch_up(*_: Any) -> None:
        records.catch_up(read_rows(run.paths.metrics_csv), read_lines(run.paths.samples))

    return LambdaCallback(on_train_start=catch_up)


def _exported_scores(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of the exported weights as loggers name them; none if there are none."""
    exported = result["exported"]
    return {f"exported/{score}": exported[score] for score in LOGGED if exported.get(score) is not None}


def _record_pruned(trainer: Trainer, run: Run, own: OwnCallbacks, pruned: Pruned) -> dict[str, Any]:
    """Record that a search has ended this run early: it exports nothing. Return the metrics."""
    if not trainer.is_global_zero:
        return {}
    log.info("%s", pruned)
    own.checkpoints.remove_exported_weights()
    metrics = {
        "status": "pruned",
        "steps": pruned.step,
        "after": scores_of(own.metrics.validations[-1]),
        "train": {**own.metrics.totals, "peak_memory_gb": peak_memory_gb()},
    }
    run.write_metrics(metrics)
    write_report(run.paths, run.name, "pruned", metrics)
    return metrics


def _begin(trainer: Trainer, parts: Parts, run: Run) -> None:
    """Write the run's first files, and delete those of an earlier start that left no checkpoint."""
    if not run.begin():
        return
    checkpoint = run.checkpoint
    if checkpoint is None or checkpoint.resolve().parent != run.paths.checkpoints.resolve():
        for path in (*appended_files(run), run.paths.spikes):
            path.unlink(missing_ok=True)
        run.paths.details.unlink(missing_ok=True)
        shutil.rmtree(run.paths.measurements, ignore_errors=True)
    write_json(run.paths.setup, {"environment": environment(trainer), "data": parts.corpus.ledger})
    _write_example(parts, run)
    if is_made_for_run(parts.model.tokenizer):
        keep_vocabulary(parts.tokenizer, run.paths.tokenizer)


def _write_example(parts: Parts, run: Run) -> None:
    """Write the first training example under the objective, for the report."""
    is_causal = parts.module_class.family.is_causal
    try:
        example = first_example(parts.datamodule(), parts.tokenizer, is_causal)
    except Exception as error:  # of a user's own objective, which may not like to be asked twice
        log.warning("the report will show no example: %s", error, exc_info=True)
        return
    write_json(run.paths.example, run.redacted(example))


@contextmanager
def _training_errors_are_user_errors(
    trainer: Trainer, data: DataModule, parts: Parts, run: Run
) -> Iterator[None]:
    """Turn non-finite steps and lack of memory in the block into a UserError."""
    try:
        yield
    except NonFiniteStepError as error:
        place = error.place
        examples = data.describe_examples(place.epoch, place.positions, parts.tokenizer.decode)
        raise non_finite_error(error, run.redacted(examples), run.folder) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fix = (
            "a smaller data.batch_size and a larger trainer.accumulate_grad_batches to match, "
            "or a smaller model"
        )
        raise UserError("out of memory", f"step {trainer.global_step + 1}", fix) from error
