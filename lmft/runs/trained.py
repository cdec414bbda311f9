"""The config of a finished run, for evaluating and asking it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lmft.errors import UserError
from lmft.runs.folder import RunFolder, existing_run

log = logging.getLogger(__name__)


def config_to_use(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config to use a trained model with: `recorded_config` of the folder `run`, if given; else `config`
    itself.

    Raises: UserError if neither a run nor a model is named, or both.
    """
    if config["run"] is not None:
        _check_names_no_model(overrides)
        return recorded_config(Path(str(config["run"])), config, overrides)
    if _chosen_checkpoint(config) is not None:
        raise UserError(
            "checkpoint= chooses among those of a run", f"checkpoint={config['checkpoint']}", "add run=…"
        )
    if config["model"]["name_or_path"] is None:
        raise UserError("which model?", fix="add run=runs/NAME, or model.name_or_path=FOLDER_OR_HUB_ID")
    return dict(config)


def _check_names_no_model(overrides: Sequence[str]) -> None:
    """Raises UserError where overrides name another model than the run's."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in ("model", "model.name_or_path", "model.from_scratch", "model.architecture"):
            raise UserError(f"run= and {key}= name two models", override, "leave one of them out")


def recorded_config(path: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config to use the finished run in folder `path` with.

    It is the run's own, but the model is the trained one: its folder model/ or, where `config` names a
    `checkpoint`, the model that was trained, whose weights are to be taken from that file. Device, cache,
    callbacks and loggers are those of `config`, and so is every key that `overrides` names: `data=wikitext2`
    takes the whole group, `data.batch_size=8` one value.

    Args:
        path: the run's folder.
        config: what the command line of now led to.
        overrides: the `key=value` arguments of that command line.

    Raises: UserError if there is no run or no trained model.
    """
    run = existing_run(path)
    recorded: dict[str, Any] = yaml.safe_load(run.config.read_text("utf-8"))
    chosen = _chosen_checkpoint(config)
    if chosen is not None:
        recorded["model"] = _as_trained(recorded["model"], run)
    else:
        recorded["model"] = _as_exported(recorded["model"], run)
    of_now = [key for key in config if key not in recorded] + [
        "run",
        "trainer",
        "callbacks",
        "logger",
        "trust",
        "model.trust_remote_code",
        "data.cache_dir",
    ]
    for key in [*of_now, *(override.lstrip("+~").partition("=")[0] for override in overrides)]:
        _copy_value(key.split("."), config, recorded)
    recorded["checkpoint"] = None if chosen is None else str(run.checkpoint(chosen))
    return recorded


def _chosen_checkpoint(config: Mapping[str, Any]) -> str | int | None:
    """What an evaluation or a prediction asks for; the group `checkpoint` of a training asks for none."""
    chosen = config.get("checkpoint")
    return chosen if isinstance(chosen, str | int) else None


def _as_trained(recorded: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    """The group `model` that builds the run's model as it was for training."""
    if not run.tokenizer.is_dir():
        return recorded
    tokenizer = {**recorded["tokenizer"], "name_or_path": str(run.tokenizer), "train": False}
    return {**recorded, "tokenizer": tokenizer}


def _as_exported(recorded: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    """The group `model` that loads what the run has exported."""
    if not run.model.is_dir():
        fix = f"finish it with the command in {run.command}, or add checkpoint=last"
        raise UserError(
            f"the run has no model yet (status: {run.status() or 'unfinished'})", str(run.path), fix
        )
    trained = {"name_or_path": str(run.model), "from_scratch": False, "freeze": []}
    trained["lora"] = {**recorded.get("lora", {}), "r": 0}
    # Adapters alone: their base is loaded as it was for training.
    if not (run.model / "adapter_config.json").exists():
        trained["config"] = {}
        if not recorded.get("trust_remote_code"):  # whose code keeps to its revision
            trained["revision"] = None
    tokenizer = {**recorded["tokenizer"], "name_or_path": str(run.model), "train": False}
    return {**recorded, **trained, "tokenizer": tokenizer}


def _copy_value(key: Sequence[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Makes the value at `key` in `target` what it is in `source`; it is left alone if `source` has none."""
    for part in key[:-1]:
        if part not in source:
            return
        source, target = source[part], target.setdefault(part, {})
    if key[-1] in source:
        target[key[-1]] = source[key[-1]]
