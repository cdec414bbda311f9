"""Check that a model runs, and that its logits at the targets alone are its own, before it is used.

lmft gives a model's head the hidden states at the targets only. A head that reads more than the body's
last hidden states (ProphetNet's n-gram streams) cannot be given them so.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.head import target_logits
from lmft.models.trial import ordinary_tokens, to_be_tried
from lmft.modules.visibility import Tried

_NUM_TOKENS = 6  # length of the row
_MOST = 1e-3  # difference of logits, as a share of the largest


def check_logits(
    make_module: Callable[[PreTrainedModel, PreTrainedTokenizerFast], Tried],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Compare the logits of a short row with those of the model's own call.

    The model stays as it is. A model that does not run on such a row on a CPU is not checked.

    Args:
        make_module: makes the LightningModule of the model's family.
        model: the model, with its weights.
        tokenizer: its tokenizer.

    Raises: UserError if they differ.
    """
    with to_be_tried(model) as tried:
        module = make_module(tried, tokenizer)
        batch, _ = module.trial(ordinary_tokens(tokenizer, model.config, _NUM_TOKENS)[0])
        inputs = module.inputs(batch)
        try:
            expected = tried(**inputs).logits.flatten(0, 1)  # [T, V]
        except Exception:  # of any kind: the model's code may need other rows or devices
            return
        reason = _difference(module, inputs, expected)
    if reason:
        what = f"{model.config.model_type} computes its logits from more than the last hidden states"
        raise UserError(what, reason, "another model: lmft computes logits at the targets alone")


def check_training(
    make_module: Callable[[PreTrainedModel, PreTrainedTokenizerFast], Tried],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batches: Callable[[], Iterable[Batch]],
) -> None:
    """Check that the model runs in training mode, in which Reformer takes rows of one length only.

    A model that runs on a short row passes. For others, batches of the training text decide. They are
    not tried where there is a GPU, which the model's code may need.

    Args:
        make_module: makes the LightningModule of the model's family.
        model: the model, with its weights; it stays as it is.
        tokenizer: its tokenizer.
        batches: makes a few small batches of the training text.

    Raises: UserError if the model runs on neither.
    """
    with to_be_tried(model) as tried:
        module = make_module(tried.train(), tokenizer)
        try:
            batch, _ = module.trial(ordinary_tokens(tokenizer, model.config, _NUM_TOKENS)[0])
            tried(**module.inputs(batch))
            return
        except Exception:  # of any kind: the code is the model's
            if torch.cuda.is_available():
                return
        try:
            for example in batches():
                tried(**module.inputs(example.inputs))
        except Exception as error:  # as above
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            what = f"{model.config.model_type} does not run on the training text"
            raise UserError(what, reason, "what that says of model.config, or another model") from error


def _difference(module: Tried, inputs: dict[str, Any], expected: torch.Tensor) -> str | None:
    """Return how logits at the last and the first position differ from these [T, V]; None: not."""
    index = torch.tensor([len(expected) - 1, 0])  # in another order, so that rows which stay show
    expected = expected[index]
    try:
        found = target_logits(module.model, module.body, inputs, index)
    except Exception as error:  # of any kind: the head's code is the model's
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if found.shape != expected.shape:
        return f"logits of shape {list(found.shape)} instead of {list(expected.shape)}"
    finite = expected.abs() < 1e30  # some models rule tokens out by an infinite logit
    difference = ((found - expected).abs()[finite].max() / expected.abs()[finite].max()).item()
    return None if difference < _MOST else f"logits differ by {difference:.2g} of the largest"
