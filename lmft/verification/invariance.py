"""Check that batch size, padding and other documents in a row do not change a model's losses."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmft.data.batch import Batch
from lmft.objectives.base import IGNORED
from lmft.verification import plain
from lmft.verification.check import Check, does_not_apply, holds, within
from lmft.verification.documents import why_no_documents
from lmft.verification.examined import Examined
from lmft.verification.steps import trainer_for
from lmft.verification.subject import ORIGIN, Subject

_SIZES = (1, 8, 64)
_NUM_SEARCHED = 64  # rows that are searched for several documents
_NUM_LOOKED_UP = 16  # rows whose documents are looked up in the store
_MOST_PACKED = 4  # rows that the model reads
_NUM_VALIDATED = 64  # examples


def perplexity(subject: Subject) -> Iterator[Check]:
    """Compare validations at several batch sizes with one text at a time in transformers."""
    splits = subject.parts.corpus.validations
    if not splits:
        yield does_not_apply("perplexity", "there is no validation text")
    for split in splits:
        _, _, source = split.partition("/")
        examples = subject.examined(split, _NUM_VALIDATED, subject.longest_row(_NUM_VALIDATED))
        expected, num_targets = _plain_loss(subject, examples, split)
        if not num_targets:
            yield does_not_apply(f"perplexity ({split})", "the first examples have no target")
            continue
        for size in _SIZES:
            name = f"perplexity at batch {size}" + (f" of {source}" if source else "")
            scores = _validated(subject, examples, size)
            difference = abs(scores["loss"] - expected)
            figure = f"{scores['perplexity']:.6g}, transformers {math.exp(expected):.6g}"
            figure += f" ({len(examples)} examples, {num_targets} targets)"
            if scores["targets"] != num_targets:
                yield holds(name, False, f"{scores['targets']} targets of {num_targets}")
            else:
                yield within(name, difference, subject.nats_tolerance, figure, ORIGIN)


def _plain_loss(subject: Subject, examples: Examined, split: str) -> tuple[float, int]:
    """Return the mean −log p over all targets by transformers' own loss, and their number."""
    texts = [text for row in subject.alone(examples, split) for text in row if text.num_targets]
    num_targets = sum(text.num_targets for text in texts)
    model = subject.module.model
    with torch.no_grad():
        nats = [float(plain.own_loss(model, text, subject.is_causal)) for text in texts]
    return sum(nats) / max(1, num_targets), num_targets


def _validated(subject: Subject, examples: Examined, size: int) -> dict[str, Any]:
    """Return the scores of lmft's validation in micro-batches of a size."""
    parts = subject.parts_of({"validation": examples}, batch_size=size)
    options = {"limit_val_batches": 1.0, "precision": "32-true"}
    module = subject.module
    validations = module.validations
    scores = module.scores
    module.validations = module.validations[:1]
    module.scores = module.scores[:1]
    try:
        trainer_for(parts, [], 1, **options).validate(module, parts.datamodule(), verbose=False)
    finally:
        module.validations = validations
        module.scores = scores
    measured = module.latest_scores
    return next(iter(measured.get("by_source", {"": measured}).values()))


def padding(subject: Subject) -> Iterator[Check]:
    """Compare each example in a padded batch with the same example alone in transformers."""
    name = "padding changes nothing"
    batch = subject.datamodule(subject.step).batch(range(len(subject.step)))
    num_padding = sum(_num_padded(subject.step, batch).values())
    if not num_padding:
        yield does_not_apply(name, "all rows have the same length, so none is padded")
        return
    found = _nats_by_row(subject, batch)
    expected = subject.nats
    for row, (one, other) in enumerate(zip(found, expected, strict=True)):
        if len(one) != len(other):
            figure = f"example {row + 1} has {len(other)} targets alone and {len(one)} when padded"
            yield holds(name, False, figure)
            return
    difference = float((torch.cat(found) - torch.cat(expected)).abs().max())
    figure = f"one −log p differs by {difference:.1e} at most ({num_padding} padded positions)"
    yield within(name, difference, subject.nats_tolerance, figure, ORIGIN)


