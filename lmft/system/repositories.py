"""Find the folder or hub repository of a model or tokenizer, and read its config. Imports nothing
heavy.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmft.errors import UserError, did_you_mean
from lmft.system import hub

SHAPE = "model.shape_from"


def located(name_or_path: str, kind: Literal["model", "tokenizer"], revision: str | None) -> str:
    """Return the folder to load from, or the id of a repository that can be downloaded. Raises:
    UserError.
    """
    check_folder(name_or_path, hub.OPTIONS[kind])
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return str(folder)
    return hub.require(name_or_path, kind, revision) or name_or_path


def check_folder(name_or_path: str, option: str) -> None:
    """Raise UserError unless `name_or_path` is a folder that may hold a model, or a hub id."""
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        _check_is_no_run(folder, option)
    else:
        _check_is_hub_id(name_or_path, option)


def stored_config(
    name_or_path: str, revision: str | None = None, ask_hub: bool = True
) -> dict[str, Any] | None:
    """Return the config.json of a model; of its base model if a folder holds only adapters.

    None if the model is a repository that is not cached, and the hub may not be asked. Raises:
    UserError.
    """
    folder = Path(name_or_path).expanduser()
    option = hub.OPTIONS["model"]
    check_folder(name_or_path, option)
    if not folder.is_dir():
        path = hub.config_file(name_or_path, revision, ask_hub)
        return None if path is None else read_config(path)
    if (folder / "config.json").is_file():
        return read_config(folder / "config.json")
    if base := base_of_adapters(folder):
        return stored_config(base.name_or_path, base.revision or revision, ask_hub)
    raise UserError("the folder holds no Hugging Face model: no config.json", f"{option}={name_or_path}")


@dataclass(frozen=True)
class BaseModel:
    """The model that a folder of adapters belongs to."""

    name_or_path: str
    revision: str | None


def base_of_adapters(folder: Path) -> BaseModel | None:
    """Return the base model of a folder that holds adapters without their model; None of any other.

    A relative path is looked up from the working directory, then from the adapters' folder.

    Raises: UserError if adapter_config.json is not valid, or names no model or one that is gone.
    """
    path = folder / "adapter_config.json"
    if not path.is_file() or (folder / "config.json").is_file():
        return None
    config = read_config(path)
    name = config.get("base_model_name_or_path")
    fix = "write its folder or hub id there, as base_model_name_or_path"
    if not isinstance(name, str) or not name:
        raise UserError("the adapters name no base model", str(path), fix)
    for base in (Path(name).expanduser(), folder / name):
        if base.is_dir():
            return BaseModel(str(base), None)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"the adapters' base model is gone: there is no folder {name}", str(path), fix)
    return BaseModel(name, config.get("revision"))


def shape_file(name: str, ask_hub: bool = True) -> Path | None:
    """Return the config.json that `model.shape_from` names: a file, or that of a folder or repository.

    None if it is a repository's that is not cached, and the hub may not be asked. Raises: UserError.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    check_folder(name, SHAPE)
    if not path.is_dir():
        return hub.config_file(name, None, ask_hub)
    if not (path / "config.json").is_file():
        raise UserError("the folder holds no Hugging Face model: no config.json", f"{SHAPE}={name}")
    return path / "config.json"


def _check_is_hub_id(name: str, option: str) -> None:
    path = Path(name)
    fix = f"{option}=FOLDER_OR_HUB_ID"
    if path.exists():
        raise UserError(f"{name} is a file", option, fix)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"there is no folder {name}{did_you_mean(path.name, siblings)}", option, fix)


def _check_is_no_run(folder: Path, option: str) -> None:
    """Raise UserError for a run's folder, whose model is in its subfolder `model` once it is
    complete.
    """
    if (folder / "config.json").exists() or not (folder / "config.yaml").is_file():
        return
    if (folder / "model").is_dir():
        raise UserError(
            f"{folder} is a run; its model is inside", option, f"{option}={folder / 'model'}"
        )
    fix = f"continue it with the command in {folder / 'command.txt'}, then {option}={folder / 'model'}"
    raise UserError(f"{folder} is a run without a finished model", option, fix)


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a config.json. Raises: UserError if it is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", str(path)) from error
