"""`python -m lmft.train`: trains a model, and leaves a run's folder."""

from collections.abc import Sequence

from lmft.cli import Job, run_command
from lmft.run import Run


def train(job: Job) -> float | None:
    """Trains by the job's config. Returns the validation loss of the exported weights, in nats per target."""
    from lmft import options

    options.check(job.config)
    run = Run(job.config, job.choices, job.arguments)
    run.check_settings()

    from lmft.fit import fit

    metrics = fit(job.config, run)
    return (metrics.get("exported") or {}).get("loss")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command("train", train, argv, makes_runs=True)


if __name__ == "__main__":
    main()
