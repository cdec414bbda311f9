"""Conversations: a row is a chat, or a prompt and its completion; the template renders it, the tokenizer
encodes it.
"""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.formats.base import Encoded, id_of, separators
from lmft.data.formats.chat_template import NO_TEMPLATE_FIX, ChatTemplate, Conversation, Messages
from lmft.data.sources.cleaning import clean_rows, type_name
from lmft.data.sources.readers import Place
from lmft.data.sources.source import Source
from lmft.errors import UserError, did_you_mean
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL

ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHERS_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_SHAPE = 'messages are [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


class ChatFormat:
    """A row is a conversation, or a prompt and its completion, in the columns that `data.columns` names."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.columns = config.columns
        self.template = chat_template(config, tokenizer)
        self.encoder = ChatEncoder(tokenizer)

    @property
    def fingerprint(self) -> str:
        """Columns, template and encoder."""
        source = self.template.source if self.template else ""
        template = hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
        return f"{sorted(self.columns.items())} {template} {self.encoder.fingerprint}"

    def documents(
        self, source: Source, cleaned: Counter[str], advance: Callable[[int], object] | None = None
    ) -> Any:
        """The conversations, rendered."""
        return (each for _, each in conversations(source, self.columns, self.template, cleaned, advance))

    def place_of(self, source: Source, number: int) -> str:
        """File and row."""
        place, _ = next(islice(conversations(source, self.columns, self.template, Counter()), number, None))
        return str(place)

    def warnings(self) -> list[str]:
        """That answers begin inside tokens: of a prompt alone, the tokenizer makes other tokens at its end."""
        count = self.encoder.num_straddling
        many = f"{count} tokens hold the end of a prompt and the beginning of its answer: end prompts without a space"
        return [many] if count else []


def chat_template(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
    """The one the user names, or the tokenizer's own; None where there is none, which texts need not."""
    if config.chat_template is None and not tokenizer.chat_template:
        return None
    return ChatTemplate.load(config.chat_template, tokenizer)


def conversations(
    source: Source,
    columns: Mapping[str, str],
    template: ChatTemplate | None,
    cleaned: Counter[str],
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[Place, Conversation]]:
    """Each row's place and conversation; what the rows may be is said in `_conversation`.

    columns: the user's names of `messages`, `prompt` and `completion`. template: None where the tokenizer has
    none; then rows may only be texts. `cleaned` and `advance` are those of `sources.documents`; rows without
    a value are counted as `none`.

    Raises UserError, naming the row, for what is no conversation, for what the template cannot write, and for
    what cannot be read.
    """
    return clean_rows(source, lambda row: _conversation(row, columns, template), cleaned, advance)


def _conversation(
    row: dict, columns: Mapping[str, str], template: ChatTemplate | None
) -> Conversation | None:
    """Of `messages`, of a `prompt` and a `completion` that are both text, or of both as messages; None: no
    value.

    `tools`, if there, is what the template is given under that name.
    """
    messages, prompt, completion = (row.get(columns[name]) for name in ("messages", "prompt", "completion"))
    if messages is not None:
        return _rendered(_checked(messages, columns["messages"]), 0, row, template)
    if prompt is None and completion is None:
        _must_have_a_column(row, columns)
        return None
    for name, value in (("prompt", prompt), ("completion", completion)):
        if value is None:
            raise UserError(
                f"there is no '{columns[name]}'", fix=f"data.columns.{name}=NAME of the column that holds it"
            )
    if isinstance(prompt, list) and isinstance(completion, list):
        before = _checked(prompt, columns["prompt"])
        return _rendered(before + _checked(completion, columns["completion"]), len(before), row, template)
    if not isinstance(prompt, str) or not isinstance(completion, str):
        what = f"'{columns['prompt']}' holds {type_name(prompt)} and '{columns['completion']}' {type_name(completion)}"
        raise UserError(what, fix="both are text, or both are lists of messages")
    if not completion.strip():
        raise UserError(
            f"'{columns['completion']}' is empty", fix="leave the row out, or give the text to be learnt"
        )
    text = prompt + completion
    return Conversation(text, [(len(prompt), len(text))], text, is_rendered=False)


def _rendered(messages: Messages, first: int, row: dict, template: ChatTemplate | None) -> Conversation:
    tools = row.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise UserError(
            f"'tools' holds {type_name(tools)}, not a list of objects", fix="one JSON schema a tool"
        )
    if template is None:
        raise UserError("the tokenizer has no chat template", fix=NO_TEMPLATE_FIX)
    return template.render(messages, tools, first)


def _checked(messages: object, column: str) -> Messages:
    """The messages, without the keys that have no value. Raises UserError for what is no message."""
    if not isinstance(messages, list):
        raise UserError(f"'{column}' holds {type_name(messages)}, not a list of messages", fix=_SHAPE)
    if not messages:
        raise UserError(f"'{column}' is empty", fix="leave the row out, or give its messages")
    return [_checked_message(message, f"message {i} of '{column}'") for i, message in enumerate(messages, 1)]


