"""Find where documents begin in the rows of a batch."""

import numpy as np

_LEAST_DOCUMENTS = 8  # of a row, for which there is room
_USUAL_TOKENS = 128  # of a document, at least; shorter ones need more room


def document_starts(documents: np.ndarray) -> np.ndarray:
    """Return where documents begin in the rows, laid end to end, and then where the rows end.

    The array has room for more documents than there are, so that its size seldom changes; the room is
    filled with documents of no token. Padding at the end of a row counts as a document.

    >>> document_starts(np.array([[3, 3, 4], [7, -1, -1]]))[:6].tolist()
    [0, 2, 3, 4, 6, 6]

    Args:
        documents: [B, T] the number of each token's document, −1 for padding.

    Returns: [N + 1] int32.
    """
    num_rows, num_tokens = documents.shape
    begins = np.ones((num_rows, num_tokens), bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    found = np.flatnonzero(begins)
    room = num_rows * max(_LEAST_DOCUMENTS, num_tokens // _USUAL_TOKENS)
    while room < len(found):
        room *= 2
    starts = np.full(room + 1, num_rows * num_tokens, np.int32)
    starts[: len(found)] = found
    return starts
