"""Text files: unzip, decode and split them block by block, and name the byte that cannot be decoded."""

import codecs
import gzip
import zlib
from collections.abc import Iterator

from lmft.data.sources.files import File, unreadable
from lmft.errors import UserError

BLOCK = 1 << 20  # bytes of text read at a time


def without_bom(blocks: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Yield the blocks without the byte order mark that the first one may begin with."""
    for text, num_bytes in blocks:
        yield text.removeprefix("\ufeff"), num_bytes
        break
    yield from blocks


def split(blocks: Iterator[tuple[str, int]], separator: str) -> Iterator[tuple[list[str], int]]:
    """Split a text that comes in blocks at each separator; "" splits nothing.

    Yield, for each block, the pieces that end in it and its number of bytes. An empty piece at the end
    is left out.
    """
    overlap = max(len(separator) - 1, 0)  # characters that may be the beginning of a separator
    held = []
    tail = ""
    for text, num_bytes in blocks:
        pieces = (tail + text).split(separator) if separator else [tail + text]
        rest = pieces.pop()
        if pieces:
            pieces[0] = "".join(held) + pieces[0]
            held = []
        cut = max(len(rest) - overlap, 0)
        held.append(rest[:cut])
        tail = rest[cut:]
        yield pieces, num_bytes
    last = "".join(held) + tail
    yield [last] if last else [], 0


def texts(file: File, encoding: str) -> Iterator[tuple[str, int]]:
    r"""Yield the file's text block by block, with \n for \r\n, and the bytes of the file each block
    took.
    """
    held = ""
    for decoded, num_bytes in _decoded(file, encoding):
        text = held + decoded
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r").replace("\r\n", "\n"), num_bytes
    yield held, 0


def _decoded(file: File, encoding: str) -> Iterator[tuple[str, int]]:
    decoder = codecs.getincrementaldecoder(encoding)()
    # Of the next byte, counting from 1.
    line = 1
    column = 1
    for block, num_bytes in _blocks(file):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _undecodable(error, file.label, encoding, line, column) from error
        yield text, num_bytes
        line, column = _place_after(text, encoding, line, column)


def _undecodable(
    error: UnicodeDecodeError, label: str, encoding: str, line: int, column: int
) -> UserError:
    # error.object begins with the bytes of an unfinished character that the decoder kept from the
    # previous block.
    good = error.object[: error.start]
    bad = error.object[error.start]
    if line == column == 1 and error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        likely = "utf-16"
    else:
        likely = "latin-1"
    line, column = _place_after(good.decode(encoding, "replace"), encoding, line, column)
    fix = f"data.encoding={likely}, or whichever it was written in"
    return UserError(
        f"not {encoding} text: byte 0x{bad:02x}", f"{label}, line {line}, byte {column}", fix
    )


def _place_after(text: str, encoding: str, line: int, column: int) -> tuple[int, int]:
    """Return line and byte after `text`, which begins at the given ones."""
    before, newline, last = text.rpartition("\n")
    if newline:
        line += before.count("\n") + 1
        column = 1
    num_mark_bytes = len("".encode(encoding))  # of the byte order mark that some encodings begin with
    return line, column + len(last.encode(encoding)) - num_mark_bytes


def _blocks(file: File) -> Iterator[tuple[bytes, int]]:
    """Yield the file's unzipped content, and the bytes of the file each block took; the last one is
    empty.
    """
    try:
        with file.path.open("rb") as raw:
            content = gzip.GzipFile(fileobj=raw) if file.gzipped else raw
            position = 0
            block = b"begin"
            while block:
                block = content.read(BLOCK)
                num_bytes = raw.tell() - position
                position = raw.tell()
                yield block, num_bytes
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(file, error) from error
