"""Text files: unzipped, decoded and split, block by block, and the exact place of what cannot be decoded."""

import codecs
import gzip
import zlib
from collections.abc import Iterator

from lmft.data.sources.files import File, unreadable
from lmft.errors import UserError

BLOCK = 1 << 20  # bytes of text read at a time


def without_bom(blocks: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """The same blocks; the first one without the byte order mark it may begin with."""
    for text, num_bytes in blocks:
        yield text.removeprefix("\ufeff"), num_bytes
        break
    yield from blocks


def split(blocks: Iterator[tuple[str, int]], separator: str) -> Iterator[tuple[list[str], int]]:
    """What stands between the separators of a text that comes in pieces; "" separates nothing.

    Yields a list for each piece that comes in. What follows the last separator is left out if it is empty.
    """
    overlap = max(len(separator) - 1, 0)  # characters that may be the beginning of a separator
    held, tail = [], ""
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
    r"""The file's text block by block, \r\n made \n, each with the number of bytes of the file it took."""
    held = ""
    for decoded, num_bytes in _decoded(file, encoding):
        text = held + decoded
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r").replace("\r\n", "\n"), num_bytes
    yield held, 0


def _decoded(file: File, encoding: str) -> Iterator[tuple[str, int]]:
    decoder = codecs.getincrementaldecoder(encoding)()
    line, column = 1, 1  # of the next byte, counting from 1
    for block, num_bytes in _blocks(file):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _undecodable(error, file.label, encoding, line, column) from error
        yield text, num_bytes
        line, column = _advanced(text, encoding, line, column)


def _undecodable(error: UnicodeDecodeError, label: str, encoding: str, line: int, column: int) -> UserError:
    # error.object begins with the bytes of an unfinished character that the decoder kept from the block
    # before.
    good, bad = error.object[: error.start], error.object[error.start]
    if line == column == 1 and error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        right = "utf-16"
    else:
        right = "latin-1"
    line, column = _advanced(good.decode(encoding, "replace"), encoding, line, column)
    fix = f"data.encoding={right}, or whichever it was written in"
    return UserError(f"not {encoding} text: byte 0x{bad:02x}", f"{label}, line {line}, byte {column}", fix)


def _advanced(text: str, encoding: str, line: int, column: int) -> tuple[int, int]:
    """Line and byte after `text`, which begins at the given ones."""
    before, newline, last = text.rpartition("\n")
    mark = len("".encode(encoding))  # the byte order mark that some encodings begin with
    return line + before.count("\n") + len(newline), (1 if newline else column) + len(
        last.encode(encoding)
    ) - mark


def _blocks(file: File) -> Iterator[tuple[bytes, int]]:
    """The file's content, unzipped, and how many bytes of the file each block took; the last block is empty."""
    try:
        with file.path.open("rb") as raw:
            content = gzip.GzipFile(fileobj=raw) if file.gzipped else raw
            position, block = 0, b"begin"
            while block:
                block = content.read(BLOCK)
                num_bytes, position = raw.tell() - position, raw.tell()
                yield block, num_bytes
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(file, error) from error
