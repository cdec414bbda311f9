"""The link `best` in a sweep's folder to the run that has won."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lmft.comparison.records import Record
from lmft.system.files import temporary_path

log = logging.getLogger(__name__)
BEST = "best"


def is_sweep(folder: Path, records: Sequence[Record]) -> bool:
    """Return whether all runs are jobs of the sweep in a folder.

    A job's config names it SWEEP/JOB; a sweep that has ended has a sweep.csv.
    """
    if any(record.folder.path.parent.resolve() != folder.resolve() for record in records):
        return False
    names = [(record.config.get("run") or {}).get("name") for record in records if record.config]
    is_named = [str(name).rpartition("/")[0] == folder.resolve().name for name in names]
    return (folder / "sweep.csv").is_file() or (bool(is_named) and all(is_named))


def link_best(folder: Path, winner: Record) -> Path | None:
    """Make the link `best` in a sweep's folder lead to a run; an earlier link is replaced at once.

    Returns: the link; None if something else has its name, which is logged.
    """
    link = folder / BEST
    if link.exists() and not link.is_symlink():
        log.warning("%s is not a link, so it is not changed into a link to %s", link, winner.name)
        return None
    temporary = temporary_path(link)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(winner.folder.path.resolve(), folder.resolve()))
    temporary.replace(link)
    return link
