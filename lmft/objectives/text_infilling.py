"""Text infilling: hidden spans become one mask each, sentences change places, the decoder says the original
(BART).
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

    Spans of Poisson-distributed length are taken out, each for one mask token; a span of no tokens puts a
    mask in. They lie at random between the tokens that stay. The shares are exact on average: spans are cut
    from an endless row of them, of which a stretch of mask_ratio tokens is used, with the spans that begin
    there; so the stretch's end makes none shorter. Special tokens stay where they are, and cut a span that
    they lie in into two. An input has no more
    tokens than its text: masks that are too many are left out, which happens in texts of a few tokens.

    permute_sentences, rotate: shares of the rows whose documents have their sentences in random order, or
    begin at a random token and end with what stood before it. token_mask_ratio, token_delete_ratio: shares of
    the tokens outside the spans that are each shown as a mask, or not at all.
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
                raise ValueError(f"objective.{name}={getattr(self, name)} is no share between 0 and 1")
        if not 0 < self.poisson_lambda <= 100:
            raise ValueError(
                f"objective.poisson_lambda={self.poisson_lambda} is not between 0 and 100 tokens"
            )
        if self.token_mask_ratio + self.token_delete_ratio > 1:
            raise ValueError(
                "objective.token_mask_ratio and objective.token_delete_ratio add up to more than 1"
            )

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raises ValueError without a mask token, or where nothing tells where sentences end."""
        super().check_text(vocabulary, num_tokens)
        if vocabulary.mask_id is None:
            raise ValueError("the tokenizer has no mask token, which text infilling needs")
        if self.permute_sentences and not len(vocabulary.sentence_end_ids):
            raise ValueError(
                "the tokenizer has no token that ends a sentence, as . ! ? do: set objective.permute_sentences=0"
            )

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """The noisy text and the original, both with its separators."""
        tokens, mask_id = rows.tokens, vocabulary.mask_id
        assert mask_id is not None
        special = is_special(rows)
        if self.permute_sentences:
            tokens = with_sentences_permuted(tokens, special, self.permute_sentences, vocabulary, noise)
        if self.rotate:
            tokens = rotated(tokens, special, self.rotate, noise)
        num_rows, num_tokens = tokens.shape
        candidates = ~special  # [B, T]
        hidden, masked, inserted = self.spans(candidates, noise)
        visible = (np.arange(num_tokens) < rows.lengths[:, None]) & ~hidden
        if self.token_mask_ratio or self.token_delete_ratio:
            bits = noise.bits("token", np.arange(num_tokens))
            as_mask = candidates & (bits < threshold(self.token_mask_ratio))
            tokens = np.where(as_mask, mask_id, tokens)
            visible &= (
                ~candidates | as_mask | (bits >= threshold(self.token_mask_ratio + self.token_delete_ratio))
            )

        # Column by column: the masks put in before it, then its token, or the mask in place of the span it
        # begins.
        ends = np.cumsum(inserted[:, :-1] + (visible | masked), axis=1)  # [B, T] where a column's part ends
        lengths = ends[:, -1] + inserted[:, -1]
        width = max(1, int(lengths.max()))
        shown = np.full((num_rows, width), mask_id, dtype=np.int64)
        ends += width * np.arange(num_rows)[:, None]
        shown.ravel()[ends[visible] - 1] = tokens[visible]
        shown[np.arange(width) >= lengths[:, None]] = vocabulary.pad_id
        return Sequences(shown, lengths), Sequences(rows.tokens, rows.lengths)

    def spans(self, candidates: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chooses what is hidden among the candidates [B, T] bool.

        Returns hidden [B, T] bool; masked [B, T] bool: where a mask stands for hidden tokens; inserted [B, T
        + 1]: how many masks are put in before a column, for spans of no tokens.
        """
        num_rows, num_tokens = candidates.shape
        num_candidates = np.count_nonzero(candidates, axis=1)
        lengths, used = self.span_lengths(num_candidates, noise)  # [B, S] each
        num_hidden = lengths.sum(axis=1)

        # Each used span falls into one of the gaps around the tokens that stay.
        bits = noise.bits("gap", np.arange(lengths.shape[1]))
        gaps = (bits % (num_candidates - num_hidden + 1).astype(np.uint64)[:, None]).astype(np.int64)
        gaps[~used] = num_tokens + 1  # behind all others
        # By gap, then at random.
        keys = (gaps << 32) | (bits >> np.uint64(44)).astype(np.int64) << 12 | lengths
        keys.sort(axis=1)
        gaps, lengths = keys >> 32, keys & 0xFFF
        starts = gaps + np.cumsum(lengths, axis=1) - lengths  # [B, S] counted in candidates

        row, span = np.nonzero(used)
        start, length = starts[row, span], lengths[row, span]  # [N]
        places = np.flatnonzero(candidates)  # of the batch's candidates in the flat rectangle
        # [N] number of a span's first candidate.
        first = (np.cumsum(num_candidates) - num_candidates)[row] + start
        long = length > 0
        begins = np.zeros(candidates.shape, bool)
        begins.ravel()[places[first[long]]] = True
        hidden = np.zeros(candidates.shape, bool)
        hidden.ravel()[places[ranges(first[long], length[long])]] = True
        masked = hidden.copy()
        masked[:, 1:] &= begins[:, 1:] | ~hidden[:, :-1]

        row, start, first = row[~long], start[~long], first[~long]
        # Behind the row's last candidate, before what is special after it.
        after = start == num_candidates[row]
        column = places[first - after] % num_tokens + after
        spare = num_hidden - np.count_nonzero(masked, axis=1)  # [B] tokens by which the input is shorter
        nth = np.arange(len(row)) - np.searchsorted(row, row)  # of the row's insertions
        fitting = nth < spare[row]
        place = row[fitting] * (num_tokens + 1) + column[fitting]
        inserted = np.bincount(place, minlength=num_rows * (num_tokens + 1)).reshape(num_rows, num_tokens + 1)
        return hidden, masked, inserted

    def span_lengths(self, num_candidates: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of each row's spans [B, S], 0 where unused, and which are used [B, S] bool, the first of
        each row.

        num_candidates: [B] tokens of each row that may be hidden.
        """
        coin, phase = noise.bits("budget", np.arange(2)).T * 2.0**-64  # [B] each
        budget = np.floor(self.mask_ratio * num_candidates + coin).astype(np.int64)  # right on average
        most = int(budget.max())
        # Spans, which surely reach it.
        enough = math.ceil((most + 8 * math.sqrt(most) + 16) / self.poisson_lambda)
        at_least = poisson_tail(self.poisson_lambda)  # P(length ≥ 1), P(length ≥ 2), …
        draws = noise.bits("length", np.arange(enough)) * 2.0**-64
        # [B, S]: how many of the tails lie above the draw.
        lengths = np.searchsorted(-at_least, -draws, side="left")
        # Where the first span begins that lies wholly in a stretch of an endless row of spans: P(j) ~
        # P(length > j).
        offset = np.searchsorted(np.cumsum(at_least) / at_least.sum(), phase, side="right")
        begins = offset[:, None] + np.cumsum(lengths, axis=1) - lengths
        # [B, S] candidates that are left for a span.
        room = num_candidates[:, None] - (begins - offset[:, None])
        used = (begins < budget[:, None]) & (room > 0)
        return np.where(used, np.minimum(lengths, room), 0), used


@cache
def poisson_tail(mean: float) -> np.ndarray:
    """P(X ≥ k) for k = 1, 2, … of a Poisson variable, as far as it matters."""
    num = int(mean + 12 * math.sqrt(mean) + 24)
    log_p = np.arange(num) * math.log(mean) - mean - np.array([math.lgamma(k + 1) for k in range(num)])
    return np.exp(log_p)[::-1].cumsum()[::-1][1:]
