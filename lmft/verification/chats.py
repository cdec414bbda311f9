"""The targets of chats: exactly what the chat template writes for each answer, decoded."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmft.assembly.parts import Parts
from lmft.data.corpus import FORMATS
from lmft.data.formats.chat.format import ChatFormat
from lmft.verification.check import Check, does_not_apply
from lmft.verification.subject import Subject

NAME = "chat targets are the answers"


def chat_targets(subject: Subject) -> Iterator[Check]:
    """Decode the targets of the first chats, and compare with what the template writes for answers."""
    yield does_not_apply(NAME, "todo")
