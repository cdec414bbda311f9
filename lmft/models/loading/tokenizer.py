"""Load a tokenizer from the hub or a folder, or train one on the training text."""

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.config import TRAINING_OPTIONS, ModelConfig, TokenizerConfig
from lmft.models.loading.added_words import with_added_words
from lmft.models.loading.cached import cached
from lmft.models.loading.survival import Sample, Survival, survival
from lmft.models.loading.tokenizer_files import read_tokenizer
from lmft.models.loading.vocabulary import asked_changes, train_vocabulary
from lmft.system import files
from lmft.system.repositories import located

log = logging.getLogger(__name__)


def load_tokenizer(
    config: ModelConfig,
    texts: Iterable[str],
    text_key: Callable[[], str],
    cache: Path,
    kept: Path | None = None,
    hf_config: PreTrainedConfig | None = None,
) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the config names, or one that is trained on `texts`.

    Args:
        config: the model's options.
        texts: the training text; read only if a tokenizer is trained or gets further words.
        text_key: returns a key that changes with the texts.
        cache: folder for trained tokenizers, and those with further words.
        kept: the run's copy of a tokenizer that was made for it, used if it exists.
        hf_config: the model's config, whose type tells the tokenizer's class if nothing else does.

    Raises: UserError.
    """
    options = config.tokenizer
    if kept is not None and kept.is_dir() and is_made_for_run(options):
        return read_tokenizer(str(kept), {})
    if options.train:
        folder = _trained(options, texts, text_key, cache)
        if survived := Survival.read(folder):
            survived.report()
        return read_tokenizer(str(folder), {})
    if not options.name_or_path:
        raise UserError(
            "the model has no tokenizer",
            fix="model.tokenizer.name_or_path=FOLDER, or model.tokenizer.train=true",
        )
    is_own = options.name_or_path == config.name_or_path
    folder = located(options.name_or_path, "tokenizer", config.revision if is_own else None)
    tokenizer = read_tokenizer(folder, config.hub_options if is_own else {}, hf_config)
    if options.add_tokens:
        return with_added_words(tokenizer, options.add_tokens, texts, text_key, cache)
    return tokenizer


def is_made_for_run(options: TokenizerConfig) -> bool:
    """Return whether the tokenizer is not that of a folder, but made for this training."""
    return options.train or bool(options.add_tokens)


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


def keep_vocabulary(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Copy a tokenizer that was made for a run to the run's folder, unless it is there already.

    It is there even if the cache is lost or the text has changed.
    """
    source = Path(tokenizer.name_or_path)
    if not folder.exists() and source.is_dir():
        temporary = files.temporary_path(folder)
        shutil.copytree(source, temporary)
        temporary.rename(folder)
