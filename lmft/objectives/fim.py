"""Filling in the middle (Bavarian et al. 2022): causal models learn to write what stands between two texts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lmft.objectives.base import SPECIAL, Noise, Objective, Rows, Vocabulary, threshold
from lmft.objectives.causal import causal_batch

# What stands before the prefix, the suffix and the middle: names that models were trained with.
SENTINELS = (
    # Qwen2.5-Coder, CodeGemma; what a new tokenizer is given.
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
)
_NUM_SENTINELS = 3
_SHORTEST = 3  # tokens of a piece that is worth cutting


@dataclass(frozen=True)
class FillInTheMiddle(Objective):
    """Next-token prediction on rows of which some have a piece rearranged, so that its middle comes last.

    The piece is the longest run of tokens of one document without a special token among them; two cuts,
    anywhere in it, make prefix, middle and suffix. It is then written in one of the paper's two ways:

    PSM: [PRE] prefix [SUF] suffix [MID] middle
    SPM: [PRE] [SUF] suffix [MID] prefix middle (the variant that shares its beginnings with PSM)

    Whatever stands around the piece stays where it is, and every token is a target. The cuts are made between
    tokens.
    """

    fim_rate: float = 0.5
    spm_share: float = 0.5

    families = ("causal",)
    needs_documents: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("fim_rate", "spm_share"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"objective.{name}={share} is no share between 0 and 1")

    def num_raw_tokens(self, block_size: int) -> int:
        """Three fewer: a rearranged row has three sentinels more."""
        return block_size - _NUM_SENTINELS

    def new_tokens(self, known: Collection[str]) -> list[str]:
        """The three sentinels, unless the tokenizer has three that belong together."""
        return [] if _known_sentinels(known) else list(SENTINELS[0])

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raises ValueError where the tokenizer has no sentinels, or no piece could be cut."""
        sentinel_ids(vocabulary.ids)
        if self.num_raw_tokens(block_size) < _SHORTEST:
            raise ValueError(
                f"filling in the middle needs blocks of {_NUM_SENTINELS + _SHORTEST} tokens or more"
            )

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """input_ids [B, T + 3 or T], document_ids where documents are isolated, target_index [K], targets
        [K].
        """
        return causal_batch(self.rearranged(rows, vocabulary, noise))

    def rearranged(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> Rows:
        """The rows with some pieces written anew; sentinels are special tokens of the piece's document."""
        begin, length = longest_piece(rows)
        once = np.zeros(1, np.int64)
        chosen = (noise.bits("fim", once)[:, 0] < threshold(self.fim_rate)) & (length >= _SHORTEST)
        suffix_first = noise.bits("spm", once)[:, 0] < threshold(self.spm_share)
        places = noise.bits("cut", np.arange(2)) % (length + 1).astype(np.uint64)[:, None]  # [B, 2]
        first, second = np.sort(places.astype(np.int64), axis=1).T
        return _written_anew(rows, vocabulary, _Cuts(chosen, suffix_first, begin, length, first, second))


class _Cuts(NamedTuple):
    """How each row is rearranged; all [B]."""

    chosen: np.ndarray  # bool: whether it is
    suffix_first: np.ndarray  # bool: SPM rather than PSM
    begin: np.ndarray  # column of the piece's first token
    length: np.ndarray  # of the piece, in tokens
    first: np.ndarray  # tokens of the piece before its middle
    second: np.ndarray  # and up to the end of its middle

    @property
    def before_suffix(self) -> np.ndarray:
        """Tokens between PRE and SUF."""
        return np.where(self.suffix_first, 0, self.first)

    @property
    def shifts(self) -> np.ndarray:
        """[B, 5] columns by which tokens move: before the piece, of prefix, middle and suffix, and behind the
        piece.
        """
        # What has the suffix and all sentinels before it now.
        past_suffix = _NUM_SENTINELS + self.length - self.second
        prefix = np.where(self.suffix_first, past_suffix, 1)
        suffix = 2 + self.before_suffix - self.second
        behind = np.full_like(self.length, _NUM_SENTINELS)
        return (
            np.stack([np.zeros_like(behind), prefix, past_suffix, suffix, behind], axis=1)
            * self.chosen[:, None]
        )

    @property
    def sentinels(self) -> np.ndarray:
        """[C, 3] columns of PRE, SUF and MID in the chosen rows."""
        pre = self.begin
        suf = pre + 1 + self.before_suffix
        mid = suf + 1 + self.length - self.second
        return np.stack([pre, suf, mid], axis=1)[self.chosen]


def sentinel_ids(ids: Mapping[str, int]) -> tuple[int, ...]:
    """Ids of (PRE, SUF, MID) among those of the special and added tokens; raises ValueError."""
    known = _known_sentinels(ids)
    if known is None:
        raise ValueError(
            f"the tokenizer lacks the tokens of filling in the middle, such as {' '.join(SENTINELS[0])}"
        )
    return tuple(ids[name] for name in known)


def _known_sentinels(known: Collection[str]) -> tuple[str, ...] | None:
    return next((names for names in SENTINELS if all(name in known for name in names)), None)


def longest_piece(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Begin and length [B] of the longest run of one document's tokens, none of them special; of equals, the
    first.
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


def _written_anew(rows: Rows, vocabulary: Vocabulary, cuts: _Cuts) -> Rows:
    assert rows.documents is not None
    columns = np.arange(rows.tokens.shape[1])
    row, column = np.nonzero(columns < rows.lengths[:, None])  # [N] each: all but the padding
    place = column - cuts.begin[row]
    bounds = (0, cuts.first[row], cuts.second[row], cuts.length[row])
    # [N] of the five; empty ones are passed over.
    section = sum((place >= bound).astype(np.int64) for bound in bounds)
    target = column + cuts.shifts[row, section]

    lengths = rows.lengths + _NUM_SENTINELS * cuts.chosen
    chosen = np.flatnonzero(cuts.chosen)[:, None]  # [C, 1]

    def moved(old: np.ndarray, padding: int | np.uint8, sentinels: Any) -> np.ndarray:
        new = np.full((len(lengths), lengths.max()), padding, dtype=old.dtype)
        new[row, target] = old[row, column]
        new[chosen, cuts.sentinels] = sentinels
        return new

    trainable = rows.trainable
    if rows.num_seen is not None:  # tokens seen before do not stay in front, so they are told one by one
        unseen = columns >= rows.num_seen[:, None]
        trainable = unseen if trainable is None else trainable & unseen
    return replace(
        rows,
        tokens=moved(rows.tokens, vocabulary.pad_id, sentinel_ids(vocabulary.ids)),
        flags=moved(rows.flags, SPECIAL, SPECIAL),
        lengths=lengths,
        documents=moved(rows.documents, -1, rows.documents[chosen, cuts.begin[chosen]]),
        trainable=None if trainable is None else moved(trainable, False, True),
        num_seen=None,
    )
