"""`python -m lmft.evaluate`: the numbers of a run's trained model, or of any other, on validation data."""

import logging
from collections.abc import Sequence
from pathlib import Path

from lmft import contradictions, trust
from lmft.cli import Job, run_command
from lmft.errors import UserError
from lmft.run_folder import config_to_use, write_json

log = logging.getLogger("lmft")
_NOT_READ = ("optimizer", "scheduler", "nonfinite", "resume", "validate_before")  # of what a training takes


def evaluate(job: Job) -> None:
    """Measures, prints, and writes the numbers to the file `output` if there is one."""
    from lmft import options

    config = config_to_use(job.config, job.overrides)
    trust.check(config, job.overrides)
    contradictions.check(config, job.overrides)
    options.check(config, trains=False)
    for override in job.overrides:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in _NOT_READ:
            log.warning("an evaluation does not read %s", override)
    output = config["output"] and Path(config["output"])
    if output and not output.parent.is_dir():
        raise UserError("no such folder", f"output={output}")

    from lmft.fit import evaluate as measure

    metrics = measure(config)
    if output:
        write_json(output, metrics)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command("evaluate", evaluate, argv)


if __name__ == "__main__":
    main()
