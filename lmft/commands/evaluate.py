"""Measure a run's trained model, or any other, on validation text.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
from collections.abc import Sequence
from typing import Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.runs.shown_config import print_if_verbose
from lmft.runs.trained import config_to_use
from lmft.system.files import write_json
from lmft.system.outputs import output_file

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

    Raises: UserError.
    """
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly.training")
    return _measure(config)


def _measure(config: dict[str, Any]) -> dict[str, Any]:
    from lmft.assembly import assemble, load_chosen_weights
    from lmft.config import trainer_options
    from lmft.reporting import tables
    from lmft.reporting.notices import collecting_notices
    from lmft.reporting.results import environment, scores_of
    from lmft.training.callbacks.metrics import LatestMetrics, Metrics
    from lmft.training.callbacks.progress import Progress
    from lmft.training.extensions import lightnings_refusals_are_user_errors
    from lmft.training.trainer import build_trainer, silence_libraries, try_out

    with lightnings_refusals_are_user_errors(), collecting_notices() as notices:
        silence_libraries()
        trainer_options.check(config)
        if config["logger"]:
            names = f"logger: {', '.join(config['logger'])}"
            raise UserError("lmft.evaluate has no run to log to", names, "output=FILE.json")
        if config["trainer"]["limit_val_batches"] == 0:
            fix = "trainer.limit_val_batches=1.0"
            raise UserError("trainer.limit_val_batches=0 leaves nothing to evaluate on", fix=fix)
        try_out(config)
        parts = assemble(config, splits=("validation",))
        if not parts.corpus.validations:
            raise UserError("there is no validation text to evaluate on", fix="data.validation=FILE")
        tables.print_ledger(parts.corpus.ledger)
        live = LatestMetrics()
        metrics = Metrics(live)
        trainer = build_trainer(config, None, [metrics, Progress(live)], [])
        module = parts.module()
        load_chosen_weights(config, module)
        notices.flush()
        trainer.validate(module, parts.datamodule(), verbose=False)
    scores = metrics.validations[-1]
    tables.print_validation(scores)
    return {
        "validation": scores_of(scores),
        "data": parts.corpus.ledger,
        "environment": environment(trainer),
    }


if __name__ == "__main__":
    main()
