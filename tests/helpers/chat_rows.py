"""Rows of chats, read as a data config reads them, and what is said of those that cannot be."""

import pytest

from lmft.data.formats.chat.rows import RowReader, conversations
from lmft.data.formats.chat.template import ChatTemplate
from lmft.data.sources.rows import Chunk
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError
from tests.helpers.chats import CHATML, tokenizer_with
from tests.helpers.options import data_options


def template_of(source: str) -> ChatTemplate:
    return ChatTemplate.load(None, tokenizer_with(source))


def source_of(*rows: dict) -> Source:
    """Each row in a chunk of its own, so that it keeps its own keys."""
    chunks = [Chunk("chats.jsonl", [number], {name: [row[name]] for name in row}) for number, row in enumerate(rows, 1)]
    return Source("chats", "", None, lambda columns, tally: iter(chunks))


def read(*rows: dict, template=CHATML, tally=None, **options):
    loaded = template_of(template) if isinstance(template, str) else template
    reader = RowReader(data_options(**{"format": "chat", **options}), loaded)
    return [found for _, found in conversations(source_of(*rows), reader, tally or Tally())]


def error_of(*rows: dict, **options) -> str:
    """The first and the last line that refuses the last row."""
    with pytest.raises(UserError) as raised:
        read(*rows, **options)
    lines = str(raised.value).splitlines()
    assert len(lines) == 3  # what, where, fix
    assert lines[1] == f"  where: chats.jsonl, row {len(rows)}"
    return lines[0] + lines[2]


def warnings_of(*rows: dict, **options) -> list[str]:
    """What is said of parts that nothing reads."""
    tally = Tally()
    read(*rows, tally=tally, **options)
    return tally.warnings()
