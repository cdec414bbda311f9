"""From conversations to token ids, with flags on what the model is to say."""

import copy
import hashlib
import json
from itertools import chain

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from lmft.data.chat_template import Conversation
from lmft.data.tokenize import Encoded, id_of, separators
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL


class ChatEncoder:
    """Turns conversations into ids and flags; a `tokenize.DocumentEncoder`.

    A text is tokenised once, as a whole. A token is an ANSWER if any of its characters is in one, and a LAST_ANSWER
    too if that is the text's last. (A character can take several tokens.) Truncation and padding baked into the
    tokenizer are switched off.

    A chat template writes its own separators. But where the last answer ends the text and does not end with a special
    token, the end-of-text token is added, as its end. A prompt and its completion get what the tokenizer's own template
    puts before a text, and the end-of-text token.

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
        self._flags[[*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)]] = SPECIAL
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

    def _with_ends(self, conversation: Conversation, encoding: Encoding) -> tuple[list[int], list[tuple[int, int]]]:
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

        `char_to_token` gives a character's first token; none where the tokenizer's normalizer has dropped it. (To look
        at a few characters takes a hundredth of the time that it takes to list the offsets of all tokens.)
        """
        found = (encoding.char_to_token(at) for at in range(start, end))
        first = next((token for token in found if token is not None), len(encoding))
        stop = max(first, encoding.char_to_token(end - 1) or 0)
        while stop < len(encoding) and encoding.token_to_chars(stop)[0] < end:  # pyright: ignore[reportOptionalSubscript]
            stop += 1
        if first < stop and encoding.token_to_chars(first)[0] < start:  # pyright: ignore[reportOptionalSubscript]
            self.num_straddling += 1
        return first, stop
