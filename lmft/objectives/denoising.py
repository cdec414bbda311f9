"""Sequence to sequence: the encoder's inputs, the decoder's targets, and the batch of both."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lmft.objectives.base import Noise, Objective, Rows, Vocabulary, padded_targets


class Sequences(NamedTuple):
    """Token sequences of different lengths, as one rectangle."""

    tokens: np.ndarray  # [B, T] int64; beyond a sequence's length, the padding token
    lengths: np.ndarray  # [B]


@dataclass(frozen=True)
class Denoising(Objective):
    """The encoder reads a corrupted text, and the decoder predicts every token of its targets.

    The decoder's inputs are its start token and then the targets except the last one. Padding comes
    after them, where no position attends to it.
    """

    families = ("seq2seq",)

    @abstractmethod
    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """Return the encoder's inputs and the decoder's targets.

        Those of a row depend on that row and its noise alone.
        """

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raise ValueError if it cannot work with this vocabulary or on inputs of this length."""
        self.check_text(vocabulary, self.num_raw_tokens(block_size))

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raise ValueError if texts of up to `num_tokens` cannot be corrupted with this vocabulary."""
        check_decoder(vocabulary)

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return input_ids [B, Ti], decoder_input_ids [B, Td], target_index [K] and targets [K].

        If inputs are padded, also attention_mask [B, Ti]. `target_index` counts the decoder's positions:
        row * Td + column.
        """
        inputs, targets = self.corrupt(rows, vocabulary, noise)
        batch = {"input_ids": inputs.tokens}
        width = inputs.tokens.shape[1]
        if inputs.lengths.min() < width:
            # A row may have no input, and attention over nothing is undefined.
            attended = np.maximum(inputs.lengths, 1)
            batch["attention_mask"] = (np.arange(width) < attended[:, None]).astype(np.int64)
        batch["decoder_input_ids"] = shifted_right(targets.tokens, vocabulary)
        return batch | padded_targets(*flat(targets))


def flat(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat positions (row * T + column) that are not padding, and their tokens. [N] each"""
    tokens = sequences.tokens.ravel()
    if sequences.lengths.min() == sequences.tokens.shape[1]:
        return np.arange(len(tokens)), tokens
    index = np.flatnonzero(np.arange(sequences.tokens.shape[1]) < sequences.lengths[:, None])
    return index, tokens[index]


def check_decoder(vocabulary: Vocabulary) -> None:
    """Raise ValueError if the model's config does not name the decoder's start token."""
    if vocabulary.decoder_start_id is None:
        raise ValueError(
            "the model's config has no decoder_start_token_id, which seq2seq objectives need"
        )


def check_end(vocabulary: Vocabulary) -> None:
    """Raise ValueError if the tokenizer has no end-of-sequence token."""
    if vocabulary.eos_id is None:
        raise ValueError(
            "the tokenizer has no end-of-sequence token, which inputs and targets must end with"
        )


def shifted_right(tokens: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return the decoder's inputs: at each position of the targets [B, T] the token before it."""
    shifted = np.empty_like(tokens)
    shifted[:, 0] = vocabulary.decoder_start_id
    shifted[:, 1:] = tokens[:, :-1]
    return shifted


def without_end(rows: Rows, vocabulary: Vocabulary) -> Rows:
    """Return lines without their own end-of-sequence token: `ended` appends one to each row."""
    if not rows.are_lines:
        return rows
    last = rows.tokens[np.arange(len(rows.lengths)), rows.lengths - 1]
    return replace(rows, lengths=rows.lengths - (last == vocabulary.eos_id))


def ended(rows: Rows, vocabulary: Vocabulary) -> np.ndarray:
    """Return the rows' tokens, each row followed by the end-of-sequence token. [B, T + 1]"""
    assert vocabulary.eos_id is not None
    num_rows, num_tokens = rows.tokens.shape
    tokens = np.empty((num_rows, num_tokens + 1), np.int64)
    tokens[:, :-1] = rows.tokens
    tokens[np.arange(num_rows), rows.lengths] = vocabulary.eos_id
    return tokens


def left_pack(tokens: np.ndarray, kept: np.ndarray, vocabulary: Vocabulary) -> Sequences:
    """Return the kept tokens of each row, moved to its beginning. tokens [B, T], kept [B, T] bool"""
    lengths = np.count_nonzero(kept, axis=1)
    width = max(1, int(lengths.max()))  # a batch has at least one column, even where nothing is kept
    if lengths.min() == width:
        return Sequences(tokens[kept].reshape(len(tokens), width), lengths)
    inside = np.arange(width) < lengths[:, None]
    rectangle = np.full(inside.shape, vocabulary.pad_id, dtype=np.int64)
    rectangle[inside] = tokens[kept]
    return Sequences(rectangle, lengths)
