"""Try a model on a short row of tokens and leave no trace in it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.models.loading.hf_config import max_positions

# Implementations of attention that need neither a GPU nor half precision.
_RUNS_EVERYWHERE = ("eager", "sdpa")


def ordinary_tokens(
    tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig, count: int
) -> tuple[Tensor, Tensor]:
    """Picks the tokens of a row, and for each of them another one. [T] both

    T is `count`, or as many as the model has positions. No token is special, because models read more out of
    those: RoBERTa counts its positions by the padding. All are different if the vocabulary has as many.
    """
    special = set(tokenizer.all_special_ids)
    size = min(len(tokenizer), config.get_text_config().vocab_size)
    ids = torch.tensor([token for token in range(size) if token not in special])
    step = max(1, len(ids) // count)
    places = torch.arange(min(count, max_positions(config) or count)) * step
    return ids[places % len(ids)], ids[(places + max(1, step // 2)) % len(ids)]


@contextmanager
def to_be_tried(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Gives the model for evaluation, with the same weights in modules of its own, so that trying it leaves
    no trace.

    BigBird, for one, gives up its sparse attention for good where it is given a short row.
    """
    copied = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    if copied.config._attn_implementation not in _RUNS_EVERYWHERE:
        copied.set_attn_implementation("sdpa")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield copied.eval()
