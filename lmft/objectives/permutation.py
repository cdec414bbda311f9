"""Permutation language modelling: spans are predicted token by token, in a random order (XLNet)."""

from dataclasses import dataclass

import numpy as np

from lmft.objectives.base import Noise, Objective, Rows, Vocabulary, body_inputs, padded_targets
from lmft.objectives.masking import may_be_hidden


@dataclass(frozen=True)
class Permutation(Objective):
    """Yang et al. 2019, as `DataCollatorForPermutationLanguageModeling` of transformers defines it.

    A text is cut into stretches of span / plm_probability tokens, where span is uniform over 1 …
    max_span_length. At a random place of each stretch, span tokens are targets, except special ones.
    Inputs show the mask token there. All other tokens are visible from every position. A target is
    visible from those targets and special tokens that come after it in a random order. In this order,
    the row's first half comes before its second, and both halves have the same order.

    Two things differ from that collator. It requires rows of even length: here blocks are even, and a
    row of odd length is ordered as if followed by one padding token. And only targets have a query
    stream: `target_mapping` has as many rows as the most targets of an example in the batch, which
    changes no loss.
    """

    plm_probability: float = 1 / 6
    max_span_length: int = 5

    families = ("permuted",)

    def __post_init__(self):
        if not 0 < self.plm_probability <= 1:
            what = f"objective.plm_probability={self.plm_probability}"
            raise ValueError(f"{what} is not a share between 0 and 1")
        if self.max_span_length < 1:
            raise ValueError(f"objective.max_span_length={self.max_span_length} must be 1 token or more")

    def num_raw_tokens(self, block_size: int) -> int:
        """Return the largest even number of tokens that fits."""
        return block_size - block_size % 2

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raise ValueError if the tokenizer has no mask token, or blocks have fewer than two tokens."""
        if vocabulary.mask_id is None:
            raise ValueError(
                "the tokenizer has no mask token, which permutation language modelling needs"
            )
        if block_size < 2:
            raise ValueError(
                f"blocks of {block_size} tokens are too short for permutation language modelling"
            )

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids [B, T], perm_mask [B, T, T], target_mapping [B, P, T], targets [K].

        If rows are padded, also attention_mask [B, T]. P is the number of targets of a row, padded to a
        multiple of 8. `target_index` counts the queries: row * P + number in the row. perm_mask[b, i, j]
        is True if i may not see j; as bool it has a quarter of a float's bytes.
        """
        chosen = self.chosen(rows, noise)  # [B, T]
        row, column = np.nonzero(chosen)  # [N]
        tokens = rows.tokens.copy()
        tokens[row, column] = vocabulary.mask_id

        order = factorisation_order(rows, noise)  # [B, T]
        order[~chosen & may_be_hidden(rows)] = -1  # before every target
        perm_mask = order[:, :, None] <= np.where(chosen, order, -2)[:, None, :]

        counts = np.count_nonzero(chosen, axis=1)
        num_queries = max(8, -(-int(counts.max()) // 8) * 8)
        number = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        target_mapping = np.zeros((len(counts), num_queries, tokens.shape[1]), np.float32)
        target_mapping[row, number, column] = 1.0
        batch = body_inputs(rows, tokens) | {"perm_mask": perm_mask, "target_mapping": target_mapping}
        return batch | padded_targets(row * num_queries + number, rows.tokens[row, column])

    def chosen(self, rows: Rows, noise: Noise) -> np.ndarray:
        """Return the tokens that are targets. [B, T] bool"""
        num_tokens = rows.tokens.shape[1]
        span_lengths = range(1, self.max_span_length + 1)
        stretch_of = np.array([int(span / self.plm_probability) for span in span_lengths])
        draws = np.arange(-(-num_tokens // stretch_of[0]))  # enough even if all spans are the shortest
        # [B, S].
        spans = 1 + (noise.bits("span", draws) % np.uint64(self.max_span_length)).astype(np.int64)
        stretches = stretch_of[spans - 1]
        places = (noise.bits("place", draws) % (stretches - spans + 1).astype(np.uint64)).astype(
            np.int64
        )
        starts = np.cumsum(stretches, axis=1) - stretches + places
        within = np.arange(self.max_span_length)
        columns = starts[:, :, None] + within  # [B, S, max_span_length]
        inside = (within < spans[:, :, None]) & (columns < num_tokens)
        chosen = np.zeros(rows.tokens.shape, bool)
        chosen[np.nonzero(inside)[0], columns[inside]] = True
        return chosen & may_be_hidden(rows)


def factorisation_order(rows: Rows, noise: Noise) -> np.ndarray:
    """Return each token's place in a random order of its row. [B, T] int16

    In a row of even length L, the places of its tokens are a permutation of 0 … L - 1.
    """
    num_tokens = rows.tokens.shape[1]
    halves = (rows.lengths + 1)[:, None] // 2  # [B, 1]
    columns = np.arange((num_tokens + 1) // 2)
    bits = noise.bits("order", columns)
    bits[columns >= halves] = np.iinfo(np.uint64).max
    places = np.argsort(np.argsort(bits, axis=1, kind="stable"), axis=1).astype(np.int16)  # [B, T / 2]
    second = np.arange(num_tokens) >= halves
    column = np.minimum(np.arange(num_tokens) - halves * second, len(columns) - 1)  # in padding, any
    return np.take_along_axis(places, column, axis=1) + (halves * second).astype(np.int16)
