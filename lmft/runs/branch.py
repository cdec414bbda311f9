"""Branches: a new run that begins with the weights, optimizer state and place in the text of another."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmft.errors import UserError
from lmft.runs import checkpoints
from lmft.runs.folder import RunFolder, existing_run
from lmft.system.files import read_json, write_json

_OWN_CHECKPOINTS = ("auto", "must", "never")


@dataclass(frozen=True)
class Parent:
    """The run that a branch began from."""

    name: str
    step: int
    checksum: str
    """The xxh3 of the checkpoint."""
    checkpoint: str
    """Its path, as seen from the folder in which the branch was begun."""

    def record(self) -> dict[str, Any]:
        """Return its entry in metrics.json."""
        return asdict(self)

    def write(self, run: RunFolder) -> None:
        """Write it into the branch's folder."""
        write_json(run.parent, self.record())

    def __str__(self) -> str:
        return f"step {self.step} of {self.name} (checksum {self.checksum})"


def recorded_parent(run: RunFolder) -> Parent | None:
    """Return the run that a branch began from; None if the run is no branch."""
    recorded = read_json(run.parent)
    return Parent(**recorded) if recorded else None


def parent_of(checkpoint: Path, recorded: Mapping[str, Any], step: int) -> Parent:
    """Return the parent of a branch that begins from a checkpoint.

    Args:
        checkpoint: the checkpoint.
        recorded: the config in it.
        step: its optimizer step.
    """
    name = (recorded.get("run") or {}).get("name") or folder_of(checkpoint).path.name
    return Parent(str(name), step, checkpoints.checksum(checkpoint), str(checkpoint))


def folder_of(resume: Path) -> RunFolder:
    """Return the run of a checkpoint, or of a run's folder."""
    return RunFolder(resume.parent.parent if resume.suffix == ".ckpt" else resume)


def is_branch(config: Mapping[str, Any]) -> bool:
    """Return whether a config asks for a branch. Raises: UserError if it names no run to begin from."""
    asked = bool(config.get("branch"))
    if asked and str(config["resume"]) in _OWN_CHECKPOINTS:
        what = "branch=true begins from another run, and none is named"
        raise UserError(what, f"resume={config['resume']}", "resume=RUN, or resume=FILE.ckpt")
    return asked


def check_folder(run: RunFolder, name: str, config: Mapping[str, Any]) -> None:
    """Refuse a folder in which the run that a config asks for could not begin or continue.

    A branch needs a folder of its own, or its own earlier one; a branch that has no checkpoint yet must
    not begin from the weights of `model` instead.

    Raises: UserError.
    """
    parent = recorded_parent(run)
    has_checkpoint = any(run.checkpoints.glob("*.ckpt"))
    if not is_branch(config):
        if parent is not None and not has_checkpoint and run.status() != "complete":
            what = f"'{name}' is a branch of {parent.name} that has saved no checkpoint yet"
            fix = f"resume={parent.checkpoint} branch=true begins it again, or choose another run.name"
            raise UserError(what, str(run.path), fix)
        return
    resume = Path(str(config["resume"]))
    origin = folder_of(resume)
    if not has_checkpoint:
        _check_exists(resume)
    if origin.path.resolve() == run.path.resolve():
        what = f"'{name}' cannot be a branch of itself"
        fix = "run.name=NEW names the branch; without branch=true the run continues"
        raise UserError(what, f"resume={config['resume']}", fix)
    if parent is None and (has_checkpoint or run.status() is not None):
        what = f"run name '{name}' is in use by a run that is not a branch"
        raise UserError(what, str(run.path), "another run.name for the branch")
    if parent is not None and has_checkpoint and not _is_from(parent, origin, resume):
        what = f"'{name}' is a branch of {parent}, not of {resume}"
        fix = f"resume={parent.checkpoint} branch=true continues it, or choose another run.name"
        raise UserError(what, str(run.parent), fix)


def _check_exists(resume: Path) -> None:
    """Raise UserError if there is no such checkpoint, or no such run."""
    if resume.suffix != ".ckpt":
        existing_run(resume)
    elif not resume.is_file():
        fix = "name a .ckpt file or a run's folder"
        raise UserError(f"no such checkpoint: {resume}", "resume", fix)


def _is_from(parent: Parent, origin: RunFolder, resume: Path) -> bool:
    """Return whether a branch began from this run, and from this checkpoint if one is named."""
    if folder_of(Path(parent.checkpoint)).path.name != origin.path.name:
        return False
    is_named = resume.suffix == ".ckpt" and resume.is_file()
    return not is_named or checkpoints.checksum(resume) == parent.checksum
