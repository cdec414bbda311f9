"""Shards: a source's files in parts of about the same size, which can be read independently."""

import re
from collections.abc import Iterator, Sequence

from lmft.data.sources.decoding import has_old_line_ends
from lmft.data.sources.json_files import has_object_per_line
from lmft.data.sources.opening import BLOCK, UNREADABLE, File, Part, unreadable
from lmft.data.sources.reading import Reading

SIZE = 1 << 23  # bytes of a shard, as they are on the disk, unless there were more shards than _MOST
_MOST = 1 << 10  # shards of a text: a folder of nine files each
# Encodings in which a byte 0x0A is the end of a line, wherever reading begins.
_BY_BYTES = re.compile("utf-8|ascii|iso8859-.*|cp125.|koi8-.*|mac-.*")


def shards_of(files: Sequence[File], reading: Reading) -> list[list[File]]:
    """Split files into shards: several small ones, or a part of a large one.

    They depend on the files and how they are read alone. Compressed files, archives and those whose rows
    can hold line breaks are not split.

    Raises: UserError if a file cannot be read.
    """
    shards: list[list[File]] = []
    least = max(SIZE, sum(file.num_bytes for file in files) // _MOST)
    size = 0
    for file in files:
        for part in _parts(file, reading, least):
            if not shards or size >= least:
                shards.append([])
                size = 0
            shards[-1].append(part)
            size += part.num_bytes
    return shards


def _parts(file: File, reading: Reading, least: int) -> list[File]:
    """Return parts of about `least` bytes of a file; itself if it is small, or cannot be split."""
    if file.member is not None or file.compression or file.num_bytes < 2 * least:
        return [file]
    if file.format == "parquet":
        parts = _row_groups(file, least)
    else:
        end = _end_of_document(file, reading)
        parts = [] if end is None else _ranges(file, end, file.num_bytes // least)
    found = [*parts]
    return found if len(found) > 1 else [file]


def _row_groups(file: File, least: int) -> Iterator[File]:
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(file.path)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(file, error) from error
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    total = max(1, sum(group.total_byte_size for group in groups))
    start = 0
    row = 1
    num_rows = 0
    size = 0.0
    for number, group in enumerate(groups, 1):
        num_rows += group.num_rows
        size += group.total_byte_size / total * file.num_bytes
        if size >= least or number == len(groups):
            yield file._replace(part=Part(start, number, row, int(size)))
            start = number
            row += num_rows
            num_rows = 0
            size = 0.0


def _end_of_document(file: File, reading: Reading) -> re.Pattern[bytes] | None:
    """Return what ends a row of a file wherever it stands; None: nothing does."""
    if not _BY_BYTES.fullmatch(reading.encoding):
        return None
    if file.format == "json":
        return re.compile(rb"\n") if has_object_per_line(file, reading) else None
    if file.format != "txt" or not reading.separator or reading.separator.strip("\n"):
        return None
    if has_old_line_ends(file, reading):
        return None
    num_newlines = len(reading.separator)
    if num_newlines == 1:
        return re.compile(rb"\n")
    # The first ones of several newlines, as splitting from the left finds them.
    return re.compile(rb"[^\r\n](?:\r?\n){%d}" % num_newlines)


def _ranges(file: File, end: re.Pattern[bytes], number: int) -> Iterator[File]:
    """Yield so many ranges of bytes that end with a document, each with the number of its first line.

    They are of about the same size; there are fewer of them if documents are longer.
    """
    size = file.num_bytes
    start = 0
    row = 1
    try:
        with file.path.open("rb") as content:
            for place in (size * count // number for count in range(1, number + 1)):
                if place <= start:
                    continue  # inside the document that the last range ended with
                stop = _end_after(content, place, end) or size
                yield file._replace(part=Part(start, stop, row, stop - start))
                row += _num_lines(content, start, stop)
                start = stop
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def _end_after(content, place: int, end: re.Pattern[bytes]) -> int | None:
    """Return where the first document ends that ends after a place; None if none does."""
    content.seek(place)
    window = b""
    while block := content.read(BLOCK):
        window += block
        if found := end.search(window):
            return place + found.end()
        kept = window[-64:]  # longer than any end
        place += len(window) - len(kept)
        window = kept
    return None


def _num_lines(content, start: int, stop: int) -> int:
    content.seek(start)
    count = 0
    while start < stop:
        block = content.read(min(BLOCK, stop - start))
        start += len(block)
        count += block.count(b"\n")
        if not block:
            break  # the file has become shorter; reading it tells
    return count
