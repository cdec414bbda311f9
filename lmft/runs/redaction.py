"""Keep secrets out of every file that a run writes."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

REDACTED = "<redacted>"

_ALWAYS_SECRET = re.compile(  # includes compounds written as one word: apikey, hftoken
    r"\w*(password|passwd|passphrase|secret|credential)s?|(\w*(api|access|auth|secret|private|hub|wandb))?keys?|\w+token"
)
# Scheme://user:password@.
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^\s/@:?#]*)(:[^\s/@]*)?@", re.IGNORECASE)
_IN_QUERY = re.compile(r"(?<=[?&])([\w.-]+)=([^&#\s'\"<>]+)")  # ?token=…
_SPECIAL_TOKENS = {
    "mask",
    "pad",
    "bos",
    "eos",
    "unk",
    "cls",
    "sep",
    "start",
    "end",
    "special",
    "additional",
}
_SHORTEST_SECRET = 6  # characters; shorter values would match ordinary text


def is_secret_name(name: str) -> bool:
    """Return whether a name is a secret's, such as `api_key` and `HF_TOKEN`, but not `mask_token`."""
    words = _words(name)
    return any(
        _ALWAYS_SECRET.fullmatch(word) or (word == "token" and previous not in _SPECIAL_TOKENS)
        for previous, word in zip(["", *words], words, strict=False)
    )


class Redactor:
    """Replaces the secrets of a config and of the environment by `<redacted>`.

    Secrets are the values under a secret name (a key of the config, an environment variable, a parameter
    of a URL's query), and the passwords in URLs.
    """

    def __init__(self, config: Mapping[str, Any]):
        secrets = {secret.strip() for secret in (*_config_secrets(config), *_environment_secrets())}
        spellings = {
            spelling
            for secret in secrets
            if len(secret) >= _SHORTEST_SECRET
            for spelling in _spellings(secret)
        }
        # Longest first, since one may contain another.
        self._secrets = sorted(spellings, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return `text` with its secrets replaced."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _IN_URL.sub(_without_password, text)
        return _IN_QUERY.sub(_without_secret_parameter, text)

    def value(self, value: Any) -> Any:
        """Return plain data (dicts, lists, scalars) with its secrets replaced."""
        if isinstance(value, Mapping):
            return {
                key: REDACTED if _is_secret(key, item) else self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if isinstance(value, str):
            return self.text(value)
        return value

    def argument(self, argument: str) -> str:
        """Return a command line's `key=value` with its secrets replaced."""
        key, equals, _ = argument.partition("=")
        if equals and is_secret_name(key):
            return f"{key}={REDACTED}"
        return self.text(argument)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _is_secret(name: Any, value: Any) -> bool:
    if not isinstance(name, str) or not is_secret_name(name):
        return False
    if value is None or isinstance(value, bool | float):
        return False
    # `num_key_value_heads: 4` is no secret, `api_key: 12345678` is one.
    return not isinstance(value, int) or is_secret_name(_words(name)[-1])


def _config_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if _is_secret(key, item):
                yield from _leaves(item)
            else:
                yield from _config_secrets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _config_secrets(item)
    elif isinstance(value, str):  # a library may print the password without the URL around it
        yield from (match[3][1:] for match in _IN_URL.finditer(value) if match[3])


def _without_password(url: re.Match[str]) -> str:
    scheme, user, password = url.groups()
    if password is not None:
        return f"{scheme}{user}:{REDACTED}@"
    if scheme.lower().startswith("http"):
        return f"{scheme}{REDACTED}@"
    return url[0]  # ssh://git@host: a user name is no secret


def _without_secret_parameter(parameter: re.Match[str]) -> str:
    name = parameter[1]
    return f"{name}={REDACTED}" if is_secret_name(name) else parameter[0]


def _spellings(secret: str) -> set[str]:
    """Return a secret as JSON, HTML, URLs and Python write it."""
    return {secret, json.dumps(secret)[1:-1], escape(secret), quote(secret, safe=""), repr(secret)[1:-1]}


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield str(value)


def _environment_secrets() -> Iterator[str]:
    yield from (value for name, value in os.environ.items() if is_secret_name(name))
