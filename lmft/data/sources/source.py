"""Sources: the rows of a split, from a hub id, a folder or files."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmft.data.config import DEFAULT_VALIDATION_FRACTION, DataConfig, Split
from lmft.data.fingerprint import text_fingerprint
from lmft.data.sources import content_hash, files, python_docs
from lmft.data.sources.files import Found
from lmft.data.sources.hub_datasets import arrow_files
from lmft.data.sources.opening import File
from lmft.data.sources.readers import read_files
from lmft.data.sources.reading import Reading
from lmft.data.sources.rows import Chunk, Place
from lmft.data.sources.saved_datasets import is_saved_dataset, saved_files, saved_splits
from lmft.data.sources.shards import shards_of
from lmft.data.sources.streamed import MEMO, StreamedRows, pinned_commit
from lmft.data.sources.tally import Tally
from lmft.errors import UserError, did_you_mean

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class FileRows:
    """The rows of files."""

    files: list[File]
    reading: Reading

    def __call__(self, columns: Sequence[str] | None, tally: Tally) -> Iterator[Chunk]:
        """Yield the rows; see `read_files`."""
        return read_files(self.files, self.reading, columns, tally)


@dataclass(frozen=True)
class Source:
    """One split's rows, readable several times, in a fixed order, in constant memory."""

    name: str  # for messages: "imdb/train.parquet", "stanfordnlp/imdb, split train"
    fingerprint: str  # cache key of the content, and of the settings it is read with
    size: int | None  # bytes of the files, compressed as they are
    # Reads the columns named; None: all.
    read: Callable[[Sequence[str] | None, Tally], Iterator[Chunk]] = field(repr=False)
    skips: bool = False  # rows that cannot be used are skipped
    notes: tuple[str, ...] = ()  # what was found where the files were looked for

    def tally(self, advance: Callable[[int], object] | None = None) -> Tally:
        """Return an empty tally for one reading; `advance` is called with the bytes that are read."""
        return Tally(self.skips, advance)

    def shards(self) -> list["Source"]:
        """Return the source in parts that can be read independently; their rows, in order, are its own.

        Large files are read once for it, to find the ends of lines.
        """
        if not isinstance(self.read, FileRows):
            return [self]
        rows = self.read
        return [
            replace(self, read=FileRows(files, rows.reading), size=sum(file.num_bytes for file in files))
            for files in shards_of(rows.files, rows.reading)
        ]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Place, dict]]:
        """Yield each row's place, and its values by column. Raises: UserError for what cannot be
        read.
        """
        for chunk in self.read(columns, self.tally()):
            for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
                yield Place(chunk.file, number), dict(zip(chunk.columns, values, strict=True))


def open_source(data: DataConfig, split: Split) -> Source | None:
    """Open the source of a split's rows; None if validation takes its documents from the training split.

    That is so if it measures the training text itself, too.

    In order of preference: the files of `data.train` or `data.validation`; for validation, a share of
    the training documents (`held_out_share`), if there is one; the split of `data.path` that
    `data.splits` names. `data.path` is a folder or file if there is one, or else `lmft:python_docs` or a
    hub id.

    No row is read, but files that were not hashed before are hashed.

    Raises: UserError if there is nothing to read.
    """
    if split == "validation" and data.validate_on_train:
        return None
    patterns = data.train if split == "train" else data.validation
    if patterns:
        return _of_files(_matching(patterns, f"data.{split}", data), data)
    if split == "validation" and (held_out_share(data) or data.train_only):
        return None
    check_is_named(data, split)
    assert data.path is not None
    name = str(data.splits[split])
    path = files.expanded(data.path)
    if data.streaming and (path.exists() or data.path.startswith("lmft:")):
        what = f"{data.path} is not a data set of the hub, and cannot be streamed"
        raise UserError(what, "data.streaming=true", "leave it out")
    if path.is_file() or is_saved_dataset(path):
        if split != "train":
            raise _no_split(split, name, data.path, ["train"])
        return _of_files(_matching(data.path, "data.path", data), data)
    if path.is_dir():
        return _of_files(_of_split(path, split, name, data), data)
    if data.path.startswith("lmft:"):
        return _built_in(data.path, split, name)
    if not HUB_ID.fullmatch(data.path) or data.path.startswith(".") or files.by_extension(path):
        raise files.no_such(path, f"data.path={data.path}")
    if data.streaming:
        return _streamed(data, name)
    shards, version = arrow_files(data.path, data.name, data.revision, name)
    reading = Reading.from_config(data)
    skipping = " skipping rows" * reading.skips
    fingerprint = text_fingerprint(f"hub {data.path} {version} {name}{skipping}")
    return _source(f"{data.path}, split {name}", fingerprint, Found(shards, []), reading)


def check_is_named(data: DataConfig, split: Split) -> None:
    """Raise UserError if neither files nor a split of `data.path` are named."""
    files_named = data.train if split == "train" else data.validation
    if not files_named and not (data.path and data.splits.get(split)):
        noun = "training" if split == "train" else "validation"
        raise UserError(f"no {noun} text is named", fix=_fix(split))


