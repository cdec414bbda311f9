"""What may change between a checkpoint and the run that goes on from it."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmft.errors import UserError

log = logging.getLogger("lmft")

# Values that change neither what is trained, nor on what; each with all that is below it. The number of examples a
# step must stay the same, too, which the data module sees to.
FREE = (
    *("run", "resume", "trust", "validate_before", "checkpoint", "nonfinite", "callbacks", "logger"),
    *("data.cache_dir", "data.num_workers", "data.worker_timeout", "data.batch_size", "data.probes"),
    *("data.validation", "data.max_validation_examples"),
    *("model.export", "model.probes", "model.generation", "model.recipe", "model.compile"),
    *("model.gradient_checkpointing", "model.attn_implementation", "trainer"),
)


def check_changes(recorded: Mapping[str, Any], config: Mapping[str, Any], recorded_in: Path) -> None:
    """Log what has changed since a run was trained; raise UserError where that makes it another training.

    recorded, config: of then and of now, both plain and redacted; recorded_in: the checkpoint or config.yaml of then.
    """
    check_bound(recorded, config, recorded_in)
    for key, before, now in _changes(recorded, config, ""):
        if key.partition(".")[0] not in ("run", "resume"):
            log.info("changed since then: %s: %s → %s", key, before, now)


def check_bound(recorded: Mapping[str, Any], config: Mapping[str, Any], recorded_in: Path) -> None:
    """Raise UserError where a value has changed that makes it another training. Arguments as of `check_changes`."""
    bound = [f"{key}: {before} → {now}" for key, before, now in _changes(recorded, config, "") if not _is_free(key)]
    if bound:
        raise UserError(
            f"the run was trained with other settings: {'; '.join(bound[:6])}" + ("; …" if len(bound) > 6 else ""),
            str(recorded_in),
            "take these values back; or a new run from its weights: run.name=NEW model.name_or_path=RUN/model",
        )


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _changes(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """(key with dots, value before, value now) of each value that differs."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _changes(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now:
        yield key, before, now
