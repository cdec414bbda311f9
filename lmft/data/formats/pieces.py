"""Pieces of a long text that have the same tokens as the whole."""

_PIECE_CHARACTERS = 1 << 20  # a longer document is tokenised in pieces of this length


def pieces_of(text: str) -> list[str]:
    """Split a long text before spaces, where pre-tokenizers split too, so that its tokens stay the same.

    Only a space that follows a character other than white space is split at. A piece without any is
    split at its maximal length.
    """
    pieces = []
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = start + _PIECE_CHARACTERS
        cut = text.rfind(" ", start + 1, end + 1)
        while cut > 0 and text[cut - 1].isspace():
            cut = text.rfind(" ", start + 1, cut)
        if cut <= 0:
            cut = end
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
