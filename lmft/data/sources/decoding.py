"""Text files: decode and split them block by block, and name or replace bytes that cannot be decoded."""

import codecs
import re
from collections.abc import Iterator
from itertools import chain

from lmft.data.sources import opening
from lmft.data.sources.encoding_advice import advice, check_is_text
from lmft.data.sources.opening import File
from lmft.data.sources.reading import Reading
from lmft.data.sources.tally import Tally
from lmft.errors import UserError

# A byte 0xNN that cannot be decoded becomes U+DCNN, which no decoder gives otherwise, until it is
# reported, replaced or left out.
_BAD_BYTE = re.compile("[\udc00-\udcff]")
_ERRORS = "lmft.bad_byte"
_REPLACEMENTS = {"replace": "\ufffd", "ignore": ""}


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return chr(0xDC00 + error.object[error.start]), error.end


codecs.register_error(_ERRORS, _mark)


def bad_byte(text: str) -> str | None:
    """Return what is wrong with a text that holds a byte that could not be decoded; else None."""
    if text.isascii():
        return None
    found = _BAD_BYTE.search(text)
    return _name_of(found) if found else None


def _name_of(mark: re.Match[str]) -> str:
    return f"byte 0x{ord(mark[0]) - 0xDC00:02x}"


def beginning(file: File, reading: Reading) -> str:
    """Return the file's first characters, as `texts` gives them, without a byte order mark.

    Raises: UserError if it is not text.
    """
    head = _head(file, reading)
    text = head.removeprefix("\ufeff").replace("\r\n", "\n")
    return text.replace("\r", "\n") if _has_old_line_ends(head) else text


def _head(file: File, reading: Reading) -> str:
    head = opening.beginning(file)
    check_is_text(file, head, reading.encoding)
    decoder = codecs.getincrementaldecoder(reading.encoding)("replace")
    return _decode(decoder, head, file, reading.encoding)


def _has_old_line_ends(beginning: str) -> bool:
    """Return whether CR alone ends the lines of a text that begins so, as on old Macs."""
    return "\r" in beginning and "\n" not in beginning


def has_old_line_ends(file: File, reading: Reading) -> bool:
    """Return whether CR alone ends the lines of a file, as on old Macs. Raises: UserError."""
    return _has_old_line_ends(_head(file, reading))


def without_bom(blocks: Iterator[str]) -> Iterator[str]:
    """Yield the blocks without the byte order mark that the first one may begin with."""
    for text in blocks:
        yield text.removeprefix("\ufeff")
        if text:
            break
    yield from blocks


def split(blocks: Iterator[str], separator: str) -> Iterator[list[str]]:
    """Split a text that comes in blocks at each separator; "" splits nothing.

    Yield the pieces that end in each block. An empty piece at the end is left out.
    """
    overlap = max(len(separator) - 1, 0)  # characters that may be the beginning of a separator
    held = []
    tail = ""
    for text in blocks:
        pieces = (tail + text).split(separator) if separator else [tail + text]
        rest = pieces.pop()
        if pieces:
            pieces[0] = "".join(held) + pieces[0]
            held = []
        cut = max(len(rest) - overlap, 0)
        held.append(rest[:cut])
        tail = rest[cut:]
        yield pieces
    last = "".join(held) + tail
    yield [last] if last else []


def texts(file: File, reading: Reading, tally: Tally) -> Iterator[str]:
    r"""Yield the file's text block by block, with \n for \r\n.

    If its beginning has \r but no \n, \r ends its lines, as on old Macs, and becomes \n too.

    Raises: UserError for a byte that cannot be decoded, unless the reading replaces it, or skips its
        row. In the latter case `bad_byte` finds it.
    """
    held = ""
    old_line_ends = _has_old_line_ends(_head(file, reading))
    if old_line_ends:
        tally.note("its lines end with CR alone, as on old Macs", file.label)
    for decoded in _decoded(file, reading, tally):
        text = held + decoded
        held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n")
        yield text.replace("\r", "\n") if old_line_ends else text
    yield "\n" if held and old_line_ends else held


def _decoded(file: File, reading: Reading, tally: Tally) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(reading.encoding)(_ERRORS)
    # Of the next byte, counting from 1.
    line = file.first_row
    column = 1
    for block in chain(opening.blocks(file, tally.advance), [b""]):
        text = _decode(decoder, block, file, reading.encoding)
        if bad_byte(text) and not reading.keeps_bad_bytes:
            if reading.encoding_errors == "strict":
                raise _undecodable(text, file, reading.encoding, line, column)
            text, count = _BAD_BYTE.subn(_REPLACEMENTS[reading.encoding_errors], text)
            tally.counts[f"bytes {reading.encoding_errors}d"] += count
        yield text
        line, column = _place_after(text, reading.encoding, line, column)


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, file: File, encoding: str) -> str:
    try:
        return decoder.decode(block, final=not block)
    except UnicodeError as error:  # of UTF-16 and UTF-32, without the byte order mark
        fix = f"data.encoding={encoding}-le or {encoding}-be, if it is {encoding} at all"
        raise UserError(f"not {encoding} text: {error}", file.label, fix) from error


def _undecodable(text: str, file: File, encoding: str, line: int, column: int) -> UserError:
    found = _BAD_BYTE.search(text)
    assert found is not None
    line, column = _place_after(text[: found.start()], encoding, line, column)
    what = f"not {encoding} text: {_name_of(found)}"
    where = f"{file.label}, line {line}, byte {column}"
    return UserError(what, where, f"{advice(file, encoding)}; or data.on_error=skip")


def _place_after(text: str, encoding: str, line: int, column: int) -> tuple[int, int]:
    """Return line and byte after `text`, which begins at the given ones."""
    before, newline, last = text.rpartition("\n")
    if newline:
        line += before.count("\n") + 1
        column = 1
    num_mark_bytes = len("".encode(encoding))  # of the byte order mark that some encodings begin with
    return line, column + len(last.encode(encoding, "replace")) - num_mark_bytes
