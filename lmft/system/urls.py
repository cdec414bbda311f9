"""Paths of files, and URLs of files on other storage. Imports nothing heavy."""

import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ON_DISK = "file"


def storage_of(path: str) -> str | None:
    """Return the scheme of a URL of other storage (s3, gs, https); None for a path of this machine.

    >>> storage_of("s3://bucket/text.jsonl")
    's3'
    >>> storage_of("file:///data/text.jsonl") is None
    True
    """
    found = _SCHEME.match(path)
    return found[1].lower() if found and found[1].lower() != _ON_DISK else None


def path_of(url: str) -> str:
    """Return the path that a `file://` URL names; any other text as it is.

    >>> path_of("file:///data/text.jsonl")
    '/data/text.jsonl'
    """
    found = _SCHEME.match(url)
    return url[found.end() :] if found and found[1].lower() == _ON_DISK else url
