"""Sources: the rows of a split, from a hub id, a folder or files."""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from encodings.aliases import aliases
from functools import partial

from lmft.data.config import DEFAULT_VALIDATION_FRACTION, DataConfig, Split
from lmft.data.fingerprint import text_fingerprint
from lmft.data.sources import files, python_docs
from lmft.data.sources.files import File
from lmft.data.sources.hub_datasets import arrow_files
from lmft.data.sources.readers import Chunk, Place, read_files
from lmft.errors import UserError, did_you_mean

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """One split's rows, readable several times, in a fixed order, in constant memory."""

    name: str  # for messages: "imdb/train.parquet", "stanfordnlp/imdb, split train"
    fingerprint: str  # cache key of the content, and of the settings it is read with
    size: int | None  # bytes of the files, compressed as they are
    # Reads the columns named; None: all.
    read: Callable[[Sequence[str] | None], Iterator[Chunk]] = field(repr=False)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Place, dict]]:
        """Yield each row's place, and its values by column. Raises: UserError for what cannot be
        read.
        """
        for chunk in self.read(columns):
            for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
                yield Place(chunk.file, number), dict(zip(chunk.columns, values, strict=True))


def open_source(data: DataConfig, split: Split) -> Source | None:
    """Open the source of a split's rows; None if validation takes its documents from the training split.

    In order of preference: the files of `data.train` or `data.validation`; for validation, a share of
    the training documents (`held_out_share`), if there is one; the split of `data.path` that
    `data.splits` names. `data.path` is a folder or file if there is one, or else `lmft:python_docs` or a
    hub id.

    No row is read, but files that were not hashed before are hashed.

    Raises: UserError if there is nothing to read.
    """
    patterns = data.train if split == "train" else data.validation
    if patterns:
        return _of_files(files.matching(patterns, f"data.{split}", data.document_separator), data)
    if split == "validation" and (held_out_share(data) or data.train_only):
        return None
    name = data.splits.get(split)
    if not data.path or not name:
        raise _nothing_named(split)
    path = files.expanded(data.path)
    if path.is_file():
        if split != "train":
            raise _no_split(split, name, data.path, ["train"])
        return _of_files(files.matching(data.path, "data.path", data.document_separator), data)
    if path.is_dir():
        members = files.of_split(path, name)
        if not members:
            raise _no_split(split, name, data.path, files.splits_in(path))
        return _of_files(members, data)
    if data.path.startswith("lmft:"):
        return _built_in(data.path, split, name)
    if not HUB_ID.fullmatch(data.path) or data.path.startswith(".") or files.by_extension(path):
        raise files.no_such(path, f"data.path={data.path}")
    shards, version = arrow_files(data.path, data.name, data.revision, name)
    fingerprint = text_fingerprint(f"hub {data.path} {version} {name}")
    return _source(f"{data.path}, split {name}", fingerprint, shards)


def held_out_share(data: DataConfig) -> float:
    """Return the share of the training documents held out for validation; 0 if it has other text or is
    off.

    It is `data.validation_fraction`. If that is null, it is 0.05 for local files that come without
    validation text, those of `data.train` or of `data.path`, and 0 for a data set of the hub.
    """
    if data.validation:
        return 0.0
    if data.validation_fraction is not None:
        return data.validation_fraction
    return DEFAULT_VALIDATION_FRACTION if _are_own_files(data) else 0.0


def _are_own_files(data: DataConfig) -> bool:
    """Return whether training reads local files without another split in their folder."""
    if not data.path:
        return bool(data.train)
    path = files.expanded(data.path)
    is_alone = path.is_dir() and files.splits_in(path) == [data.splits.get("train")]
    return path.is_file() or is_alone


def _of_files(members: list[File], data: DataConfig) -> Source:
    encoding = _codec(data.encoding)
    separator = _unescaped(data.document_separator)
    formats = {file.format for file in members}
    reading = [encoding if formats - {*files.BINARY} else None, separator if "txt" in formats else None]
    fingerprint = files.fingerprint(members, reading, files.expanded(data.cache_dir))
    name = members[0].label
    if len(members) > 1:
        name += f" and {len(members) - 1} more"
    return _source(name, fingerprint, members, encoding, separator)


def _source(
    name: str,
    fingerprint: str,
    members: list[File],
    encoding: str = "utf-8",
    separator: str | None = None,
) -> Source:
    size = sum(file.path.stat().st_size for file in members)
    return Source(name, fingerprint, size, partial(read_files, members, encoding, separator))


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


def _nothing_named(split: Split) -> UserError:
    noun = "training" if split == "train" else "validation"
    return UserError(f"no {noun} text is named", fix=_fix(split))


def _fix(split: Split) -> str:
    if split == "train":
        return "data.train=FILE, or data.path=FOLDER_OR_HUB_ID with data.splits.train=NAME"
    share = "data.validation_fraction=0.05 (0: no validation)"
    return f"data.splits.validation=NAME, data.validation=FILE or {share}"


def _codec(encoding: str) -> str:
    """Return the encoding's standard name. Raises: UserError if it is unknown."""
    try:
        "".encode(encoding)  # fails for codecs that are not of text, too
        name = codecs.lookup(encoding).name
        codecs.getincrementaldecoder(name)
    except (LookupError, UnicodeError) as error:
        known = {*aliases, *aliases.values()}
        what = f"unknown encoding '{encoding}'{did_you_mean(encoding.lower(), known)}"
        fix = "data.encoding=utf-8, or another of Python's names"
        raise UserError(what, f"data.encoding={encoding}", fix) from error
    if name == "utf-8-sig":
        return "utf-8"  # cleaning removes the mark, and counts it
    return name


def _unescaped(separator: str | None) -> str | None:
    r"""Return the separator with its \n and \t, as typed on a command line, replaced by newline and
    tab.
    """
    return separator and separator.replace("\\n", "\n").replace("\\t", "\t").replace("\r\n", "\n")
