"""Text infilling (BART): one mask per hidden span, permuted sentences; the decoder predicts the
original.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from lmft.objectives.base import Noise, Rows, Vocabulary, threshold
from lmft.objectives.denoising import Denoising, Sequences
from lmft.objectives.rearranging import is_special, ranges, rotated, with_sentences_permuted

_SHARES = ("mask_ratio", "permute_sentences", "token_mask_ratio", "token_delete_ratio", "rotate")


@dataclass(frozen=True)
class TextInfilling(Denoising):
    """Lewis et al. 2020, section 2.2, on tokens rather than words.

    Spans of Poisson-distributed length are each replaced by one mask token; a span of no tokens inserts
    a mask. Their places between the tokens that stay are random. The shares are exact on average: each
    row uses a stretch of mask_ratio tokens of an endless sequence of spans, and takes the spans that
    begin in it, so that its end shortens none. Special tokens keep their places; one inside a span
    splits it in two. An
    input has no more tokens than its text: in texts of a few tokens, surplus masks are left out.

    Args:
        mask_ratio: share of the tokens that are hidden in spans.
        poisson_lambda: mean length of a span, in tokens.
        permute_sentences: share of the rows whose documents have their sentences in random order.
        token_mask_ratio: share of the tokens outside the spans that are each shown as a mask.
        token_delete_ratio: share of the tokens outside the spans that are left out.
        rotate: share of the rows whose documents begin at a random token; the tokens before it come
            last.
    """

    mask_ratio: float = 0.3
    poisson_lambda: float = 3.0
    permute_sentences: float = 1.0
    token_mask_ratio: float = 0.0
    token_delete_ratio: float = 0.0
    rotate: float = 0.0

    def __post_init__(self):
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"objective.{name}={getattr(self, name)} is not a share between 0 and 1"
                )
        if not 0 < self.poisson_lambda <= 100:
            raise ValueError(
                f"objective.poisson_lambda={self.poisson_lambda} is not between 0 and 100 tokens"
            )
        if self.token_mask_ratio + self.token_delete_ratio > 1:
            raise ValueError(
                "objective.token_mask_ratio and objective.token_delete_ratio add up to more than 1"
            )

    @property
    def needs_sentence_ends(self) -> bool:
        """True if sentences are permuted at all."""
        return self.permute_sentences > 0

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raise ValueError without a mask token."""
        super().check_text(vocabulary, num_tokens)
        if vocabulary.mask_id is None:
            raise ValueError("the tokenizer has no mask token, which text infilling needs")

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """Return the noisy text and the original, both with its separators."""
        tokens = rows.tokens
        mask_id = vocabulary.mask_id
        assert mask_id is not None
        special = is_special(rows)
        if self.permute_sentences:
            tokens = with_sentences_permuted(rows, special, self.permute_sentences, noise)
        if self.rotate:
            tokens = rotated(tokens, special, self.rotate, noise)
        num_rows, num_tokens = tokens.shape
        candidates = ~special  # [B, T]
        hidden, masked, inserted = self.spans(candidates, noise)
        visible = (np.arange(num_tokens) < rows.lengths[:, None]) & ~hidden  # [B, T]
        if self.token_mask_ratio or self.token_delete_ratio:
            bits = noise.bits("token", np.arange(num_tokens))  # [B, T]
            as_mask = candidates & (bits < threshold(self.token_mask_ratio))
            tokens = np.where(as_mask, mask_id, tokens)
            stays = bits >= threshold(self.token_mask_ratio + self.token_delete_ratio)
            visible &= ~candidates | as_mask | stays

        # Each column's output: the masks inserted before it, then its token, or the mask of the span
        # that begins there.
        # [B, T] end of a column's output.
        ends = np.cumsum(inserted[:, :-1] + (visible | masked), axis=1)
        lengths = ends[:, -1] + inserted[:, -1]
        width = max(1, int(lengths.max()))
        shown = np.full((num_rows, width), mask_id, dtype=np.int64)
        ends += width * np.arange(num_rows)[:, None]
        shown.ravel()[ends[visible] - 1] = tokens[visible]
        shown[np.arange(width) >= lengths[:, None]] = vocabulary.pad_id
        return Sequences(shown, lengths), Sequences(rows.tokens, rows.lengths)

    def spans(self, candidates: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose the spans that are hidden.

        Args:
            candidates: [B, T] bool: tokens that may be hidden.
            noise: random bits of the rows.

        Returns:
            hidden: [B, T] bool.
            masked: [B, T] bool: first token of each hidden span or part of one, shown as a mask.
            inserted: [B, T + 1] number of masks inserted before a column, for spans of no tokens.
        """
        num_rows, num_tokens = candidates.shape
        num_candidates = np.count_nonzero(candidates, axis=1)  # [B]
        lengths, used = self.span_lengths(num_candidates, noise)  # [B, S] each
        num_hidden = lengths.sum(axis=1)  # [B]
        starts, lengths = _place_spans(lengths, used, num_candidates, num_tokens, noise)  # [B, S] each

        row, span = np.nonzero(used)
        start = starts[row, span]  # [N]
        length = lengths[row, span]  # [N]
        places = np.flatnonzero(candidates)  # flat positions of the batch's candidates
        # [N] number of a span's first candidate in the batch.
        first = (np.cumsum(num_candidates) - num_candidates)[row] + start
        is_long = length > 0
        begins = np.zeros(candidates.shape, bool)
        begins.ravel()[places[first[is_long]]] = True
        hidden = np.zeros(candidates.shape, bool)
        hidden.ravel()[places[ranges(first[is_long], length[is_long])]] = True
        masked = hidden.copy()
        masked[:, 1:] &= begins[:, 1:] | ~hidden[:, :-1]

        # The other spans have no tokens.
        row = row[~is_long]
        start = start[~is_long]
        first = first[~is_long]
        # Directly after the row's last candidate, before special tokens that follow.
        is_last = start == num_candidates[row]
        column = places[first - is_last] % num_tokens + is_last
        # [B] tokens that the input is shorter by.
        num_spare = num_hidden - np.count_nonzero(masked, axis=1)
        nth = np.arange(len(row)) - np.searchsorted(row, row)  # of the row's insertions
        fits = nth < num_spare[row]
        place = row[fits] * (num_tokens + 1) + column[fits]
        inserted = np.bincount(place, minlength=num_rows * (num_tokens + 1))
        return hidden, masked, inserted.reshape(num_rows, num_tokens + 1)

    def span_lengths(self, num_candidates: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
        """Draw the lengths of each row's spans.

        Args:
            num_candidates: [B] tokens of each row that may be hidden.
            noise: random bits of the rows.

        Returns:
            lengths: [B, S] tokens of each span, 0 if unused.
            used: [B, S] bool; a row's used spans come first.
        """
        coin, phase = noise.bits("budget", np.arange(2)).T * 2.0**-64  # [B] each
        budget = np.floor(self.mask_ratio * num_candidates + coin).astype(np.int64)  # exact on average
        largest = int(budget.max())
        # Number of spans that practically always reaches the largest budget.
        num_spans = math.ceil((largest + 8 * math.sqrt(largest) + 16) / self.poisson_lambda)
        at_least = poisson_tail(self.poisson_lambda)  # P(length ≥ 1), P(length ≥ 2), …
        draws = noise.bits("length", np.arange(num_spans)) * 2.0**-64  # [B, S]
        # [B, S] number of tail probabilities above the draw.
        lengths = np.searchsorted(-at_least, -draws, side="left")
        # A stretch of an endless sequence of spans begins inside a span; its first whole span begins
        # after j tokens with P(j) ~ P(length > j).
        offset = np.searchsorted(np.cumsum(at_least) / at_least.sum(), phase, side="right")
        begins = offset[:, None] + np.cumsum(lengths, axis=1) - lengths
        # [B, S] candidates that are left for a span.
        room = num_candidates[:, None] - (begins - offset[:, None])
        used = (begins < budget[:, None]) & (room > 0)
        return np.where(used, np.minimum(lengths, room), 0), used


def _place_spans(
    lengths: np.ndarray, used: np.ndarray, num_candidates: np.ndarray, num_tokens: int, noise: Noise
) -> tuple[np.ndarray, np.ndarray]:
    """Place each used span in a random gap around the tokens that stay.

    Args:
        lengths: [B, S] tokens of each span.
        used: [B, S] bool.
        num_candidates: [B] tokens of each row that may be hidden.
        num_tokens: T.
        noise: random bits of the rows.

    Returns: starts [B, S], counted in candidates, and lengths [B, S], both in the order of the starts.
    """
    num_gaps = (num_candidates - lengths.sum(axis=1) + 1).astype(np.uint64)  # [B]
    bits = noise.bits("gap", np.arange(lengths.shape[1]))  # [B, S]
    gaps = (bits % num_gaps[:, None]).astype(np.int64)
    gaps[~used] = num_tokens + 1  # after all others
    # By gap, then at random; the lowest 12 bits carry the length along.
    keys = (gaps << 32) | (bits >> np.uint64(44)).astype(np.int64) << 12 | lengths
    keys.sort(axis=1)
    sorted_lengths = keys & 0xFFF
    starts = (keys >> 32) + np.cumsum(sorted_lengths, axis=1) - sorted_lengths
    return starts, sorted_lengths


@cache
def poisson_tail(mean: float) -> np.ndarray:
    """Return P(X ≥ k) of a Poisson variable for k = 1, 2, …, up to where it is negligible."""
    num = int(mean + 12 * math.sqrt(mean) + 24)
    log_p = np.arange(num) * math.log(mean) - mean - np.array([math.lgamma(k + 1) for k in range(num)])
    return np.exp(log_p)[::-1].cumsum()[::-1][1:]
