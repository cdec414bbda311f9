"""The result of a verification, as plain data and as a line."""

from dataclasses import asdict, dataclass
from typing import Any

from lmft.reporting.tables import duration
from lmft.verification.check import Check
from lmft.verification.registry import Timed


@dataclass(frozen=True, repr=False)
class Verification:
    """All checks that were made, in order; its repr has a line for each.

    >>> from lmft.verification.registry import Timed
    >>> same, other = Check("same", "passed", "0 nats"), Check("other", "failed", "0.5 nats")
    >>> found = Verification((Timed([same], seconds=1), Timed([other], seconds=2)))
    >>> found.passed, [check.name for check in found.checks if check.outcome == "failed"]
    (False, ['other'])
    >>> found.summary
    '1 passed, 1 failed, 0 do not apply, in 0:03'
    """

    families: tuple[Timed, ...]

    @property
    def checks(self) -> list[Check]:
        """The checks."""
        return [check for family in self.families for check in family.checks]

    @property
    def passed(self) -> bool:
        """True if none failed."""
        return not any(check.outcome == "failed" for check in self.checks)

    @property
    def summary(self) -> str:
        """Return how many passed, failed and do not apply, and the time they took."""
        outcomes = [check.outcome for check in self.checks]
        seconds = sum(family.seconds for family in self.families)
        return (
            f"{outcomes.count('passed')} passed, {outcomes.count('failed')} failed, "
            f"{outcomes.count('does not apply')} do not apply, in {duration(seconds)}"
        )

    def __repr__(self) -> str:
        lines = [f"{check.outcome:<14}  {check.name}: {check.figure}" for check in self.checks]
        return "\n".join([*lines, self.summary])

    def as_json(self) -> dict[str, Any]:
        """Return the checks as plain data."""
        checks = [
            {**asdict(check), "seconds": family.seconds}
            for family in self.families
            for check in family.checks
        ]
        return {"passed": self.passed, "checks": checks}
