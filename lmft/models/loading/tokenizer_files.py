"""Read a tokenizer from a folder: from tokenizer.json, vocab.txt or a SentencePiece model."""

import copy
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.loading.folders import read
from lmft.system.hub import TOKENIZER_FILES


def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return a copy of the tokenizer's backend without the truncation and padding saved in it."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    return backend


def has_vocabulary(folder: str) -> bool:
    """Return whether a folder holds a tokenizer's vocabulary; true of a repository of the hub.

    Without one, transformers makes a tokenizer of the model type's special tokens alone.
    """
    path = Path(folder)
    return not path.is_dir() or any(any(path.glob(pattern)) for pattern in TOKENIZER_FILES)


def read_tokenizer(
    folder: str, options: dict[str, Any], hf_config: PreTrainedConfig | None = None
) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a folder or a repository.

    Args:
        folder: the folder or hub id.
        options: further arguments of `from_pretrained`.
        hf_config: the model's config, whose type tells the tokenizer's class if the folder has no
            config.json.

    Raises: UserError if there is no vocabulary, it cannot be read, or the tokenizer is a slow one.
    """
    path = Path(folder)
    if not has_vocabulary(folder) and not options.get("trust_remote_code"):
        raise UserError(
            f"{folder} has no tokenizer",
            f"there is none of {', '.join(TOKENIZER_FILES)}",
            "model.tokenizer.name_or_path=FOLDER_OR_HUB_ID of the model's tokenizer",
        )
    if hf_config is not None and path.is_dir() and not (path / "config.json").is_file():
        options = {**options, "config": hf_config}
    fix = (
        "save it as transformers does: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER); "
        "then model.tokenizer.name_or_path=FOLDER"
    )
    tokenizer = read(AutoTokenizer, folder, "tokenizer", options, fix)
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"lmft needs a fast tokenizer, and transformers has none for a {type(tokenizer).__name__}",
            folder,
            "model.tokenizer.name_or_path=FOLDER with a tokenizer.json; or "
            "model.tokenizer.train=true model.from_scratch=true",
        )
    return tokenizer
