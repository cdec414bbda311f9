"""Load a tokenizer from the hub or a folder, or train one on the training text."""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.config import TRAINING_OPTIONS, ModelConfig, TokenizerConfig
from lmft.models.loading.folders import read
from lmft.models.loading.survival import Sample, Survival, survival
from lmft.models.loading.vocabulary import asked_changes, train_vocabulary
from lmft.system import files
from lmft.system.cache import built_once
from lmft.system.repositories import located

log = logging.getLogger(__name__)
_CHECKSUM = "tokenizer.json.xxh3"
_FORMAT = 2  # of the cache's tokenizers; those of an earlier one are made again


def load_tokenizer(
    config: ModelConfig,
    texts: Iterable[str],
    text_key: Callable[[], str],
    cache: Path,
    kept: Path | None = None,
) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the config names, or one that is trained on `texts`.

    Args:
        config: the model's options.
        texts: the training text; read only if a tokenizer is trained.
        text_key: returns a key that changes with the texts.
        cache: folder for trained tokenizers.
        kept: the run's copy of the tokenizer trained for it, used if it exists.

    Raises: UserError.
    """
    options = config.tokenizer
    if options.train:
        if kept is not None and kept.is_dir():
            folder = kept
        else:
            folder = _trained(options, texts, text_key, cache)
        if survived := Survival.read(folder):
            survived.report()
        tokenizer = read(AutoTokenizer, str(folder), "tokenizer.json", {})
    elif options.name_or_path == config.name_or_path and options.name_or_path:
        folder = located(options.name_or_path, "tokenizer", config.revision)
        tokenizer = read(AutoTokenizer, folder, "tokenizer.json", config.hub_options)
    elif options.name_or_path:
        folder = located(options.name_or_path, "tokenizer", None)
        tokenizer = read(AutoTokenizer, folder, "tokenizer.json", {})
    else:
        raise UserError(
            "the model has no tokenizer",
            fix="model.tokenizer.name_or_path=FOLDER, or model.tokenizer.train=true",
        )
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"{options.name_or_path} has no tokenizer.json (a fast tokenizer), which lmft needs"
        )
    return tokenizer


def _trained(
    options: TokenizerConfig, texts: Iterable[str], text_key: Callable[[], str], cache: Path
) -> Path:
    """Return the folder of a trained tokenizer; train it if the cache has no valid one.

    Raises: UserError.
    """

    def train_into(folder: Path) -> None:
        log.info("training a %s vocabulary of %d tokens", options.algorithm, options.vocab_size)
        sample = Sample(texts)
        tokenizer = train_vocabulary(
            sample,
            options.algorithm,
            options.vocab_size,
            options.lowercase,
            options.special_tokens,
            options.strip_accents,
        )
        tokenizer.save_pretrained(folder)
        changes = asked_changes(options.lowercase, options.strip_accents)
        survival(tokenizer, sample.kept, changes).write(folder)

    trained_by = {name: getattr(options, name) for name in TRAINING_OPTIONS}
    name = f"{options.algorithm}-{options.vocab_size}"
    return cached(cache, name, {"trained": trained_by, "text": text_key()}, train_into)


def cached(cache: Path, name: str, made_from: Mapping[str, Any], save: Callable[[Path], None]) -> Path:
    """Return the folder of a tokenizer; make it if the cache has no undamaged one.

    Args:
        cache: folder of the cache.
        name: the beginning of the folder's name.
        made_from: everything that the tokenizer depends on, as JSON can write it.
        save: saves the tokenizer into a folder.

    Raises: UserError if the cache cannot be written to, and the errors of `save`.
    """

    def build(folder: Path) -> None:
        save(folder)
        (folder / _CHECKSUM).write_text(_checksum(folder))

    def warn_of(damage: str) -> None:
        log.warning("a vocabulary in the cache is damaged and is made again (%s)", damage)

    key = xxhash.xxh3_128_hexdigest(json.dumps([_FORMAT, made_from], sort_keys=True))
    folder = cache / "tokenizers" / f"{name}-{key}"
    return built_once(folder, build=build, damage=_damage, warn=warn_of)


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a cached tokenizer's files; None if nothing is."""
    checksum = folder / _CHECKSUM
    if not checksum.is_file() or not (folder / "tokenizer.json").is_file():
        return f"{folder}: files are missing"
    if checksum.read_text() != _checksum(folder):
        return f"{folder / 'tokenizer.json'}: it is not what was written"
    return None


def _checksum(folder: Path) -> str:
    return xxhash.xxh3_64_hexdigest((folder / "tokenizer.json").read_bytes())


def keep_vocabulary(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Copy a trained tokenizer to the run's folder, unless it is there already.

    If the cache is lost, training again need not give the same tokens.
    """
    source = Path(tokenizer.name_or_path)
    if not folder.exists() and source.is_dir():
        temporary = files.temporary_path(folder)
        shutil.copytree(source, temporary)
        temporary.rename(folder)
