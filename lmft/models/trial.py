"""Run a model on a short row of tokens without changing it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.models import packed_attention
from lmft.models.loading.positions import max_positions

# Implementations of attention that need neither a GPU nor half precision.
_RUNS_EVERYWHERE = ("eager", "sdpa", packed_attention.NAME)


def ordinary_tokens(
    tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig, count: int
) -> tuple[Tensor, Tensor]:
    """Return the tokens of a row [T], and another token for each of them [T].

    T is `count`, or the model's number of positions if that is less. No token is special, because some
    change
    more than themselves: RoBERTa derives positions from the padding. All are different if the vocabulary
    is large enough.
    """
    special = set(tokenizer.all_special_ids)
    vocab_size = config.get_text_config().vocab_size
    known = sorted(token for token in tokenizer.get_vocab().values() if token < vocab_size)
    ids = torch.tensor([token for token in known if token not in special])
    step = max(1, len(ids) // count)
    length = min(count, max_positions(config) or count)
    places = torch.arange(length) * step
    other_places = places + max(1, step // 2)
    return ids[places % len(ids)], ids[other_places % len(ids)]


@contextmanager
def to_be_tried(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Yield a copy of the model in evaluation mode, without gradients; it shares the weights.

    Calling the model itself can change it: BigBird turns its sparse attention off for good after a short
    row.
    """
    copied = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    if copied.config._attn_implementation not in _RUNS_EVERYWHERE:
        copied.set_attn_implementation("sdpa")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield copied.eval()
