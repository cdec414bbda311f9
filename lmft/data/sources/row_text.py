"""RowText: how the columns of a row become one text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from lmft.data.config import DataConfig
from lmft.data.fingerprint import fingerprint
from lmft.data.sources.reading import unescaped
from lmft.errors import UserError


@dataclass(frozen=True)
class RowText:
    """The columns of a text, and what joins several columns, and the members of a list of texts."""

    columns: tuple[str, ...]
    between_columns: str = "\n\n"
    between_members: str = " "

    @classmethod
    def from_config(cls, data: DataConfig) -> Self:
        """Return what `data.text_column` and `data.join` ask for."""
        join = data.join
        return cls(tuple(data.text_columns), unescaped(join.columns), unescaped(join.lists))

    @property
    def key(self) -> str:
        """Part of cache keys: it changes if the text of any row might."""
        return fingerprint(self.columns, self.between_columns, self.between_members)

    def of(self, values: Sequence[Any]) -> str | None:
        """Return the text of a row's values, one per column; None if there is none in any.

        Raises: UserError, without the place, for a value that is neither text nor a list of texts.
        """
        texts = []
        for name, value in zip(self.columns, values, strict=True):
            text = self._text_of(name, value)
            # A blank title leaves no blank lines before the body.
            if text is not None and (len(values) == 1 or text.strip()):
                texts.append(text)
        if texts:
            return self.between_columns.join(texts)
        if all(value is None for value in values):
            return None
        return ""

    def _text_of(self, name: str, value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, list) and all(isinstance(member, str) for member in value):
            return self.between_members.join(value)
        held = f"a {type(value).__name__}"
        if isinstance(value, list):
            held = "a list of other things"
        what = f"column '{name}' holds {held}, not text"
        fix = "data.text_column=NAME of the column that holds the text"
        if isinstance(value, dict) and value:
            fix += f", such as {name}.{next(iter(value))}"
        raise UserError(what, fix=fix)
