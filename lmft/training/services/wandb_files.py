"""Read what Weights & Biases has written offline.

Its files are logs in the format of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md)
after a header of their own. A process that is killed leaves out its last records.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768  # bytes; no record's header crosses the end of a block
_FILE_HEADER = 7  # bytes
_RECORD_HEADER = struct.Struct("<IHB")  # checksum, length and kind
_FULL = 1
_FIRST = 2
_LAST = 4
_STEP = "trainer/global_step"


def records(paths: list[Path]) -> Iterator[Any]:
    """Yield the records of these files in order, as Weights & Biases' own class Record."""
    from wandb.proto import wandb_internal_pb2

    new_record: Any = wandb_internal_pb2.Record  # pyright: ignore[reportAttributeAccessIssue]
    for path in paths:
        for content in _scan(path.read_bytes()):
            record = new_record()
            record.ParseFromString(content)
            yield record


def histories(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows that were logged: number or object by name."""
    for record in records(paths):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                names = list(item.nested_key) or [item.key]
                row.setdefault(names[0], json.loads(item.value_json))
            yield row


def last_steps(paths: list[Path]) -> dict[str, int]:
    """Return the last step of each number."""
    steps: dict[str, int] = {}
    for row in histories(paths):
        steps |= dict.fromkeys(row, int(row.get(_STEP, -1)))
    return steps


def _scan(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file; one that was not written to its end is left out."""
    place = _FILE_HEADER
    parts: list[bytes] = []
    while place + _RECORD_HEADER.size <= len(content):
        left = _BLOCK - place % _BLOCK
        _, length, kind = _RECORD_HEADER.unpack_from(content, place)
        if left < _RECORD_HEADER.size or not kind:  # the rest of a block is padding
            place += left
            continue
        place += _RECORD_HEADER.size
        if place + length > len(content):
            return
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(content[place : place + length])
        place += length
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
