"""Read Parquet and Arrow files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmft.data.sources import opening
from lmft.data.sources.opening import File, unreadable
from lmft.data.sources.reading import Reading
from lmft.data.sources.rows import BATCH, Chunk, check_columns, column_of, names_in, with_nested
from lmft.data.sources.tally import Tally

if TYPE_CHECKING:
    import pyarrow


def read_parquet(
    file: File, reading: Reading, columns: Sequence[str] | None, tally: Tally
) -> Iterator[Chunk]:
    """Yield the rows of a Parquet file; see `lmft.data.sources.readers.read_files`."""
    import pyarrow.parquet

    source: Any = opening.whole(file) if file.member else file.path
    # These two arguments keep row groups, one of which may be the whole file, out of memory.
    with (
        _readable(file),
        pyarrow.parquet.ParquetFile(source, buffer_size=opening.BLOCK, pre_buffer=False) as parquet,
    ):
        names = chosen_columns(columns, parquet.schema_arrow.names, file.label)
        size = file.num_bytes
        groups = range(parquet.num_row_groups)
        if file.part is not None:
            groups = range(file.part.start, file.part.stop)
        num_rows = max(sum(parquet.metadata.row_group(group).num_rows for group in groups), 1)
        first = file.first_row
        for batch in parquet.iter_batches(BATCH, groups, columns=names, use_threads=False):
            yield chunk_of(batch, first, file.label, columns, reading)
            tally.advance(size * len(batch) // num_rows)
            first += len(batch)


def read_arrow(
    file: File, reading: Reading, columns: Sequence[str] | None, tally: Tally
) -> Iterator[Chunk]:
    """Yield the rows of an Arrow file in either IPC format: file, or stream, which `datasets` writes."""
    import pyarrow

    # Not memory-mapped: the pages of a map count as resident memory.
    content: Any = opening.whole(file) if file.member else str(file.path)
    is_file = opening.beginning(file, 6) == b"ARROW1"
    with _readable(file), _stream_of(content) as stream:
        batches: Iterable[pyarrow.RecordBatch]
        if is_file:
            reader = pyarrow.ipc.open_file(stream)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = reader = pyarrow.ipc.open_stream(stream)
        names = chosen_columns(columns, reader.schema.names, file.label)
        first = 1
        position = 0
        for batch in batches:
            chosen = batch if names is None else batch.select(names)
            for start in range(0, len(chosen), BATCH):
                part = chosen.slice(start, BATCH)
                yield chunk_of(part, first + start, file.label, columns, reading)
            first += len(chosen)
            tally.advance(stream.tell() - position)
            position = stream.tell()


def _stream_of(content: Any) -> Any:
    import pyarrow

    if isinstance(content, str):
        return pyarrow.OSFile(content)
    return pyarrow.BufferReader(content.getvalue())


def chosen_columns(columns: Sequence[str] | None, known: Sequence[str], label: str) -> list[str] | None:
    """Return the columns of the file that hold what is wanted; None: all. Raises: UserError."""
    if columns is None:
        return None
    names = list(dict.fromkeys(column_of(name, known) for name in columns))
    wrong = [name for name in columns if column_of(name, known) not in known]
    check_columns(wrong, known, label)
    return names


def chunk_of(
    batch: "pyarrow.RecordBatch",
    first: int,
    label: str,
    columns: Sequence[str] | None,
    reading: Reading,
) -> Chunk:
    """Return the rows of a batch, the first of which has the number `first`.

    Arrow gives every struct the keys of all rows. So where whole rows are read (`columns` is None), a
    key without a value is left out of the object that a struct becomes.

    Raises: UserError for a missing column.
    """
    values = {
        name: column.to_pylist() for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    values = with_nested(values, columns or reading.names)
    if columns is not None:
        missing = [name for name in columns if name not in values]
        if missing:
            row = {name: column[0] for name, column in values.items()}
            check_columns(missing, names_in(row), label)
        values = {name: values[name] for name in columns}
    else:
        values = {name: [_without_nulls(value) for value in column] for name, column in values.items()}
    return Chunk(label, range(first, first + len(batch)), values)


def _without_nulls(value: Any) -> Any:
    """Return the value without keys that have none, at any depth; members of lists stay."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


@contextmanager
def _readable(file: File) -> Iterator[None]:
    """Context manager: turn errors of reading the file into UserErrors."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
