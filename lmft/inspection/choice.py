"""Which micro-batches are shown: those that a training reads first, or those of chosen examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmft.data.schedule.budget import order_of
from lmft.data.schedule.course import Course
from lmft.data.schedule.sampler import MicroBatch, Schedule
from lmft.errors import UserError
from lmft.inspection.batches import Viewer

_AT_A_TIME = 256  # examples that are searched


@dataclass(frozen=True)
class Choice:
    """Names the examples that are shown, and the number of epochs."""

    split: str
    num_examples: int
    num_epochs: int = 1
    numbers: Sequence[int] | None = None
    """Numbers of the examples in their split; None: those that come first."""
    text: str | None = None
    """A text that they hold; None: any."""
    accumulate: int = 1
    """Micro-batches of an optimizer step, on which batches by length depend."""
    course: Course = field(default_factory=Course)


def chosen(viewer: Viewer, choice: Choice) -> Iterator[tuple[int | None, MicroBatch]]:
    """Yield the micro-batches to show, each with its position in the first epoch, epoch by epoch.

    In later epochs they hold the same examples, with the noise of these epochs. Validation text has the
    same noise in all epochs, so it comes once. Chosen examples have no position: they come one by one.

    Raises: UserError if there is no such example.
    """
    is_training = choice.split.startswith("train")
    first = list(_first_epoch(viewer, choice))
    for epoch in range(choice.num_epochs if is_training else 1):
        for position, micro_batch in first:
            share = choice.course.share(epoch, position or 0)
            yield position, MicroBatch(epoch, micro_batch.examples, share)


def _first_epoch(viewer: Viewer, choice: Choice) -> Iterator[tuple[int | None, MicroBatch]]:
    numbers = choice.numbers
    if numbers is not None:
        _check_numbers(viewer, choice)
    elif choice.text is not None:
        numbers = _with_text(viewer, choice)
    if numbers is not None:
        for number in numbers:
            yield None, MicroBatch(0, np.array([number]))
        return
    schedule = _schedule(viewer, choice)
    left = choice.num_examples
    for position in range(len(schedule)):
        micro_batch = schedule.micro_batch(0, position)
        yield position, MicroBatch(0, micro_batch.examples[:left])
        left -= len(micro_batch.examples)
        if left <= 0:
            return


def _schedule(viewer: Viewer, choice: Choice) -> Schedule:
    """Return the order that a training on one device reads the examples in."""
    data = viewer.data
    examples = data.corpus.examples[choice.split]
    is_training = choice.split == "train"
    return Schedule(
        num_examples=len(examples),
        batch_size=data.batch_size,
        seed=data.seed,
        shuffled=is_training,
        lengths=examples.lengths,
        accumulate=choice.accumulate if is_training else 1,
        order=order_of(examples, data.seed),
    )


def _check_numbers(viewer: Viewer, choice: Choice) -> None:
    num_examples = len(viewer.data.corpus.examples[choice.split])
    for number in choice.numbers or ():
        if not 0 <= number < num_examples:
            what = f"there is no example {number}: {choice.split} has {num_examples:,}"
            raise UserError(what, "inspect.numbers", f"numbers from 0 to {num_examples - 1}")


def _with_text(viewer: Viewer, choice: Choice) -> list[int]:
    """Return the first examples that hold a text, in any letter case. Raises: UserError if none does."""
    assert choice.text is not None
    wanted = choice.text.casefold()
    examples = viewer.data.corpus.examples[choice.split]
    found: list[int] = []
    for start in range(0, len(examples), _AT_A_TIME):
        rows = examples.rows(np.arange(start, min(start + _AT_A_TIME, len(examples))))
        ids = [tokens[:length] for tokens, length in zip(rows.tokens, rows.lengths, strict=True)]
        for number, text in enumerate(viewer.tokenizer.batch_decode(ids), start):
            if wanted in text.casefold():
                found.append(number)
                if len(found) == choice.num_examples:
                    return found
    if not found:
        what = f"no example of {choice.split} holds '{choice.text}'"
        where = f"inspect.find={choice.text}, in {len(examples):,} examples"
        raise UserError(what, where, "a shorter text: an example may end in the middle of it")
    return found
