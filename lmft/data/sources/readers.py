"""Readers of files, one per format. Each streams rows, and names the place of what it cannot read."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from lmft.data.sources.csv_files import read_csv
from lmft.data.sources.decoding import bad_byte, split, texts
from lmft.data.sources.json_files import read_json
from lmft.data.sources.opening import File
from lmft.data.sources.reading import Reading
from lmft.data.sources.rows import Chunk, Place, check_columns
from lmft.data.sources.table_files import read_arrow, read_parquet
from lmft.data.sources.tally import Tally
from lmft.errors import UserError

_LONG_LINE = 50_000  # characters of a file's only line from which it is worth a warning

_DOCUMENTS = {"\n": "each line a document", "": "one document"}  # by separator

Reader = Callable[[File, Reading, Sequence[str] | None, Tally], Iterator[Chunk]]


def read_files(
    files: Sequence[File], reading: Reading, columns: Sequence[str] | None, tally: Tally
) -> Iterator[Chunk]:
    r"""Yield all rows of the files, in order.

    Only \n and \r\n end a line, and \r\n is read as \n; in a file whose beginning has \r alone, that
    ends a line.

    Args:
        files: the files.
        reading: how they are read.
        columns: columns to read, `a.b` for what is nested; None: all, and what `reading.names` lead to.
        tally: counts bytes and rows, and decides whether rows that cannot be used are skipped.

    Raises: UserError, naming the place, for what is damaged or malformed, and for a missing column.
    """
    for file in files:
        yield from READERS[file.format](file, reading, columns, tally)


def read_txt(
    file: File, reading: Reading, columns: Sequence[str] | None, tally: Tally
) -> Iterator[Chunk]:
    """Yield the documents of a text, which are its only column, `text`; see `read_files`."""
    check_columns(columns, ["text"], file.label)
    separator = reading.separator
    if file.extension != ".txt":
        tally.note(f"read as plain text, {_DOCUMENTS.get(separator, 'cut into documents')}", file.label)
    row = file.first_row
    num_newlines = separator.count("\n")
    longest = 0
    num_documents = 0
    for pieces in split(texts(file, reading, tally), separator):
        rows = list(accumulate((piece.count("\n") + num_newlines for piece in pieces), initial=row))
        row = rows.pop()
        num_documents += len(pieces)
        longest = max([longest, *map(len, pieces)])
        if reading.keeps_bad_bytes:
            rows, pieces = _without_bad_bytes(rows, pieces, file, reading, tally)
        yield Chunk(file.label, rows, {"text": pieces})
    is_whole = file.part is None
    if is_whole and separator == "\n" and num_documents == 1 and longest >= _LONG_LINE:
        what = f"{file.label} is one line of {longest:,} characters, and so one document"
        tally.warn(f"{what}; data.document_separator='. ' or another text cuts it")


def _without_bad_bytes(
    rows: list[int], pieces: list[str], file: File, reading: Reading, tally: Tally
) -> tuple[list[int], list[str]]:
    kept = []
    for row, piece in zip(rows, pieces, strict=True):
        if bad := bad_byte(piece):
            what = f"not {reading.encoding} text: {bad}"
            tally.reject(UserError(what, str(Place(file.label, row))))
        else:
            kept.append((row, piece))
    return [row for row, _ in kept], [piece for _, piece in kept]


READERS: dict[str, Reader] = {
    "txt": read_txt,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_csv,
    "parquet": read_parquet,
    "arrow": read_arrow,
}
