"""Span corruption (T5): sentinels replace hidden spans, and the decoder predicts each sentinel's
span.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from lmft.objectives.base import Noise, Rows, Vocabulary
from lmft.objectives.denoising import Denoising, Sequences, check_end, ended, left_pack, without_end

_SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")
_NUM_NEW_SENTINELS = 100  # given to a tokenizer that has none, as T5's has
_PLACE = np.uint64(2**20 - 1)  # the bits that hold a place


@dataclass(frozen=True)
class SpanCorruption(Denoising):
    """Raffel et al. 2020, section 3.1.4, with the sizes of their code.

    A text of L tokens has round(L * noise_density) hidden tokens in round(hidden /
    mean_noise_span_length) spans, at least one of each. Hidden and shown tokens are split into that many
    parts each, uniformly over all splits; the parts alternate, beginning with a shown one.

    Inputs: the text with `<extra_id_0>`, `<extra_id_1>`, … in place of the spans, then the
    end-of-sequence
    token. Targets: each sentinel followed by its span, then the end-of-sequence token. As in their code,
    and unlike the paper's figure 2, there is no final sentinel: 568 tokens of text make 512 of input and
    114 targets. A text of a single token is not corrupted, and its only target is the end-of-sequence
    token.
    """

    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0

    def __post_init__(self):
        if not 0 < self.noise_density < 1:
            raise ValueError(
                f"objective.noise_density={self.noise_density} is not a share between 0 and 1"
            )
        if not 1 <= self.mean_noise_span_length < float("inf"):
            what = f"objective.mean_noise_span_length={self.mean_noise_span_length}"
            raise ValueError(f"{what} must be 1 token or more")

    def num_raw_tokens(self, block_size: int) -> int:
        """Return the length of the longest text whose input fits. Raises: ValueError if there is
        none.
        """
        # An input has at least as many tokens as are shown; rounding changes their number by less than
        # one.
        lengths = np.arange(2, 3 + int((block_size + 1) / (1 - self.noise_density)))
        num_hidden, num_spans = self.sizes(lengths)
        fitting = lengths[lengths - num_hidden + num_spans + 1 <= block_size]
        if not len(fitting):
            raise ValueError(f"blocks of {block_size} tokens are too short for span corruption")
        return int(fitting[-1])

    def new_tokens(self, known: Collection[str]) -> list[str]:
        """Return a hundred sentinels for a tokenizer that has none."""
        return [] if sentinel(0) in known else [sentinel(i) for i in range(_NUM_NEW_SENTINELS)]

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raise ValueError without an end-of-sequence token, or with fewer sentinels than spans."""
        super().check_text(vocabulary, num_tokens)
        check_end(vocabulary)
        num_spans = int(self.sizes(np.array(num_tokens))[1])
        num_sentinels = 0
        while sentinel(num_sentinels) in vocabulary.ids:
            num_sentinels += 1
        if not num_sentinels:
            raise ValueError(
                f"the tokenizer has no sentinels ({sentinel(0)}, …), which span corruption needs"
            )
        if num_sentinels < num_spans:
            raise ValueError(
                f"{num_tokens} tokens of text need {num_spans} sentinels "
                f"and the tokenizer has {num_sentinels}: raise objective.mean_noise_span_length, "
                "or lower objective.noise_density or data.block_size"
            )

    def sizes(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of hidden tokens and of spans in texts of these lengths. [B] → [B], [B]"""
        num_hidden = np.rint(lengths * self.noise_density).astype(np.int64)
        num_hidden = np.minimum(np.maximum(num_hidden, 1), lengths - 1)
        num_spans = np.rint(num_hidden / self.mean_noise_span_length).astype(np.int64)
        num_spans = np.minimum(np.maximum(num_spans, 1), lengths - num_hidden)
        return num_hidden, np.minimum(num_spans, num_hidden)  # none in a text of one token

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """Return the text with sentinels in place of its spans, and each sentinel with its span."""
        rows = without_end(rows, vocabulary)
        num_hidden, num_spans = self.sizes(rows.lengths)
        row = np.repeat(np.arange(len(num_spans)), num_spans)  # [S] row of each span
        # [S] of the span in its row.
        number = np.arange(len(row)) - (np.cumsum(num_spans) - num_spans)[row]
        shown_ends = part_ends(rows.lengths - num_hidden, num_spans, noise, "shown")  # [S]
        hidden_ends = part_ends(num_hidden, num_spans, noise, "hidden")  # [S]
        # [S] hidden tokens of the row before each span; not valid for a row's first span.
        before = np.concatenate(([0], hidden_ends))[:-1]
        starts = shown_ends + np.where(number > 0, before, 0)  # [S] columns where the spans begin

        tokens = ended(rows, vocabulary)  # [B, T + 1]
        edges = np.zeros(tokens.shape, np.int8)
        edges[row, starts] = 1
        edges[row, shown_ends + hidden_ends] = -1
        hidden = np.cumsum(edges, axis=1, dtype=np.int8).view(bool)
        shown = np.arange(tokens.shape[1]) <= rows.lengths[:, None]
        shown &= ~hidden

        ids = np.array([vocabulary.ids[sentinel(i)] for i in range(num_spans.max())], np.int64)
        with_sentinels = tokens.copy()
        with_sentinels[row, starts] = ids[number]
        shown[row, starts] = True
        inputs = left_pack(with_sentinels, shown, vocabulary)

        # Before each span is a shown token, whose place the sentinel takes in the targets.
        tokens[row, starts - 1] = ids[number]
        hidden[row, starts - 1] = True
        hidden[np.arange(len(tokens)), rows.lengths] = True
        return inputs, left_pack(tokens, hidden, vocabulary)


def sentinel(number: int) -> str:
    """Return the text of a sentinel."""
    return f"<extra_id_{number}>"


def sentinel_ids(vocabulary: Mapping[str, int]) -> dict[int, int]:
    """Return {number: id} of a tokenizer's sentinels.

    They are tokens of their own (T5, ByT5), or pieces of a SentencePiece vocabulary (mT5).

    Args:
        vocabulary: the tokenizer's whole vocabulary, {token: id}.
    """
    found = {}
    for token, token_id in vocabulary.items():
        if match := _SENTINEL.fullmatch(token):
            found[int(match[1])] = token_id
    return dict(sorted(found.items()))


def part_ends(totals: np.ndarray, num_parts: np.ndarray, noise: Noise, stream: str) -> np.ndarray:
    """Return where the parts end if each row's total is split at random into positive parts. [S]

    Each of the total - 1 places to cut at has random bits; the places with the smallest are cut.

    Args:
        totals: [B] tokens of each row.
        num_parts: [B] parts of each row, S in all.
        noise: random bits of the rows.
        stream: name of the bits that are read.
    """
    num_cuts = np.maximum(num_parts - 1, 0)  # [B]
    most_cuts = int(num_cuts.max())
    num_places = max(0, int(totals.max()) - 1)
    places = np.arange(num_places)  # a cut at place p ends a part after p + 1 tokens
    bits = noise.bits(stream, places)  # [B, places]
    bits &= ~_PLACE
    bits |= places.astype(np.uint64)  # makes them distinct, and the place readable from them
    if totals.min() <= num_places:
        bits[places >= totals[:, None] - 1] = np.iinfo(np.uint64).max
    if most_cuts < num_places:
        bits = np.partition(bits, most_cuts, axis=1)[:, :most_cuts]
    ends = np.empty((len(totals), most_cuts + 1), np.int64)
    ends[:, :-1] = (np.sort(bits, axis=1) & _PLACE) + np.uint64(1)
    nth = np.arange(most_cuts + 1)
    ends = np.where(nth < num_cuts[:, None], ends, totals[:, None])  # the last part ends with the total
    ends.sort(axis=1)
    return ends[nth < num_parts[:, None]]
