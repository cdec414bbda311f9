"""Tally: what one reading of a source met, counted and named."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from lmft.errors import UserError

_NAMED = 3  # skipped rows, and files of one kind, that are named
_NAMED_PARTS = 8  # of rows that nothing reads


class Tally:
    """Counts the bytes and the rows of one reading, and keeps what is to be told about them.

    `counts` has the rows dropped (`none`: no value, `blank`: only white space, `skipped`: cannot be
    used, with `data.on_error=skip`), the texts cleaned (`nul`, `bom`, `surrogate`; see
    `lmft.data.sources.cleaning`), and the bytes that are not text in the encoding (`bytes replaced`,
    `bytes ignored`).
    """

    def __init__(self, skips: bool = False, advance: Callable[[int], object] | None = None):
        """Create an empty tally.

        Args:
            skips: rows that cannot be used are skipped; else the first one is an error.
            advance: called with the number of bytes read since its last call.
        """
        self.counts: Counter[str] = Counter()
        self.skips = skips
        self._advance = advance
        self._skipped: list[str] = []
        self._files_by_note: dict[str, list[str]] = {}
        self._warnings: list[str] = []
        self._unread: dict[str, dict[str, tuple[int, str]]] = {}  # by what they are, by name
        self.num_weightless = 0  # answers that their rows exclude from the loss

    def advance(self, num_bytes: int) -> None:
        """Count bytes that were read, for the display of progress."""
        if self._advance:
            self._advance(num_bytes)

    def reject(self, error: UserError) -> None:
        """Count a row as skipped. Raises: `error`, if rows may not be skipped."""
        if not self.skips:
            hint = "data.on_error=skip leaves such rows out"
            error.fix = f"{error.fix}; or {hint}" if error.fix else hint
            raise error
        self.counts["skipped"] += 1
        if len(self._skipped) < _NAMED:
            self._skipped.append(f"{error.where}: {error.what}")

    def note(self, what: str, file: str) -> None:
        """Keep what was found out about a file; files of which the same is told share a note."""
        files = self._files_by_note.setdefault(what, [])
        if file not in files[-1:]:  # as a file's parts are read one after another
            files.append(file)

    def warn(self, what: str) -> None:
        """Keep a warning about a file."""
        self._warnings.append(what)

    def count_unread(self, kind: str, names: Iterable[str], place: str) -> None:
        """Count a row, at `place`, with parts that nothing reads.

        `kind` says what they are and what to do about it; parts of one kind share a warning.
        """
        for name in names:
            counts = self._unread.setdefault(kind, {})
            count, first = counts.get(name, (0, place))
            counts[name] = (count + 1, first)

    def state(self) -> dict[str, Any]:
        """Return all that was met, as JSON can write it."""
        return {
            "counts": dict(self.counts),
            "skipped": self._skipped,
            "files_by_note": self._files_by_note,
            "warnings": self._warnings,
            "unread": {
                kind: [[name, *counted] for name, counted in names.items()]
                for kind, names in self._unread.items()
            },
            "num_weightless": self.num_weightless,
        }

    def add(self, state: dict[str, Any]) -> None:
        """Add what was met in the next part of the source, as its tally's `state` told."""
        self.counts.update(state["counts"])
        self._skipped = [*self._skipped, *state["skipped"]][:_NAMED]
        for what, files in state["files_by_note"].items():
            for file in files:
                self.note(what, file)
        self._warnings += state["warnings"]
        for kind, names in state["unread"].items():
            for name, more, place in names:
                counts = self._unread.setdefault(kind, {})
                count, first = counts.get(name, (0, place))
                counts[name] = (count + more, first)
        self.num_weightless += state["num_weightless"]

    def notes(self) -> list[str]:
        """Return one line for each kind of file that was read."""
        notes = []
        for what, files in self._files_by_note.items():
            notes.append(f"{_some(files, len(files), ', ')}: {what}")
        return notes

    def warnings(self) -> list[str]:
        """Return the warnings: what is not read in how many rows, and how many rows were skipped."""
        warnings = list(self._warnings)
        for kind, counts in self._unread.items():
            parts = [
                f"{name} ({_rows(count)}, first: {first})" for name, (count, first) in counts.items()
            ]
            warnings.append(f"{kind}: {_some(parts, len(parts), '; ', _NAMED_PARTS)}")
        if num_skipped := self.counts["skipped"]:
            rows = _some(self._skipped, num_skipped, "; ")
            warnings.append(f"rows skipped because they cannot be used: {num_skipped} ({rows})")
        return warnings


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _some(items: list[str], count: int, separator: str, limit: int = _NAMED) -> str:
    """Return the first items, and how many of `count` there are beyond them."""
    shown = items[:limit]
    text = separator.join(shown)
    if count > len(shown):
        text += f" and {count - len(shown)} more"
    return text
