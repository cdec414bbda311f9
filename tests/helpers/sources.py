"""Files opened and read as a data config reads them."""

from lmft.data.sources.cleaning import documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.source import Source, open_source
from lmft.data.sources.tally import Tally
from tests.helpers.options import data_options


def open_files(train: str | list[str] | None, **options) -> Source:
    """The source of `data.train=…`."""
    source = open_source(data_options(train=train, **{"cache_dir": "cache", **options}), "train")
    assert source is not None
    return source


def read_texts(source: Source, *columns: str, tally: Tally | None = None) -> list[str]:
    """All texts of the source, of the column `text` if none is named."""
    return list(documents(source, RowText(columns or ("text",)), tally or source.tally()))
