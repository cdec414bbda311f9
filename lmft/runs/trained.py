"""The config of a finished run, for evaluating it and predicting with it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmft.config import contradictions, trust
from lmft.errors import UserError
from lmft.runs import checkpoints
from lmft.runs.folder import RunFolder, existing_run
from lmft.system.files import read_yaml

log = logging.getLogger(__name__)


def config_to_use(
    config: Mapping[str, Any], overrides: Sequence[str], own: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the config for using a trained model: that of the run if `run` is given, else `config`
    itself.

    Args:
        config: the config of the present command.
        overrides: the `key=value` arguments of that command.
        own: options of the command that a run's config has under the same names for its training.

    Raises: UserError if neither a run nor a model is named, or both; and as `trust.check` and
        `contradictions.check`.
    """
    used = _of_run_or_model(config, overrides)
    trust.check(used, overrides)
    contradictions.check(used, overrides)
    return {**used, **{name: config[name] for name in own}}


def _of_run_or_model(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    if config["run"] is not None:
        _check_names_no_model(overrides)
        return recorded_config(Path(str(config["run"])), config, overrides)
    if _chosen_checkpoint(config) is not None:
        what = "checkpoint= names a checkpoint of a run, and there is no run="
        raise UserError(what, f"checkpoint={config['checkpoint']}", "add run=…")
    if config["model"]["name_or_path"] is None:
        raise UserError(
            "no model is named", fix="add run=runs/NAME, or model.name_or_path=FOLDER_OR_HUB_ID"
        )
    return dict(config)


def _check_names_no_model(overrides: Sequence[str]) -> None:
    """Raise UserError if overrides name another model than the run's."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in ("model", "model.name_or_path", "model.from_scratch", "model.architecture"):
            raise UserError(f"run= and {key}= name two models", override, "leave one of them out")


def recorded_config(path: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config to use the finished run in folder `path` with.

    It is the run's own, but its group `model` loads the run's folder model/ or, if `config` names a
    `checkpoint`, builds the model as for training, so that the checkpoint's weights can be loaded; its
    `checkpoint` then lists files, of which the mean is taken.
    Device, cache, callbacks and loggers are those of `config`, as is every key in `overrides`:
    `data=wikitext2` copies the whole group, `data.batch_size=8` one value.

    Args:
        path: the run's folder.
        config: the config of the present command.
        overrides: the `key=value` arguments of that command.

    Raises: UserError if there is no run or no trained model.
    """
    run = existing_run(path)
    recorded: dict[str, Any] = read_yaml(run.config)
    chosen = _chosen_checkpoint(config)
    if chosen is not None:
        recorded["model"] = _as_trained(recorded["model"], run)
        if chosen == checkpoints.EXPORTED_NAME and recorded["model"].get("lora", {}).get("merge", True):
            lora = {**recorded["model"].get("lora", {}), "r": 0}  # its adapters are merged already
            recorded["model"] = {**recorded["model"], "lora": lora}
    else:
        recorded["model"] = _as_exported(recorded["model"], run)
    copied = [key for key in config if key not in recorded]
    copied += [*_OF_COMMAND, *(override.lstrip("+~").partition("=")[0] for override in overrides)]
    for key in copied:
        _copy_value(key.split("."), config, recorded)
    for name in _OF_TRAINER:
        if name not in config:  # the command has no Trainer
            recorded.pop(name, None)
    paths = [] if chosen is None else run.checkpoints_named(chosen)
    recorded["checkpoint"] = [str(path) for path in paths]
    return recorded


def config_of_beginning(
    path: Path, config: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Return the config that builds the model that a run's training began with, without adapters.

    Arguments, and errors, as of `recorded_config`.
    """
    run = existing_run(path)
    used = recorded_config(path, {**config, "checkpoint": None}, overrides)
    trained = read_yaml(run.config)["model"]
    lora = {**trained.get("lora", {}), "r": 0}
    return {**used, "model": {**_as_trained(trained, run), "lora": lora, "freeze": []}}


_OF_TRAINER = ("callbacks", "logger")
# Options of the present command that replace those of the run.
_OF_COMMAND = (
    *("run", "trainer", *_OF_TRAINER, "trust"),
    *("model.trust_remote_code", "data.cache_dir"),
)


# Options of a tokenizer that is read as it was saved.
_AS_IT_IS = {"train": False, "replace": False, "add_tokens": [], "warm_up_steps": 0}


def _chosen_checkpoint(config: Mapping[str, Any]) -> str | int | None:
    """Return the checkpoint that an evaluation or a prediction names; None if it names none."""
    chosen = config.get("checkpoint")
    return chosen if isinstance(chosen, str | int) else None  # a mapping is the group of a training


def _as_trained(recorded: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    """Return the group `model` that builds the run's model as it was for training."""
    if not run.tokenizer.is_dir():
        return recorded
    tokenizer = {**recorded["tokenizer"], "name_or_path": str(run.tokenizer), **_AS_IT_IS}
    if not recorded["from_scratch"]:
        tokenizer["replace"] = recorded["tokenizer"].get("replace", False)
    return {**recorded, "tokenizer": tokenizer}


def _as_exported(recorded: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    """Return the group `model` that loads the model that the run has exported."""
    if not run.model.is_dir():
        what = f"the run has no model yet (status: {run.status() or 'unfinished'})"
        fix = f"finish it with the command in {run.command}, or add checkpoint=last"
        raise UserError(what, str(run.path), fix)
    changes = {
        "name_or_path": str(run.model),
        "from_scratch": False,
        "shape_from": None,
        "freeze": [],
    }
    changes["lora"] = {**recorded.get("lora", {}), "r": 0}
    # If only adapters were exported, their base model is loaded as it was for training.
    if not (run.model / "adapter_config.json").exists():
        changes["config"] = {}
        if not recorded.get("trust_remote_code"):  # remote code is still loaded from its revision
            changes["revision"] = None
    tokenizer = {**recorded["tokenizer"], "name_or_path": str(run.model), **_AS_IT_IS}
    return {**recorded, **changes, "tokenizer": tokenizer}


def _copy_value(key: Sequence[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Copy the value at `key` from `source` to `target`; do nothing if `source` has none."""
    for name in key[:-1]:
        if name not in source:
            return
        source = source[name]
        target = target.setdefault(name, {})
    if key[-1] in source:
        target[key[-1]] = source[key[-1]]


def config_to_inspect(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config of the training to look at: the run's if `run` names one, else `config` itself.

    A run's tokenizer is the one that it was trained with. Every key in `overrides` replaces the run's.

    Args:
        config: the config of the present command.
        overrides: the `key=value` arguments of that command.

    Raises: UserError if there is no such run, and as `trust.check` and `contradictions.check`.
    """
    if not isinstance(config["run"], str):
        return dict(config)
    run = existing_run(Path(config["run"]))
    recorded: dict[str, Any] = read_yaml(run.config)
    recorded["model"] = _as_trained(recorded["model"], run)
    names = [override.lstrip("+~").partition("=")[0] for override in overrides]
    for key in (*config, *names):
        if key in names or key not in recorded:
            _copy_value(key.split("."), config, recorded)
    recorded["run"] = {"dir": str(run.path.parent), "name": run.path.name}
    recorded["trust"] = config["trust"]
    trust.check(recorded, overrides)
    contradictions.check(recorded, overrides)
    return recorded
