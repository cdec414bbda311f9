"""Find the checkpoint that a run resumes from, and compare its settings with the present ones."""

import glob
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmft.config.shipped import with_defaults
from lmft.errors import UserError
from lmft.runs import checkpoints
from lmft.runs.folder import RunFolder, existing_run
from lmft.system.files import read_yaml

log = logging.getLogger(__name__)
# Options of the trainer that end a training.
_ENDINGS = (
    *("max_epochs", "max_steps", "max_tokens", "min_epochs", "min_steps", "max_time"),
    "limit_train_batches",
)

# Options, or groups of options, that may change on resume: they change neither the model nor its
# training text. The number of examples per step must stay the same too, which the DataModule checks.
FREE = (
    *(
        "run",
        "resume",
        "branch",
        "trust",
        "validate_before",
        "checkpoint",
        "nonfinite",
        "callbacks",
        "logger",
    ),
    *("data.cache_dir", "data.num_workers", "data.worker_timeout", "data.batch_size", "data.probes"),
    *("data.prepare_processes", "data.prepare_job"),
    *("data.validation", "data.max_validation_examples"),
    *("model.export", "model.export_dtype", "model.license", "model.probes", "model.generation"),
    *("model.recipe", "model.compile", "model.cuda_graphs"),
    *("model.gradient_checkpointing", "model.attn_implementation", "trainer"),
)

