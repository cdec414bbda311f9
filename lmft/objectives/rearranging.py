"""Rearrangement of documents: sentence permutation and document rotation (Lewis et al. 2020)."""

import numpy as np

from lmft.objectives.base import SENTENCE_END, SPECIAL, Noise, Rows, threshold


def with_sentences_permuted(rows: Rows, special: np.ndarray, share: float, noise: Noise) -> np.ndarray:
    """Return the tokens [B, T]; in a share of the rows, each document's sentences are in random order.

    A sentence ends with a token that is flagged SENTENCE_END, or where a special token or the row ends
    the document. Special tokens keep their places.

    Args:
        rows: the rows.
        special: [B, T] bool: special tokens and padding.
        share: probability that a row is permuted.
        noise: random bits of the rows.
    """
    tokens = rows.tokens
    new_document = document_begins(special)  # [B * T]
    new_piece = new_document.copy()
    new_piece[1:] |= (rows.flags.ravel()[:-1] & SENTENCE_END) != 0
    start = np.flatnonzero(new_piece)  # [S] flat positions where sentences begin, and of special tokens
    row, column = np.divmod(start, tokens.shape[1])
    order = noise.bits("sentence", column, row) >> np.uint64(24)  # [S]
    permuted = noise.bits("permute", np.zeros(1, np.int64))[:, 0] < threshold(share)  # [B]
    order[~permuted[row]] = 0
    # The document's number in the upper bits keeps sentences in their document.
    order |= np.cumsum(new_document[start]).astype(np.uint64) << np.uint64(40)
    order = np.argsort(order, kind="stable")
    length = np.diff(np.append(start, tokens.size))[order]
    return tokens.ravel()[ranges(start[order], length)].reshape(tokens.shape)


def rotated(tokens: np.ndarray, special: np.ndarray, share: float, noise: Noise) -> np.ndarray:
    """Return the tokens [B, T]; in a share of the rows, each document begins at a random token.

    The tokens before that one come last. Special tokens keep their places.

    Args:
        tokens: [B, T] int64.
        special: [B, T] bool: special tokens and padding.
        share: probability that a row is rotated.
        noise: random bits of the rows.
    """
    start = np.flatnonzero(document_begins(special))  # [D]
    length = np.diff(np.append(start, tokens.size))
    row, column = np.divmod(start, tokens.shape[1])
    shift = (noise.bits("rotation", column, row) % length.astype(np.uint64)).astype(np.int64)
    stays = noise.bits("rotate", np.zeros(1, np.int64))[:, 0] >= threshold(share)  # [B]
    shift[stays[row]] = 0
    begin, length, shift = (np.repeat(part, length) for part in (start, length, shift))  # [B * T] each
    source = begin + (np.arange(tokens.size) - begin + shift) % length
    return tokens.ravel()[source].reshape(tokens.shape)


def is_special(rows: Rows) -> np.ndarray:
    """Return which tokens are special or padding. [B, T] bool"""
    return ((rows.flags & SPECIAL) != 0) | (np.arange(rows.flags.shape[1]) >= rows.lengths[:, None])


def document_begins(special: np.ndarray) -> np.ndarray:
    """Return where pieces begin: texts between special tokens, and single special tokens. [B * T]
    bool
    """
    begins = special.copy()
    begins[:, 0] = True
    begins[:, 1:] |= special[:, :-1]
    return begins.ravel()


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return start, start + 1, …, start + length - 1 of each range in turn. starts, lengths [N] →
    [sum]
    """
    begins = np.cumsum(lengths) - lengths
    return np.repeat(starts - begins, lengths) + np.arange(lengths.sum())
