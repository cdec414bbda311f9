"""Verify a training on its own model and data against plain transformers.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.system.files import write_json
from lmft.system.outputs import output_file

if TYPE_CHECKING:
    from lmft.verification.result import Verification

log = logging.getLogger("lmft")
FAILED = 1
"""Exit code if a check fails."""
# Groups and options of a training that no check depends on.
_UNREAD = ("run", "checkpoint", "callbacks", "logger", "validate_before", "nonfinite")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("verify", verify, argv, takes_from=True)


def verify(job: Job) -> None:
    """Make all checks, print a line for each, and write them to the file `output` if it is given.

    It exits with 1 if one fails.
    """
    from lmft.reporting.notices import collecting_notices
    from lmft.verification.display import Display

    output = output_file("output", job.config["output"])
    for override in job.overrides:
        name = override.lstrip("+~").partition("=")[0]
        if name.partition(".")[0] in _UNREAD:
            log.warning("a verification does not read %s", override)
    # Held back, so that no note stands between the checks.
    with collecting_notices(holds_notes=True) as notices, Display() as display:
        found = verified(job.config, display.begin, display.show)
        notices.flush()
        display.end(found.summary)
    if output:
        write_json(output, found.as_json())
    if not found.passed:
        sys.exit(FAILED)


def verified(
    config: Mapping[str, Any],
    begin: Callable[[str], object] = lambda _: None,
    show: Callable[..., object] = lambda _: None,
) -> "Verification":
    """Make all checks of a config, and return them. Raises: UserError.

    Args:
        config: as `compose` returns it for a training.
        begin: called with what is done next.
        show: called with the checks that were made together.
    """
    from lmft.cli import checks

    checks.check(config)
    if config["resume"] != "auto":
        what = "lmft.verify starts from the weights that a new training starts from, not from a run"
        raise UserError(what, f"resume={config['resume']}", "leave it out")

    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.verification.registry")
    from lmft.assembly import assemble, make_optimizer
    from lmft.training.extensions import lightnings_refusals_are_user_errors
    from lmft.training.trainer import silence_libraries, try_out
    from lmft.verification.registry import made
    from lmft.verification.result import Verification
    from lmft.verification.subject import Subject

    silence_libraries()
    with lightnings_refusals_are_user_errors():
        make_optimizer(dict(config))
        trainer = try_out(dict(config))
        if trainer.world_size > 1:
            what = f"lmft.verify computes on one device, and these are {trainer.world_size}"
            where = f"trainer.devices={config['trainer']['devices']}"
            raise UserError(what, where, "trainer.devices=1 trainer.strategy=auto")
        begin("reading the text")
        subject = Subject(assemble(dict(config)), trainer.strategy.root_device)
        found = []
        for timed in made(subject, begin):
            show(timed.checks)
            found.append(timed)
    return Verification(tuple(found))


if __name__ == "__main__":
    main()
