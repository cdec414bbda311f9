"""Texts that are typed on the command line: `text=…`."""

from typing import Any

from lmft.errors import UserError


def texts_of(given: Any) -> list[str] | None:
    """Return the texts of `text=…`; None if it is not given. Raises: UserError for an empty text.

    given: the option's value: a text, a list of texts, or null.
    """
    if given is None:
        return None
    texts = [str(text) for text in (given if isinstance(given, list) else [given])]
    if not texts or not all(text.strip() for text in texts):
        raise UserError("a text is empty", f"text={given!r}", 'text="…"')
    return texts
