"""Print what a training shows before its first step: facts, config, text, notes and warnings."""

from collections.abc import Mapping
from typing import Any

from lightning import Trainer

from lmft.assembly.parts import Parts
from lmft.reporting import tables
from lmft.reporting.facts import print_facts
from lmft.reporting.notices import notices
from lmft.reporting.opening_lines import print_config, print_whole_config
from lmft.runs.run import Run
from lmft.runs.shown_config import differing_arguments


def print_opening(trainer: Trainer, facts: Mapping[str, Any], parts: Parts, run: Run) -> None:
    """Print the facts of a training, its config, its text, and the notes and warnings so far.

    Notes and warnings are printed as they come from here on.
    """
    if trainer.is_global_zero:
        print_facts(facts)
        settings = run.redacted(run.config)
        if run.is_verbose:
            print_whole_config(settings)
        else:
            different = differing_arguments(run.choices, settings, run.arguments)
            print_config(different, run.paths.config)
        tables.print_ledger(parts.corpus.ledger)
    notices.holds_notes = False
    notices.flush()
