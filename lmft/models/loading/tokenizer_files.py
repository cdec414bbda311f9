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


def require_fast(tokenizer: Any) -> None:
    """Raise UserError for a tokenizer written in Python, whose vocabulary nothing can change."""
    if not tokenizer.is_fast:
        what = f"a {type(tokenizer).__name__} keeps its vocabulary: it has no tokenizer.json"
        fix = "leave model.tokenizer.add_tokens and model.tokenizer.replace out"
        raise UserError(what, tokenizer.name_or_path, fix)


def has_vocabulary(folder: str) -> bool:
    """Return whether a folder holds a tokenizer's files; true of a repository of the hub."""
    return not Path(folder).is_dir() or _holds(folder, *TOKENIZER_FILES, "tokenizer_config.json")


def _holds(folder: str, *patterns: str) -> bool:
    return any(any(Path(folder).glob(pattern)) for pattern in patterns)


def read_tokenizer(
    folder: str, options: dict[str, Any], hf_config: PreTrainedConfig | None = None
) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a folder or a repository.

    Args:
        folder: the folder or hub id.
        options: further arguments of `from_pretrained`.
        hf_config: the model's config, whose type tells the tokenizer's class if the folder has no
            config.json.

    Raises: UserError if there is no vocabulary, or it cannot be read.
    """
    path = Path(folder)
    missing = UserError(
        f"{folder} has no tokenizer",
        f"there is none of {', '.join(TOKENIZER_FILES)}",
        "model.tokenizer.name_or_path=FOLDER_OR_HUB_ID of the model's tokenizer",
    )
    if not has_vocabulary(folder) and not options.get("trust_remote_code"):
        raise missing
    if hf_config is not None and path.is_dir() and not (path / "config.json").is_file():
        options = {**options, "config": hf_config}
    fix = (
        "save it as transformers does: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER); "
        "then model.tokenizer.name_or_path=FOLDER"
    )
    try:
        tokenizer = read(AutoTokenizer, folder, "tokenizer", options, fix)
    except UserError as error:
        if path.is_dir() and not _holds(folder, *TOKENIZER_FILES):
            raise missing from error
        raise
    # Without its files, transformers makes a tokenizer of the model type's special tokens alone.
    is_empty = not set(tokenizer.get_vocab().values()) - {*tokenizer.all_special_ids}
    if is_empty and path.is_dir() and not _holds(folder, *TOKENIZER_FILES):
        raise missing
    return tokenizer
