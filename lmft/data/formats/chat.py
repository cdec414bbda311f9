"""Conversations: a row is a chat, or a prompt and its completion; a chat template renders the chats."""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.fingerprint import fingerprint, text_fingerprint
from lmft.data.formats.backend import FastBackend
from lmft.data.formats.base import Encoded, id_of, id_type
from lmft.data.formats.chat_template import NO_TEMPLATE_FIX, ChatTemplate, Conversation, Messages
from lmft.data.sources.cleaning import clean_rows, type_name
from lmft.data.sources.rows import Place
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError, did_you_mean
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL, Objective
from lmft.system.token_ids import num_ids

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLES_ELSEWHERE = {  # other names in use, and the role they stand for
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_SHAPE = 'messages are [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


class ChatFormat:
    """A row is a conversation, or a prompt and its completion, in the columns that `data.columns`
    names.
    """

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, objective: Objective):
        self.columns = config.columns
        self.template = chat_template(config, tokenizer)
        self.encoder = ChatEncoder(tokenizer)

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: columns, template and encoder."""
        template = text_fingerprint(self.template.source if self.template else "")
        return f"{sorted(self.columns.items())} {template} {self.encoder.fingerprint}"

    def documents(self, source: Source, tally: Tally) -> Any:
        """Yield the rendered conversations."""
        placed = conversations(source, self.columns, self.template, tally)
        return (conversation for _, conversation in placed)

    def place_of(self, source: Source, number: int) -> str:
        """Return file and row of a conversation, found by reading up to it."""
        place, _ = next(
            islice(conversations(source, self.columns, self.template, source.tally()), number, None)
        )
        return str(place)

    def warnings(self) -> list[str]:
        """Warn about tokens that straddle prompt and answer: a prompt alone would end with other
        tokens.
        """
        count = self.encoder.num_straddling
        if not count:
            return []
        what = f"{count} tokens hold the end of a prompt and the beginning of its answer"
        return [f"{what}: end prompts without a space"]


def chat_template(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
    """Return the template that the user names, or the tokenizer's; None: rows can only be plain
    texts.
    """
    if config.chat_template is None and not tokenizer.chat_template:
        return None
    return ChatTemplate.load(config.chat_template, tokenizer)


def conversations(
    source: Source,
    columns: Mapping[str, str],
    template: ChatTemplate | None,
    tally: Tally,
) -> Iterator[tuple[Place, Conversation]]:
    """Yield each row's place and conversation; `_conversation` tells what rows can be.

    Args:
        source: where rows are read.
        columns: the user's names of the columns `messages`, `prompt` and `completion`.
        template: renders messages; None: rows can only be prompts and completions that are text.
        tally: counts bytes, rows cleaned, by reason, and as `none` rows without a value.

    Raises: UserError, naming the row, for what is not a conversation, for what the template cannot
    render, and for what cannot be read.
    """
    return clean_rows(source, lambda row: _conversation(row, columns, template), tally)


def _conversation(
    row: dict, columns: Mapping[str, str], template: ChatTemplate | None
) -> Conversation | None:
    """Make a row's conversation; None if it has no value.

    A row has `messages`, or a `prompt` and a `completion` that are both text or both messages. Its
    `tools` are given to the template.
    """
    messages = row.get(columns["messages"])
    prompt = row.get(columns["prompt"])
    completion = row.get(columns["completion"])
    if messages is not None:
        return _render(_checked_messages(messages, columns["messages"]), 0, row, template)
    if prompt is None and completion is None:
        _check_columns(row, columns)
        return None
    for name, value in (("prompt", prompt), ("completion", completion)):
        if value is None:
            raise UserError(
                f"there is no '{columns[name]}'",
                fix=f"data.columns.{name}=NAME of the column that holds it",
            )
    if isinstance(prompt, list) and isinstance(completion, list):
        before = _checked_messages(prompt, columns["prompt"])
        after = _checked_messages(completion, columns["completion"])
        return _render(before + after, len(before), row, template)
    if not isinstance(prompt, str) or not isinstance(completion, str):
        what = f"'{columns['prompt']}' holds {type_name(prompt)}"
        what += f" and '{columns['completion']}' {type_name(completion)}"
        raise UserError(what, fix="both are text, or both are lists of messages")
    if not completion.strip():
        raise UserError(
            f"'{columns['completion']}' is empty", fix="leave the row out, or give the text to be learnt"
        )
    text = prompt + completion
    return Conversation(text, [(len(prompt), len(text))], text, is_rendered=False)


def _render(messages: Messages, first: int, row: dict, template: ChatTemplate | None) -> Conversation:
    """Render messages, with the row's tools; assistant turns before message `first` are context."""
    tools = row.get("tools")
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    ):
        raise UserError(
            f"'tools' holds {type_name(tools)}, not a list of objects", fix="one JSON schema a tool"
        )
    if template is None:
        raise UserError("the tokenizer has no chat template", fix=NO_TEMPLATE_FIX)
    return template.render(messages, tools, first)