def check_holds_texts(data: DataConfig) -> None:
    """Raise UserError if a vocabulary would be trained on conversations."""
    if data.kind == "chat":
        what = "a vocabulary is trained on texts, not on conversations"
        fix = "model.tokenizer.name_or_path=FOLDER; `lmft.prepare data=files` trains one on text"
        raise UserError(what, "model.tokenizer.train=true", fix)


def held_out_share(data: DataConfig) -> float:
    """Return the share of the training documents held out for validation; 0 if it has other text or is
    off.

    It is `data.validation_fraction`. If that is null, it is 0.05 for local files that come without
    validation text, those of `data.train` or of `data.path`, and 0 for a data set of the hub, or if
    validation measures the training text.
    """
    if data.validation:
        return 0.0
    if data.validation_fraction is not None:
        return data.validation_fraction
    needs_text = not data.validate_on_train and _are_own_files(data)
    return DEFAULT_VALIDATION_FRACTION if needs_text else 0.0


def _are_own_files(data: DataConfig) -> bool:
    """Return whether training reads local files without another split in their folder."""
    if not data.path:
        return bool(data.train)
    path = files.expanded(data.path)
    is_alone = path.is_dir() and _splits_in(path) == [data.splits.get("train")]
    return path.is_file() or is_saved_dataset(path) or is_alone


def _matching(patterns: str | list[str], option: str, data: DataConfig) -> Found:
    return files.matching(patterns, option, data.file_format, data.cache)


def _splits_in(folder: Path) -> list[str]:
    """Return the splits of a saved data set, or else those that files of the folder are named by."""
    splits = saved_splits(folder)
    return files.splits_in(folder) if splits is None else splits


def _of_split(folder: Path, split: Split, name: str, data: DataConfig) -> Found:
    """Return a split's files in a folder. Raises: UserError if there is none."""
    splits = saved_splits(folder)
    if splits is None:
        members = files.of_split(folder, name)
    elif name in splits:
        members = saved_files(folder / name)
    else:
        members = []
    if not members:
        raise _no_split(split, name, str(data.path), _splits_in(folder))
    return Found(members, [])


def _of_files(found: Found, data: DataConfig) -> Source:
    reading = Reading.from_config(data)
    key = reading.key({file.format for file in found.files})
    fingerprint = content_hash.fingerprint(found.files, key, data.cache)
    name = found.files[0].label
    if len(found.files) > 1:
        name += f" and {len(found.files) - 1} more"
    return _source(name, fingerprint, found, reading)


def _source(name: str, fingerprint: str, found: Found, reading: Reading) -> Source:
    size = sum(file.num_bytes for file in found.files)
    rows = FileRows(found.files, reading)
    return Source(name, fingerprint, size, rows, reading.skips, tuple(found.notes))


def _streamed(data: DataConfig, split: str) -> Source:
    """Return the first rows of a split of a data set on the hub, at a pinned commit."""
    path = str(data.path)
    max_rows = data.max_documents or 0
    commit = pinned_commit(path, data.revision, data.cache)
    reading = Reading.from_config(data)
    rows = StreamedRows(path, data.name, commit, split, max_rows, reading)
    skipping = " skipping rows" * reading.skips
    fingerprint = text_fingerprint(f"stream {path} {data.name} {commit} {split} {max_rows}{skipping}")
    note = f"{rows.label}: the first {max_rows:,} documents of commit {commit[:12]}"
    if data.revision != commit:
        note += f", which {MEMO} in the cache keeps; data.revision=COMMIT takes another"
    return Source(rows.label, fingerprint, None, rows.read, reading.skips, (note,))


def _built_in(path: str, split: Split, name: str) -> Source:
    if path != python_docs.NAME:
        what = f"no built-in text '{path}'{did_you_mean(path, [python_docs.NAME])}"
        raise UserError(what, f"data.path={path}", f"data.path={python_docs.NAME}")
    if name != "train":
        raise _no_split(split, name, path, ["train"])
    return Source(path, python_docs.fingerprint(), python_docs.size(), python_docs.read)


def _no_split(split: Split, name: str, path: str, known: list[str]) -> UserError:
    contents = ", ".join(known[:6]) or f"no file that ends in {' '.join(files.FORMATS)}"
    if len(known) > 6:
        contents += f" and {len(known) - 6} more"
    what = f"no split '{name}' in '{path}'{did_you_mean(name, known)}: it has {contents}"
    fix = _fix(split)
    if split == "train" and (pattern := files.pattern_of_all(files.expanded(path))):
        fix = f"data.train='{pattern}' takes all its files; "
        fix += "or data.splits.train=NAME, the beginning of their names"
    return UserError(what, f"data.path={path} data.splits.{split}={name}", fix)


def _fix(split: Split) -> str:
    if split == "train":
        return "data.train=FILE, or data.path=FOLDER_OR_HUB_ID with data.splits.train=NAME"
    share = "data.validation_fraction=0.05 (0: no validation)"
    return f"data.splits.validation=NAME, data.validation=FILE or {share}"
