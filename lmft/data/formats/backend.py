"""Encode text by the library `tokenizers`, or by a tokenizer written in Python."""

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer, models
from transformers import PreTrainedTokenizerBase

from lmft.data.fingerprint import fingerprint

_MARKER = (1 << 32) - 1  # stands for a text; no vocabulary is that large


class FastBackend:
    """A copy of the library's tokenizer, with truncation and padding switched off."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, is_target: bool = False):
        """Copy the tokenizer's backend.

        Args:
            tokenizer: a fast tokenizer.
            is_target: whether texts are those that the model writes (`tokenizer(text_target=…)`).
        """
        with _mode(tokenizer, is_target):
            self.fast: Any = copy.deepcopy(tokenizer.backend_tokenizer)
        self.fast.no_truncation()
        self.fast.no_padding()
        self.prefix, self.suffix = separators(self.fast)

    @property
    def unknown_id(self) -> int | None:
        """The id that the tokenizer's model gives to unknown text; None if it has none.

        The unknown token of a transformers tokenizer can be another one: GPT-2's is its end of text.
        """
        model = json.loads(self.fast.to_str())["model"]
        if model["type"] == "Unigram":
            return model["unk_id"]
        token = model.get("unk_token")
        return None if token is None else self.fast.token_to_id(token)

    @property
    def key(self) -> str:
        """The tokenizer as JSON."""
        return self.fast.to_str()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, without separators."""
        return [one.ids for one in self.fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Return the encodings, which know words and characters; this is slower than `ids`."""
        return self.fast.encode_batch(list(texts), add_special_tokens=False)


class PythonBackend:
    """A tokenizer written in Python (ByT5, M2M100, Marian, ESM): it gives ids, but no words."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, is_target: bool = False):
        """Keep the tokenizer.

        Args:
            tokenizer: a tokenizer without a backend of the library `tokenizers`.
            is_target: whether texts are those that the model writes (`tokenizer(text_target=…)`).
        """
        self._tokenizer: Any = tokenizer
        self._argument = "text_target" if is_target else "text"
        with _mode(tokenizer, is_target):
            whole = self._tokenizer.build_inputs_with_special_tokens([_MARKER])
        place = whole.index(_MARKER)
        self.prefix = whole[:place]
        self.suffix = whole[place + 1 :]

    @property
    def unknown_id(self) -> int | None:
        """The id of unknown text; None if the tokenizer has none."""
        return self._tokenizer.unk_token_id

    @property
    def key(self) -> str:
        """The tokenizer's class, vocabulary, options, and the content of its files."""
        tokenizer = self._tokenizer
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        options = {
            name: _content(value)
            for name, value in sorted(tokenizer.init_kwargs.items())
            if name != "name_or_path"
        }
        return fingerprint(type(tokenizer).__name__, vocabulary, options, self._argument)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, without separators."""
        options = {"add_special_tokens": False, "truncation": False, "padding": False, "verbose": False}
        return self._tokenizer(**{self._argument: list(texts)}, **options)["input_ids"]


def _content(option: Any) -> str:
    """Return an option of a tokenizer as text; of a file, the content."""
    if isinstance(option, str) and os.path.isfile(option):  # noqa: PTH113  (any text may be asked)
        return Path(option).read_bytes().hex()
    return str(option)


def backend_of(
    tokenizer: PreTrainedTokenizerBase, is_target: bool = False
) -> FastBackend | PythonBackend:
    """Return the backend of a tokenizer.

    Args:
        tokenizer: the tokenizer.
        is_target: whether texts are those that the model writes, if its tokenizer treats them otherwise.
    """
    if tokenizer.is_fast:
        return FastBackend(tokenizer, is_target)
    return PythonBackend(tokenizer, is_target)


@contextmanager
def _mode(tokenizer: Any, is_target: bool) -> Iterator[None]:
    """Put a tokenizer of two templates into the mode of targets or of inputs, and then of inputs."""
    if not hasattr(tokenizer, "_switch_to_input_mode"):
        yield
        return
    if is_target:
        tokenizer._switch_to_target_mode()
    else:
        tokenizer._switch_to_input_mode()
    try:
        yield
    finally:
        tokenizer._switch_to_input_mode()


def separators(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer's template puts before and after a text.

    The template is applied to a text of one token that no vocabulary has, so that the answer does not
    depend on which letters the vocabulary knows.
    """
    vocabulary = models.WordLevel({"text": _MARKER}, unk_token="text")
    marked = Tokenizer(vocabulary).encode("text")
    whole = backend.post_process(marked).ids
    place = whole.index(_MARKER)
    return whole[:place], whole[place + 1 :]
