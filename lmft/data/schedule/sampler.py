"""Which examples come when: a pure function of (seed, epoch, position), evaluated anywhere at no cost."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from lmft.data.schedule.noise import key
from lmft.data.schedule.permutation import Permutation

_WINDOW = 64  # optimizer steps among which examples are sorted by length
_AHEAD = 4096  # examples of an order that are found at once: few at a time cost as much, in calls


@dataclass(frozen=True)
class MicroBatch:
    """What one call of the loader assembles: `examples` [B] of `epoch`; none where a rank has no share of the
    tail.
    """

    epoch: int
    examples: np.ndarray


class Schedule(Sampler[MicroBatch]):
    """This rank's micro-batches, epoch by epoch.

    The micro-batches of all ranks at one position are one stretch of the epoch's order, so the examples of an
    optimizer step depend on the global batch size alone. The last stretch of an epoch is shared out as evenly
    as it goes.

    shuffled=False gives the examples as they lie, every epoch alike (validation).

    lengths: [num_examples] tokens of each, where they differ. Then examples of like length share a step, so
    that little
    is padding: the examples of each 64 steps are sorted by length and parted so that the largest step,
    padded, holds as few tokens as it can; short examples come many at a time, and `batch_size` is the mean.
    The last window is of up to 128 steps; a step that is not whole ends it, and has the shortest. A step is
    parted in the same way into its `accumulate` micro-batches.
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
    ):
        self.num_examples, self.batch_size = num_examples, batch_size
        self.lengths, self.accumulate = lengths, accumulate
        self.seed, self.shuffled = seed, shuffled
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._start = (0, 0)  # (epoch, position) where iteration begins
        # The latest one's steps, by its name.
        self._window: tuple[tuple[int, int], list[np.ndarray]] | None = None
        # Of an epoch, from a position on: the examples in its order.
        self._ordered = -1, 0, np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Micro-batches of a whole epoch."""
        return -(-self.num_examples // (self.batch_size * self.world_size))

    def start(self, epoch: int, position: int) -> None:
        """Lets iteration begin at a micro-batch of an epoch instead of at the very first."""
        self.epoch, self._start = epoch, (epoch, position)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def micro_batch(self, epoch: int, position: int) -> MicroBatch:
        """This rank's micro-batch at a position of an epoch."""
        epoch = epoch if self.shuffled else 0
        examples = self._stretch(epoch, position)
        mine = [len(examples) * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return MicroBatch(epoch, examples[slice(*mine)])

    def _stretch(self, epoch: int, position: int) -> np.ndarray:
        """The examples of all ranks at a position of an epoch."""
        size = self.batch_size * self.world_size
        if self.lengths is None:
            return self._in_order(epoch, position * size, (position + 1) * size)
        step, micro_batch = divmod(position, self.accumulate)
        size *= self.accumulate * _WINDOW
        last = max(1, self.num_examples // size) - 1
        number = min(step // _WINDOW, last)
        if self._window is None or self._window[0] != (epoch, number):
            stop = (number + 1) * size if number < last else self.num_examples
            self._window = (epoch, number), self._steps(epoch, number * size, stop)
        examples = self._window[1][step - number * _WINDOW]
        return self._parted(examples, min(self.accumulate, len(self) - step * self.accumulate))[micro_batch]

    def _in_order(self, epoch: int, start: int, stop: int) -> np.ndarray:
        stop = min(stop, self.num_examples)
        if not self.shuffled:
            return np.arange(start, stop)
        known_epoch, first, examples = self._ordered
        if epoch != known_epoch or start < first or stop > first + len(examples):
            first = start
            positions = np.arange(first, min(max(stop, first + _AHEAD), self.num_examples))
            examples = Permutation(self.num_examples, key(self.seed, "order", epoch))(positions)
            self._ordered = epoch, first, examples
        return examples[start - first : stop - first]

    def _steps(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """The examples at these places of the epoch's order, sorted by length and parted; the parts shuffled.

        A step that is not whole comes last, and holds its share of the tokens in the shortest examples.
        """
        assert self.lengths is not None
        examples = self._in_order(epoch, start, stop)
        examples = examples[np.argsort(self.lengths[examples], kind="stable")]
        num_whole, num_over = divmod(len(examples), self.batch_size * self.world_size * self.accumulate)
        tokens = np.cumsum(self.lengths[examples])
        num_shortest = int(np.searchsorted(tokens, tokens[-1] * num_over // len(examples), side="right"))
        num_shortest = min(num_shortest, len(examples) - num_whole)  # each whole step needs an example
        steps = self._parted(examples[num_shortest:], num_whole) if num_whole else []
        if self.shuffled:
            order = Permutation(num_whole, key(self.seed, "steps", epoch, start))(np.arange(num_whole))
            steps = [steps[step] for step in order]
        return [*steps, examples[:num_shortest]]

    def _parted(self, examples: np.ndarray, num_parts: int) -> list[np.ndarray]:
        """Examples in the order of their lengths, parted; where they are fewer than the parts, some are
        empty.
        """
        assert self.lengths is not None
        if len(examples) < num_parts:
            return np.array_split(examples, num_parts)
        return np.split(examples, balanced_split_points(self.lengths[examples], num_parts))

    def __iter__(self) -> Iterator[MicroBatch]:
        start_epoch, start = self._start
        for position in range(start if start_epoch == self.epoch else 0, len(self)):
            yield self.micro_batch(self.epoch, position)


def balanced_split_points(lengths: np.ndarray, num_parts: int) -> np.ndarray:
    """Where to part ascending lengths [n], so that the largest part holds as few tokens, padding counted, as
    it can.

    Returns the places [num_parts − 1] where a part ends and the next begins; no part is empty.
    """
    low, high = int(lengths[-1]), int(lengths[-1]) * len(lengths)
    while low < high:  # the smallest budget of tokens under which there are no more parts than asked for
        middle = (low + high) // 2
        low, high = (
            (low, middle) if len(_filled(lengths, middle, num_parts)) <= num_parts else (middle + 1, high)
        )
    begins = _filled(lengths, low, num_parts)[::-1]
    sizes = np.diff([*begins, len(lengths)])
    while len(begins) < num_parts:
        largest = int(sizes.argmax())
        begins.insert(largest + 1, begins[largest] + int(sizes[largest]) // 2)
        sizes = np.diff([*begins, len(lengths)])
    return np.array(begins[1:], np.int64)


def _filled(lengths: np.ndarray, budget: int, most: int) -> list[int]:
    """Where the parts begin, from the last to the first, if each takes as much as the budget allows; stops
    after `most` parts and one.
    """
    begins, end = [], len(lengths)
    while end and len(begins) <= most:
        end = max(0, end - budget // int(lengths[end - 1]))
        begins.append(end)
    return begins
