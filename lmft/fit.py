"""The four things one can do with a config: train, evaluate, predict, prepare."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import Logger

from lmft import trainer_options
from lmft.data.corpus import count_examples
from lmft.data.datamodule import DataModule
from lmft.data.layout import Layout
from lmft.errors import UserError
from lmft.models.base import LanguageModel
from lmft.models.causal import CausalLanguageModel
from lmft.models.export import export
from lmft.models.tokenizer import keep_vocabulary
from lmft.parts import Parts, assemble, build_module, load_chosen_weights, load_module, make_optimizer
from lmft.reporting import answers, summary
from lmft.reporting.model_card import write_model_card
from lmft.reporting.progress import Live, Progress
from lmft.reporting.report import write_report
from lmft.reporting.results import SCORES, environment, results
from lmft.run import Run
from lmft.run_folder import read_json
from lmft.run_log import remembering
from lmft.schema import build
from lmft.training import plugged
from lmft.training.checkpoint import Checkpoints, Exported
from lmft.training.checkpoint_io import WholeFileIO
from lmft.training.dropout import light_dropout
from lmft.training.measured import MeasuredWeights, may_replace_weights, weights_changed_after_validation
from lmft.training.memory import keep_freed_memory
from lmft.training.metrics import Metrics, MetricsFile, read_rows
from lmft.training.nonfinite import NotFinite, explained
from lmft.training.optimizer import ScheduleConfig, check_schedule
from lmft.training.plugged import (
    add_loggers,
    check_loggers,
    check_strategy,
    lightnings_refusals_are_user_errors,
    made,
    monitors,
    show_profile,
)
from lmft.training.precision import check_accelerator, check_precision, resolve_precision
from lmft.training.probes import Probes, read_lines
from lmft.training.step import is_out_of_memory
from lmft.training.stopping import Stopping
from lmft.training.validations import check_validations

log = logging.getLogger("lmft")


@remembering()
def fit(config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Trains what the config says; returns what metrics.json holds. Raises UserError.

    The run's folder is made when everything has been checked that can be.
    """
    silence_libraries()
    trainer_options.check(config)
    check_schedule(build(ScheduleConfig, config["scheduler"], "scheduler"))
    make_optimizer(config)
    num_devices = try_out(config).world_size
    parts = assemble(config, kept_tokenizer=run.paths.tokenizer)
    count_examples(parts.corpus, parts.data.batch_size, num_devices)
    num_steps, has_text = num_training_steps(config, parts, num_devices), "validation" in parts.corpus.examples
    num_batches = epoch_layout(config, parts, num_devices).num_used
    check_validations(config["trainer"], monitors(config), num_batches, num_steps, has_text)
    if run.status() == "complete" and _is_done(config, run, num_steps):
        return read_json(run.paths.metrics)
    with run:
        return _train(config, parts, run)


def _is_done(config: dict[str, Any], run: Run, num_steps: int) -> bool:
    """Whether a complete run has nothing left to do. Raises UserError if another training is asked for."""
    num_done = read_json(run.paths.metrics)["steps"]
    run.check_same()
    if num_done < num_steps and not run.ends_as_before():  # a callback may have stopped it early
        if run.paths.newest_checkpoint() is None:
            what = f"{run.name} is complete after {num_done} steps, and no checkpoint of it was kept to continue from"
            raise UserError(what, str(run.folder), "another run.name trains from the beginning")
        return False
    if run.exports() != config["model"]["export"]:
        return run.paths.newest_checkpoint() is None
    log.info("%s is already complete, after %d steps; raise trainer.max_epochs to continue", run.name, num_done)
    return True


