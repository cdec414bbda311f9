"""Which tokens a model's predictions see: found by trying, on the model itself, before it is trained or
asked.

One token of a row is replaced at a time. A prediction that moves has seen it.
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

log = logging.getLogger("lmft")

_NUM_TOKENS = 6  # of the row that is tried
# A prediction has moved if one of its logits has, by this share of the largest logit. Rounding stays below
# 2e-6 in all of transformers' architectures. What is seen moves new models 32 wide by 1.5e-4 or more, and
# trained ones by a tenth.
_MOVED = 2e-5
# Values of configs that say to which sides a model attends, as they are where it attends to the left alone.
_LEFT_ALONE = {"is_decoder": True, "is_causal": True, "causal": True, "use_bidirectional_attention": False}


@dataclass(frozen=True)
class Sight:
    """Says that a family's predictions see one of some tokens, or none of them."""

    name: str  # the batch's input whose tokens they are
    pairs: Tensor  # [P, T] bool: which predictions, and which tokens of each
    is_wanted: bool  # True: at least one of the pairs has to be seen; False: none may be
    fault: str  # what a model does that does not keep to this, in words that follow its name
    fix: str | None = None  # None: what makes such a model attend as its family does, or another family


class Tried(Protocol):
    """A LightningModule whose predictions can be tried."""

    family: ClassVar[Family]
    model: Any

    @property
    def body(self) -> nn.Module:
        """The part of the model that returns hidden states [B, T, D]."""
        ...

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Return a batch of one row, and what its predictions must and must not see."""
        ...

    def inputs(self, inputs: Mapping[str, Any], /) -> dict[str, Any]:
        """Return what the model is called with."""
        ...


def check_sight(
    make_module: Callable[[PreTrainedModel, PreTrainedTokenizerFast], Tried],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    isolate_documents: bool = False,
    other_families: Sequence[str] = (),
) -> None:
    """Check by trying that the model's predictions see what they have to see, and nothing that they must not.

    The model stays as it is, and so does torch's generator. What cannot be tried is logged.

    Args:
        make_module: makes the LightningModule of the model's family.
        model: the model, with its weights.
        tokenizer: its tokenizer.
        isolate_documents: whether the documents of a row are to be kept apart.
        other_families: names of all families that such a model could be of.

    Raises: UserError.
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
                _check(module, batch | {"document_ids": documents[None]}, others, _inside(documents, sights))
    except UserError:
        raise
    except (
        Exception
    ) as error:  # of any kind: the code is the model's, and may be made for other rows or devices
        log.warning(
            "what %s sees could not be tried: %s", model.config.model_type, " ".join(str(error).split())[:200]
        )


def _fix(module: Tried, families: Sequence[str]) -> str:
    """Return what makes a model attend as its family does: values of its config, or else another family."""
    config = module.model.config
    wanted = {name: value is module.family.is_causal for name, value in _LEFT_ALONE.items()}
    wrong = [name for name, value in wanted.items() if getattr(config, name, None) is (not value)]
    if wrong:
        return " ".join(f"model.config.{name}={str(wanted[name]).lower()}" for name in wrong)
    others = [name for name in families if name != module.family.name]
    return f"model={others[0]}, or another model" if others else "another model"


def _inside(documents: Tensor, sights: Sequence[Sight]) -> list[Sight]:
    """What holds where a row's documents [T] are kept apart."""
    is_same = documents[:, None] == documents
    fix = "data.isolate_documents=false, or data.examples=lines"
    apart = Sight("input_ids", ~is_same, False, "does not keep attention inside a document", fix)
    return [apart, *(replace(sight, pairs=sight.pairs & is_same) for sight in sights)]


def _check(module: Tried, batch: dict[str, Tensor], others: Tensor, sights: Sequence[Sight]) -> None:
    model_type = module.model.config.model_type
    num_predictions = len(sights[0].pairs)
    names = {sight.name for sight in sights}
    has_moved = {name: _movement(module, batch, name, others, num_predictions) > _MOVED for name in names}
    # [prediction, token] pairs.
    seen = [(has_moved[sight.name] & sight.pairs).nonzero().tolist() for sight in sights]
    for sight, pairs in zip(sights, seen, strict=True):
        if pairs and not sight.is_wanted:
            prediction, token = pairs[0]
            where = f"tried: another token {token + 1} of {len(others)} moves the model's prediction {prediction + 1}"
            raise UserError(f"{model_type} {sight.fault}", where, sight.fix)
    wanted = [(sight, pairs) for sight, pairs in zip(sights, seen, strict=True) if sight.is_wanted]
    if not any(pairs for _, pairs in wanted):  # as in new models whose layers add nothing yet
        log.warning(
            "what %s sees could not be tried: its predictions follow from one token alone", model_type
        )
        return
    for sight, pairs in wanted:
        if sight.pairs.any() and not pairs:
            where = "tried: other tokens there move none of the model's predictions"
            raise UserError(f"{model_type} {sight.fault}", where, sight.fix)


def _movement(
    module: Tried, batch: dict[str, Tensor], name: str, others: Tensor, num_predictions: int
) -> Tensor:
    """Measures how far each prediction moves with each token of an input, as a share of the largest logit.
    [P, T]

    batch: of one row; others: [T] what the input's tokens are replaced by, each in a row of its own.
    """
    num_rows = len(others) + 1  # the last one stays as it is
    rows = {each: value.repeat(num_rows, *[1] * (value.dim() - 1)) for each, value in batch.items()}
    rows[name][:-1].diagonal().copy_(others)
    index = torch.arange(num_rows * num_predictions)
    logits = target_logits(module.model, module.body, module.inputs(rows), index).float()
    logits = logits.where(logits.abs() < 1e30, 0.0)  # some models rule tokens out by an infinite logit
    logits = logits.view(num_rows, num_predictions, -1)
    return ((logits[:-1] - logits[-1]).abs().amax(-1) / logits[-1].abs().amax()).T
