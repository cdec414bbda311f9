"""The number of optimizer steps after which a number of tokens has been seen."""

import numpy as np

from lmft.data.examples.base import Examples
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.mixture import MixedExamples
from lmft.data.schedule.layout import Layout
from lmft.data.schedule.order import Mixed
from lmft.data.schedule.sampler import Schedule


def order_of(examples: Examples, seed: int) -> Mixed | None:
    """Return the order of a mixture's examples; None for other examples, each of which comes once."""
    if isinstance(examples, MixedExamples):
        return Mixed(examples.sizes, examples.counts, seed)
    return None


def steps_for_tokens(
    budget: int, examples: Examples, layout: Layout, seed: int, at_most: int | None = None
) -> int:
    """Return after how many optimizer steps a training has seen this many tokens, without padding.

    The steps are those of the schedule, so the number is exact, whatever the lengths of the examples.

    Args:
        budget: tokens, on all devices together.
        examples: the training examples.
        layout: the division of an epoch into steps.
        seed: seed of the order.
        at_most: optimizer steps after which the search ends.

    Returns: the number of the first step that reaches the budget; at_most + 1 if none does by then.
    """
    schedule = Schedule(
        num_examples=len(examples),
        batch_size=layout.batch_size * layout.world_size,
        seed=seed,
        shuffled=True,
        lengths=examples.lengths,
        accumulate=layout.accumulate,
        order=order_of(examples, seed),
    )
    num_tokens = 0
    num_steps = 0
    epoch = 0
    while True:
        for first in range(0, layout.num_used, layout.accumulate):
            if num_tokens >= budget or (at_most is not None and num_steps > at_most):
                return num_steps
            for position in range(first, min(first + layout.accumulate, layout.num_used)):
                num_tokens += _num_tokens(examples, schedule.micro_batch(epoch, position).examples)
            num_steps += 1
        epoch += 1


def _num_tokens(examples: Examples, numbers: np.ndarray) -> int:
    """Return the tokens of these examples [n]."""
    if not len(numbers):
        return 0
    if examples.lengths is not None:
        return int(examples.lengths[numbers % len(examples.lengths)].sum())
    if isinstance(examples, Blocks):
        missing = len(examples) * examples.block_size - examples.num_tokens
        has_last = bool((numbers == len(examples) - 1).any())
        return len(numbers) * examples.block_size - missing * has_last
    return int(examples.rows(numbers).lengths.sum())
