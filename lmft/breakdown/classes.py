"""Classes of targets: by frequency of the token, length of the document, and position."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SPECIAL_TOKENS = 0
NEVER = 1
_NUM_DECADES = 10
NUM_CLASSES = 2 + _NUM_DECADES


@dataclass(frozen=True)
class Class:
    """A range of counts, lengths or positions; None without a bound, or for what is counted by none."""

    label: str
    low: int | None
    high: int | None


FREQUENCY_CLASSES = [
    Class("special", None, None),
    Class("never", 0, 0),
    *(
        Class(f"{10**power:,}–{10 ** (power + 1) - 1:,}", 10**power, 10 ** (power + 1) - 1)
        for power in range(_NUM_DECADES - 1)
    ),
    Class(f"{10 ** (_NUM_DECADES - 1):,} or more", 10 ** (_NUM_DECADES - 1), None),
]
"""How often tokens occur in the training text: special ones, never, 1–9, 10–99, …"""


def frequency_classes(counts: np.ndarray, special_ids: Iterable[int]) -> np.ndarray:
    """Return each token's number in FREQUENCY_CLASSES. [V] uint8

    Args:
        counts: [V] how often each token occurs in the training text.
        special_ids: separators, sentinels and other tokens that are not text.
    """
    lows = 10 ** np.arange(_NUM_DECADES)
    classes = NEVER + np.searchsorted(lows, counts, side="right")
    classes[[*special_ids]] = SPECIAL_TOKENS
    return classes.astype(np.uint8)


def length_classes(lengths: np.ndarray) -> tuple[np.ndarray, list[Class]]:
    """Return each document's class by its number of tokens [n], and the classes: 1, 2–3, 4–7, …"""
    numbers = np.searchsorted(2 ** np.arange(1, 40), lengths, side="right")
    powers = range(int(numbers.max(initial=0)) + 1)
    classes = [_range(2**power, 2 ** (power + 1) - 1) for power in powers]
    return numbers, classes


def position_classes(count: int, width: int) -> list[Class]:
    """Return ranges of positions, from 0 on. count: how many; width: positions of each."""
    return [_range(number * width, (number + 1) * width - 1) for number in range(count)]


def _range(low: int, high: int) -> Class:
    label = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    return Class(label, low, high)
