"""Compare what the validations of runs measure: whether the scores of two runs can be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from hydra.errors import InstantiationException

from lmft.comparison.records import Record, as_key, flattened, is_within
from lmft.config.shipped import with_defaults
from lmft.config.trust import trusted_instance
from lmft.errors import UserError

# Options of `data` that leave the validation text as it is.
_NOT_OF_TEXT = (
    *("data.batch_size", "data.num_workers", "data.worker_timeout", "data.cache_dir", "data.probes"),
    *("data.probe_conversations", "data.prepare_processes", "data.prepare_job"),
    *("data.block_size", "data.examples", "data.stride", "data.isolate_documents", "data.too_long"),
    *("data.max_train_examples", "data.epoch"),
)
_OF_VOCABULARY = ("algorithm", "vocab_size", "lowercase", "strip_accents", "special_tokens")


@dataclass(frozen=True)
class Measured:
    """The text and the units of a validation. Runs for which all of it is equal are ranked together."""

    text: str
    """The validation texts by their documents and bytes; "" if no ledger tells them."""
    vocabulary: str
    """Their tokens, and how the vocabulary was trained."""
    task: str
    """What is predicted: the objective of validation, the answers or all tokens, weights of sources."""


def measured_by(records: Sequence[Record]) -> dict[str, Measured]:
    """Return name of a run -> what its validation measures.

    The ledger of a run that has not ended is not known: it measures what a run of the same options for
    text, tokenizer and objective measures.
    """
    found = {record.name: _measured(record) for record in records}
    of_options = {}
    for record in records:
        if found[record.name].text:
            of_options.setdefault(_options(record), found[record.name])
    return {
        record.name: of_options.get(_options(record), found[record.name])
        if not found[record.name].text
        else found[record.name]
        for record in records
    }


def _measured(record: Record) -> Measured:
    config = with_defaults(record.config)
    texts = {split: (of.get("documents"), of.get("bytes")) for split, of in record.texts.items()}
    tokens: dict[str, Any] = {split: of.get("tokens") for split, of in record.texts.items()}
    tokenizer = (config.get("model") or {}).get("tokenizer") or {}
    if tokenizer.get("train"):
        tokens |= {name: tokenizer.get(name) for name in _OF_VOCABULARY}
    return Measured(as_key(texts) if texts else "", as_key(tokens), _task(config))


def _task(config: Mapping[str, Any]) -> str:
    data = config.get("data") or {}
    sources = data.get("sources") or {}
    task = {
        "objective": _objective_of_validation(config),
        "family": (config.get("model") or {}).get("family"),
        "data.train_on": data.get("train_on"),
        "data.validate_on_train": data.get("validate_on_train"),
        "weights": {name: (source or {}).get("weight", 1.0) for name, source in sources.items()},
    }
    return ", ".join(f"{name}={value}" for name, value in task.items() if value)


def _objective_of_validation(config: Mapping[str, Any]) -> str:
    """Return the objective by which validations measure, with all of its options."""
    node = config.get("objective") or {}
    family = (config.get("model") or {}).get("family")
    if "_target_" not in node:
        return as_key(node)
    try:
        objective = trusted_instance(node, (), "objective")
    except (UserError, InstantiationException):  # one's own class, or one of another version
        return as_key(node)
    measured = (objective.for_family(family) or objective).for_validation()
    if not is_dataclass(measured):
        return as_key(node)
    # What an objective says of validations is in its variant for them.
    kept = [each.name for each in fields(measured) if not each.name.startswith("validation_")]
    options = ", ".join(f"{name}={getattr(measured, name)}" for name in kept)
    return f"{type(measured).__name__}({options})"


def _options(record: Record) -> str:
    """Return the options that decide what is measured."""
    flat = flattened(with_defaults(record.config))
    groups = ("data", "model.tokenizer", "model.name_or_path", "model.family", "objective")
    chosen = {
        key: value
        for key, value in flat.items()
        if is_within(key, groups) and not is_within(key, _NOT_OF_TEXT)
    }
    return as_key(chosen)
