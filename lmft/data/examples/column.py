"""Column: a list of numbers that takes no memory once it is long."""

import tempfile
from typing import IO

import numpy as np

_IN_MEMORY = 1 << 24  # bytes of a column; a longer one is in a file


class Column:
    """A growing list of int64: in memory while it is short, then in a temporary file without a name.

    The file is where the system puts such files, $TMPDIR, and ends with the process.
    """

    def __init__(self):
        self._parts: list[np.ndarray] = []
        self._num_bytes = 0
        self._file: IO[bytes] | None = None

    def append(self, values: np.ndarray) -> None:
        """Add values at the end. [n]"""
        self._parts.append(np.ascontiguousarray(values, np.int64))
        self._num_bytes += self._parts[-1].nbytes
        if self._num_bytes > _IN_MEMORY:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 (open until it ends)
            for part in self._parts:
                self._file.write(part.data)
            self._parts.clear()

    def values(self) -> np.ndarray:
        """Return all values, of a long column as a memory map. Nothing is added later. [N] int64"""
        if self._file is None:
            return np.concatenate([np.zeros(0, np.int64), *self._parts])
        self._file.flush()
        return np.asarray(np.memmap(self._file, np.int64, mode="r"))
