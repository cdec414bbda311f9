"""Make all that a config describes: tokenizer, text, objective, model."""

from lmft.assembly.from_config import assemble
from lmft.assembly.loading import load_chosen_weights, load_module
from lmft.assembly.optimizer import make_optimizer
from lmft.assembly.parts import Parts
from lmft.assembly.scored_rows import ScoredRows

__all__ = ["Parts", "ScoredRows", "assemble", "load_chosen_weights", "load_module", "make_optimizer"]
