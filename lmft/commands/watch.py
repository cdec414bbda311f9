"""Show the report of a run in the browser, updated while it trains.

Only light modules are imported at the top, so that `--help` does not need torch.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.cli.paths import with_paths
from lmft.config.load import Job
from lmft.errors import UserError, user_errors_end_the_process
from lmft.system.signals import Stopped

if TYPE_CHECKING:
    from lmft.watching.server import Server

log = logging.getLogger("lmft")
HOST = "127.0.0.1"
"""The pages show texts of the run, so other computers are not served."""
_LAST_PORT = 65535


@user_errors_end_the_process()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. An argument that is not an option is the folder."""
    run_command("watch", watch, with_paths(sys.argv[1:] if argv is None else argv, "runs"))


def watch(job: Job) -> None:
    """Serve the reports until Ctrl-C. Raises: UserError."""
    from lmft.watching.pages import Pages
    from lmft.watching.server import handler_of

    folder = _folder(job.config)
    pages = Pages(folder, job.config["every"])
    server = _bound(handler_of(pages), job.config["port"])
    log.info("%s: http://localhost:%d (Ctrl-C ends this)", folder, server.server_port)
    try:
        with server:
            server.serve_forever()
    except Stopped:
        log.info("%s is no longer served", folder)


def _folder(options: Mapping[str, Any]) -> Path:
    """Return the folder to watch. Raises: UserError for a value that is wrong by itself."""
    from lmft.runs.folder import existing_run, runs_in

    given = options["runs"]
    paths = [given] if isinstance(given, str) else given
    if len(paths) != 1:
        what = "several folders are named" if paths else "no run is named"
        raise UserError(what, fix="lmft watch runs/NAME, or lmft watch runs for all in it")
    for name, least, most in (("port", 0, _LAST_PORT), ("every", 0.1, 3600)):
        if not least <= options[name] <= most:
            raise UserError(f"{name}={options[name]} must be a number from {least} to {most}")
    folder = Path(str(paths[0])).expanduser()
    if not runs_in(folder):
        existing_run(folder)
    return folder


def _bound(handler: Any, port: int) -> "Server":
    """Return a server at the port. Raises: UserError if it is in use."""
    from lmft.watching.server import Server

    try:
        return Server((HOST, port), handler)
    except OSError as error:
        what = f"cannot serve at port {port}: {error.strerror}"
        raise UserError(what, "port", "port=0 chooses a free port") from error


if __name__ == "__main__":
    main()
