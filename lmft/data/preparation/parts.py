"""All parts of a source: tokenised by one command or several, unless they are there already."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lmft.data.formats.base import Format
from lmft.data.preparation.job import Job
from lmft.data.preparation.part import Met, joined, tokenise, tokenise_apart
from lmft.data.preparation.processes import in_processes
from lmft.data.sources.source import Source
from lmft.data.store import StoreWriter
from lmft.errors import UserError

Advance = Callable[[int], object]


def tokenise_source(
    source: Source, job: Job, format: Format, folder: Path, writer: StoreWriter, advance: Advance
) -> None:
    """Tokenise a source into a store, and finish it.

    A source of several shards is tokenised part by part, in `folder`. Parts that are there, since an
    earlier process was killed, are used.

    Args:
        source: the source.
        job: what other processes need to tokenise its shards; it says how many there are.
        format: the format of its rows.
        folder: where parts are kept until the store is complete.
        writer: of the store.
        advance: called with the bytes of the source that were read since its last call.

    Raises: UserError; of several errors, that of the first shard.
    """
    met = Met(source)
    if len(job.shards) == 1:
        met.add(tokenise(job.shards[0], format, writer, advance))
        writer.finish(met.meta(source, format))
        return
    folders = _folders(job, folder)
    was_there = [part.exists() for part in folders]
    try:
        _tokenise_missing(job, format, folders, lambda: True, advance)
        for shard, part, is_old in zip(job.shards, folders, was_there, strict=True):
            if is_old or not part.exists():  # to be compared with its checksums, or of another process
                tokenise_apart(shard, format, part, advance)
        joined(folders, met, writer)
        meta = met.meta(source, format)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)  # what is to be mended makes another text
        raise
    writer.finish(meta)


def tokenise_together(job: Job, format: Format, folder: Path, store: Path, advance: Advance) -> None:
    """Tokenise the parts of a source that no other process is at, until none is missing.

    Several commands that share a cache do so, before one of them joins the parts.

    Args:
        job: the shards of the source.
        format: the format of its rows.
        folder: where the parts are.
        store: the folder of the store; as soon as it is there, its parts are no longer needed.
        advance: called with the bytes of the source that were read since its last call.

    Raises: UserError.
    """
    if len(job.shards) == 1:
        return
    try:
        _tokenise_missing(job, format, _folders(job, folder), lambda: not store.exists(), advance)
    except (OSError, UserError):
        if not store.exists():
            raise
        # Another command has joined the parts and deleted them, while this one began one of them again.


def _folders(job: Job, folder: Path) -> list[Path]:
    return [folder / f"{number:05}" for number in range(len(job.shards))]


def _tokenise_missing(
    job: Job,
    format: Format,
    folders: Sequence[Path],
    is_needed: Callable[[], bool],
    advance: Advance,
) -> None:
    """Tokenise the shards that have no part yet, and that no other process is at."""
    missing = 0
    for shard, folder in zip(job.shards, folders, strict=True):
        if folder.exists():
            advance(shard.size or 0)
        else:
            missing += 1
    num_processes = min(job.num_processes, missing)
    if num_processes > 1:
        in_processes(job, _missing(folders, is_needed), folders, num_processes, advance)
    # All of them if the job cannot be sent to processes.
    for number in _missing(folders, is_needed):
        tokenise_apart(job.shards[number], format, folders[number], advance, waits=False)


def _missing(folders: Sequence[Path], is_needed: Callable[[], bool]) -> Iterator[int]:
    """Yield the numbers of the parts that are missing when it is their turn."""
    for number, folder in enumerate(folders):
        if not is_needed():
            return
        if not folder.exists():
            yield number
