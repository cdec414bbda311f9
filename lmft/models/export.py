"""Write the Hugging Face folder of a trained model."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub.errors import StrictDataclassError
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
    """Write weights, config, tokenizer and model card; the folder is complete or does not exist.

    Args:
        model: the model, or the model with adapters.
        tokenizer: its tokenizer.
        card: writes README.md into the folder that it is given.
        folder: the folder to write; an older one is replaced.

    Raises: UserError if the weights cannot be written.
    """
    new = folder.with_name(f"{folder.name}.writing")
    old = folder.with_name(f"{folder.name}.replaced")
    for leftover in (new, old):  # of a process that died
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        card(new)
        _sync(new)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)  # what is half-written would only take disk space
        if isinstance(error, SafetensorError):
            raise _write_error(error, folder) from error
        raise
    if folder.exists():
        # Python has no system call that swaps two folders, so for a moment there is none.
        folder.rename(old)
    new.rename(folder)
    files.sync_folder(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def check_can_be_saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write all of a model's folder but its weights, and throw it away.

    Raises: UserError for settings that transformers refuses to save, before a training and not after it.
    """
    parts: list[Any] = [model.config, tokenizer]
    if model.can_generate():
        parts.append(model.generation_config)
    with TemporaryDirectory() as folder:
        for part in parts:
            try:
                part.save_pretrained(folder)
            except (ValueError, TypeError, StrictDataclassError) as error:
                reason = " ".join(str(error).split())
                what = f"the model could not be saved after its training: {reason}"
                raise UserError(
                    what, type(part).__name__, "correct it in the base model's folder"
                ) from error


def _sync(folder: Path) -> None:
    """Force all files of a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            files.sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    files.sync_folder(folder)


def _write_error(error: SafetensorError, folder: Path) -> UserError:
    """Return the UserError; safetensors names the system's error only in its text: `… (os error 28)`."""
    number = re.search(r"os error (\d+)", str(error))
    reason = os.strerror(int(number[1])) if number else str(error)
    return UserError(
        f"the model could not be written: {reason}", str(folder), "fix that; the same command continues"
    )
