"""Sequence to sequence: what the encoder reads, what the decoder is to say, and the batch of both."""

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
    """The encoder reads an altered text, the decoder says what it was, every token of which is a target.

    The decoder is given its start token and then the targets but the last one. What pads its input stands
    behind the text, where no position attends to it.
    """

    families = ("seq2seq",)

    @abstractmethod
    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """The encoder's inputs and the decoder's targets. A row's own depend on that row and its noise alone."""

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raises ValueError where it cannot work with such a vocabulary or on inputs of such a length."""
        self.check_text(vocabulary, self.num_raw_tokens(block_size))

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raises ValueError where it cannot corrupt texts of up to so many tokens with such a vocabulary."""
        check_decoder(vocabulary)

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """input_ids [B, Ti], attention_mask [B, Ti] where inputs are padded, decoder_input_ids [B, Td],
        targets.

        `target_index` counts the decoder's positions: row * Td + column.
        """
        inputs, targets = self.corrupt(rows, vocabulary, noise)
        batch = {"input_ids": inputs.tokens}
        width = inputs.tokens.shape[1]
        if inputs.lengths.min() < width:
            # Attention over nothing is not defined; a row may have no input.
            attended = np.maximum(inputs.lengths, 1)
            batch["attention_mask"] = (np.arange(width) < attended[:, None]).astype(np.int64)
        batch["decoder_input_ids"] = shifted_right(targets.tokens, vocabulary)
        return batch | padded_targets(*flat(targets))


def flat(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the flat rectangle, and the tokens there, without padding. [N] each"""
    tokens = sequences.tokens.ravel()
    if sequences.lengths.min() == sequences.tokens.shape[1]:
        return np.arange(len(tokens)), tokens
    index = np.flatnonzero(np.arange(sequences.tokens.shape[1]) < sequences.lengths[:, None])
    return index, tokens[index]


def check_decoder(vocabulary: Vocabulary) -> None:
    """Raises ValueError where nobody says what the decoder begins with."""
    if vocabulary.decoder_start_id is None:
        raise ValueError("the model's config has no decoder_start_token_id, which seq2seq objectives need")


def check_end(vocabulary: Vocabulary) -> None:
    """Raises ValueError where the tokenizer cannot say where inputs and targets end."""
    if vocabulary.eos_id is None:
        raise ValueError(
            "the tokenizer has no end-of-sequence token, which inputs and targets are to end with"
        )


def shifted_right(tokens: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The decoder's inputs: at each position of the targets [B, T] the token before it."""
    shifted = np.empty_like(tokens)
    shifted[:, 0] = vocabulary.decoder_start_id
    shifted[:, 1:] = tokens[:, :-1]
    return shifted


def without_end(rows: Rows, vocabulary: Vocabulary) -> Rows:
    """Lines without the end-of-sequence token among their separators, where `ended` is to put one behind each
    row.
    """
    if not rows.are_lines:
        return rows
    last = rows.tokens[np.arange(len(rows.lengths)), rows.lengths - 1]
    return replace(rows, lengths=rows.lengths - (last == vocabulary.eos_id))


def ended(rows: Rows, vocabulary: Vocabulary) -> np.ndarray:
    """The rows' tokens, each row followed by the end-of-sequence token at the column of its length. [B, T +
    1]
    """
    assert vocabulary.eos_id is not None
    num_rows, num_tokens = rows.tokens.shape
    tokens = np.empty((num_rows, num_tokens + 1), np.int64)
    tokens[:, :-1] = rows.tokens
    tokens[np.arange(num_rows), rows.lengths] = vocabulary.eos_id
    return tokens


def left_pack(tokens: np.ndarray, kept: np.ndarray, vocabulary: Vocabulary) -> Sequences:
    """The kept tokens of each row, moved up to its beginning. tokens [B, T], kept [B, T] bool"""
    lengths = np.count_nonzero(kept, axis=1)
    width = max(1, int(lengths.max()))  # a batch has at least one column, even where nothing is kept
    if lengths.min() == width:
        return Sequences(tokens[kept].reshape(len(tokens), width), lengths)
    inside = np.arange(width) < lengths[:, None]
    rectangle = np.full(inside.shape, vocabulary.pad_id, dtype=np.int64)
    rectangle[inside] = tokens[kept]
    return Sequences(rectangle, lengths)
