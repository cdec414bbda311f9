"""Fingerprints: short names of content and settings, which cache keys are made of."""

import hashlib
import json
from typing import Any


def text_fingerprint(text: str) -> str:
    """Return 32 hexadecimal digits that change with the text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint(*parts: Any) -> str:
    """Return 32 hexadecimal digits that change with any of these parts, which JSON can write."""
    return text_fingerprint(json.dumps(parts))
