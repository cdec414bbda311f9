"""Keeps secrets out of every file that a run writes."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

REDACTED = "<redacted>"

_ALWAYS_SECRET = re.compile(  # and compounds that are written as one word: apikey, hftoken
    r"\w*(password|passwd|passphrase|secret|credential)s?|(\w*(api|access|auth|secret|private|hub|wandb))?keys?|\w+token"
)
# Scheme://user:password@.
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^\s/@:?#]*)(:[^\s/@]*)?@", re.IGNORECASE)
_IN_QUERY = re.compile(r"(?<=[?&])([\w.-]+)=([^&#\s'\"<>]+)")  # ?token=…
_SPECIAL_TOKENS = {"mask", "pad", "bos", "eos", "unk", "cls", "sep", "start", "end", "special", "additional"}
_SHORTEST_SECRET = 6  # characters; a shorter value would be found in innocent text


def is_secret_name(name: str) -> bool:
    """Whether one of the words of `name` names a secret: `api_key`, `HF_TOKEN`; not `tokenizer`, not
    `mask_token`.
    """
    words = _words(name)
    return any(
        _ALWAYS_SECRET.fullmatch(word) or (word == "token" and previous not in _SPECIAL_TOKENS)
        for previous, word in zip(["", *words], words, strict=False)
    )


class Redactor:
    """Replaces the secrets of a config and of the environment by `<redacted>`, wherever they stand.

    A secret is a value under a secret name (in the config's tree, of an environment variable, in a URL's
    query), and what a URL has for a password.
    """

    def __init__(self, config: Mapping[str, Any]):
        found = {secret.strip() for secret in (*_config_secrets(config), *_environment_secrets())}
        spelled = {
            spelling for secret in found if len(secret) >= _SHORTEST_SECRET for spelling in _spellings(secret)
        }
        # One that contains another one is replaced first.
        self._secrets = sorted(spelled, key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _IN_URL.sub(_without_password, text)
        return _IN_QUERY.sub(
            lambda found: f"{found[1]}={REDACTED}" if is_secret_name(found[1]) else found[0], text
        )

    def value(self, value: Any) -> Any:
        """Plain data (dicts, lists, scalars) without secrets."""
        if isinstance(value, Mapping):
            return {
                key: REDACTED if _is_secret(key, item) else self.value(item) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def argument(self, argument: str) -> str:
        """A command line's `key=value` without secrets."""
        key, equals, _ = argument.partition("=")
        return f"{key}={REDACTED}" if equals and is_secret_name(key) else self.text(argument)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _is_secret(name: Any, value: Any) -> bool:
    if (
        not isinstance(name, str)
        or not is_secret_name(name)
        or value is None
        or isinstance(value, bool | float)
    ):
        return False
    # `num_key_value_heads: 4` is no secret, `api_key: 12345678` is one.
    return not isinstance(value, int) or is_secret_name(_words(name)[-1])


def _config_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item) if _is_secret(key, item) else _config_secrets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _config_secrets(item)
    elif isinstance(value, str):  # also where a library says it without the URL around it
        yield from (found[3][1:] for found in _IN_URL.finditer(value) if found[3])


def _without_password(found: re.Match[str]) -> str:
    if found[3] is None:  # git@, a user without a password, and nobody's secret
        return f"{found[1]}{REDACTED}@" if found[1].lower().startswith("http") else found[0]
    return f"{found[1]}{found[2]}:{REDACTED}@"


def _spellings(secret: str) -> set[str]:
    """How other files and messages write it: in JSON, HTML, a URL, Python."""
    return {secret, json.dumps(secret)[1:-1], escape(secret), quote(secret, safe=""), repr(secret)[1:-1]}


def _leaves(value: Any) -> Iterator[str]:
    items = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    )
    if items is None:
        yield str(value)
    else:
        for item in items:
            yield from _leaves(item)


def _environment_secrets() -> Iterator[str]:
    yield from (value for name, value in os.environ.items() if is_secret_name(name))
