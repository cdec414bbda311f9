"""Conversations as tokens, with flags for their answers."""

from itertools import chain

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from lmft.data.fingerprint import fingerprint
from lmft.data.formats.backend import FastBackend
from lmft.data.formats.base import Encoded, id_of, id_type
from lmft.data.formats.chat.conversation import Conversation
from lmft.errors import UserError
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL
from lmft.system.token_ids import num_ids


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
            what = f"{type(tokenizer).__name__} cannot tell which tokens belong to an answer"
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

    def whole(self, document: Conversation) -> str:
        """Return the texts of all messages of the conversation that this is the beginning of."""
        return document.content if document.whole is None else document.whole

    def encode(self, documents: list[Conversation]) -> Encoded:
        """Return ids, flags and lengths of these conversations."""
        texts = [conversation.text for conversation in documents]
        encodings = self.backend.encodings(texts)
        all_ids: list[list[int]] = []
        answers: list[tuple[int, int]] = []  # [start, stop) of each answer among the tokens of all
        lasts: list[tuple[int, int]] = []  # the last answers among them
        num_tokens = 0
        for conversation, encoding in zip(documents, encodings, strict=True):
            ids, spans, num_last = self._add_ends(conversation, encoding)
            spans = [(num_tokens + start, num_tokens + stop) for start, stop in spans]
            all_ids.append(ids)
            answers += spans
            lasts += spans[-num_last:]
            num_tokens += len(ids)
        tokens = np.fromiter(chain.from_iterable(all_ids), np.uint32, num_tokens)
        flags = self._flags[tokens]
        for spans, flag in ((answers, ANSWER), (lasts, LAST_ANSWER)):
            for start, stop in spans:
                flags[start:stop] |= flag
        return Encoded(tokens, flags, np.array([len(ids) for ids in all_ids], np.int64))

    def _add_ends(
        self, conversation: Conversation, encoding: Encoding
    ) -> tuple[list[int], list[tuple[int, int]], int]:
        """Return a conversation's ids with separators, [start, stop) of the parts of its answers among
        them, and how many of these the last answer has.
        """
        ids = encoding.ids
        spans = [self._tokens_of(encoding, start, end) for start, end in conversation.answers]
        num_last = max(1, sum(start < stop for start, stop in spans[-conversation.num_last :]))
        spans = [(start, stop) for start, stop in spans if start < stop]
        if conversation.is_rendered:
            is_open = bool(spans) and spans[-1][1] == len(ids) and not self._flags[ids[-1]]
            if is_open and self._end is not None:
                spans[-1] = (spans[-1][0], len(ids) + 1)
                ids = [*ids, self._end]
            return ids, spans, num_last
        spans = spans or [(len(ids), len(ids))]
        if self._end is not None and ids[-1:] != [self._end]:
            if spans[-1][1] == len(ids):
                spans[-1] = (spans[-1][0], len(ids) + 1)
            ids = [*ids, self._end]
        num_before = len(self._before)
        spans = [(num_before + start, num_before + stop) for start, stop in spans]
        return [*self._before, *ids], spans, 1

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
