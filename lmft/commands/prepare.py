"""Tokenise a data set before training; later commands find the tokens in the cache.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

from collections.abc import Sequence
from typing import Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.runs.shown_config import print_if_verbose


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("prepare", prepare, argv)


def prepare(job: Job) -> None:
    """Tokenise the text that training with the same config needs, and print the ledger."""
    from lmft.cli import checks

    checks.check(job.config)
    print_if_verbose(job, job.config)
    tokenise(job.config)


def tokenise(config: dict[str, Any]) -> dict[str, Any]:
    """Tokenise a config's texts, training its vocabulary if needed; return the ledger. Raises:
    UserError.
    """
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly")
    from lmft.assembly import assemble
    from lmft.reporting import tables
    from lmft.reporting.notices import collecting_notices
    from lmft.training.trainer import silence_libraries

    with collecting_notices():
        silence_libraries()
        ledger = assemble(config).corpus.ledger
        tables.print_ledger(ledger)
    return ledger


if __name__ == "__main__":
    main()
