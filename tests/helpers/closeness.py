"""Whether two computations of the same numbers agree, but for rounding.

CPUs differ in the order in which they add, so the last digits of a sum differ, too. How much depends on the size of the
numbers and on the format that they are computed in; so bounds are counted in roundings, not written as numbers.
What is computed twice in the very same way (a resumed run, a mask of the same seed) has to be equal to the bit.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# One rounding: the step from a number to the next one in its format, as a share of the number.
FLOAT32 = torch.finfo(torch.float32).eps
BFLOAT16 = torch.finfo(torch.bfloat16).eps
SIX_DIGITS = 1e-5  # metrics.csv

NETWORK = 100
"""Roundings between two ways to compute a tiny network's loss, logits or gradients in float32.

With every product summed in another order and every function off by a rounding there are 15 at most.
"""

Numbers = Tensor | float | Sequence[float]


def size_of(numbers: Numbers) -> float:
    """The largest absolute value."""
    return float(torch.as_tensor(numbers).detach().abs().max())


def distance(found: Numbers, expected: Numbers, size: float | None = None) -> float:
    """The largest difference, as a share of `size`: of the largest number expected, if none is given."""
    one, other = (torch.as_tensor(numbers).detach().double() for numbers in (found, expected))
    assert one.shape == other.shape
    difference = size_of(one - other)
    if size is None:
        size = size_of(other)
    if not size:
        return math.inf if difference else 0.0
    return difference / size


def assert_close(found: Any, expected: Any, roundings: float = NETWORK, of: float = FLOAT32) -> None:
    """Fails where numbers are more than so many roundings apart.

    found, expected: a tensor, a number or a list of numbers, or a dict of such. A dict's are all judged by the size of
    the largest among them: what is found of a gradient that should be zero is the rounding of others.
    """
    if not isinstance(expected, Mapping):
        found, expected = {"they": found}, {"they": expected}
    assert found.keys() == expected.keys()
    size = max(size_of(numbers) for numbers in expected.values())
    for name, numbers in expected.items():
        apart = distance(found[name], numbers, size) / of
        assert apart <= roundings, f"{name}: {apart:.3g} roundings of {of:.2g} apart, at most {roundings:g} are allowed"


def assert_same_scores(found: Mapping[str, Any], expected: Mapping[str, Any], roundings: float = NETWORK) -> None:
    """Fails where two validations counted differently, or their losses are more than so many roundings apart.

    Perplexity is judged by its logarithm: exp magnifies the rounding of a loss.
    """
    assert found.keys() == expected.keys()
    assert (found["targets"], found["accuracy"]) == (expected["targets"], expected["accuracy"])
    assert_close(found["loss"], expected["loss"], roundings)
    assert_close(math.log(found["perplexity"]), math.log(expected["perplexity"]), roundings)
    if expected["bits_per_byte"] is None:
        assert found["bits_per_byte"] is None
    else:
        assert_close(found["bits_per_byte"], expected["bits_per_byte"], roundings)
