"""Schedule: the order of the examples, a pure function of (seed, epoch, position) that is cheap
anywhere.

position     number of a micro-batch in its epoch, the same on all ranks
micro-batch  examples of one rank at a position
stretch      examples of all ranks at a position
step         examples of an optimizer step on all ranks: those of `accumulate` stretches
window       examples of 64 steps, within which they are sorted by length if their lengths differ
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from lmft.data.schedule.course import Course
from lmft.data.schedule.noise import key
from lmft.data.schedule.order import Order, Shuffled
from lmft.data.schedule.permutation import Permutation

_WINDOW = 64  # optimizer steps of a window
_AHEAD = 4096  # examples whose order is computed at once: a call for few costs as much


@dataclass(frozen=True)
class MicroBatch:
    """The examples of one rank's micro-batch."""

    epoch: int  # names the noise of its examples
    examples: np.ndarray  # [B] their numbers; empty if the rank has no share of an epoch's last stretch
    share: float = 0.0  # share of the training's steps that come before its own


class Schedule(Sampler[MicroBatch]):
    """This rank's micro-batches, epoch by epoch.

    The micro-batches of all ranks at a position are one stretch of the epoch's order, so that the
    examples of an optimizer step depend on the global batch size alone. The last stretch of an epoch is
    split as evenly as possible.

    If the examples' lengths differ, examples of similar length share a step, so that little is padding.
    Each window is sorted by length and split into steps, so that the largest step, padded, holds as few
    tokens as
    possible: a step has many short or few long examples, and `batch_size` is their mean. Each step is
    split into its stretches in the same way. The last window has up to 128 steps; an incomplete step
    comes last and has the shortest examples.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        seed: int,
        shuffled: bool,
        rank: int = 0,
        world_size: int = 1,
        lengths: np.ndarray | None = None,
        accumulate: int = 1,
        order: Order | None = None,
        course: Course | None = None,
    ):
        """Create a rank's schedule.

        Args:
            num_examples: examples of an epoch.
            batch_size: examples of a micro-batch, on average.
            seed: seed of the order.
            shuffled: False: in the order of the text, the same in every epoch (validation).
            rank: number of this device.
            world_size: number of devices.
            lengths: [examples] tokens of each example; None: they hardly differ.
            accumulate: micro-batches of an optimizer step on each device.
            order: the order of a shuffled split; None: each example once an epoch.
            course: the course of the training that the schedule is of; None: it begins at the first
                micro-batch, and has no number of steps.
        """
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffled = shuffled
        self.rank = rank
        self.world_size = world_size
        self.lengths = lengths
        self.accumulate = accumulate
        self.order = order or Shuffled(num_examples, seed)
        self.epoch = 0
        self.course = course or Course()
        self._start = (0, 0)  # (epoch, position) where iteration begins
        # ((epoch, number), steps) of the latest window.
        self._window: tuple[tuple[int, int], list[np.ndarray]] | None = None
        # Latest part of an order: epoch, first place, examples.
        self._ordered = -1, 0, np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Micro-batches of a whole epoch."""
        return -(-self.num_examples // (self.batch_size * self.world_size))

    def start(self, epoch: int, position: int) -> None:
        """Begin iteration at this position instead of the first of the first epoch."""
        self.epoch = epoch
        self._start = (epoch, position)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the trainer calls it at the start of each one."""
        self.epoch = epoch

    def micro_batch(self, epoch: int, position: int) -> MicroBatch:
        """Return this rank's micro-batch at a position of an epoch."""
        share = self.course.share(epoch, position)
        epoch, position = self.course.place(epoch, position)
        epoch = epoch if self.shuffled else 0
        examples = self._stretch(epoch, position)
        start = len(examples) * self.rank // self.world_size
        stop = len(examples) * (self.rank + 1) // self.world_size
        return MicroBatch(epoch, examples[start:stop], share)

    def _stretch(self, epoch: int, position: int) -> np.ndarray:
        """Return the examples of all ranks at a position of an epoch. [n]"""
        size = self.batch_size * self.world_size
        if self.lengths is None:
            return self._in_order(epoch, position * size, (position + 1) * size)
        step, stretch = divmod(position, self.accumulate)
        size *= self.accumulate * _WINDOW
        last = max(1, self.num_examples // size) - 1
        number = min(step // _WINDOW, last)
        if self._window is None or self._window[0] != (epoch, number):
            stop = (number + 1) * size if number < last else self.num_examples
            self._window = (epoch, number), self._steps(epoch, number * size, stop)
        examples = self._window[1][step - number * _WINDOW]
        num_stretches = min(self.accumulate, len(self) - step * self.accumulate)
        return self._split(examples, num_stretches)[stretch]

    def _in_order(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return the examples at places `start` to `stop` of an epoch's order. [n]"""
        stop = min(stop, self.num_examples)
        if not self.shuffled:
            return np.arange(start, stop)
        known_epoch, first, examples = self._ordered
        if epoch != known_epoch or start < first or stop > first + len(examples):
            first = start
            places = np.arange(first, min(max(stop, first + _AHEAD), self.num_examples))
            examples = self.order(epoch, places)
            self._ordered = epoch, first, examples
        return examples[start - first : stop - first]

    def _steps(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return the steps of a window: places `start` to `stop` of an epoch's order.

        Their examples are sorted by length and split into steps, which are shuffled. An incomplete step
        comes last, and holds its share of the window's tokens in the shortest examples.
        """
        examples = self._in_order(epoch, start, stop)
        examples = examples[np.argsort(self._lengths_of(examples), kind="stable")]
        num_whole, num_over = divmod(len(examples), self.batch_size * self.world_size * self.accumulate)
        tokens = np.cumsum(self._lengths_of(examples))
        num_shortest = int(np.searchsorted(tokens, tokens[-1] * num_over // len(examples), side="right"))
        num_shortest = min(num_shortest, len(examples) - num_whole)  # each whole step needs an example
        steps = self._split(examples[num_shortest:], num_whole) if num_whole else []
        if self.shuffled:
            order = Permutation(num_whole, key(self.seed, "steps", epoch, start))(np.arange(num_whole))
            steps = [steps[step] for step in order]
        return [*steps, examples[:num_shortest]]

    def _split(self, examples: np.ndarray, num_parts: int) -> list[np.ndarray]:
        """Split examples [n], sorted by length, into balanced parts; some are empty if n is too
        small.
        """
        if len(examples) < num_parts:
            return np.array_split(examples, num_parts)
        return np.split(examples, balanced_split_points(self._lengths_of(examples), num_parts))

    def _lengths_of(self, examples: np.ndarray) -> np.ndarray:
        """Return the tokens of these examples [n]; a `Mixed` order numbers repeated ones anew. [n]"""
        assert self.lengths is not None
        return self.lengths[examples % len(self.lengths)]

    def __iter__(self) -> Iterator[MicroBatch]:
        """Return the micro-batches of the present epoch; a thread may take them ahead."""
        epoch = self.epoch
        start_epoch, start = self._start
        places = range(start if start_epoch == epoch else 0, len(self))
        own = copy(self)  # with parts of the order of its own, as micro-batches are asked for meanwhile
        return (own.micro_batch(epoch, position) for position in places)


def balanced_split_points(lengths: np.ndarray, num_parts: int) -> np.ndarray:
    """Split ascending lengths so that the largest part, padded, has as few tokens as possible.

    Args:
        lengths: [n] tokens of each example, ascending.
        num_parts: number of parts, at most n; none is empty.

    Returns: [num_parts − 1] places where the second and later parts begin.
    """
    # Search the smallest budget of tokens per part that needs at most `num_parts` parts.
    low = int(lengths[-1])
    high = int(lengths[-1]) * len(lengths)
    while low < high:
        middle = (low + high) // 2
        if len(_fill_parts(lengths, middle, num_parts)) <= num_parts:
            high = middle
        else:
            low = middle + 1
    begins = _fill_parts(lengths, low, num_parts)[::-1]
    sizes = np.diff([*begins, len(lengths)])
    while len(begins) < num_parts:
        largest = int(sizes.argmax())
        begins.insert(largest + 1, begins[largest] + int(sizes[largest]) // 2)
        sizes = np.diff([*begins, len(lengths)])
    return np.array(begins[1:], np.int64)


def _fill_parts(lengths: np.ndarray, budget: int, max_parts: int) -> list[int]:
    """Return where parts begin, last part first, if each is filled up to a budget of tokens.

    Stop after one part more than `max_parts`.
    """
    begins = []
    end = len(lengths)
    while end and len(begins) <= max_parts:
        end = max(0, end - budget // int(lengths[end - 1]))
        begins.append(end)
    return begins
