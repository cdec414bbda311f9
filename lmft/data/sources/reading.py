"""Reading: how files are read, from the options of `data`."""

import codecs
from dataclasses import dataclass
from encodings.aliases import aliases
from typing import Self

from lmft.data.config import CsvConfig, DataConfig
from lmft.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The options that decide which rows a file has."""

    encoding: str
    encoding_errors: str
    separator: str
    """Separates the documents of plain text; "": each file is one document."""
    csv: CsvConfig
    skips: bool
    """Rows that cannot be used are skipped."""
    names: tuple[str, ...]
    """Columns that the format of the rows looks for."""

    @classmethod
    def from_config(cls, data: DataConfig) -> Self:
        """Return the reading of a config. Raises: UserError if the encoding is unknown."""
        separator = data.document_separator
        if separator is None:
            separator = "\n"
        return cls(
            encoding=_codec(data.encoding),
            encoding_errors=data.encoding_errors,
            separator=unescaped(separator),
            csv=data.csv,
            skips=data.on_error == "skip",
            names=tuple(data.column_names),
        )

    @property
    def keeps_bad_bytes(self) -> bool:
        """True if bytes that are not text in the encoding make a row one that is skipped."""
        return self.skips and self.encoding_errors == "strict"

    def key(self, formats: set[str]) -> list:
        """Return the options that the rows of files of these formats depend on."""
        is_text = bool(formats & {"txt", "json", "csv", "tsv"})
        is_csv = bool(formats & {"csv", "tsv"})
        return [
            self.skips,
            [self.encoding, self.encoding_errors] if is_text else None,
            self.separator if "txt" in formats else None,
            self.csv.given if is_csv else None,
        ]


def unescaped(text: str) -> str:
    r"""Return text typed on a command line with \n and \t as newline and tab, and \r\n as \n."""
    return text.replace("\\n", "\n").replace("\\t", "\t").replace("\r\n", "\n")


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