def _checked_message(message: object, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise UserError(f"{name} is {type_name(message)}, not an object", fix=_SHAPE)
    message = {key: value for key, value in message.items() if value is not None}
    if "role" not in message:
        others = {"from", "value"} & message.keys()
        fix = "rename 'from' to 'role' and 'value' to 'content', human to user and gpt to assistant"
        raise UserError(
            f"{name} has no 'role' but {', '.join(message) or 'nothing'}", fix=fix if others else _SHAPE
        )
    role, content = message["role"], message.get("content", "")
    if role not in ROLES:
        near = _OTHERS_ROLES.get(str(role).lower())
        hint = f" (did you mean '{near}'?)" if near else did_you_mean(str(role), ROLES)
        raise UserError(f"{name} has an unknown role {role!r}{hint}", fix=f"one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UserError(f"the content of {name} is {type_name(content)}, not text", fix=_SHAPE)
    if not content.strip() and not (role == "assistant" and message.get("tool_calls")):
        raise UserError(f"{name} has no content", fix="leave the message out, or say what it says")
    return message


def _must_have_a_column(row: dict, columns: Mapping[str, str]) -> None:
    if not {columns["messages"], columns["prompt"], columns["completion"]} & row.keys():
        name = columns["messages"]
        others = ", ".join(row) or "nothing"
        what = f"there is neither '{name}'{did_you_mean(name, row)} nor '{columns['prompt']}', but {others}"
        raise UserError(what, fix="data.columns.messages=NAME of the column that holds the conversations")


class ChatEncoder:
    """Turns conversations into ids and flags; a `tokenize.DocumentEncoder`.

    A text is tokenised once, as a whole. A token is an ANSWER if any of its characters is in one, and a
    LAST_ANSWER too if that is the text's last. (A character can take several tokens.) Truncation and padding
    baked into the tokenizer are switched off.

    A chat template writes its own separators. But where the last answer ends the text and does not end with a
    special token, the end-of-text token is added, as its end. A prompt and its completion get what the
    tokenizer's own template puts before a text, and the end-of-text token.

    Make it when the tokenizer has all the special tokens that the chat template needs.
    """

    has_word_starts = False

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.backend: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        self.backend.no_truncation()
        self.backend.no_padding()
        self._before, _ = separators(self.backend)
        self.backend.post_processor = None  # pyright: ignore[reportAttributeAccessIssue] (it would trim white space off)
        self._end = id_of(tokenizer, "eos")
        self.prefix, self.suffix, self.closing = [], [], []  # every separator is a token of its conversation
        self.dtype = "<u2" if len(tokenizer) <= 1 << 16 else "<u4"

        added = tokenizer.added_tokens_decoder
        self._flags = np.zeros(len(tokenizer), np.uint8)
        self._flags[[*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)]] = (
            SPECIAL
        )
        self._variables = tokenizer.special_tokens_map  # what a chat template writes them as
        self.num_straddling = 0  # tokens so far that begin in the prompt and end in the answer

    @property
    def fingerprint(self) -> str:
        """Changes when the ids or flags of some conversation might; the template's text has to be added."""
        parts = [self.backend.to_str(), self._before, self._end, self._flags.tolist(), self._variables]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def content(self, document: Conversation) -> str:
        """What is said in it, however it is rendered."""
        return document.content

    def encode(self, documents: list[Conversation]) -> Encoded:
        """Ids, flags and lengths of these conversations."""
        encodings = self.backend.encode_batch([each.text for each in documents], add_special_tokens=False)
        ids: list[list[int]] = []
        answers: list[tuple[int, int]] = []  # [start, stop) of each answer among the tokens of all
        lasts: list[tuple[int, int]] = []  # the last answers among them
        num_tokens = 0
        for conversation, encoding in zip(documents, encodings, strict=True):
            some, spans = self._with_ends(conversation, encoding)
            spans = [(num_tokens + start, num_tokens + stop) for start, stop in spans]
            ids.append(some)
            answers += spans
            lasts += spans[-1:]
            num_tokens += len(some)
        tokens = np.fromiter(chain.from_iterable(ids), np.uint32, num_tokens)
        flags = self._flags[tokens]
        for spans, flag in ((answers, ANSWER), (lasts, LAST_ANSWER)):
            for start, stop in spans:
                flags[start:stop] |= flag
        return Encoded(tokens, flags, np.array([len(some) for some in ids], np.int64))

    def _with_ends(
        self, conversation: Conversation, encoding: Encoding
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """A conversation's ids, and its answers among them."""
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
            ids, stop = [*ids, self._end], stop + 1
        return [*self._before, *ids], [(num_before + start, num_before + stop)]

    def _tokens_of(self, encoding: Encoding, start: int, end: int) -> tuple[int, int]:
        """[first, stop) of the tokens with a character of [start, end).

        `char_to_token` gives a character's first token; none where the tokenizer's normalizer has dropped it.
        (To look at a few characters takes a hundredth of the time that it takes to list the offsets of all
        tokens.)
        """
        found = (encoding.char_to_token(at) for at in range(start, end))
        first = next((token for token in found if token is not None), len(encoding))
        stop = max(first, encoding.char_to_token(end - 1) or 0)
        while stop < len(encoding) and encoding.token_to_chars(stop)[0] < end:  # pyright: ignore[reportOptionalSubscript]
            stop += 1
        if first < stop and encoding.token_to_chars(first)[0] < start:  # pyright: ignore[reportOptionalSubscript]
            self.num_straddling += 1
        return first, stop
