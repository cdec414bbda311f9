"""All checks, in the order in which they run: the fast ones first."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lmft.verification.chats import chat_targets
from lmft.verification.check import Check
from lmft.verification.epochs import epoch, fixed_noise
from lmft.verification.exporting import exporting
from lmft.verification.gradients import gradients, precision
from lmft.verification.invariance import packing, padding, perplexity
from lmft.verification.noise import noise
from lmft.verification.resuming import resuming
from lmft.verification.subject import Subject
from lmft.verification.targets import targets
from lmft.verification.tokenizer import round_trip, stored_tokens


@dataclass(frozen=True)
class Family:
    """Checks that are made together."""

    doing: str
    """For the display: `decoding the targets of chats`."""
    make: Callable[[Subject], Iterator[Check]]


FAMILIES = (
    Family("decoding texts and tokenising them again", round_trip),
    Family("comparing the stored tokens", stored_tokens),
    Family("going through an epoch", epoch),
    Family("comparing the noise of two epochs", fixed_noise),
    Family("loading the model, counting what is hidden", noise),
    Family("restoring texts from targets", targets),
    Family("decoding the targets of chats", chat_targets),
    Family("padding a batch", padding),
    Family("packing documents", packing),
    Family("computing gradients in micro-batches", gradients),
    Family("computing in the chosen precision", precision),
    Family("validating at three batch sizes", perplexity),
    Family("interrupting and resuming a training", resuming),
    Family("exporting, and loading the folder", exporting),
)


@dataclass(frozen=True)
class Timed:
    """Checks that were made together, and how long it took."""

    checks: list[Check]
    seconds: float


def made(subject: Subject, begin: Callable[[str], object]) -> Iterator[Timed]:
    """Make all checks.

    Args:
        subject: the training that is verified.
        begin: called with what is done next.
    """
    for family in FAMILIES:
        begin(family.doing)
        started = time.monotonic()
        checks = list(family.make(subject))
        yield Timed(checks, time.monotonic() - started)
