"""The text of one source, tokenised: its stores, and the documents of each split."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig, Split
from lmft.data.examples.documents import TRAIN_ON, Documents, share_that_splits, split_by_content
from lmft.data.examples.selection import Selection
from lmft.data.formats.base import Format
from lmft.data.preparation.job import Job
from lmft.data.preparation.parts import tokenise_source, tokenise_together
from lmft.data.removal.removed import Removed
from lmft.data.schedule.noise import key
from lmft.data.sources.source import Source
from lmft.data.store import FORMAT, StoreWriter, TokenStore, open_or_build
from lmft.errors import UserError
from lmft.objectives.base import Objective
from lmft.reporting.progress import Counting

log = logging.getLogger(__name__)


def token_store(
    config: DataConfig,
    source: Source,
    format: Format,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
    counting: Counting,
) -> TokenStore:
    """Open the store of a source's tokenised documents; build it if it is missing."""
    folder = config.cache / "stores" / f"{key(FORMAT, source.fingerprint, format.fingerprint):016x}"
    parts = folder.with_name(folder.name + ".parts")
    doing = f"tokenising {source.name}"

    @cache
    def job() -> Job:
        return Job(source.shards(), config, tokenizer, objective)

    def build(writer: StoreWriter) -> None:
        with counting(doing, source.size, "bytes") as advance:
            tokenise_source(source, job(), format, parts, writer, advance)

    if config.prepare_job is not None and not folder.exists():
        with counting(doing, source.size, "bytes") as advance:
            tokenise_together(job(), format, parts, folder, advance)
    store = open_or_build(folder, format.encoder.dtype, build, log.warning)
    # The store may have been built from an equal file of another name.
    store.meta["source"] = source.name
    shutil.rmtree(parts, ignore_errors=True)  # of this build, or of one that was killed at its end
    for note in store.meta.get("notes", []):
        log.info("%s", note)
    for warning in store.meta.get("warnings", []):
        log.warning("%s", warning)
    return store


@dataclass(frozen=True)
class Tokenised:
    """The tokenised text of one source."""

    config: DataConfig
    format: Format
    sources: dict[Split, Source | None]
    stores: dict[Split, TokenStore]
    held_out: float | None
    """Share of the training text that is validation; None: validation has its own text, or none."""
    removed: Removed | None
    """Documents of the training text that are left out."""

    @cached_property
    def texts(self) -> dict[Split, Documents]:
        """The documents of each split. Raises: UserError if one of two sides has none."""
        bit = TRAIN_ON[self.config.train_on]
        if self.held_out is not None:
            store = self.stores["train"]
            train, validation = split_by_content(store, self.held_out, bit, self.removed)
            _check_split(train, validation, self.held_out)
            return {"train": train, "validation": validation}
        removed = {"train": Selection(removed=self.removed)}
        stores = self.stores.items()
        return {split: Documents(store, None, bit, removed.get(split)) for split, store in stores}

    @property
    def validations(self) -> list[Documents]:
        """The validation text, if there is one."""
        return [texts for split, texts in self.texts.items() if split == "validation"]


def check_weights(config: DataConfig, stores: Mapping[Split, TokenStore]) -> None:
    """Raise UserError if the loss counts answers that their rows exclude from it."""
    if config.train_on != "all":
        return
    for store in stores.values():
        count = store.meta.get("weightless_answers", 0)
        if count:
            what = f"answers of {store.meta['source']} with weight 0: {count}, and all are trained on"
            raise UserError(what, "data.train_on=all", "data.train_on=assistant")


def _check_split(train: Documents, validation: Documents, share: float) -> None:
    """Raise UserError if holding documents out leaves one side without any."""
    if len(train) and len(validation):
        return
    hashes = train.store.hashes
    num_documents = len(train) + len(validation)
    num_texts = len(np.unique(hashes))
    if num_documents == 1:
        what = "the text is one document, and whole documents are held out"
    elif num_texts == 1:
        what = f"the {num_documents} documents have the same text, and equal ones are held out together"
    elif not len(validation):
        what = (
            f"none of the {num_documents} documents is selected for validation: too few for a share of "
            f"{share:g}"
        )
    else:
        what = f"all {num_documents} documents are selected for validation, and none is left to train on"
    if 1 < num_texts < num_documents:
        what += f" ({num_texts} different texts; equal ones are held out together)"
    fixes = ["data.validation=FILE"]
    if possible := share_that_splits(hashes):
        fixes.append(f"data.validation_fraction={possible:g}")
    elif num_documents == 1:
        fixes.append("data.document_separator='\\n\\n' to cut it")
    fix = f"{', '.join(fixes)}, or data.validation_fraction=0 to train without validation"
    raise UserError(what, f"{train.store.meta['source']}, data.validation_fraction={share:g}", fix)
