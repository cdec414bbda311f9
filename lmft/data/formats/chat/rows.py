"""Rows to conversations: a row is a chat, which a template renders, or a text with its answers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from lmft.data.config import DataConfig
from lmft.data.fingerprint import text_fingerprint
from lmft.data.formats.chat.conversation import Chat, Conversation
from lmft.data.formats.chat.layouts import Row, described, layout_of
from lmft.data.formats.chat.marked import Markers
from lmft.data.formats.chat.template import NO_TEMPLATE_FIX, ChatTemplate
from lmft.data.formats.chat.tools import Arguments
from lmft.data.formats.chat.unread import Unread
from lmft.data.sources.cleaning import clean_rows
from lmft.data.sources.reading import unescaped
from lmft.data.sources.row_text import RowText
from lmft.data.sources.rows import Place, missing_column, names_in, value_of
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError

_UNREAD_KEYS = "not in the text, as the chat template does not read it (data.chat_template=FILE may)"
_UNREAD_COLUMNS = "columns that are not read"
# Columns that change what a row says. A row that has one which is not read is refused.
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_OF_INSTRUCTIONS = {"input": "input", "context": "input", "history": "history"}  # -> option
_ADDITIONS = ("system", "tools", "functions", "chat_template_kwargs", "documents", *_OF_INSTRUCTIONS)


_VERSION = 3  # of how rows are read and answers are found; a change makes new token stores


class ReadRow(NamedTuple):
    """A row, as it was read."""

    conversations: list[Conversation]  # several if each answer is one
    label: str  # what rows of this kind are, for the log
    unread_keys: list[str]
    unread_columns: list[str]
    num_weightless: int  # answers that the row excludes from the loss


class RowReader:
    """Reads rows as the options of `data` ask, and renders them by a template."""

    def __init__(self, config: DataConfig, template: ChatTemplate | None):
        """Create a reader.

        Args:
            config: the options.
            template: renders chats; None: rows can only be texts.
        """
        self._format = config.format
        self._turns = config.turns
        self._columns = config.columns
        self._between = unescaped(config.join.columns)
        self._text = RowText.from_config(config)
        self._markers = None
        if config.response_template is not None:
            question = config.instruction_template
            self._markers = Markers(
                unescaped(config.response_template), None if question is None else unescaped(question)
            )
        self._template = template
        self._arguments = Arguments(template) if template else None
        self._unread = Unread(template) if template else None

    @property
    def fingerprint(self) -> str:
        """Part of cache keys: it changes if the conversation of any row might."""
        template = text_fingerprint(self._template.source if self._template else "")
        columns = sorted(self._columns.items())
        parts = [
            _VERSION,
            self._format,
            self._turns,
            columns,
            self._between,
            self._text.key,
            self._markers,
            template,
        ]
        return " ".join(map(str, parts))

    def read(self, values: dict[str, Any]) -> ReadRow | None:
        """Make a row's conversation; None if it has no value. Raises: UserError."""
        row = Row(values, self._columns, self._between)
        if self._markers is not None:
            return self._marked(row, self._markers)
        layout = layout_of(row, self._format)
        if layout is None:
            return None
        found = layout.read(row)
        unread_keys: list[str] = []
        if isinstance(found, Chat):
            conversations, unread_keys = self._rendered(found)
        else:
            conversations = [found]
        _check_unread(row, conversations[-1], has_messages=layout.columns == ("messages",))
        label = described(layout, row)
        return ReadRow(conversations, label, unread_keys, row.unread, row.num_weightless)

    def _rendered(self, chat: Chat) -> tuple[list[Conversation], list[str]]:
        """Render a chat; return its conversations, and what of it the template does not read."""
        if self._template is None or self._arguments is None or self._unread is None:
            raise UserError("the tokenizer has no chat template", fix=NO_TEMPLATE_FIX)
        chat = self._arguments.fitted(chat)
        if self._turns == "each":
            each = self._template.render_each(chat)
            unread_keys = self._unread.of_each(chat, [conversation.text for conversation in each])
            return [replace(conversation, chat=chat) for conversation in each], unread_keys
        conversation = replace(self._template.render(chat), chat=chat)
        unread = self._unread.of(chat, conversation.text)
        return [conversation], list(dict.fromkeys(name for _, name in unread))

    def _marked(self, row: Row, markers: Markers) -> ReadRow | None:
        """Make the conversation of a text with markers."""
        columns = self._text.columns
        try:
            text = self._text.of([value_of(row.values, name) for name in columns])
        except KeyError as error:
            known = names_in(row.values)
            missing = next(name for name in columns if name not in known)
            raise missing_column(missing, known, "") from error
        if not text or text.isspace():
            return None
        row.read.update(name.partition(".")[0] for name in columns)
        label = f"rows are texts with answers after {markers.response!r}"
        return ReadRow([markers.conversation(text)], label, [], row.unread, 0)


def conversations(
    source: Source, reader: RowReader, tally: Tally
) -> Iterator[tuple[Place, Conversation]]:
    """Yield each row's place and conversation; `RowReader` tells what rows can be.

    Args:
        source: where rows are read.
        reader: how they are read.
        tally: counts bytes, rows cleaned, by reason, as `none` rows without a value, and what nothing
            reads.

    Raises: UserError, naming the row, for what is not a conversation, for what the template cannot
    render, and for what cannot be read.
    """
    told = set()
    for place, row in clean_rows(source, reader.read, tally):
        if (row.label, place.file) not in told:
            told.add((row.label, place.file))
            tally.note(row.label, place.file)
        tally.count_unread(_UNREAD_KEYS, row.unread_keys, str(place))
        tally.count_unread(_UNREAD_COLUMNS, row.unread_columns, str(place))
        tally.num_weightless += row.num_weightless
        for conversation in row.conversations:
            yield place, conversation


def _check_unread(row: Row, conversation: Conversation, has_messages: bool) -> None:
    """Raise UserError for a column that changes what a row says, and is not read."""
    for name in (*_MEDIA, *_ADDITIONS):
        if has_messages and name in _OF_INSTRUCTIONS:  # the messages were made of it
            continue
        value = row.values.get(name)
        if name not in row.unread or not value:
            continue
        if isinstance(value, str) and value.strip() in conversation.text:
            continue
        what = f"nothing reads the column '{name}' of this row"
        if name in _MEDIA:
            raise UserError(what, fix="leave the row out: lmft learns text alone")
        fix = "'messages', or a 'prompt' and a 'completion' that are lists of messages"
        if name in _OF_INSTRUCTIONS:
            renamed = {"instruction": row.name("prompt"), "output": row.name("completion")}
            renamed[_OF_INSTRUCTIONS[name]] = name
            options = [f"data.columns.{option}={column}" for option, column in renamed.items()]
            fix = f"data.format=alpaca {' '.join(options)} makes a chat of it"
        raise UserError(what, fix=fix)
