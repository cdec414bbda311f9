"""Documents in another order: sentences that change places, and texts that begin elsewhere (Lewis et al.
2020).
"""

import numpy as np

from lmft.objectives.base import SPECIAL, Noise, Rows, Vocabulary, threshold


def with_sentences_permuted(
    tokens: np.ndarray, special: np.ndarray, share: float, vocabulary: Vocabulary, noise: Noise
) -> np.ndarray:
    """The tokens [B, T] with, in a share of the rows, the sentences of each document in random order.

    A sentence ends with one of `vocabulary.sentence_end_ids`, or where a special token or the row ends the
    document. Special tokens stay where they are. special: [B, T] bool, with the padding.
    """
    ends_sentence = np.zeros(vocabulary.size, bool)
    ends_sentence[vocabulary.sentence_end_ids] = True
    new_document = document_begins(special)
    new_piece = new_document.copy()
    new_piece[1:] |= ends_sentence[tokens.ravel()[:-1]]
    start = np.flatnonzero(new_piece)  # [S] where sentences begin, and special tokens
    row, column = np.divmod(start, tokens.shape[1])
    order = noise.bits("sentence", column, row) >> np.uint64(24)
    permuted = noise.bits("permute", np.zeros(1, np.int64))[:, 0] < threshold(share)  # [B]
    order[~permuted[row]] = 0
    # Pieces stay in their document.
    order |= np.cumsum(new_document[start]).astype(np.uint64) << np.uint64(40)
    order = np.argsort(order, kind="stable")
    length = np.diff(np.append(start, tokens.size))[order]
    return tokens.ravel()[ranges(start[order], length)].reshape(tokens.shape)


def rotated(tokens: np.ndarray, special: np.ndarray, share: float, noise: Noise) -> np.ndarray:
    """The tokens [B, T] with, in a share of the rows, each document begun at a random token, and its
    beginning last.

    Special tokens stay where they are. special: [B, T] bool, with the padding.
    """
    start = np.flatnonzero(document_begins(special))  # [D]
    length = np.diff(np.append(start, tokens.size))
    row, column = np.divmod(start, tokens.shape[1])
    shift = (noise.bits("rotation", column, row) % length.astype(np.uint64)).astype(np.int64)
    shift[(noise.bits("rotate", np.zeros(1, np.int64))[:, 0] >= threshold(share))[row]] = 0
    begin, length, shift = (np.repeat(part, length) for part in (start, length, shift))  # [B * T] each
    source = begin + (np.arange(tokens.size) - begin + shift) % length
    return tokens.ravel()[source].reshape(tokens.shape)


def is_special(rows: Rows) -> np.ndarray:
    """Special tokens and padding. [B, T] bool"""
    return ((rows.flags & SPECIAL) != 0) | (np.arange(rows.flags.shape[1]) >= rows.lengths[:, None])


def document_begins(special: np.ndarray) -> np.ndarray:
    """Where the text between special tokens begins, and each of these, which stand for themselves. [B * T]
    bool
    """
    begins = special.copy()
    begins[:, 0] = True
    begins[:, 1:] |= special[:, :-1]
    return begins.ravel()


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers start, start + 1, …, start + length - 1 of each pair, one after the other."""
    begins = np.cumsum(lengths) - lengths
    return np.repeat(starts - begins, lengths) + np.arange(lengths.sum())
