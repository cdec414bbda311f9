"""From a config to everything that it describes: tokenizer, text, objective, model."""

from lmft.assembly.loading import load_chosen_weights, load_module
from lmft.assembly.module import make_optimizer
from lmft.assembly.parts import Parts, assemble

__all__ = ["Parts", "assemble", "load_chosen_weights", "load_module", "make_optimizer"]
