"""Tokenise a data set ahead of training, so that the next command finds the tokens in the cache.

Only what is light is imported at the top, so that `--help` and refusals need no torch.
"""

from collections.abc import Sequence
from typing import Any

from lmft.cli.command import run_command
from lmft.config.load import Job


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("prepare", prepare, argv)


def prepare(job: Job) -> None:
    """Tokenise what training with the same config needs, and print the ledger."""
    from lmft.cli import checks

    checks.check(job.config)
    tokenise(job.config)


def tokenise(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenise the texts of a config, and train its vocabulary if it has one. Returns the ledger. Raises:
    UserError.
    """
    from lmft.assembly import assemble
    from lmft.reporting import tables
    from lmft.training.trainer import silence_libraries

    silence_libraries()
    ledger = assemble(config).corpus.ledger
    tables.print_ledger(ledger)
    return ledger


if __name__ == "__main__":
    main()
