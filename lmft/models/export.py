"""The Hugging Face folder that a run ends with."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.adapters import Adapted
from lmft.system import files


def export(
    model: PreTrainedModel | Adapted,
    tokenizer: PreTrainedTokenizerFast,
    card: Callable[[Path], None],
    folder: Path,
) -> None:
    """Writes weights, config, tokenizer and the model card (by `card`); the folder is whole or not there.

    Raises: UserError if the weights cannot be written.
    """
    new, old = (folder.with_name(f"{folder.name}.{ending}") for ending in ("writing", "replaced"))
    for left in (new, old):  # by a process that died
        if left.exists():
            shutil.rmtree(left)
    try:
        model.save_pretrained(new)
    except SafetensorError as error:
        raise _write_error(error, folder) from error
    tokenizer.save_pretrained(new)
    card(new)
    _sync(new)
    if folder.exists():  # no system call that Python has swaps two folders: here is a moment without one
        folder.rename(old)
    new.rename(folder)
    files.sync_folder(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def _sync(folder: Path) -> None:
    """Forces all that is in a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            files.sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    files.sync_folder(folder)


def _write_error(error: SafetensorError, folder: Path) -> UserError:
    """safetensors tells the system's error only in its text: `… (os error 28)`."""
    found = re.search(r"os error (\d+)", str(error))
    reason = os.strerror(int(found[1])) if found else str(error)
    return UserError(
        f"the model could not be written: {reason}", str(folder), "mend that; the same command goes on"
    )
