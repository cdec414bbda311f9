"""Check: the outcome of one comparison, with its figure."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "does not apply"]


@dataclass(frozen=True)
class Check:
    """One line of a verification.

    >>> check = Check("padding changes nothing", "passed", "at most 3e-7 nats", 3e-7, 2e-6)
    >>> check.outcome, check.measured <= check.tolerance
    ('passed', True)
    """

    name: str
    """What is claimed: `padding changes nothing`."""
    outcome: Outcome
    figure: str
    """What was measured, or why the check does not apply."""
    measured: float | None = None
    """The number that is compared with the tolerance; None if the comparison is exact."""
    tolerance: float | None = None
    origin: str | None = None
    """Where the tolerance comes from."""
    details: tuple[str, ...] = ()
    """Lines that show what was compared: decoded text, or the first difference."""


def within(
    name: str,
    measured: float,
    tolerance: float,
    figure: str,
    origin: str,
    details: tuple[str, ...] = (),
) -> Check:
    """Return a check that passes if `measured` is at most the tolerance; a NaN fails."""
    outcome: Outcome = "passed" if measured <= tolerance else "failed"
    return Check(name, outcome, figure, measured, tolerance, origin, details)


def holds(name: str, is_true: bool, figure: str, details: tuple[str, ...] = ()) -> Check:
    """Return a check of an exact claim."""
    return Check(name, "passed" if is_true else "failed", figure, details=details)


def does_not_apply(name: str, why: str) -> Check:
    """Return a check that has nothing to compare."""
    return Check(name, "does not apply", why)
