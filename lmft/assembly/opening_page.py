"""What a training shows before its first step: facts, config, text, notes and warnings."""

from lightning import Trainer

from lmft.assembly.parts import Parts
from lmft.modules.base import LanguageModel
from lmft.reporting import tables
from lmft.reporting.notices import notices
from lmft.reporting.opening_lines import print_config, print_facts, print_whole_config
from lmft.runs.run import Run
from lmft.runs.shown_config import differing_arguments


def print_opening(trainer: Trainer, module: LanguageModel, parts: Parts, run: Run) -> None:
    """Print the facts of a training, its config, its text, and the notes and warnings so far.

    Notes and warnings are printed as they come from here on.
    """
    if trainer.is_global_zero:
        print_facts(_facts(trainer, module, parts, run))
        settings = run.redacted(run.config)
        if run.is_verbose:
            print_whole_config(settings)
        else:
            different = differing_arguments(run.choices, settings, run.arguments)
            print_config(different, run.paths.config)
        tables.print_ledger(parts.corpus.ledger)
    notices.holds_notes = False
    notices.flush()


def _facts(trainer: Trainer, module: LanguageModel, parts: Parts, run: Run) -> list[list[str]]:
    """Return the facts of the first two lines."""
    weights = list(module.model.parameters())
    total = sum(weight.numel() for weight in weights)
    num_trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    trained = "all trained"
    if num_trained < total:
        trained = f"{num_trained:,} trained"
    device = trainer.strategy.root_device.type
    if trainer.world_size > 1:
        device = f"{trainer.world_size} × {device}"
    tokens = sum(
        ledger["tokens"] for split, ledger in parts.corpus.ledger.items() if split.startswith("train")
    )
    num_steps = min(parts.step_limits(trainer.world_size).values(), default=None)
    steps = "no limit of steps" if num_steps is None else f"{num_steps:,} steps"
    return [
        [
            type(module.model).__name__,
            f"{total:,} parameters, {trained}",
            device,
            str(trainer.precision),
        ],
        [f"{run.choices.get('data') or 'data'}: {tokens:,} tokens", steps, str(run.folder)],
    ]
