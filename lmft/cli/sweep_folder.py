"""A sweep's folder, and the names of its jobs' folders."""

import re
from pathlib import Path

from omegaconf import DictConfig

from lmft.errors import UserError
from lmft.runs.folder import RunFolder, checked_dir, checked_name, default_name, make_folder, new_folder

_LONGEST_NAME = 120  # characters of a job's folder; file systems end at 255 bytes


def job_name(differing: str, number: int) -> str:
    """Return the name of a job's folder: the overrides that differ between jobs, as a file name."""
    differing = differing.replace("++", "")
    name = re.sub(r"[^\w.,=+-]+", "-", differing).strip("-.,+")[:_LONGEST_NAME]
    if not name:
        return f"job-{number}"
    if name == differing:
        return name
    return f"{name}-{number}"  # without the number two jobs might have the same name


def remove_hydra_record(sweep_folder: Path) -> None:
    """Delete the copy of the config, secrets included, that Hydra writes into a sweep's folder."""
    (sweep_folder / "multirun.yaml").unlink(missing_ok=True)


def make_sweep_folder(first: DictConfig, swept: set[str]) -> Path:
    """Make a sweep's folder. Raises: UserError if its name is a path, or a single run's.

    Args:
        first: the first job's composed config, with Hydra's node.
        swept: the options that have several values.
    """
    if first.run.name is None:
        choices = first.hydra.runtime.choices
        name = default_name(
            {group: choices.get(group) for group in ("model", "data") if group not in swept}
        )
        return new_folder(checked_dir(first.run.dir) / name)
    name = checked_name(str(first.run.name))
    if "/" in name:
        raise UserError("a sweep's name has no '/'", f"run.name={name}")
    folder = checked_dir(first.run.dir) / name
    if RunFolder(folder).is_run():
        what = f"run name '{name}' is in use"
        raise UserError(what, f"{folder} is a single run", "choose another run.name")
    make_folder(folder)
    return folder