# Options, or groups of options, that a branch may change besides those that may change on resume.
FREE_IN_BRANCH = (*FREE, "seed", "data", "objective", "optimizer", "scheduler")
# Values of the Hugging Face config that change neither the shape of a weight nor what it is for.
_POSITIONS = (
    *("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions"),
    *("max_encoder_position_embeddings", "max_decoder_position_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "global_rope_theta", "local_rope_theta"),
    *("local_attention", "sliding_window"),
)
_DROPOUTS = ("dropout", "dropout_prob", "pdrop", "dropout_rate")


# Options that name a file or folder, or several; some may be an id of the hub or other words instead.
_PATHS = (
    *("data.path", "model.name_or_path", "model.tokenizer.name_or_path", "data.chat_template"),
    *("data.train", "data.validation", "model.shape_from", "model.tokenizer.add_tokens"),
)
# An option of one source of a mixture means what the option of the same name means without a mixture.
_SOURCE = re.compile(r"data\.sources\.[^.]+\.")


def log_changes(
    recorded: Mapping[str, Any],
    config: Mapping[str, Any],
    recorded_in: Path,
    since: str = "changed since this run was started",
) -> None:
    """Log which settings have changed since a run was started.

    Args:
        recorded: the config of the earlier training, plain and redacted.
        config: the present config, plain and redacted.
        recorded_in: the checkpoint or config.yaml with the earlier config.
        since: how the lines begin.
    """
    for key, before, now in _changes(recorded, config, recorded_in):
        if key.partition(".")[0] not in ("run", "resume", "branch"):
            log.info("%s: %s: %s → %s", since, key, before, now)


def check_bound(recorded: Mapping[str, Any], config: Mapping[str, Any], recorded_in: Path) -> None:
    """Raise UserError if a setting has changed that must not; arguments as of `log_changes`."""
    changes = {
        key: f"{key}: {before} → {now}"
        for key, before, now in _changes(recorded, config, recorded_in)
        if not _is_free(key) and not _may_have_moved(key, before, now)
    }
    if changes:
        fix = "restore these values; or start a new run from its weights: "
        if all(map(_is_free_in_branch, changes)):
            fix += (
                "run.name=NEW resume=RUN branch=true, with its optimizer's state and place in the text"
            )
        else:
            fix += "run.name=NEW model.name_or_path=RUN/model"
        what = f"the run was trained with other settings: {_listed(changes)}"
        raise UserError(what, str(recorded_in), fix)


def check_bound_of_branch(
    recorded: Mapping[str, Any], config: Mapping[str, Any], recorded_in: Path
) -> None:
    """Raise UserError if a branch changes what it must keep; arguments as of `log_changes`."""
    changes = {
        key: f"{key}: {before} → {now}"
        for key, before, now in _changes(recorded, config, recorded_in)
        if not _is_free_in_branch(key)
    }
    if changes:
        raise UserError(
            f"a branch keeps its parent's vocabulary and architecture: {_listed(changes)}",
            str(recorded_in),
            "restore these values: data, objective, optimizer, scheduler, trainer, seed, and in "
            "model.config positions and dropout may change; a new model: model.name_or_path=RUN/model",
        )


def _listed(changes: Mapping[str, str]) -> str:
    lines = list(changes.values())
    if len(lines) > 6:
        lines[6:] = ["…"]
    return "; ".join(lines)


def _is_free(key: str) -> bool:
    key = _SOURCE.sub("data.", key)
    return _is_in(key, FREE)


def _is_free_in_branch(key: str) -> bool:
    name = key.rpartition("model.config.")[2].partition(".")[0]
    is_kept_shape = name in _POSITIONS or name.endswith(_DROPOUTS)
    return _is_in(key, FREE_IN_BRANCH) or (key.startswith("model.config.") and is_kept_shape)


def _is_in(key: str, groups: Sequence[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _changes(
    recorded: Mapping[str, Any], config: Mapping[str, Any], recorded_in: Path
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (key with dots, value before, value now) for each value that differs.

    Paths are the same if they lead to the same place.
    """
    start = _start_folder(recorded, recorded_in)
    for key, before, now in _differences(with_defaults(recorded), config, ""):
        is_same_place = (
            _SOURCE.sub("data.", key) in _PATHS
            and before is not None
            and start is not None
            and _located(before, start) == _located(now, Path.cwd())
        )
        if not is_same_place:
            yield key, before, now


def _differences(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            inner_key = f"{key}.{name}" if key else str(name)
            yield from _differences(before.get(name), now.get(name), inner_key)
    elif before != now:
        yield key, before, now


def _start_folder(recorded: Mapping[str, Any], recorded_in: Path) -> Path | None:
    """Return the folder in which a run was started: there its `run.dir` led to the run's own folder.

    None if `run.dir` does not tell it: an absolute path, or one with `..`.
    """
    options = recorded.get("run") or {}
    folder = recorded_in.resolve().parent
    if recorded_in.suffix == ".ckpt":
        folder = folder.parent
    relative = Path(str(options.get("dir", ""))) / str(options.get("name") or folder.name)
    if relative.is_absolute() or folder.parts[-len(relative.parts) :] != relative.parts:
        return None
    return folder.parents[len(relative.parts) - 1]


def _located(value: Any, start: Path) -> list[str]:
    """Return the absolute paths of an option's value; what may be no path remains as it is."""
    names = value if isinstance(value, list) else [value]
    paths = [start / Path(str(name)).expanduser() for name in names]
    is_path = [path.exists() or glob.has_magic(str(path)) for path in paths]
    return [
        str(path.resolve()) if known else str(name)
        for path, name, known in zip(paths, names, is_path, strict=True)
    ]


def _may_have_moved(key: str, before: Any, now: Any) -> bool:
    """Return whether the training text is named by another path to files of the same names.

    Whether it is the same text is checked when the checkpoint is loaded.
    """
    key = _SOURCE.sub("data.", key)
    if key not in ("data.train", "data.path") or None in (before, now):
        return False
    if key == "data.path" and not Path(str(now)).expanduser().exists():
        return False
    names_before = before if isinstance(before, list) else [before]
    names_now = now if isinstance(now, list) else [now]
    return [Path(str(name)).name for name in names_before] == [
        Path(str(name)).name for name in names_now
    ]


def recorded_settings(run: RunFolder) -> dict[str, Any]:
    """Return the config that a run was trained with, without secrets."""
    return read_yaml(run.config)


def ends_alike(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether all that can end a training is unchanged: steps, epochs and callbacks.

    recorded, config: earlier and present config, both plain and redacted.
    """
    before = {**recorded["trainer"], **recorded["callbacks"]}
    now = {**config["trainer"], **config["callbacks"]}
    names = {*_ENDINGS, *recorded["callbacks"], *config["callbacks"]}
    return all(before.get(name) == now.get(name) for name in names)


def checkpoint_to_resume(run: RunFolder, name: str, resume: str) -> Path | None:
    """Return the checkpoint to continue from; None to start from the beginning.

    Only a valid checkpoint is taken; invalid ones are logged.

    Args:
        run: the run's folder.
        name: the run's name, for messages.
        resume: `auto`: the newest of this run, if any; `must`: the newest of this run, an error without
            one; `never`: none, an error if the run has one; else a .ckpt file, or a run's folder, whose
            newest is taken.

    Raises: UserError.
    """
    if resume in ("auto", "must"):
        newest = newest_checkpoint(run)
        if newest is None and resume == "must":
            fix = "resume=auto starts from the beginning"
            raise UserError(f"no checkpoint in {run.checkpoints}", "resume=must", fix)
        return newest
    chosen = None if resume == "never" else checkpoint_at(Path(resume))
    saved = [*sorted(run.checkpoints.glob("*.ckpt")), *filter(Path.exists, [run.model])]
    if saved and (chosen is None or run.path.resolve() not in chosen.resolve().parents):
        fix = "another run.name, or resume=auto to continue"
        raise UserError(f"run name '{name}' is in use", f"{saved[0]} would be overwritten", fix)
    return chosen


def newest_checkpoint(run: RunFolder) -> Path | None:
    """Return the newest valid checkpoint of a run; None if it has saved none. Reads the whole file.

    Invalid ones that were skipped are logged. Raises: UserError if all are invalid.
    """
    newest, errors = checkpoints.newest_valid(run.checkpoints)
    if newest is None and errors:
        fix = (
            "resume=PATH of another checkpoint and another run.name; another run.name alone starts over"
        )
        raise UserError(f"no checkpoint is valid: {'; '.join(errors)}", str(run.checkpoints), fix)
    if newest is not None and errors:
        log.warning("%s; resuming from %s", "; ".join(errors), newest.name)
    elif newest is not None and newest.name != checkpoints.LAST:
        log.warning("%s is missing; resuming from %s", checkpoints.LAST, newest.name)
    return newest


def checkpoint_at(path: Path) -> Path:
    """Return the checkpoint in a .ckpt file, or the newest in a run's folder. Raises: UserError."""
    if path.is_file():
        if not checkpoints.checksum_file(path).exists():
            log.warning("%s has no checksum file, so it cannot be checked", path)
        elif reason := checkpoints.why_invalid(path):
            fix = "name another .ckpt file or a run's folder"
            raise UserError(f"{path} is broken ({reason})", "resume", fix)
        return path
    if path.suffix == ".ckpt":
        raise UserError(f"no such checkpoint: {path}", "resume", "name a .ckpt file or a run's folder")
    newest = newest_checkpoint(existing_run(path))
    if newest is None:
        raise UserError(f"the run in {path} has no checkpoint", "resume")
    return newest
