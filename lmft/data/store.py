"""The token store: all documents' token ids, flat on disk, written once, memory-mapped, checksummed.

A store is a folder of raw little-endian arrays of N tokens and M documents, and a store.json:

    tokens.bin   uint16 | uint32 [N]   ids of all documents in order, with the tokenizer's separators
    flags.bin    uint8 [N]             WORD_START | SPECIAL | ANSWER | LAST_ANSWER
    offsets.bin  int64 [M + 1]         document m is tokens[offsets[m] : offsets[m + 1]]
    hashes.bin   uint64 [M]            of each document's text
    bytes.bin    uint32 [M]            UTF-8 bytes of each document's text
    unknown_tokens.bin   uint32 [M]    of each document, tokens for text outside the vocabulary
    unknown_bytes.bin    uint32 [M]    UTF-8 bytes of that text
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from lmft.data.known_whole import is_known_whole, remember_whole
from lmft.system.cache import built_once

FORMAT = 2
OF_DOCUMENTS = {"hashes": "<u8", "bytes": "<u4", "unknown_tokens": "<u4", "unknown_bytes": "<u4"}
_ARRAYS = {"flags": "<u1", "offsets": "<i8", **OF_DOCUMENTS}


class CorruptStore(Exception):
    """A store's files do not match its store.json."""


class TokenStore:
    """A store opened for reading. Arrays are memory-mapped when they are first used."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta = _read_meta(folder / "store.json")

    def __reduce__(self):  # pickled for loader processes, which map the files themselves
        return TokenStore, (self.folder,)

    def _map(self, name: str, dtype: str) -> np.ndarray:
        path = self.folder / f"{name}.bin"
        if path.stat().st_size == 0:
            return np.zeros(0, dtype)
        return np.asarray(np.memmap(path, dtype, mode="r"))

    @property
    def num_documents(self) -> int:
        """The number of documents."""
        return (self.folder / "offsets.bin").stat().st_size // 8 - 1

    def read(self, name: str, first: int, stop: int) -> np.ndarray:
        """Read values into memory, where pages of a map would stay. [stop − first]

        Args:
            name: of an array, such as tokens or hashes.
            first: the first value.
            stop: the one after the last.
        """
        dtype = np.dtype(self.meta["dtype"] if name == "tokens" else _ARRAYS[name])
        path = self.folder / f"{name}.bin"
        return np.fromfile(path, dtype, stop - first, offset=first * dtype.itemsize)

    @cached_property
    def tokens(self) -> np.ndarray:
        """Token ids. [N] uint16 or uint32"""
        return self._map("tokens", self.meta["dtype"])

    @cached_property
    def flags(self) -> np.ndarray:
        """Flags of the tokens. [N] uint8"""
        return self._map("flags", _ARRAYS["flags"])

    @cached_property
    def offsets(self) -> np.ndarray:
        """Begin of each document, and the end of the last. [M + 1] int64"""
        return self._map("offsets", _ARRAYS["offsets"])

    @cached_property
    def hashes(self) -> np.ndarray:
        """Hash of each document's text. [M] uint64"""
        return self._map("hashes", _ARRAYS["hashes"])

    @cached_property
    def bytes(self) -> np.ndarray:
        """Bytes of each document's text. [M] uint32"""
        return self._map("bytes", _ARRAYS["bytes"])

    @cached_property
    def unknown_tokens(self) -> np.ndarray:
        """Tokens of each document that stand for text outside the vocabulary. [M] uint32"""
        return self._map("unknown_tokens", _ARRAYS["unknown_tokens"])

    @cached_property
    def unknown_bytes(self) -> np.ndarray:
        """Bytes of each document's text that the vocabulary cannot express. [M] uint32"""
        return self._map("unknown_bytes", _ARRAYS["unknown_bytes"])

    @property
    def prefix(self) -> list[int]:
        """Separators before each document."""
        return self.meta["prefix"]

    @property
    def suffix(self) -> list[int]:
        """Separators after each document."""
        return self.meta["suffix"]

    def verify(self) -> None:
        """Compare every file with its checksum. Raises: CorruptStore."""
        for name, expected in self.meta["checksums"].items():
            try:
                actual = _checksum(self.folder / name)
            except OSError as error:
                raise CorruptStore(f"{self.folder.name}: {error}") from error
            if actual != expected:
                raise CorruptStore(f"{self.folder.name}/{name}: checksum {actual}, not {expected}")