def _checked_messages(messages: object, column: str) -> Messages:
    """Return the messages without keys that have no value. Raises: UserError for what is not a
    message.
    """
    if not isinstance(messages, list):
        raise UserError(f"'{column}' holds {type_name(messages)}, not a list of messages", fix=_SHAPE)
    if not messages:
        raise UserError(f"'{column}' is empty", fix="leave the row out, or give its messages")
    return [
        _checked_message(message, f"message {i} of '{column}'") for i, message in enumerate(messages, 1)
    ]


def _checked_message(message: object, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise UserError(f"{name} is {type_name(message)}, not an object", fix=_SHAPE)
    message = {key: value for key, value in message.items() if value is not None}
    if "role" not in message:
        fix = _SHAPE
        if {"from", "value"} & message.keys():
            fix = "rename 'from' to 'role' and 'value' to 'content', human to user and gpt to assistant"
        raise UserError(f"{name} has no 'role' but {', '.join(message) or 'nothing'}", fix=fix)
    role = message["role"]
    content = message.get("content", "")
    if role not in ROLES:
        known = _ROLES_ELSEWHERE.get(str(role).lower())
        hint = f" (did you mean '{known}'?)" if known else did_you_mean(str(role), ROLES)
        raise UserError(f"{name} has an unknown role {role!r}{hint}", fix=f"one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UserError(f"the content of {name} is {type_name(content)}, not text", fix=_SHAPE)
    if not content.strip() and not (role == "assistant" and message.get("tool_calls")):
        raise UserError(f"{name} has no content", fix="leave the message out, or give its text")
    return message


def _check_columns(row: dict, columns: Mapping[str, str]) -> None:
    if not {columns["messages"], columns["prompt"], columns["completion"]} & row.keys():
        name = columns["messages"]
        others = ", ".join(row) or "nothing"
        what = (
            f"there is neither '{name}'{did_you_mean(name, row)} nor '{columns['prompt']}', but {others}"
        )
        raise UserError(
            what, fix="data.columns.messages=NAME of the column that holds the conversations"
        )


class ChatEncoder:
    """Turns conversations into ids and flags.

    A conversation is tokenised as a whole. A token is flagged ANSWER if any of its characters is in an
    answer, and also LAST_ANSWER if that is the conversation's last one. (A character can take several
    tokens.) Truncation and padding saved in the tokenizer are switched off.

    A chat template writes its own separators. But if the last answer ends the text without a special
    token, the end-of-text token is added to the answer. A prompt with its completion gets the tokens
    that the tokenizer's own template puts before a text, and the end-of-text token.

    Create it after the chat template's special tokens were added to the tokenizer.
    """

    has_word_starts = False

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        if not tokenizer.is_fast:
            what = f"{type(tokenizer).__name__} cannot tell which tokens are an answer's"
            raise UserError(what, "data.format=chat", "a model whose tokenizer has a tokenizer.json")
        self.backend = FastBackend(tokenizer)
        self._before = self.backend.prefix
        # It would cut white space off the tokens' offsets.
        self.backend.fast.post_processor = None
        self._end = id_of(tokenizer, "eos")
        # Separators are tokens of their conversation.
        self.prefix: list[int] = []
        self.suffix: list[int] = []
        self.closing: list[int] = []
        self.dtype = id_type(tokenizer)

        added = tokenizer.added_tokens_decoder
        special_ids = [*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)]
        self._flags = np.zeros(num_ids(tokenizer), np.uint8)
        self._flags[special_ids] = SPECIAL
        self._variables = tokenizer.special_tokens_map  # of chat templates
        self.num_straddling = 0  # tokens so far that begin in a prompt and end in its answer

    @property
    def fingerprint(self) -> str:
        """Cache key of the encoder, without the template: it changes if ids or flags of any text
        might.
        """
        return fingerprint(
            self.backend.key, self._before, self._end, self._flags.tolist(), self._variables
        )

    @property
    def template(self) -> dict[str, list[int]]:
        """No separators: the chat template has put them into the text."""
        return {"prefix": self.prefix, "suffix": self.suffix}

    def content(self, document: Conversation) -> str:
        """Return the messages' texts without the template."""
        return document.content

    def encode(self, documents: list[Conversation]) -> Encoded:
        """Return ids, flags and lengths of these conversations."""
        texts = [conversation.text for conversation in documents]
        encodings = self.backend.encodings(texts)
        all_ids: list[list[int]] = []
        answers: list[tuple[int, int]] = []  # [start, stop) of each answer among the tokens of all
        lasts: list[tuple[int, int]] = []  # the last answers among them
        num_tokens = 0
        for conversation, encoding in zip(documents, encodings, strict=True):
            ids, spans = self._add_ends(conversation, encoding)
            spans = [(num_tokens + start, num_tokens + stop) for start, stop in spans]
            all_ids.append(ids)
            answers += spans
            lasts += spans[-1:]
            num_tokens += len(ids)
        tokens = np.fromiter(chain.from_iterable(all_ids), np.uint32, num_tokens)
        flags = self._flags[tokens]
        for spans, flag in ((answers, ANSWER), (lasts, LAST_ANSWER)):
            for start, stop in spans:
                flags[start:stop] |= flag
        return Encoded(tokens, flags, np.array([len(ids) for ids in all_ids], np.int64))

    def _add_ends(
        self, conversation: Conversation, encoding: Encoding
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Return a conversation's ids with separators, and [start, stop) of its answers among them."""
        ids = encoding.ids
        spans = [self._tokens_of(encoding, start, end) for start, end in conversation.answers]
        spans = [(start, stop) for start, stop in spans if start < stop]
        if conversation.is_rendered:
            is_open = bool(spans) and spans[-1][1] == len(ids) and not self._flags[ids[-1]]
            if is_open and self._end is not None:
                spans[-1] = (spans[-1][0], len(ids) + 1)
                ids = [*ids, self._end]
            return ids, spans
        num_before = len(self._before)
        start, stop = spans[0] if spans else (len(ids), len(ids))
        if self._end is not None and ids[-1:] != [self._end]:
            ids = [*ids, self._end]
            stop += 1
        return [*self._before, *ids], [(num_before + start, num_before + stop)]

    def _tokens_of(self, encoding: Encoding, start: int, end: int) -> tuple[int, int]:
        """Return [first, stop) of the tokens with a character of [start, end).

        `char_to_token` gives a character's first token, or None if the tokenizer's normalizer dropped
        it. (Looking up a few characters takes a hundredth of the time of listing all tokens' offsets.)
        """
        tokens = (encoding.char_to_token(at) for at in range(start, end))
        first = next((token for token in tokens if token is not None), len(encoding))
        stop = max(first, encoding.char_to_token(end - 1) or 0)
        while stop < len(encoding) and encoding.token_to_chars(stop)[0] < end:  # pyright: ignore[reportOptionalSubscript]
            stop += 1
        if first < stop and encoding.token_to_chars(first)[0] < start:  # pyright: ignore[reportOptionalSubscript]
            self.num_straddling += 1
        return first, stop
