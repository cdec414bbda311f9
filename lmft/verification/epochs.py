"""Check the DataLoaders: each example once per epoch, and noise that is fixed only in validation."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader

from lmft.data.batch import Batch
from lmft.objectives.base import Objective
from lmft.objectives.causal import NextToken
from lmft.objectives.pairs import Pairs
from lmft.verification.check import Check, does_not_apply, holds
from lmft.verification.examined import Examined
from lmft.verification.subject import Subject

_NUM_EXAMPLES = 50


def epoch(subject: Subject) -> Iterator[Check]:
    """Count what the loaders give in one epoch of the first examples."""
    for split in _splits(subject):
        name = f"each example once an epoch ({split})"
        examples = _not_a_multiple(subject, split)
        size = subject.parts.data.batch_size
        loader = _loader(subject, split, examples)
        batches = list(loader)
        numbers = [number for chosen in loader.sampler for number in chosen.examples.tolist()]
        num_tokens = sum(batch.num_tokens for batch in batches)
        expected = int(examples.row_lengths.sum())
        figure = f"examples: {len(examples)}, tokens: {expected}, batches of {size}: {len(batches)}"
        if sorted(numbers) != list(range(len(examples))):
            missing = len(set(range(len(examples))) - set(numbers))
            figure = f"{missing} of {len(examples)} examples are in no batch, or some in several"
            yield holds(name, False, figure)
        else:
            told = f"{num_tokens} tokens in the batches, {expected} in the examples"
            yield holds(name, num_tokens == expected, figure if num_tokens == expected else told)


def fixed_noise(subject: Subject) -> Iterator[Check]:
    """Compare two passes over the validation text, and two epochs of training."""
    objective = subject.parts.objective
    for split in _splits(subject):
        is_training = split == "train"
        differs = is_training and not subject.parts.data.fixed_noise
        name = f"noise differs from epoch to epoch ({split})"
        if is_training and not differs:
            name = f"the same noise in every epoch ({split})"
        elif not is_training:
            name = f"the same noise at every validation ({split})"
        measured: Objective = objective.at(0.0) if is_training else objective.for_validation()
        if type(measured) in (NextToken, Pairs):
            yield does_not_apply(name, "nothing is hidden at random")
            continue
        examples = subject.examined(split, _NUM_EXAMPLES, None)
        passes = []
        for number in (0, 1):
            loader = _loader(subject, split, examples)
            loader.sampler.set_epoch(number)  # pyright: ignore[reportAttributeAccessIssue]
            batches = list(loader)
            if is_training:  # in another order in each epoch
                batches = [_first(subject, examples, number)]
            passes.append(batches)
        is_same = _are_equal(*passes)
        num_targets = sum(batch.num_targets for batch in passes[0])
        figure = f"{num_targets} targets, {'the same' if is_same else 'others'} the second time"
        yield holds(name, is_same != differs, figure)


def _splits(subject: Subject) -> list[str]:
    return ["train", *subject.parts.corpus.validations]


def _not_a_multiple(subject: Subject, split: str) -> Examined:
    """Return some examples of a split, whose last batch is not full if that is possible."""
    size = subject.parts.data.batch_size
    count = 3 * size + max(1, size // 2)
    available = len(subject.in_order(split, count))
    if available % size == 0 and available > 1 and size > 1:
        available -= 1
    return subject.examined(split, available, None)


def _loader(subject: Subject, split: str, examples: Examined) -> DataLoader:
    size = subject.parts.data.batch_size
    loaded = subject.parts_of({split: examples}, batch_size=size).datamodule()
    if split == "train":
        return loaded.train_dataloader()
    loaders = loaded.val_dataloader()
    assert isinstance(loaders, DataLoader)
    return loaders


def _first(subject: Subject, examples: Examined, epoch: int) -> Batch:
    return subject.datamodule(examples).batch(range(len(examples)), epoch=epoch)


def _are_equal(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    if len(first) != len(second):
        return False
    return all(map(_is_equal, first, second))


def _is_equal(one: Batch, other: Batch) -> bool:
    inputs = one.inputs.keys() == other.inputs.keys() and all(
        torch.equal(value, other.inputs[name]) for name, value in one.inputs.items()
    )
    return inputs and torch.equal(one.targets, other.targets)
