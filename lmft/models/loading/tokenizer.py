"""Tokenizers: from the hub, from a folder, or trained on the text at hand."""

import logging
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import xxhash
from filelock import FileLock
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.config import ModelConfig, TokenizerConfig
from lmft.models.loading.folders import read
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.system import files
from lmft.system.repositories import located

log = logging.getLogger("lmft")
_CHECKSUM = "tokenizer.json.xxh3"


def load_tokenizer(
    config: ModelConfig,
    texts: Iterable[str],
    text_key: Callable[[], str],
    cache: Path,
    kept: Path | None = None,
) -> PreTrainedTokenizerFast:
    """The tokenizer named by the config, or one trained on `texts` and kept in `cache`. Raises UserError.

    text_key: a name that changes when the texts do; kept: a run's own copy of what was trained, which goes
    before.
    """
    wanted = config.tokenizer
    if wanted.train:
        folder = kept if kept is not None and kept.is_dir() else _trained(wanted, texts, text_key, cache)
        tokenizer = read(AutoTokenizer, str(folder), "tokenizer.json", {})
    elif wanted.name_or_path:
        is_the_models = wanted.name_or_path == config.name_or_path
        revision = config.revision if is_the_models else None
        folder = located(wanted.name_or_path, "tokenizer", revision)
        tokenizer = read(AutoTokenizer, folder, "tokenizer.json", config.hub_options if is_the_models else {})
    else:
        raise UserError(
            "the model has no tokenizer",
            fix="model.tokenizer.name_or_path=FOLDER, or model.tokenizer.train=true",
        )
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"{wanted.name_or_path} has no tokenizer.json (a fast tokenizer), which lmft needs")
    return tokenizer


def _trained(wanted: TokenizerConfig, texts: Iterable[str], text_key: Callable[[], str], cache: Path) -> Path:
    """The folder of a vocabulary, which is trained if it is not there."""
    case = "lower" if wanted.lowercase else "cased"
    name = f"{wanted.algorithm}-{wanted.special_tokens or 'usual'}-{wanted.vocab_size}-{case}-{text_key()}"
    folder = cache / "tokenizers" / name
    with ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(f"{folder}.lock"))
        except OSError as error:
            if folder.exists() and _is_whole(folder):
                return folder
            fix = "data.cache_dir=FOLDER that can be written to"
            raise UserError(
                f"cannot write to the cache: {error.strerror}", str(folder.parent), fix
            ) from error
        if folder.exists() and not _is_whole(folder):
            log.warning("the vocabulary in %s is damaged and is trained again", folder)
            shutil.rmtree(folder)
        if not folder.exists():
            log.info("training a %s vocabulary of %d tokens", wanted.algorithm, wanted.vocab_size)
            tokenizer = train_vocabulary(
                texts, wanted.algorithm, wanted.vocab_size, wanted.lowercase, wanted.special_tokens
            )
            temporary = folder.with_name(folder.name + ".building")
            shutil.rmtree(temporary, ignore_errors=True)
            tokenizer.save_pretrained(temporary)
            (temporary / _CHECKSUM).write_text(_checksum(temporary))
            temporary.rename(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    checksum = folder / _CHECKSUM
    return (
        checksum.is_file()
        and (folder / "tokenizer.json").is_file()
        and checksum.read_text() == _checksum(folder)
    )


def _checksum(folder: Path) -> str:
    return xxhash.xxh3_64_hexdigest((folder / "tokenizer.json").read_bytes())


def keep_vocabulary(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Copies the vocabulary that was trained for this tokenizer to a run's own folder, unless it is there.

    Training another one, if the cache is lost, need not give the same tokens.
    """
    source = Path(tokenizer.name_or_path)
    if not folder.exists() and source.is_dir():
        temporary = files.temporary_path(folder)
        shutil.copytree(source, temporary)
        temporary.rename(folder)
