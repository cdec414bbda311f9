"""Which checkpoint a run continues from, and whether its settings may have changed since."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lmft.errors import UserError
from lmft.runs import checkpoints
from lmft.runs.folder import RunFolder, existing_run

log = logging.getLogger(__name__)
# Of a trainer.
_ENDINGS = ("max_epochs", "max_steps", "min_epochs", "min_steps", "max_time", "limit_train_batches")

# Values that change neither what is trained, nor on what; each with all that is below it. The number of
# examples a step must stay the same, too, which the data module sees to.
FREE = (
    *("run", "resume", "trust", "validate_before", "checkpoint", "nonfinite", "callbacks", "logger"),
    *("data.cache_dir", "data.num_workers", "data.worker_timeout", "data.batch_size", "data.probes"),
    *("data.validation", "data.max_validation_examples"),
    *("model.export", "model.probes", "model.generation", "model.recipe", "model.compile"),
    *("model.gradient_checkpointing", "model.attn_implementation", "trainer"),
)


def check_changes(recorded: Mapping[str, Any], config: Mapping[str, Any], recorded_in: Path) -> None:
    """Log what has changed since a run was trained; raise UserError where that makes it another training.

    recorded, config: of then and of now, both plain and redacted; recorded_in: the checkpoint or config.yaml
    of then.
    """
    check_bound(recorded, config, recorded_in)
    for key, before, now in _changes(recorded, config, ""):
        if key.partition(".")[0] not in ("run", "resume"):
            log.info("changed since then: %s: %s → %s", key, before, now)


def check_bound(recorded: Mapping[str, Any], config: Mapping[str, Any], recorded_in: Path) -> None:
    """Raise UserError where a value has changed that makes it another training. Arguments as of
    `check_changes`.
    """
    bound = [
        f"{key}: {before} → {now}" for key, before, now in _changes(recorded, config, "") if not _is_free(key)
    ]
    if bound:
        raise UserError(
            f"the run was trained with other settings: {'; '.join(bound[:6])}"
            + ("; …" if len(bound) > 6 else ""),
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


def recorded_settings(run: RunFolder) -> dict[str, Any]:
    """Return the config that a run was trained with, without secrets."""
    return yaml.safe_load(run.config.read_text("utf-8"))


def ends_alike(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether what ends a training has not changed: numbers of steps and epochs, and callbacks.

    recorded, config: of then and of now, both plain and redacted.
    """
    before = {**recorded["trainer"], **recorded["callbacks"]}
    now = {**config["trainer"], **config["callbacks"]}
    names = {*_ENDINGS, *recorded["callbacks"], *config["callbacks"]}
    return all(before.get(name) == now.get(name) for name in names)


def checkpoint_to_resume(run: RunFolder, name: str, resume: str) -> Path | None:
    """Return the checkpoint to continue from; None to start from the beginning.

    Only a valid checkpoint is taken; the log says which were not.

    Args:
        run: the run's folder.
        name: the run's name, for messages.
        resume: `auto`: the newest of this run, if any; `must`: likewise, and there has to be one; `never`:
            none, and there must not be one; else a .ckpt file, or a run's folder, whose newest is taken.

    Raises: UserError.
    """
    if resume in ("auto", "must"):
        newest = newest_checkpoint(run)
        if newest is None and resume == "must":
            fix = "resume=auto starts from the beginning"
            raise UserError(f"no checkpoint in {run.checkpoints}", "resume=must", fix)
        return newest
    chosen = None if resume == "never" else _checkpoint_at(Path(resume))
    saved = [*sorted(run.checkpoints.glob("*.ckpt")), *filter(Path.exists, [run.model])]
    if saved and (chosen is None or run.path.resolve() not in chosen.resolve().parents):
        fix = "another run.name, or resume=auto to continue"
        raise UserError(f"run name '{name}' is in use", f"{saved[0]} would be overwritten", fix)
    return chosen


def newest_checkpoint(run: RunFolder) -> Path | None:
    """Return the newest valid checkpoint of a run; None if it has saved none. Reads the file for its
    checksum.

    The log says which invalid ones were skipped. Raises: UserError if all are invalid.
    """
    newest, wrong = checkpoints.newest_valid(run.checkpoints)
    if newest is None and wrong:
        fix = (
            "resume=PATH of another checkpoint and another run.name, or another run.name alone to begin anew"
        )
        raise UserError(f"no checkpoint is whole: {'; '.join(wrong)}", str(run.checkpoints), fix)
    if newest is not None and wrong:
        log.warning("%s; resuming from %s", "; ".join(wrong), newest.name)
    elif newest is not None and newest.name != checkpoints.LAST:
        log.warning("%s is missing; resuming from %s", checkpoints.LAST, newest.name)
    return newest


def _checkpoint_at(path: Path) -> Path:
    """Return the checkpoint in a .ckpt file, or the newest in a run's folder. Raises: UserError."""
    if path.is_file():
        if not checkpoints.checksum_file(path).exists():
            log.warning("%s has no checksum file, so it cannot be checked", path)
        elif why := checkpoints.why_invalid(path):
            raise UserError(
                f"{path} is broken ({why})", "resume", "name another .ckpt file or a run's folder"
            )
        return path
    if path.suffix == ".ckpt":
        raise UserError(f"no such checkpoint: {path}", "resume", "name a .ckpt file or a run's folder")
    newest = newest_checkpoint(existing_run(path))
    if newest is None:
        raise UserError(f"the run in {path} has no checkpoint", "resume")
    return newest
