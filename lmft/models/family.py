"""Family: the properties of a kind of model that lmft needs in addition to its LightningModule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from lmft.reporting.family_card import FamilyCard


@dataclass(frozen=True)
class Family:
    """A kind of language model; each LightningModule of lmft.modules holds one as `family`.

    >>> MaskedLanguageModel.family.name, MaskedLanguageModel.family.auto_class.__name__
    ('masked', 'AutoModelForMaskedLM')
    """

    name: str
    """The name in `model.family=masked`."""
    auto_class: Any
    """The class of transformers that loads such models: AutoModelForMaskedLM."""
    fits: Callable[[PreTrainedConfig], bool]
    """Whether models with this config belong to the family, if `auto_class` has a class for them."""
    card: FamilyCard
    """The family's words in model cards."""
    is_causal: bool = False
    """Whether a token sees only the tokens before it."""
    is_fast_with_eager_attention: bool = False
    """Whether eager attention is faster than scaled_dot_product_attention on CPUs."""
    objectives_of: str | None = None
    """The family whose objectives train this one; None: its own."""

    def model_class(self, hf_config: PreTrainedConfig) -> type[PreTrainedModel] | None:
        """Return the class of models with this config; None if they do not belong to the family."""
        if not self.fits(hf_config):
            return None
        return self.auto_class._model_mapping.get(type(hf_config), None)