@lightnings_refusals_are_user_errors()
def _train(config: dict[str, Any], parts: Parts, run: Run) -> dict[str, Any]:
    summary.print_config(run.redacted(config))
    summary.print_ledger(parts.corpus.ledger)

    if not torch.cuda.is_available():
        keep_freed_memory()
    torch.manual_seed(config["seed"])  # the weights of a new model, or of a new head
    live = Live()
    metrics = Metrics(live, config["trainer"]["log_every_n_steps"])
    csv = MetricsFile(run.paths.metrics_csv)
    probes = Probes([*parts.model.probes, *parts.data.probes], run.paths.samples)
    growing = [run.paths.metrics_csv, run.paths.samples]
    checkpoints = Checkpoints(
        run.paths.checkpoints,
        **config["checkpoint"],
        growing=growing,
        keeps_best_weights=parts.model.export == "best",
    )
    has_validation = "validation" in parts.corpus.examples
    is_resumed = run.checkpoint is not None and run.checkpoint.resolve().parent == run.paths.checkpoints.resolve()

    def begin() -> None:
        if not run.begin():
            return
        for path in () if is_resumed else growing:  # of an attempt that left no checkpoint
            path.unlink(missing_ok=True)
        if parts.model.tokenizer.train:
            keep_vocabulary(parts.tokenizer, run.paths.tokenizer)

    begins = LambdaCallback(on_train_start=lambda *_: begin())  # what a checkpoint refuses, it has refused by then
    callbacks = [begins, metrics, probes, Progress(live), checkpoints, Stopping(checkpoints)]
    trainer = build_trainer(config, run.folder, callbacks, [csv])
    module = build_module(config, parts, num_training_steps(config, parts, trainer.world_size))
    module.nonfinite = config["nonfinite"]
    module.save_hyperparameters(run.redacted(config))  # into each checkpoint: what going on from it is compared with
    data = build_data(config, parts)
    add_loggers(trainer, config, run.folder, run.name)

    if run.checkpoint is not None:
        log.info("resuming from %s", run.checkpoint)
    elif config["validate_before"] and has_validation:
        begin()
        trainer.validate(module, data, verbose=False)
    on_cpu = trainer.strategy.root_device.type == "cpu"
    dropout = light_dropout() if on_cpu and not parts.model.compile else nullcontext()  # compiled, it is fused
    with _explained(trainer, data, parts, run), dropout:
        trainer.fit(module, data, ckpt_path=run.checkpoint, weights_only=True)
    checkpoints.has_other_weights = may_replace_weights(trainer)
    is_measured = metrics.last_validated_step == trainer.global_step and not weights_changed_after_validation(trainer)
    if has_validation and not is_measured:
        trainer.validate(module, data, verbose=False)
    if not trainer.is_global_zero:
        return {}

    exported = Exported(trainer.global_step, "last")
    if parts.model.export == "best" and has_validation:
        exported = checkpoints.load_best(module, trainer.global_step)
    result = results(
        trainer,
        passes=metrics.validations,
        exported=asdict(exported),
        totals=metrics.totals,
        skipped=module.num_skipped,
        ledger=parts.corpus.ledger,
    )
    probes.ask(module, exported.step, "after")
    _hand_over(module, parts, run, run.redacted(config), result, probes.latest)
    checkpoints.remove_best_weights()
    run.write_metrics(result)  # last: a run that calls itself complete is never continued
    answers.print_probes({"before": probes.first, "after": probes.latest})
    summary.print_scores(result)
    log.info("the model is in %s, the report in %s", run.paths.model, run.paths.report)
    return result


def _hand_over(
    module: LanguageModel,
    parts: Parts,
    run: Run,
    settings: dict[str, Any],
    result: dict[str, Any],
    latest_answers: list[dict[str, Any]],
) -> None:
    """Write model/ with its card, and the report. settings: the config, redacted; result: what metrics.json gets."""
    export(
        module.exported,
        parts.tokenizer,
        lambda folder: write_model_card(folder, settings, result, latest_answers),
        run.paths.model,
    )
    samples = read_lines(run.paths.samples)
    rows = read_rows(run.paths.metrics_csv)
    write_report(run.paths.report, run.name, settings, result, rows, samples)


@contextmanager
def _explained(trainer: Trainer, data: DataModule, parts: Parts, run: Run) -> Iterator[None]:
    """Turns what training can run into into errors that say what to change."""
    try:
        yield
    except NotFinite as error:
        position = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        step = range(position - 1 - (position - 1) % trainer.accumulate_grad_batches, position)
        examples = data.described(trainer.current_epoch, step, parts.tokenizer.decode)
        raise explained(error, run.redacted(examples), run.folder) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fix = "a smaller data.batch_size with as much more trainer.accumulate_grad_batches, or a smaller model"
        raise UserError("out of memory", f"step {trainer.global_step + 1}", fix) from error


def silence_libraries() -> None:
    """Their notes about what is meant to be so; warnings that concern the user are ours."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.callbacks").setLevel(logging.INFO)  # what a callback of the config says
    for_rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    for_rank_zero.setLevel(logging.INFO)
    for_rank_zero.addFilter(_is_a_callbacks)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def _is_a_callbacks(record: logging.LogRecord) -> bool:
    """Whether a callback has said it, or it is a warning."""
    return record.levelno >= logging.WARNING or Path(record.pathname).parent.name == "callbacks"


def try_out(config: dict[str, Any]) -> Trainer:
    """A Trainer that trains nothing: what Lightning refuses is said before the text is read. Raises UserError."""
    check_accelerator(config["trainer"]["accelerator"])
    check_loggers(config)
    trainer = build_trainer(config, None, [Progress(Live())], [])
    check_precision(resolve_precision(str(config["trainer"]["precision"]), config["trainer"]["accelerator"]), trainer)
    check_strategy(trainer, config["trainer"].get("strategy", "auto"))
    return trainer


def build_trainer(
    config: dict[str, Any], folder: Path | None, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    """Lightning's Trainer, with the callbacks of the config behind ours; `add_loggers` adds its loggers."""
    options = dict(config["trainer"])
    options["precision"] = resolve_precision(str(options["precision"]), options["accelerator"])
    further = plugged.callbacks(config)
    if further:
        further.append(MeasuredWeights())
    trainer = made(
        options,
        Trainer,
        config["trust"]["targets"],
        "trainer",
        default_root_dir=folder and str(folder),
        callbacks=callbacks + further,
        logger=loggers,
        plugins=[WholeFileIO(folder)],
        use_distributed_sampler=False,  # the schedule knows its rank
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )
    if not hasattr(trainer, "val_check_interval"):  # Lightning leaves it out for a time, yet its callbacks read it
        trainer.val_check_interval = math.inf
    show_profile(trainer, folder)
    return trainer


