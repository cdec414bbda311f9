"""Check which tokens a model's predictions depend on, by running the model before it is trained or used.

One token of a row is replaced at a time. A prediction that changes has seen that token.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.family import Family
from lmft.models.head import target_logits
from lmft.models.trial import ordinary_tokens, to_be_tried

log = logging.getLogger(__name__)

_NUM_TOKENS = 6  # length of the row
# A prediction has changed if one of its logits has, by this share of the largest logit. Rounding stays
# below 2e-6 in all of transformers' architectures. Tokens that are seen change predictions of new models
# of width 32 by 1.5e-4 or more, and those of trained models by a tenth.
_CHANGED = 2e-5
# Options of configs that control the direction of attention, with their causal values.
_CAUSAL_OPTIONS = {
    "is_decoder": True,
    "is_causal": True,
    "causal": True,
    "use_bidirectional_attention": False,
}


@dataclass(frozen=True)
class Sight:
    """A requirement: a family's predictions depend on at least one of some tokens, or on none."""

    name: str  # the batch's input that has the tokens
    pairs: Tensor  # [P, T] bool: the tokens meant, for each prediction
    is_wanted: bool  # True: at least one of the pairs must be seen; False: none may be
    fault: str  # what a model does wrong otherwise, in words that follow its name
    fix: str | None = None  # None: the options that give the family's attention, or another family


class Tried(Protocol):
    """A LightningModule whose predictions can be checked."""

    family: ClassVar[Family]
    model: Any
    tokenizer: Any

    @property
    def body(self) -> nn.Module:
        """The part of the model that returns hidden states [B, T, D]."""
        ...

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Return a batch of one row, and which of its tokens [T] its predictions must (not) see."""
        ...

    def inputs(self, inputs: Mapping[str, Any], /) -> dict[str, Any]:
        """Return the arguments of the model for a batch's inputs."""
        ...


def check_sight(
    make_module: Callable[[PreTrainedModel, PreTrainedTokenizerFast], Tried],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    isolate_documents: bool = False,
    other_families: Sequence[str] = (),
) -> None:
    """Check that the model's predictions see the tokens that they must see, and none that they must not.

    The model and torch's generator stay as they are. If the check cannot run, a warning is logged.

    Args:
        make_module: makes the LightningModule of the model's family.
        model: the model, with its weights.
        tokenizer: its tokenizer.
        isolate_documents: whether documents in a row must not see each other.
        other_families: names of all families that such a model could be of.

    Raises: UserError if the model fails the check.
    """
    try:
        tokens, others = ordinary_tokens(tokenizer, model.config, _NUM_TOKENS)
        with to_be_tried(model) as tried:
            module = make_module(tried, tokenizer)
            batch, sights = module.trial(tokens)
            fix = _fix(module, other_families)
            sights = [sight if sight.fix else replace(sight, fix=fix) for sight in sights]
            _check(module, batch, others, sights)
            if isolate_documents:
                documents = torch.arange(len(tokens)) * 2 // len(tokens)  # two in the row
                isolated = batch | {"document_ids": documents[None]}
                _check(module, isolated, others, _within_documents(documents, sights))
    except UserError:
        raise
    # Errors of any kind: the code is the model's, and may need other rows or devices.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        log.warning("the attention of %s could not be checked: %s", model.config.model_type, reason)


def _fix(module: Tried, families: Sequence[str]) -> str:
    """Return the options that give a model its family's attention, or else another family."""
    config = module.model.config
    right = {name: value is module.family.is_causal for name, value in _CAUSAL_OPTIONS.items()}
    wrong = [name for name, value in right.items() if getattr(config, name, None) is (not value)]
    if wrong:
        return " ".join(f"model.config.{name}={str(right[name]).lower()}" for name in wrong)
    others = [name for name in families if name != module.family.name]
    return f"model={others[0]}, or another model" if others else "another model"


def _within_documents(documents: Tensor, sights: Sequence[Sight]) -> list[Sight]:
    """Return the requirements for a row whose documents [T] must not see each other."""
    is_same = documents[:, None] == documents
    fix = "data.isolate_documents=false, or data.examples=lines"
    apart = Sight("input_ids", ~is_same, False, "does not keep attention inside a document", fix)
    return [apart, *(replace(sight, pairs=sight.pairs & is_same) for sight in sights)]


def _check(module: Tried, batch: dict[str, Tensor], others: Tensor, sights: Sequence[Sight]) -> None:
    """Check the requirements on a batch of one row, whose tokens are replaced by `others` [T]."""
    model_type = module.model.config.model_type
    num_predictions = len(sights[0].pairs)
    changes = {
        name: _changes(module, batch, name, others, num_predictions)
        for name in {sight.name for sight in sights}
    }
    # For each requirement, those of its (prediction, token) pairs that are seen.
    seen = [((changes[sight.name] > _CHANGED) & sight.pairs).nonzero().tolist() for sight in sights]
    for sight, pairs in zip(sights, seen, strict=True):
        if pairs and not sight.is_wanted:
            prediction, token = pairs[0]
            where = (
                f"checked: replacing token {token + 1} of {len(others)} changes the model's "
                f"prediction {prediction + 1}"
            )
            raise UserError(f"{model_type} {sight.fault}", where, sight.fix)
    required = [(sight, pairs) for sight, pairs in zip(sights, seen, strict=True) if sight.is_wanted]
    if not any(pairs for _, pairs in required):  # as in new models whose layers add nothing yet
        reason = "its predictions depend on one token alone"
        log.warning("the attention of %s could not be checked: %s", model_type, reason)
        return
    for sight, pairs in required:
        if sight.pairs.any() and not pairs:
            where = "checked: replacing these tokens changes none of the model's predictions"
            raise UserError(f"{model_type} {sight.fault}", where, sight.fix)


def _changes(
    module: Tried, batch: dict[str, Tensor], name: str, others: Tensor, num_predictions: int
) -> Tensor:
    """Return how much each prediction changes with each token, as a share of the largest logit. [P, T]

    Args:
        module: the LightningModule.
        batch: a batch of one row.
        name: the input whose tokens are replaced, each in its own copy of the row.
        others: [T] the tokens that replace them.
        num_predictions: P, the number of predictions of the row.
    """
    num_rows = len(others) + 1  # the last row stays as it is
    rows = {key: value.repeat(num_rows, *[1] * (value.dim() - 1)) for key, value in batch.items()}
    rows[name][:-1].diagonal().copy_(others)
    index = torch.arange(num_rows * num_predictions)
    logits = target_logits(module.model, module.body, module.inputs(rows), index).float()
    logits = logits.where(logits.abs() < 1e30, 0.0)  # some models rule tokens out by an infinite logit
    logits = logits.view(num_rows, num_predictions, -1)
    return ((logits[:-1] - logits[-1]).abs().amax(-1) / logits[-1].abs().amax()).T
