"""Find the documents to remove from a text, as its options ask; the result is kept in the cache."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmft.data.config import DataConfig
from lmft.data.examples.documents import Documents
from lmft.data.fingerprint import fingerprint
from lmft.data.removal.copies import exact_copies
from lmft.data.removal.near_copies import check_installed, near_copies
from lmft.data.removal.removed import COPY, NEAR_COPY, SHARED, Removed, removed_once
from lmft.data.removal.shared_text import sharing
from lmft.data.store import TokenStore
from lmft.reporting.progress import Counting

log = logging.getLogger(__name__)
_VERSION = 1  # of how it is found


@dataclass(frozen=True)
class Finder:
    """Finds the documents of a source that are left out."""

    config: DataConfig
    counting: Counting

    def copies(self, store: TokenStore) -> Removed | None:
        """Return the copies in a store, as `data.deduplicate` asks; None if they are kept."""
        config = self.config
        if config.deduplicate is None:
            return None
        is_near = config.deduplicate == "near"
        if is_near:
            check_installed()

        def find() -> np.ndarray:
            reasons = exact_copies(store) * np.uint8(COPY)
            if is_near:
                with self._shown("comparing", store, store.num_documents, "documents") as advance:
                    near = near_copies(store, reasons == 0, config.near_similarity, advance)
                reasons[near] = NEAR_COPY
            return reasons

        options = config.near_similarity if is_near else None
        return self._once([store.folder.name, config.deduplicate, options], find)

    def shared(
        self, train: Documents, validations: Sequence[Documents], tokenizer: PreTrainedTokenizerBase
    ) -> Removed:
        """Return what shares text with validation, and the copies that were found before."""
        store = train.store

        def find() -> np.ndarray:
            before = train.selection.removed
            reasons = np.zeros(store.num_documents, np.uint8)
            if before is not None:
                reasons = before.reasons(0, store.num_documents)
            with self._shown("comparing with validation", store, len(store.tokens), "tokens") as advance:
                reasons[sharing(train, validations, tokenizer, advance)] = SHARED
            return reasons

        return self._once([train.key, *(texts.key for texts in validations)], find)

    def _shown(self, what: str, store: TokenStore, total: int, unit: str):
        return self.counting(f"{what}: {store.meta['source']}", total, unit)

    def _once(self, of: list, find) -> Removed:
        return removed_once(self.config.cache / "removed" / fingerprint(_VERSION, *of), find)