def build_data(config: dict[str, Any], parts: Parts) -> DataModule:
    """Loaders of the corpus under the objective."""
    sizes = parts.data.batch_size, parts.data.num_workers, parts.data.worker_timeout
    return DataModule(parts.corpus, parts.objective, parts.vocabulary, config["seed"], *sizes)


def num_training_steps(config: dict[str, Any], parts: Parts, world_size: int) -> int:
    """Optimizer steps of the whole training: what the learning rate's schedule counts in."""
    trainer = config["trainer"]
    steps = math.ceil(epoch_layout(config, parts, world_size).num_used / trainer["accumulate_grad_batches"])
    epochs = math.inf if trainer["max_epochs"] in (None, -1) else trainer["max_epochs"]
    return int(min(steps * epochs, math.inf if trainer["max_steps"] == -1 else trainer["max_steps"]))


def epoch_layout(config: dict[str, Any], parts: Parts, world_size: int) -> Layout:
    """How an epoch is shared out among devices and micro-batches."""
    trainer, num_examples = config["trainer"], len(parts.corpus.examples["train"])
    sizes = parts.data.batch_size, trainer["accumulate_grad_batches"], world_size, trainer["limit_train_batches"]
    return Layout(num_examples, *sizes)


@lightnings_refusals_are_user_errors()
def evaluate(config: dict[str, Any]) -> dict[str, Any]:
    """Scores of a model on the validation text: loss (nats per target), perplexity, accuracy, … Raises UserError."""
    silence_libraries()
    trainer_options.check(config)
    if config["logger"]:
        raise UserError(
            "lmft.evaluate has no run to log to", f"logger: {', '.join(config['logger'])}", "output=FILE.json"
        )
    if config["trainer"]["limit_val_batches"] == 0:
        fix = "trainer.limit_val_batches=1.0"
        raise UserError("trainer.limit_val_batches=0 leaves nothing to evaluate on", fix=fix)
    try_out(config)
    parts = assemble(config, splits=("validation",))
    if "validation" not in parts.corpus.examples:
        raise UserError("there is no validation text to evaluate on", fix="data.validation=FILE")
    summary.print_ledger(parts.corpus.ledger)
    live = Live()
    metrics = Metrics(live, config["trainer"]["log_every_n_steps"])
    trainer = build_trainer(config, None, [metrics, Progress(live)], [])
    torch.manual_seed(config["seed"])
    module = build_module(config, parts, num_steps=0)
    load_chosen_weights(config, module)
    trainer.validate(module, build_data(config, parts), verbose=False)
    scores = metrics.validations[-1]
    summary.print_validation(scores)
    return {
        "validation": {name: scores[name] for name in SCORES},
        "data": parts.corpus.ledger,
        "environment": environment(trainer),
    }


def predict(config: dict[str, Any], prompts: list[Any], completion: str | None = None) -> list[dict[str, Any]]:
    """The model's answers to prompts, in their order. Raises UserError.

    completion: where given, a causal model is shown, token by token, beside what it would have said itself; "" looks at
    the prompt's own tokens.
    """
    silence_libraries()
    module = load_module(config)
    if completion is not None:
        if not isinstance(module, CausalLanguageModel):
            raise UserError("teacher_forced=true needs a causal model", fix="model=causal, or the run of one")
        forced = [module.teacher_forced(prompt, completion) for prompt in prompts]
        answers.print_teacher_forced(forced)
        return forced
    if any(isinstance(prompt, dict) for prompt in prompts) and not isinstance(module, CausalLanguageModel):
        raise UserError("chat=… needs a causal model", fix='prompt="…", or model=causal, or the run of a causal model')
    found = module.answer(prompts)
    answers.print_probes({"answer": found})
    return found


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenises ahead: the next command finds the store ready. Returns the ledger. Raises UserError."""
    silence_libraries()
    ledger = assemble(config).corpus.ledger
    summary.print_ledger(ledger)
    return ledger
