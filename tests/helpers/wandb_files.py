"""What Weights & Biases has written offline: a log of records, in the format of LevelDB's logs."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768  # bytes; no record's header crosses the end of a block
_FILE_HEADER = 7
_RECORD_HEADER = 7  # checksum, length and kind
_FULL = 1
_FIRST = 2
_LAST = 4


def records(folder: Path) -> Iterator[Any]:
    """The records of all offline runs in a folder, in order."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in _scan(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record


def histories(folder: Path) -> list[dict[str, Any]]:
    """The rows that were logged, of all offline runs."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def _scan(content: bytes) -> Iterator[bytes]:
    place = _FILE_HEADER
    parts: list[bytes] = []
    while place + _RECORD_HEADER <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _RECORD_HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + _RECORD_HEADER])
        place += _RECORD_HEADER
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(content[place : place + length])
        place += length
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
