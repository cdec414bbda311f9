"""The Hugging Face folder that a run ends with."""

import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmft.models.adapters import Adapted


def export(
    model: PreTrainedModel | Adapted, tokenizer: PreTrainedTokenizerFast, card: Callable[[Path], None], folder: Path
) -> None:
    """Writes weights, config, tokenizer and the model card (by `card`); the folder is whole or not there."""
    temporary = folder.with_name(folder.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    card(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
