"""Save an object with torch, and compute the checksum of its file meanwhile."""

import io
from pathlib import Path
from typing import Any

import torch
import xxhash

from lmft.system import files
from lmft.system.signals import Stopped


class _Sink(io.BufferedWriter):
    """A file that computes its checksum while it is written, and keeps the first error of writing.

    torch.save's own error reports only that the file is too short.
    """

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path, "wb"))
        self.digest = xxhash.xxh3_64()
        self.error: OSError | None = None

    def write(self, buffer: Any, /) -> int:
        self.digest.update(buffer)
        try:
            return super().write(buffer)
        except OSError as error:
            self.error = self.error or error
            raise


def save(content: dict[str, Any], path: Path) -> str:
    """Write a file, flushed to the disk; return its xxh3. Raises: OSError."""
    with _Sink(path) as sink:
        try:
            torch.save(content, sink)
        except RuntimeError as error:
            # torch raises it while it closes its archive, and so hides what has ended the writing.
            if sink.error is not None:
                raise sink.error from None
            if isinstance(error.__context__, Stopped):
                raise error.__context__ from None
            raise
        files.sync(sink)
        return sink.digest.hexdigest()
