"""Check the targets: the tokens of the text itself, and of chats only the answers."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmft.objectives.base import Objective
from lmft.objectives.fim import SENTINELS
from lmft.objectives.span_corruption import sentinel_ids
from lmft.verification.check import Check, does_not_apply, holds
from lmft.verification.restoring import Tokens, rule_of
from lmft.verification.rows import Row, rows_of
from lmft.verification.subject import Subject

_NUM_EXAMPLES = 64


def targets(subject: Subject) -> Iterator[Check]:
    """Put the targets of the first examples back into the inputs, and compare with the text."""
    objective = subject.parts.objective
    splits = {"train": objective.at(0.0)}
    for split in subject.parts.corpus.validations:
        splits[split] = objective.for_validation()
    for split, measured in splits.items():
        yield _of_split(subject, split, measured)


def tokens_of(subject: Subject) -> Tokens:
    """Return what the rules need to know of the tokenizer, asked of the tokenizer itself."""
    tokenizer: Any = subject.parts.tokenizer
    sentinels = sentinel_ids(tokenizer.get_vocab())
    known = tokenizer.get_vocab()
    fim = next((names for names in SENTINELS if all(name in known for name in names)), ())
    special_ids = frozenset([*tokenizer.all_special_ids, *sentinels.values()])
    return Tokens(
        special_ids=special_ids,
        num_ordinary=len(set(known.values()) - special_ids),
        mask_id=tokenizer.mask_token_id,
        end_id=tokenizer.eos_token_id,
        start_id=getattr(subject.module.model.config, "decoder_start_token_id", None),
        sentinels=list(sentinels.values()),
        fim=[known[name] for name in fim],
    )


def _of_split(subject: Subject, split: str, objective: Objective) -> Check:
    name = f"targets restore the text ({split})"
    rule = rule_of(objective)
    if rule is None:
        kind = type(objective).__name__
        return does_not_apply(name, f"lmft does not know the rule of {kind}, which is not its own")
    examples = subject.examined(split, _NUM_EXAMPLES, None)
    made_of = examples.rows(np.arange(len(examples)))
    loaded = subject.parts_of({split: examples}, batch_size=len(examples)).datamodule()
    batch = loaded.batch(range(len(examples)), split=split)
    tokens = tokens_of(subject)
    num_targets = 0
    for number, row in enumerate(rows_of(batch, made_of)):
        reason = rule(row, tokens)
        if reason is None:
            (alone,) = rows_of(loaded.batch([number], split=split), examples.rows(np.array([number])))
            reason = _difference(row, alone)
        if reason is not None:
            text = subject.parts.tokenizer.decode(row.text[:40])
            return holds(name, False, f"example {number + 1}: {reason}", (f"its text: {text}",))
        num_targets += len(row.targets)
    return holds(name, True, f"{num_targets} targets of {len(examples)} examples")


def _difference(row: Row, alone: Row) -> str | None:
    """Return whether an example in a batch is another one than by itself."""
    if not np.array_equal(row.shown, alone.shown):
        return "it shows other tokens in a batch than alone"
    is_same = np.array_equal(row.columns, alone.columns) and np.array_equal(row.targets, alone.targets)
    if not is_same:
        return f"it has {len(row.targets)} targets in a batch and others, {len(alone.targets)}, alone"
    return None
