"""What a user can get wrong, said in one to three lines; and the one place that prints it."""

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

EXIT_CODE = 2


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, where, and what to change.

    Each part is one line. It is printed without a traceback and ends the process with exit code 2;
    `LMFT_DEBUG=1` shows the traceback as well.
    """

    def __init__(self, what: str, where: str | None = None, fix: str | None = None):
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        lines = [self.what, self.where and f"  where: {self.where}", self.fix and f"  fix:   {self.fix}"]
        return "\n".join(line for line in lines if line)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest known word, or the empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


@contextmanager
def user_errors_end_the_process() -> Iterator[None]:
    """Turns a `UserError` raised inside into its lines on stderr and exit code 2."""
    try:
        yield
    except UserError as error:
        if os.environ.get("LMFT_DEBUG") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)
