"""Measure a run's trained model, or any other, on validation text.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.runs.folder import RunFolder
from lmft.runs.shown_config import print_if_verbose
from lmft.runs.trained import config_to_use
from lmft.system.files import write_json
from lmft.system.outputs import output_file

if TYPE_CHECKING:
    from lmft.breakdown.measurement import Measurement

log = logging.getLogger("lmft")
_UNUSED = ("optimizer", "scheduler", "nonfinite", "resume", "validate_before")  # options of a training
_OF_TRAINER = (  # which of its options an evaluation reads
    *("_target_", "accelerator", "strategy", "devices", "num_nodes", "precision", "plugins", "profiler"),
    *("limit_val_batches", "deterministic", "benchmark", "inference_mode"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("evaluate", evaluate, argv)


def evaluate(job: Job) -> None:
    """Measure the model, print the scores, and write them to the file `output` if it is given."""
    config = checked_config(job.config, job.overrides)
    print_if_verbose(job, config)
    output = output_file("output", config["output"])
    metrics = measure(config)
    if output:
        write_json(output, metrics)


def checked_config(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config to evaluate with, which is that of the run if one is named. Raises: UserError.

    overrides: the `key=value` arguments that led to `config`.
    """
    from lmft.cli import checks

    config = config_to_use(config, overrides)
    checks.check(config, trains=False)
    for override in overrides:
        group, _, name = override.lstrip("+~").partition("=")[0].partition(".")
        is_of_training = group == "trainer" and name and name.partition(".")[0] not in _OF_TRAINER
        if group in _UNUSED or is_of_training:
            log.warning("an evaluation does not read %s", override)
    return config


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a model on the validation text: loss (nats per target), perplexity, accuracy,
    ….

    With the option `breakdown` also its losses by class, as in details.json.

    Raises: UserError.
    """
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly.training")
    return _measure(config)


def _measure(config: dict[str, Any]) -> dict[str, Any]:
    from lmft.assembly import assemble, load_chosen_weights
    from lmft.assembly.details import RunDetails
    from lmft.breakdown.measurement import Measurement
    from lmft.config import trainer_options
    from lmft.reporting import tables
    from lmft.reporting.broken_down import print_broken_down
    from lmft.reporting.notices import collecting_notices
    from lmft.reporting.results import environment, scores_of
    from lmft.training.callbacks.metrics import Metrics
    from lmft.training.callbacks.progress import Progress
    from lmft.training.extensions import lightnings_refusals_are_user_errors
    from lmft.training.latest_metrics import LatestMetrics
    from lmft.training.trainer import build_trainer, silence_libraries, try_out

    with lightnings_refusals_are_user_errors(), collecting_notices() as notices:
        silence_libraries()
        trainer_options.check(config)
        _check_measures_something(config)
        try_out(config)
        is_broken_down = bool(config.get("breakdown"))
        # Classes of token frequencies are those of the training text.
        read = assemble(config, splits=("train", "validation") if is_broken_down else ("validation",))
        if not read.corpus.validations:
            raise UserError("there is no validation text to evaluate on", fix="data.validation=FILE")
        parts = replace(read, corpus=read.corpus.of_validations())
        tables.print_ledger(parts.corpus.ledger)
        live = LatestMetrics()
        metrics = Metrics(live)
        trainer = build_trainer(config, None, [metrics, Progress(live)], [])
        module = parts.module()
        load_chosen_weights(config, module)
        details = RunDetails(read)
        if is_broken_down:
            module.break_losses_down(details.broken_down_by)
        notices.flush()
        trainer.validate(module, parts.datamodule(names_documents=is_broken_down), verbose=False)
    scores = metrics.validations[-1]
    tables.print_validation(scores)
    found = {
        "validation": scores_of(scores),
        "data": parts.corpus.ledger,
        "environment": environment(trainer),
    }
    if is_broken_down:
        measurement = Measurement(0, scores["loss"], module.latest_sums)
        found["breakdown"] = details.compare(_before_training(config), measurement, "evaluated")
        print_broken_down(found["breakdown"])
    return found


def _check_measures_something(config: Mapping[str, Any]) -> None:
    """Raise UserError if options leave nothing to measure, or ask for loggers."""
    if config["logger"]:
        names = f"logger: {', '.join(config['logger'])}"
        raise UserError("lmft.evaluate has no run to log to", names, "output=FILE.json")
    if config["trainer"]["limit_val_batches"] == 0:
        fix = "trainer.limit_val_batches=1.0"
        raise UserError("trainer.limit_val_batches=0 leaves nothing to evaluate on", fix=fix)


def _before_training(config: Mapping[str, Any]) -> "Measurement | None":
    """Return the sums of the run's validation before its training; None if there are none."""
    from lmft.breakdown.measurement import Measurement

    if not isinstance(config["run"], str):  # no run is evaluated
        return None
    path = RunFolder(Path(config["run"])).measurements / "before.npz"
    return Measurement.load(path) if path.exists() else None


if __name__ == "__main__":
    main()
