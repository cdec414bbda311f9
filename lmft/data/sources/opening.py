"""Open files: decompressed, from inside archives, block by block; and tell what a file is by its first
bytes.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from lmft.errors import UserError

BLOCK = 1 << 20  # bytes read at a time
HEAD = 1 << 16  # bytes of a file's beginning that tell what it is
COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".lzma": "xz", ".zst": "zstd"}
UNREADABLE = (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class Part(NamedTuple):
    """A part of a file that can be read alone."""

    start: int  # byte, or row group of a Parquet file
    stop: int  # the one after the last
    row: int  # Place.row of its first row
    num_bytes: int


class File(NamedTuple):
    """A file, a part of one, or a member of a zip archive, and how it is read; `label` is its name in
    messages.
    """

    path: Path
    format: str
    label: str
    compression: str | None = None
    member: str | None = None
    part: Part | None = None

    @property
    def first_row(self) -> int:
        """Place.row of the first row."""
        return 1 if self.part is None else self.part.row

    @property
    def extension(self) -> str:
        """Extension of the file in small letters, without that of its compression."""
        return extension_of(self.member or self.path.name)

    @property
    def num_bytes(self) -> int:
        """Size of the file or part, compressed as it is."""
        if self.part is not None:
            return self.part.num_bytes
        if self.member is not None:
            return _archive(self.path).getinfo(self.member).compress_size
        return self.path.stat().st_size


def extension_of(name: str) -> str:
    """Return a file name's extension in small letters, without that of its compression."""
    path = Path(name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return path.suffix.lower()


class Kind(NamedTuple):
    """The kind of a file by its first bytes: a name, and an extension if lmft reads it."""

    name: str
    extension: str | None


BINARY = Kind("binary file", None)
_SIGNATURES = (
    (b"\x1f\x8b", Kind("gzip file", ".gz")),
    (b"PK\x03\x04", Kind("zip archive (or an Office document)", ".zip")),
    (b"BZh91AY&SY", Kind("bzip2 file", ".bz2")),
    (b"\xfd7zXZ\0", Kind("xz file", ".xz")),
    (b"\x28\xb5\x2f\xfd", Kind("zstd file", ".zst")),
    (b"PAR1", Kind("Parquet file", ".parquet")),
    (b"ARROW1", Kind("Arrow file", ".arrow")),
    (b"\x89PNG", Kind("PNG image", None)),
    (b"\xff\xd8\xff", Kind("JPEG image", None)),
    (b"GIF8", Kind("GIF image", None)),
    (b"%PDF-", Kind("PDF document", None)),
    (b"SQLite format 3\0", Kind("SQLite database", None)),
    (b"\x7fELF", Kind("program", None)),
)
_CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\x1b"})  # bytes that text in most encodings does not hold
_MOST_CONTROLS = 0.08  # of a text's bytes; compressed bytes have 0.1


@contextmanager
def opened(file: File) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Context manager: a file's content, decompressed, and the raw file that it is read from."""
    with ExitStack() as stack:
        if file.member is None:
            raw = content = stack.enter_context(file.path.open("rb"))
        else:
            archive = _archive(file.path)
            content = stack.enter_context(archive.open(file.member))
            raw = cast(IO[bytes], archive.fp)
        if file.compression:
            content = stack.enter_context(_decompressed(content, file.compression))
        yield content, raw


def members(path: Path) -> list[str]:
    """Return the names of the files in a zip archive. Raises: UserError if it is damaged."""
    try:
        return [info.filename for info in _archive(path).infolist() if not info.is_dir()]
    except UNREADABLE as error:
        raise unreadable(File(path, "zip", str(path)), error) from error


def _archive(path: Path) -> zipfile.ZipFile:
    status = path.stat()
    return _opened_archive(path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=2)
def _opened_archive(path: Path, stamp: tuple[int, int]) -> zipfile.ZipFile:
    """Open an archive once for all its members, as its list of members is read each time."""
    return zipfile.ZipFile(path)


def _decompressed(stream: IO[bytes], compression: str) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stream)
    if compression == "bzip2":
        return bz2.BZ2File(stream)
    if compression == "xz":
        return lzma.LZMAFile(stream)
    import pyarrow

    return pyarrow.CompressedInputStream(stream, compression)


def blocks(file: File, advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the file's content block by block; call `advance` with the bytes of the file that each took.

    Raises: UserError if it is damaged.
    """
    try:
        with opened(file) as (content, raw):
            position = raw.tell() if file.member else 0
            stop = None
            if file.part is not None:
                position = content.seek(file.part.start)
                stop = file.part.stop
            while block := content.read(BLOCK if stop is None else min(BLOCK, stop - position)):
                advance(raw.tell() - position)
                position = raw.tell()
                yield block
            advance(raw.tell() - position)
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def beginning(file: File, size: int = HEAD) -> bytes:
    """Return the first bytes of the file's content. Raises: UserError if it is damaged."""
    try:
        with opened(file) as (content, _):
            return content.read(size)
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def whole(file: File) -> io.BytesIO:
    """Return the file's whole content in memory. Raises: UserError if it is damaged."""
    return io.BytesIO(b"".join(blocks(file, lambda _: None)))


def unreadable(file: File, error: Exception) -> UserError:
    """Return the error for a file that the system or a library cannot read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    kind = file.compression or file.format
    if file.member:
        kind = "zip"
    what = f"cannot read this {kind} file: {reason}"
    return UserError(what, file.label, "is it damaged, truncated or misnamed?")


def kind_of(head: bytes) -> Kind | None:
    """Return what a file is that begins with these bytes; None: a text, as far as they tell.

    UTF-16 and UTF-32 with a byte order mark are text.
    """
    is_binary = any(byte in _CONTROLS for byte in head[:512])
    if not is_binary or head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return None
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[257:262] == b"ustar":
        return Kind("tar archive", None)
    num_controls = len(head) - len(head.translate(None, _CONTROLS))
    if num_controls > _MOST_CONTROLS * len(head):
        return BINARY
    return None
