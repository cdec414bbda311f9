"""Commands as processes that have the modules of this one: a command of its own would load torch anew, for seconds."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import NoReturn


class Forked:
    """A command typed in a folder, and what it writes; `output` takes stdout and stderr, if it is given."""

    def __init__(self, home: Path, command: str, argv: Sequence[str], output: int | None = None, columns: int = 100):
        out, out_of_child = os.pipe()
        err, err_of_child = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(out)
            os.close(err)
            _run(home, command, argv, output or out_of_child, output or err_of_child, columns)
        os.close(out_of_child)
        os.close(err_of_child)
        self.stdout = os.fdopen(out)
        self.stderr = os.fdopen(err)

    def communicate(self) -> tuple[str, str]:
        """Waits for the end; returns what is left to read of stdout and of stderr."""
        with ThreadPoolExecutor(2) as readers:
            out, err = readers.map(lambda file: file.read(), (self.stdout, self.stderr))
        self.stdout.close()
        self.stderr.close()
        return out, err

    def wait(self) -> int:
        """The exit code."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def ended(home: Path, command: str, *argv: str) -> tuple[int, str, str]:
    """A command's exit code, and what it wrote on stdout and stderr."""
    process = Forked(home, command, argv)
    out, err = process.communicate()
    return process.wait(), out, err


def _run(home: Path, command: str, argv: Sequence[str], out: int, err: int, columns: int) -> NoReturn:
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, closefd=False)
        sys.argv = [command, *argv]
        os.chdir(home)
        os.environ.update(LMFT_CACHE=str(home / "cache"), COLUMNS=str(columns))
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads have stayed in the other process
        os.environ.pop("LMFT_DEBUG", None)
        warnings.resetwarnings()  # pytest's filters show what Python hides from users
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        import_module(f"lmft.{command}").main(argv)
        code = 0
    except SystemExit as exit:
        code = int(exit.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