def content_hash(text: str) -> int:
    """Return xxh3 of a document's text, uniform over uint64."""
    return bytes_hash(text.encode("utf-8", "surrogatepass"))


def bytes_hash(content: bytes) -> int:
    """Return the `content_hash` of an encoded text."""
    return xxhash.xxh3_64_intdigest(content)


def _read_meta(path: Path) -> dict[str, Any]:
    """Return the content of store.json without its checksum. Raises: CorruptStore if it has changed."""
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:  # ValueError: not JSON, or not text
        raise CorruptStore(f"{path.parent.name}/{path.name}: {error}") from error
    if not isinstance(meta, dict) or meta.pop("checksum", None) != _meta_checksum(meta):
        raise CorruptStore(f"{path.parent.name}/{path.name}: it is not what was written")
    return meta


def _meta_checksum(meta: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(meta).encode())


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()  # type: ignore[arg-type]


@dataclass
class StoreWriter:
    """Appends documents to a store that is being built."""

    folder: Path
    dtype: str  # of the token ids: <u2 or <u4

    def __post_init__(self):
        self.num_tokens = 0
        self._files = {name: (self.folder / f"{name}.bin").open("wb") for name in ("tokens", *_ARRAYS)}
        self._digests = {name: xxhash.xxh3_64() for name in self._files}
        self._write("offsets", np.zeros(1))

    def _write(self, name: str, values: np.ndarray) -> None:
        data = np.ascontiguousarray(values, self.dtype if name == "tokens" else _ARRAYS[name]).data
        self._files[name].write(data)
        self._digests[name].update(data)

    def append(
        self,
        tokens: np.ndarray,
        flags: np.ndarray,
        lengths: np.ndarray,
        of_documents: Mapping[str, np.ndarray],
    ) -> None:
        """Append m documents of n tokens.

        Args:
            tokens: [n] token ids of all documents.
            flags: [n] their flags.
            lengths: [m] tokens of each document.
            of_documents: [m] values of each document, by the array's name: hashes, bytes,
                unknown_tokens and unknown_bytes.
        """
        self._write("tokens", tokens)
        self._write("flags", flags)
        self._write("offsets", self.num_tokens + np.cumsum(lengths))
        for name in OF_DOCUMENTS:
            self._write(name, of_documents[name])
        self.num_tokens += len(tokens)

    def finish(self, meta: dict[str, Any]) -> None:
        """Close the files and write store.json, which makes the folder a store."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        checksums = {f"{name}.bin": digest.hexdigest() for name, digest in self._digests.items()}
        meta = {
            "format": FORMAT,
            "dtype": self.dtype,
            "tokens": self.num_tokens,
            **meta,
            "checksums": checksums,
        }
        sealed = {**meta, "checksum": _meta_checksum(meta)}
        (self.folder / "store.json").write_text(json.dumps(sealed, indent=1))

    def close(self) -> None:
        """Close the files of a store that will not be finished."""
        for file in self._files.values():
            file.close()


def open_or_build(
    folder: Path, dtype: str, build: Callable[[StoreWriter], None], warn: Callable[[str], None]
) -> TokenStore:
    """Open the store in `folder`; build it if it is missing, and rebuild it if it is damaged.

    Args:
        folder: folder of the store; built once by one of several processes.
        dtype: of the token ids: <u2 or <u4.
        build: writes and finishes the store.
        warn: called with a message if the store is damaged.

    Raises: UserError if the cache cannot be written to, and the errors of `build`.
    """

    def write(into: Path) -> None:
        writer = StoreWriter(into, dtype)
        try:
            build(writer)
        except BaseException:
            writer.close()
            raise

    def warn_of(damage: str) -> None:
        warn(f"the token store is damaged and is built again ({damage})")

    was_there = folder.exists()
    built_once(folder, build=write, damage=_damage, warn=warn_of)
    if not was_there:
        remember_whole(folder)
    return TokenStore(folder)


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a store's files; None if nothing is.

    Large files are read once; later only if their size or time of change is another one.
    """
    try:
        store = TokenStore(folder)
        if not is_known_whole(folder):
            store.verify()
            remember_whole(folder)
    except CorruptStore as error:
        return str(error)
    return None
