"""Filling in the middle (Bavarian et al. 2022): causal models learn to write between two texts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lmft.objectives.base import SPECIAL, Noise, Objective, Rows, Vocabulary, threshold
from lmft.objectives.causal import causal_batch

# Tokens before the prefix, the suffix and the middle, as known models were trained with them.
SENTINELS = (
    # Qwen2.5-Coder, CodeGemma; other tokenizers get these.
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
)
_NUM_SENTINELS = 3
_SHORTEST = 3  # tokens of the shortest piece that is rearranged


@dataclass(frozen=True)
class FillInTheMiddle(Objective):
    """Next-token prediction on rows, some with a piece rearranged so that its middle comes last.

    The piece is the row's longest run of tokens of one document without a special token. Two random cuts
    between its tokens make prefix, middle and suffix, which are written in one of the paper's two ways:

    PSM: [PRE] prefix [SUF] suffix [MID] middle
    SPM: [PRE] [SUF] suffix [MID] prefix middle (the variant that begins as PSM does)

    The tokens around the piece stay as they are, and every token is a target.
    """

    fim_rate: float = 0.5
    spm_share: float = 0.5

    families = ("causal",)
    needs_documents: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("fim_rate", "spm_share"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"objective.{name}={share} is not a share between 0 and 1")

    def num_raw_tokens(self, block_size: int) -> int:
        """Return three fewer than `block_size`: a rearranged row has three sentinels more."""
        return block_size - _NUM_SENTINELS

    def new_tokens(self, known: Collection[str]) -> list[str]:
        """Return the three sentinels, unless the tokenizer has three that belong together."""
        return [] if _known_sentinels(known) else list(SENTINELS[0])

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raise ValueError if the tokenizer has no sentinels, or blocks are too short to rearrange."""
        sentinel_ids(vocabulary.ids)
        if self.num_raw_tokens(block_size) < _SHORTEST:
            raise ValueError(
                f"filling in the middle needs blocks of {_NUM_SENTINELS + _SHORTEST} tokens or more"
            )

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids, target_index [K], targets [K]; if isolated, also document_ids.

        input_ids and document_ids are [B, T], or [B, T + 3] if the longest rows get sentinels.
        """
        return causal_batch(self.rearranged(rows, vocabulary, noise))

    def rearranged(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> Rows:
        """Return the rows with some pieces rearranged.

        Sentinels are special tokens that belong to the piece's document.
        """
        begin, length = longest_piece(rows)  # [B] each
        once = np.zeros(1, np.int64)
        # [B].
        chosen = (noise.bits("fim", once)[:, 0] < threshold(self.fim_rate)) & (length >= _SHORTEST)
        suffix_first = noise.bits("spm", once)[:, 0] < threshold(self.spm_share)  # [B]
        places = noise.bits("cut", np.arange(2)) % (length + 1).astype(np.uint64)[:, None]  # [B, 2]
        first, second = np.sort(places.astype(np.int64), axis=1).T
        return _rearrange(rows, vocabulary, _Cuts(chosen, suffix_first, begin, length, first, second))


class _Cuts(NamedTuple):
    """The places where each row is cut and the order of its pieces; all [B]."""

    chosen: np.ndarray  # bool: the row is rearranged
    suffix_first: np.ndarray  # bool: SPM rather than PSM
    begin: np.ndarray  # column of the piece's first token
    length: np.ndarray  # of the piece, in tokens
    first: np.ndarray  # tokens of the piece before its middle
    second: np.ndarray  # and up to the end of its middle

    @property
    def before_suffix(self) -> np.ndarray:
        """Tokens between PRE and SUF. [B]"""
        return np.where(self.suffix_first, 0, self.first)

    @property
    def shifts(self) -> np.ndarray:
        """Columns by which tokens move, in five sections of the row. [B, 5]

        The sections: before the piece, its prefix, its middle, its suffix, after the piece.
        """
        # Sections that now come after the suffix and all sentinels.
        past_suffix = _NUM_SENTINELS + self.length - self.second
        prefix = np.where(self.suffix_first, past_suffix, 1)
        suffix = 2 + self.before_suffix - self.second
        after = np.full_like(self.length, _NUM_SENTINELS)
        shifts = np.stack([np.zeros_like(after), prefix, past_suffix, suffix, after], axis=1)
        return shifts * self.chosen[:, None]

    @property
    def sentinels(self) -> np.ndarray:
        """Columns of PRE, SUF and MID in the C chosen rows. [C, 3]"""
        pre = self.begin
        suf = pre + 1 + self.before_suffix
        mid = suf + 1 + self.length - self.second
        return np.stack([pre, suf, mid], axis=1)[self.chosen]


def sentinel_ids(ids: Mapping[str, int]) -> tuple[int, ...]:
    """Return the ids of (PRE, SUF, MID) among the added tokens. Raises: ValueError if missing."""
    known = _known_sentinels(ids)
    if known is None:
        raise ValueError(
            f"the tokenizer lacks the tokens of filling in the middle, such as {' '.join(SENTINELS[0])}"
        )
    return tuple(ids[name] for name in known)


def _known_sentinels(known: Collection[str]) -> tuple[str, ...] | None:
    return next((names for names in SENTINELS if all(name in known for name in names)), None)


def longest_piece(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return begin [B] and length [B] of each row's longest run of ordinary tokens of one document.

    Of several equally long runs, it is the first.
    """
    assert rows.documents is not None
    text = (rows.flags & SPECIAL) == 0  # [B, T], false in the padding
    begins = text.copy()
    begins[:, 1:] &= ~text[:, :-1] | (rows.documents[:, 1:] != rows.documents[:, :-1])
    columns = np.arange(text.shape[1])
    run_begins = np.maximum.accumulate(np.where(begins, columns, 0), axis=1)  # [B, T]
    so_far = np.where(text, columns - run_begins + 1, 0)  # [B, T] tokens of the run up to each
    last = so_far.argmax(axis=1)
    length = so_far.max(axis=1)
    return last - length + 1, length


