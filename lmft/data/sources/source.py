"""The beginning of the route: a hub id, a folder or files, as rows; and the text of each row, cleaned."""

import codecs
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from encodings.aliases import aliases
from functools import partial

from lmft.data.config import DEFAULT_VALIDATION_FRACTION, DataConfig, Split
from lmft.data.sources import files, python_docs
from lmft.data.sources.files import File
from lmft.data.sources.hub_datasets import arrow_files
from lmft.data.sources.readers import Chunk, Place, read_files
from lmft.errors import UserError, did_you_mean

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """One split's rows, readable again and again, in a fixed order, in constant memory."""

    name: str  # for messages: "imdb/train.parquet", "stanfordnlp/imdb, split train"
    fingerprint: str  # changes with the content and with how it is read
    size: int | None  # bytes of the files, compressed as they are
    # Of the columns named; None: all.
    read: Callable[[Sequence[str] | None], Iterator[Chunk]] = field(repr=False)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Place, dict]]:
        """Each row's place, and its values by column. Raises UserError for what cannot be read."""
        for chunk in self.read(columns):
            for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
                yield Place(chunk.file, number), dict(zip(chunk.columns, values, strict=True))


def open_source(data: DataConfig, split: Split) -> Source | None:
    """Where the split's rows come from; None if it is the validation split and the training documents are its
    source.

    In order: the files of `data.train` or `data.validation`; for validation, a share of the training
    documents (`held_out_share`), if there is one; the split of `data.path` that `data.splits` names.
    `data.path` is a folder or file if there is one, or else `lmft:python_docs` or a hub id.

    Reads no row, but hashes files that it has not hashed before. Raises UserError if there is nothing to
    read.
    """
    given, option = (data.train, "data.train") if split == "train" else (data.validation, "data.validation")
    if given:
        return _of_files(files.matching(given, option, data.document_separator), data)
    if split == "validation" and (held_out_share(data) or data.train_only):
        return None
    name = data.splits.get(split)
    if not data.path or not name:
        raise _nothing_named(split)
    path = files.expanded(data.path)
    if path.is_file():
        is_train = split == "train"
        found = files.matching(data.path, "data.path", data.document_separator) if is_train else []
        return _of_files(_not_empty(found, split, name, data.path, ["train"]), data)
    if path.is_dir():
        found = files.of_split(path, name)
        return _of_files(_not_empty(found, split, name, data.path, files.splits_in(path)), data)
    if data.path.startswith("lmft:"):
        return _built_in(data.path, split, name)
    if not HUB_ID.fullmatch(data.path) or data.path.startswith(".") or files.by_extension(path):
        raise files.no_such(path, f"data.path={data.path}")
    shards, version = arrow_files(data.path, data.name, data.revision, name)
    key = f"hub {data.path} {version} {name}"
    fingerprint = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return _source(f"{data.path}, split {name}", fingerprint, shards)


def held_out_share(data: DataConfig) -> float:
    """Share of the training documents that validation takes; 0 where it has text of its own or is switched
    off.

    `data.validation_fraction` says it. Left open, it is 0.05 for files of the user's own that come without
    validation
    text: those of `data.train` or of `data.path`, not a data set of the hub.
    """
    if data.validation:
        return 0.0
    if data.validation_fraction is not None:
        return data.validation_fraction
    return DEFAULT_VALIDATION_FRACTION if _are_own_files(data) else 0.0


def _are_own_files(data: DataConfig) -> bool:
    """Whether training reads local files beside which there is no other split."""
    if not data.path:
        return bool(data.train)
    path = files.expanded(data.path)
    is_alone = path.is_dir() and files.splits_in(path) == [data.splits.get("train")]
    return path.is_file() or is_alone


def _of_files(found: list[File], data: DataConfig) -> Source:
    encoding, separator = _codec(data.encoding), _unescaped(data.document_separator)
    formats = {file.format for file in found}
    reading = [encoding if formats - {*files.BINARY} else None, separator if "txt" in formats else None]
    fingerprint = files.fingerprint(found, reading, files.expanded(data.cache_dir))
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return _source(found[0].label + more, fingerprint, found, encoding, separator)


def _source(
    name: str, fingerprint: str, found: list[File], encoding: str = "utf-8", separator: str | None = None
) -> Source:
    size = sum(file.path.stat().st_size for file in found)
    return Source(name, fingerprint, size, partial(read_files, found, encoding, separator))


def _built_in(path: str, split: Split, name: str) -> Source:
    if path != python_docs.NAME:
        what = f"no built-in text '{path}'{did_you_mean(path, [python_docs.NAME])}"
        raise UserError(what, f"data.path={path}", f"data.path={python_docs.NAME}")
    if name != "train":
        raise _no_split(split, name, path, ["train"])
    return Source(path, python_docs.fingerprint(), python_docs.size(), python_docs.read)


def _not_empty(found: list[File], split: Split, name: str, path: str, known: list[str]) -> list[File]:
    if not found:
        raise _no_split(split, name, path, known)
    return found


def _no_split(split: Split, name: str, path: str, known: list[str]) -> UserError:
    has = f"has {', '.join(known[:6])}" if known else f"has no file that ends in {' '.join(files.FORMATS)}"
    more = f" and {len(known) - 6} more" if len(known) > 6 else ""
    what = f"no split '{name}' in '{path}'{did_you_mean(name, known)}: it {has}{more}"
    fix = _fix(split)
    if split == "train" and (pattern := files.pattern_of_all(files.expanded(path))):
        fix = f"data.train='{pattern}' takes all its files; or data.splits.train=NAME, the beginning of their names"
    return UserError(what, f"data.path={path} data.splits.{split}={name}", fix)


def _nothing_named(split: Split) -> UserError:
    noun = "training" if split == "train" else "validation"
    return UserError(f"no {noun} text is named", fix=_fix(split))


def _fix(split: Split) -> str:
    if split == "train":
        return "data.train=FILE, or data.path=FOLDER_OR_HUB_ID with data.splits.train=NAME"
    return "data.splits.validation=NAME, data.validation=FILE or data.validation_fraction=0.05 (0: no validation)"


def _codec(encoding: str) -> str:
    """The encoding's standard name. Raises UserError if there is none of that name."""
    try:
        "".encode(encoding)  # fails for codecs that are not of text, too
        name = codecs.lookup(encoding).name
        codecs.getincrementaldecoder(name)
    except (LookupError, UnicodeError) as error:
        what = f"unknown encoding '{encoding}'{did_you_mean(encoding.lower(), {*aliases, *aliases.values()})}"
        raise UserError(
            what, f"data.encoding={encoding}", "data.encoding=utf-8, or another of Python's names"
        ) from error
    return "utf-8" if name == "utf-8-sig" else name  # the mark is taken off, and counted, in `documents`


def _unescaped(separator: str | None) -> str | None:
    r"""On a command line, a newline is more easily given as \n."""
    return separator and separator.replace("\\n", "\n").replace("\\t", "\t").replace("\r\n", "\n")
