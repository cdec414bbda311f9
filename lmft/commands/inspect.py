"""Show examples of a training token by token: what is hidden, and what is predicted.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.config.texts import texts_of
from lmft.errors import UserError
from lmft.runs.folder import checked_name, default_name
from lmft.runs.trained import config_to_inspect
from lmft.system.files import write_text
from lmft.system.outputs import output_file

log = logging.getLogger("lmft")
_COUNTS = {"examples": 1, "shown": 0, "epochs": 1, "tokens": 1}  # options and their least values
_UNREAD = ("optimizer", "scheduler", "callbacks", "logger", "checkpoint", "nonfinite", "resume")
_OF_TEXT = ("inspect.split", "inspect.examples", "inspect.shown", "inspect.numbers", "inspect.find")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("inspect", inspect, argv)


def inspect(job: Job) -> None:
    """Print examples and statistics, and write the page."""
    from lmft.reporting import inspection
    from lmft.reporting.inspection_page import inspection_page
    from lmft.reporting.phase import phase

    config = checked_config(job.config, job.overrides)
    options = config["inspect"]
    found = looked_at(config)
    page = _page(config, job)
    if config["text"] is None:
        inspection.print_statistics(found)
        inspection.print_examples(found, options["shown"])
    else:
        inspection.print_texts(found)
    if page is not None:
        with phase("writing the page"):
            write_text(page, inspection_page(found))
        log.info("page: %s", page)


def checked_config(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config of the training to look at: that of the run, if one is named. Raises: UserError.

    overrides: the `key=value` arguments that led to `config`.
    """
    from lmft.cli import checks

    config = config_to_inspect(config, overrides)
    checks.check(config, trains=config["text"] is None)
    _check_options(config["inspect"])
    texts_of(config["text"])
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    if config["text"] is not None:
        for name in given:
            if name in _OF_TEXT:
                what = f"text= names what is shown, and {name} chooses among the examples of data"
                raise UserError(what, fix="leave one of them out")
    unread = [name for name in given if name.partition(".")[0] in _UNREAD]
    if unread:
        log.info("not read, since nothing is trained: %s", ", ".join(unread))
    return config


def looked_at(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checked config's training reads and predicts, as plain data. Raises: UserError."""
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly.inspecting")
    from lmft.assembly.inspecting import inspected
    from lmft.training.trainer import silence_libraries

    silence_libraries()
    return inspected(config, texts_of(config["text"]), config["inspect"])


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise UserError for an option of `inspect` that is wrong by itself."""
    for name, least in _COUNTS.items():
        value = options[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"inspect.{name}={value} must be a number, {least} or more")
    numbers = options["numbers"]
    is_list = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if numbers is not None and not (is_list and numbers):
        raise UserError(
            f"inspect.numbers={numbers} must be a list of numbers", fix="inspect.numbers=[0,17]"
        )
    if numbers is not None and options["find"] is not None:
        what = "inspect.numbers and inspect.find both choose the examples"
        raise UserError(what, fix="leave one of them out")
    output_file("inspect.page", options["page"])


def _page(config: Mapping[str, Any], job: Job) -> Path | None:
    """Return where to write the page; None: a text is shown, and no page is asked for."""
    given = output_file("inspect.page", config["inspect"]["page"])
    if given is not None:
        return given
    if config["text"] is not None:
        return None
    run = job.config["run"]
    if isinstance(run, str):
        return Path(run).parent / f"{Path(run).name}-inspect.html"
    name = run["name"] or default_name(job.choices)
    folder = Path(run["dir"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{checked_name(str(name))}-inspect.html"


if __name__ == "__main__":
    main()
