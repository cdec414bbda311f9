"""Make all that a config describes: tokenizer, text, objective, model."""

from lmft.assembly.from_config import assemble
from lmft.assembly.loading import load_chosen_weights, load_module
from lmft.assembly.parts import Parts, make_optimizer
from lmft.assembly.scored_rows import ScoredRows

__all__ = ["Parts", "ScoredRows", "assemble", "load_chosen_weights", "load_module", "make_optimizer"]
