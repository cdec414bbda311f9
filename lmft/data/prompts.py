"""Prompts: of a chat as JSON, and of a file, one a line or one a row."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lmft.config.schema import build
from lmft.data.config import DataConfig
from lmft.data.sources import files
from lmft.data.sources.cleaning import clean_value, type_name
from lmft.data.sources.readers import read_files
from lmft.data.sources.reading import Reading
from lmft.data.sources.rows import Place
from lmft.data.sources.tally import Tally
from lmft.errors import UserError

COLUMNS = ("prompt", "text", "chat", "messages")
_OF_CHATS = ("tools", "chat_template_kwargs")  # columns that a chat may have besides


class Prompts(NamedTuple):
    """The prompts of a file, and what is to be told of its rows."""

    prompts: list[Any]
    places: list[Place]
    notes: list[str]


def read_prompts(pattern: str) -> Prompts:
    """Read the prompts of files: the lines of a text, or that of COLUMNS which rows have.

    Blank lines, and rows without a value, are left out and counted.

    Raises: UserError, naming the row, for what cannot be read, and for rows without a prompt.
    """
    data = build(DataConfig, {}, "data")
    found = files.matching(pattern, "prompts", None, data.cache)
    tally = Tally()
    prompts = []
    places = []
    unread: dict[str, None] = {}
    num_blank = 0
    for chunk in read_files(found.files, Reading.from_config(data), None, tally):
        for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
            row = clean_value(dict(zip(chunk.columns, values, strict=True)), set())
            place = Place(chunk.file, number)
            prompt = _prompt_of(row, place)
            if prompt is None:
                num_blank += 1
                continue
            prompts.append(prompt)
            places.append(place)
            used = (*COLUMNS, *_OF_CHATS) if isinstance(prompt, dict) else COLUMNS
            unread |= dict.fromkeys(name for name in row if name not in used and row[name] is not None)
    if not prompts:
        raise UserError("there is no prompt in the file", f"prompts={pattern}")
    notes = [*found.notes, *tally.notes(), *tally.warnings()]
    if num_blank:
        notes.append(f"prompts={pattern}: {num_blank} rows without a prompt are left out")
    if unread:
        notes.append(f"prompts={pattern}: columns that are not read: {', '.join(unread)}")
    return Prompts(prompts, places, notes)


def _prompt_of(row: Mapping[str, Any], place: Place) -> Any:
    """Return a row's prompt: a text, or {"chat": …}; None if it has none. Raises: UserError."""
    known = [name for name in COLUMNS if name in row]
    given = [name for name in known if row[name] is not None]
    if not known:
        what = f"there is no prompt, but {', '.join(row) or 'nothing'}"
        raise UserError(what, str(place), f"one of the columns {', '.join(COLUMNS)}")
    if not given:
        return None
    if len(given) > 1:
        what = f"{' and '.join(given)} are two prompts"
        raise UserError(what, str(place), "one of them a row")
    (name,) = given
    value = row[name]
    if name in ("chat", "messages") or isinstance(value, list):
        chat: dict[str, Any] = {"chat": chat_of(value, str(place))}
        return chat | {name: row[name] for name in _OF_CHATS if row.get(name) is not None}
    if not isinstance(value, str):
        raise UserError(f"'{name}' holds {type_name(value)}, not text", str(place), "text")
    return value if value.strip() else None


def chat_of(value: Any, where: str = "chat") -> str | list[dict[str, Any]]:
    """Return a chat: what a user says, or messages, which may be written as JSON.

    Raises: UserError for what is neither.
    """
    if isinstance(value, str):
        if not re.match(r"\s*\[\s*\{", value):
            return value
        try:
            value = json.loads(value)
        except ValueError as error:
            fix = 'chat="what the user says"'
            raise UserError(f"the chat is not valid JSON: {error}", where, fix) from error
    if not isinstance(value, list) or not value:
        raise UserError(f"a chat is text or a list of messages, not {type_name(value)}", where)
    for message in value:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UserError("each message of a chat has a role and a content", where)
    return [{key: part for key, part in message.items() if part is not None} for message in value]