def _num_padded(examples: Examined, batch: Batch) -> dict[str, int]:
    """Return the number of padded positions of the rows, and of a decoder's."""
    widest = int(examples.row_lengths.max())
    padded = {"rows": widest * len(examples) - int(examples.row_lengths.sum())}
    if "decoder_input_ids" in batch.inputs:
        padded["decoder"] = batch.inputs["decoder_input_ids"].numel() - batch.num_targets
    return padded


@torch.no_grad()
def _nats_by_row(subject: Subject, batch: Batch) -> list[Tensor]:
    """Return −log p of each target of each row by lmft's module, which computes the whole batch."""
    on_device: Any = {name: value.to(subject.device) for name, value in batch.inputs.items()}
    moved = Batch(
        inputs=on_device,
        target_index=batch.target_index.to(subject.device),
        targets=batch.targets.to(subject.device),
        num_tokens=batch.num_tokens,
        num_padding=batch.num_padding,
        num_targets=batch.num_targets,
    )
    is_target = moved.targets != IGNORED
    scores = subject.module.target_logits(moved)[is_target].log_softmax(-1)
    nats = -scores.gather(1, moved.targets[is_target][:, None])[:, 0]
    num_rows = len(batch.inputs["input_ids"])
    width = plain.num_predictions(batch.inputs)
    row = moved.target_index[is_target] // width
    return [nats[row == number] for number in range(num_rows)]


def packing(subject: Subject) -> Iterator[Check]:
    """Compare documents that share a row with each of them alone in transformers."""
    name = "packed equals alone"
    if not subject.parts.data.isolate_documents:
        why = "documents in a row may see each other (data.isolate_documents=false)"
        if subject.parts.data.examples == "lines" or "pairs" in subject.parts.data.formats:
            why = "each row is one document"
        yield does_not_apply(name, why)
        return
    examples, holds_several = _with_several_documents(subject)
    if reason := _why_kept_apart_wrongly(subject, examples):
        yield holds(name, False, reason)
        return
    if not holds_several:
        yield does_not_apply(name, "no row of the first ones holds two documents")
        return
    num_affordable = subject.affordable * len(examples) // examples.num_tokens
    examples = examples.first(min(_MOST_PACKED, max(1, num_affordable)))
    texts = subject.alone(examples)
    batch = subject.datamodule(examples).batch(range(len(examples)))
    found = torch.cat(_nats_by_row(subject, batch))
    expected = torch.cat([subject.nats_of(row) for row in texts])
    if len(found) != len(expected):
        yield holds(name, False, f"{len(expected)} targets alone, {len(found)} when packed")
        return
    difference = float((found - expected).abs().max())
    num_documents = sum(map(len, texts))
    figure = f"one −log p differs by {difference:.1e} at most ({num_documents} documents"
    figure += f" in {len(examples)} rows)"
    yield within(name, difference, subject.nats_tolerance, figure, ORIGIN)


def _why_kept_apart_wrongly(subject: Subject, examples: Examined) -> str | None:
    """Return why rows are kept apart elsewhere than between the documents of the store."""
    rows = examples.rows(np.arange(len(examples)))
    assert rows.documents is not None
    for number, (tokens, documents, length) in enumerate(
        zip(rows.tokens, rows.documents, rows.lengths, strict=True)
    ):
        begins = np.flatnonzero(np.diff(documents[:length], prepend=-1)).tolist()
        bounds = [*begins, int(length)]
        if reason := why_no_documents(subject.parts, tokens, bounds):
            return f"row {number + 1}: {reason}"
    return None


def _with_several_documents(subject: Subject) -> tuple[Examined, bool]:
    """Return some of the first examples, those of several documents if there are any; and if so."""
    examples = subject.examined("train", _NUM_SEARCHED, None)
    rows = examples.rows(np.arange(len(examples)))
    assert rows.documents is not None
    counts = np.array([len(np.unique(row[row >= 0])) for row in rows.documents])
    chosen = np.argsort(counts < 2, kind="stable")[:_NUM_LOOKED_UP]
    pad_id = subject.parts.vocabulary.pad_id
    return Examined(examples.examples, examples.numbers[chosen], None, pad_id), bool(counts.max() > 1)
