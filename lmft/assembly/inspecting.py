"""Examples that a training reads and predicts, as plain data, without the model's weights."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from lmft.assembly.from_config import assemble
from lmft.assembly.parts import Parts
from lmft.config.schema import build
from lmft.data.config import DataConfig, Split
from lmft.data.loading import load_corpus
from lmft.data.schedule.course import Course
from lmft.errors import UserError, did_you_mean
from lmft.inspection import Choice, Viewer, add_rows, chosen, read_documents, statistics
from lmft.reporting.phase import phase

_MOST_WORDS = 1000  # documents whose words are counted


def inspected(
    config: dict[str, Any], texts: Sequence[str] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return batches of a training as plain data, and statistics of its text.

    Args:
        config: of the training.
        texts: texts to show instead of those of the config; None: none.
        options: those of `inspect`.

    Returns: `batches`, as `Viewer.batch` returns them, each with its `position` in the epoch;
        `statistics` of each split and its `ledger`; `objective`, `model` and `tokenizer` by name.

    Raises: UserError.
    """
    if texts is None:
        parts = assemble(config)
        with phase("choosing examples"):
            batches = _batches(parts, options)
        with phase("counting tokens and words"):
            return {**_facts(parts), "batches": batches, **_of_corpus(parts, options)}
    parts = assemble(config, splits=())
    with _with_texts(parts, texts) as own:
        every = len(own.corpus.examples["train"])
        wanted = {**options, "examples": every, "numbers": None, "find": None, "split": "train"}
        return {**_facts(own), "batches": _batches(own, wanted), "ledger": {}, "statistics": {}}


def _facts(parts: Parts) -> dict[str, Any]:
    """Return what is shown, in words."""
    objective = parts.objective
    shown = vars(objective) if hasattr(objective, "__dict__") else {}
    simple = {
        name: value for name, value in shown.items() if isinstance(value, int | float | str | None)
    }
    return {
        "objective": {"name": type(objective).__name__, "options": simple},
        "model": Path(parts.model.name_or_path or parts.hf_config.model_type).name,
        "tokens": len(parts.tokenizer),
    }


def _batches(parts: Parts, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    split = options["split"]
    known = parts.corpus.examples
    if split not in known:
        what = f"inspect.split={split} is unknown{did_you_mean(str(split), known)}"
        raise UserError(what, fix=f"one of: {', '.join(known)}")
    choice = Choice(
        split=split,
        num_examples=options["examples"],
        num_epochs=options["epochs"],
        numbers=options["numbers"],
        text=options["find"],
        accumulate=parts.config["trainer"]["accumulate_grad_batches"],
        course=_course(parts),
    )
    data = parts.datamodule()
    viewer = Viewer(data, parts.tokenizer, parts.module_class.family.is_causal)
    batches = [
        {**viewer.batch(split, micro_batch), "position": position}
        for position, micro_batch in chosen(viewer, choice)
    ]
    _add_rows(parts, split, batches)
    return batches


def _add_rows(parts: Parts, split: str, batches: Sequence[Mapping[str, Any]]) -> None:
    """Add files and rows to the documents, and roles to the tokens of chats."""
    by_split: dict[str, list[dict[str, Any]]] = {}
    mixture = parts.corpus.mixture if split == "train" else None
    for batch in batches:
        for example in batch["examples"]:
            own = split
            if mixture is not None:
                own = f"train/{mixture.source_of(example['number'])}"
            by_split.setdefault(own, []).append(example)
    for own, examples in by_split.items():
        side, config = _source(parts, own)
        add_rows(examples, config, side, parts.tokenizer, parts.objective)
        _, _, name = own.partition("/")
        for document in (each for example in examples for each in example["documents"] if name):
            document["source"] = name
            document["place"] = f"{name}: {document['place']}"


def _source(parts: Parts, split: str) -> tuple[Split, DataConfig]:
    """Return the side of a split, and the options of its source: of `train/NAME`, those of NAME."""
    side, _, name = split.partition("/")
    config = parts.data.by_source()[name] if name else parts.data
    return cast(Split, side), config


def _course(parts: Parts) -> Course:
    """Return the course of the training, by which an objective's rates may change."""
    if "train" not in parts.corpus.examples:
        return Course()
    layout = parts.layout()
    num_steps = min(parts.step_limits().values(), default=0)
    return Course(layout.num_used, layout.accumulate, num_steps)


def _of_corpus(parts: Parts, options: Mapping[str, Any]) -> dict[str, Any]:
    corpus = parts.corpus
    found = {}
    for split, documents in corpus.documents.items():
        if split not in corpus.examples:
            continue
        side, config = _source(parts, split)
        numbers = documents.numbers[:_MOST_WORDS].tolist()
        found[split] = statistics(
            documents,
            corpus.examples[split],
            parts.tokenizer,
            parts.vocabulary,
            read_documents(numbers, config, side, parts.tokenizer, parts.objective),
            options["tokens"],
        )
    return {"ledger": corpus.ledger, "statistics": found}


@contextmanager
def _silent(*_: Any) -> Iterator[Callable[[int], None]]:
    """Show no progress: the texts of a command line are short."""
    yield lambda _: None


@contextmanager
def _with_texts(parts: Parts, texts: Sequence[str]) -> Iterator[Parts]:
    """Yield parts whose training text is these texts, each an example of its own; nothing is kept.

    Raises: UserError if the objective needs pairs.
    """
    if parts.objective.needs_pairs:
        what = "text= is one text, and this objective needs pairs of a source and a target"
        raise UserError(what, fix="leave text= out, or choose another objective")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "text.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        options = {
            "train": str(file),
            "validation_fraction": 0,
            "examples": "lines",
            "block_size": parts.data.block_size,
            "batch_size": parts.data.batch_size,
            "cache_dir": folder,
        }
        data = build(DataConfig, options, "data")
        seed = parts.config["seed"]
        corpus = load_corpus(data, parts.tokenizer, parts.objective, seed, _silent, ("train",))
        yield replace(parts, data=data, corpus=corpus)