def _rearrange(rows: Rows, vocabulary: Vocabulary, cuts: _Cuts) -> Rows:
    assert rows.documents is not None
    columns = np.arange(rows.tokens.shape[1])
    row, column = np.nonzero(columns < rows.lengths[:, None])  # [N] each: all but the padding
    place = column - cuts.begin[row]
    bounds = (0, cuts.first[row], cuts.second[row], cuts.length[row])
    # [N] number of the token's section in `shifts`; empty sections are skipped.
    section = sum((place >= bound).astype(np.int64) for bound in bounds)
    new_column = column + cuts.shifts[row, section]

    lengths = rows.lengths + _NUM_SENTINELS * cuts.chosen
    chosen = np.flatnonzero(cuts.chosen)[:, None]  # [C, 1]

    def move(old: np.ndarray, padding: int | np.uint8, sentinels: Any) -> np.ndarray:
        new = np.full((len(lengths), lengths.max()), padding, dtype=old.dtype)
        new[row, new_column] = old[row, column]
        new[chosen, cuts.sentinels] = sentinels
        return new

    trainable = rows.trainable
    if rows.num_seen is not None:  # tokens seen before need not come first any more: flag each of them
        unseen = columns >= rows.num_seen[:, None]
        trainable = unseen if trainable is None else trainable & unseen
    return replace(
        rows,
        tokens=move(rows.tokens, vocabulary.pad_id, sentinel_ids(vocabulary.ids)),
        flags=move(rows.flags, SPECIAL, SPECIAL),
        lengths=lengths,
        documents=move(rows.documents, -1, rows.documents[chosen, cuts.begin[chosen]]),
        trainable=None if trainable is None else move(trainable, False, True),
        num_seen=None,
    )
