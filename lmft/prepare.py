"""`python -m lmft.prepare`: tokenises a data set ahead of training."""

from collections.abc import Sequence

from lmft.cli import Job, run_command


def prepare(job: Job) -> None:
    """Makes what training with the same config needs of data and tokenizer, and prints the ledger."""
    from lmft import options

    options.check(job.config)

    from lmft.fit import prepare as tokenise

    tokenise(job.config)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command("prepare", prepare, argv)


if __name__ == "__main__":
    main()
