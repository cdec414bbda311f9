"""All parts of a source: tokenised by one process or several, unless they are there already."""

import shutil
from collections.abc import Callable, Sequence
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
    folders = [folder / f"{number:05}" for number in range(len(job.shards))]
    try:
        _tokenise_parts(job, format, folders, advance)
        joined(folders, met, writer)
        meta = met.meta(source, format)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)  # what is to be mended makes another text
        raise
    writer.finish(meta)


def _tokenise_parts(job: Job, format: Format, folders: Sequence[Path], advance: Advance) -> None:
    missing = [number for number, folder in enumerate(folders) if not folder.exists()]
    for number, shard in enumerate(job.shards):
        if number not in missing:
            advance(shard.size or 0)
    num_processes = min(job.num_processes, len(missing))
    if num_processes > 1:
        in_processes(job, missing, folders, num_processes, advance)
    # What is there already is compared with its checksums, and mended; or this process does all.
    for shard, folder in zip(job.shards, folders, strict=True):
        tokenise_apart(shard, format, folder, advance)
