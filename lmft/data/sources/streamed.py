"""Data sets of the hub, streamed: their first rows go into the token store as they arrive."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmft.data.sources.reading import Reading
from lmft.data.sources.rows import BATCH, Chunk, Place
from lmft.data.sources.table_files import chosen_columns, chunk_of
from lmft.data.sources.tally import Tally
from lmft.errors import UserError
from lmft.system import hub
from lmft.system.files import read_json, write_json

_COMMIT = re.compile("[0-9a-f]{40}")
MEMO = "commits.json"  # in the cache: the commit that a branch or tag was at, when it was streamed


class StreamedRows:
    """The first rows of a split of a data set on the hub, read over the network in constant memory."""

    def __init__(
        self, path: str, name: str | None, commit: str, split: str, max_rows: int, reading: Reading
    ):
        """Create the rows; nothing is asked for until they are read.

        Args:
            path: hub id of the data set.
            name: its configuration; None: the default one.
            commit: the commit of its repository.
            split: the split's name.
            max_rows: how many rows are read at most.
            reading: how rows are read.
        """
        self.path = path
        self.name = name
        self.commit = commit
        self.split = split
        self.max_rows = max_rows
        self.reading = reading
        self.label = f"{path}, split {split}"

    def read(self, columns: Sequence[str] | None, tally: Tally) -> Iterator[Chunk]:
        """Yield the rows. Raises: UserError if the network or the data set fails."""
        first = 1
        tables = self._tables()
        while first <= self.max_rows:
            with self._errors(first):
                table = next(tables, None)
            if table is None:
                return
            table = table.slice(0, self.max_rows - first + 1)
            names = chosen_columns(columns, table.schema.names, self.label)
            for batch in table.to_batches():
                part = batch if names is None else batch.select(names)
                yield chunk_of(part, first, self.label, columns, self.reading)
                tally.advance(batch.nbytes)
                first += len(batch)

    def _tables(self) -> Iterator[Any]:
        """Yield pyarrow tables of the rows, read one file after the other.

        pyarrow reads ahead in a parquet file, up to hundreds of megabytes if the reader is slower than
        the network; newer versions of `datasets` can read its row groups one by one.
        """
        rows = self._opened()
        for i in range(rows.num_shards):
            file = rows.shard(rows.num_shards, i)
            if hasattr(file, "reshard"):
                file = file.reshard()
            yield from file.with_format("arrow").iter(BATCH)

    def _opened(self) -> Any:
        import datasets

        return datasets.load_dataset(
            self.path, self.name, split=self.split, revision=self.commit, streaming=True
        )

    @contextmanager
    def _errors(self, row: int) -> Iterator[None]:
        """Context manager: turn what the network and the data set raise into UserErrors."""
        from datasets.exceptions import DatasetsError
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        failures = (
            DatasetsError,
            HfHubHTTPError,
            OfflineModeIsEnabled,
            OSError,
            ValueError,
            RuntimeError,
        )
        try:
            yield
        except failures as error:
            reason = " ".join(str(error).split())
            fix = "run the command again; or data.name=CONFIGURATION, data.splits.train=NAME"
            what = f"the data set cannot be streamed: {reason}"
            raise UserError(what, str(Place(self.label, row)), fix) from error


def pinned_commit(path: str, revision: str | None, cache: Path) -> str:
    """Return the commit that a data set's branch or tag is at, so that a rerun reads the same rows.

    It is asked for once and then kept in the cache: the rows in the token store are those of this
    commit, whatever is committed later.

    Args:
        path: hub id of the data set.
        revision: branch, tag or commit; None: the default branch.
        cache: the folder of the cache.

    Raises: UserError if the hub does not tell.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    memo = cache / MEMO
    known = read_json(memo)
    key = f"{path}@{revision or 'main'}"
    if key not in known:
        known[key] = hub.commit_of(path, "dataset", revision)
        cache.mkdir(parents=True, exist_ok=True)
        write_json(memo, known)
    return known[key]
