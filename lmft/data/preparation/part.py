"""Part: the tokens of a shard, in a folder of its own until all parts are there."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from lmft.data.formats.base import Format, tokenize
from lmft.data.formats.unknown import MOST_DISTINCT, most_frequent
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.data.store import OF_DOCUMENTS, CorruptStore, StoreWriter, TokenStore
from lmft.errors import UserError
from lmft.system.cache import built_once

_AT_A_TIME = 1 << 20  # tokens that are copied at a time


class Met:
    """Counts and notes of the parts of a source, added up in their order."""

    def __init__(self, source: Source):
        self.tally = source.tally()
        self.counts: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.of_format: Counter[str] = Counter()

    def add(self, state: Mapping[str, Any]) -> None:
        """Add what was met in the next part."""
        self.tally.add(state["tally"])
        self.counts.update({name: state[name] for name in ("documents", "bytes")})
        if len(self.unknown) < MOST_DISTINCT:
            self.unknown.update(dict(state["unknown"]))
        self.of_format.update(state["of_format"])

    def meta(self, source: Source, format: Format) -> dict[str, Any]:
        """Return what a store tells of its source. Raises: UserError if there was no text."""
        tally = self.tally
        warnings = [*tally.warnings()]
        warnings += [f"{source.name}: {text}" for text in format.warnings(self.of_format)]
        if not self.counts["documents"]:
            raise _no_text(source.name, tally)
        return {
            "source": source.name,
            **format.encoder.template,
            "word_starts": format.encoder.has_word_starts,
            "documents": self.counts["documents"],
            "bytes": self.counts["bytes"],
            "unknown_text": most_frequent(self.unknown),
            "cleaned": dict(tally.counts),
            "notes": [*source.notes, *tally.notes()],
            "warnings": warnings,
            "weightless_answers": tally.num_weightless,
        }


def tokenise(
    shard: Source, format: Format, writer: StoreWriter, advance: Callable[[int], object]
) -> dict[str, Any]:
    """Write the documents of a shard; return what was met, as JSON can write it. Raises: UserError."""
    tally = shard.tally(advance)
    before = Counter(format.counts)
    counts = tokenize(format.documents(shard, tally), format.encoder, writer)
    of_format = {name: count - before[name] for name, count in format.counts.items()}
    unknown = [*counts["unknown"].items()]
    return {**counts, "unknown": unknown, "tally": tally.state(), "of_format": of_format}


def tokenise_apart(
    shard: Source,
    format: Format,
    folder: Path,
    advance: Callable[[int], object],
    waits: bool = True,
) -> None:
    """Tokenise a shard into a folder, which is there when it is complete.

    Args:
        shard: the shard.
        format: the format of its rows.
        folder: the part's folder; if it is there, its files are compared with their checksums.
        advance: called with the bytes of the shard that were read since its last call.
        waits: wait for another process that is at this shard; False: leave it to that one.

    Raises: UserError.
    """

    def build(into: Path) -> None:
        writer = StoreWriter(into, format.encoder.dtype)
        try:
            writer.finish(tokenise(shard, format, writer, advance))
        finally:
            writer.close()

    with nullcontext() if waits else suppress(Timeout):
        built_once(folder, build=build, damage=damage, warn=lambda _: None, waits=waits)


def damage(folder: Path) -> str | None:
    """Return what is wrong with a part's files; None if nothing is."""
    try:
        TokenStore(folder).verify()
    except CorruptStore as error:
        return str(error)
    return None


def joined(folders: Iterable[Path], met: Met, writer: StoreWriter) -> None:
    """Write the documents of all parts, in their order, and add up what was met."""
    for folder in folders:
        part = TokenStore(folder)
        met.add(part.meta)
        _copy(part, writer)


def _copy(part: TokenStore, writer: StoreWriter) -> None:
    first = 0
    while first < part.num_documents:
        limit = int(part.offsets[first]) + _AT_A_TIME
        stop = max(first + 1, int(np.searchsorted(part.offsets, limit, side="right")) - 1)
        start, end = part.offsets[[first, stop]].tolist()
        writer.append(
            part.read("tokens", start, end),
            part.read("flags", start, end),
            np.diff(part.read("offsets", first, stop + 1)),
            {name: part.read(name, first, stop) for name in OF_DOCUMENTS},
        )
        first = stop


def _no_text(name: str, tally: Tally) -> UserError:
    """Return the error for a source without any text, with what became of its rows."""
    what = f"there is no text in {name}"
    if tally.counts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.counts.items())
        what += f" (dropped: {reasons})"
    return UserError(what, " ".join(tally.warnings()) or None)
