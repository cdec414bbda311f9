"""UserError: a mistake that the user can fix, printed in one to three lines without a traceback."""

import difflib
import errno
import logging
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

EXIT_CODE = 2


class UserError(Exception):
    """A mistake that the user can fix: what is wrong, where, and what to change.

    Each part is one line. Commands print it without a traceback and exit with code 2; `LMFT_DEBUG=1`
    shows the traceback as well.

    >>> try:
    ...     compose(["model=gpt3"])
    ... except UserError as error:
    ...     print(error.what)
    no model named 'gpt3' (did you mean 'gpt2'?)
    """

    def __init__(self, what: str, where: str | None = None, fix: str | None = None):
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f"\n  where: {self.where}"
        if self.fix:
            text += f"\n  fix:   {self.fix}"
        return text


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ` (did you mean 'x'?)` for the nearest known word, or the empty string.

    prefix: what stands before the word, such as its folder; it is not compared.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{prefix}{near[0]}'?)" if near else ""


@contextmanager
def user_errors_end_the_process() -> Iterator[None]:
    """Print a `UserError` of the block, or an error that `as_user_error` knows, and exit with code 2.

    If stdout or stderr is closed (`| head`), exit silently with code 141, as for SIGPIPE.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # later, at interpreter exit, an error could not be handled
    except Exception as error:
        if isinstance(error, BrokenPipeError) and drop_closed_output():
            sys.exit(128 + signal.SIGPIPE)
        user_error = as_user_error(error)
        if user_error is None or os.environ.get("LMFT_DEBUG") == "1":
            raise
        print(f"error: {user_error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


def drop_closed_output() -> bool:
    """Redirect stdout and stderr to /dev/null if their reader is gone; return whether one was."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    closed = [
        descriptor for descriptor, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)
    ]
    if closed:
        # Otherwise logging prints a traceback for each line it cannot write.
        logging.raiseExceptions = False
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in closed:
            os.dup2(null, descriptor)
        os.close(null)
    return bool(closed)


def as_user_error(error: BaseException) -> UserError | None:
    """Return an error that the user can fix as a `UserError`; None for any other.

    These errors may come from anywhere: a full or missing disk, too little memory, a dead DataLoader
    worker. Others are turned into a `UserError` where they arise.
    """
    match error:
        case UserError():
            return error
        case ConnectionError() | EOFError() if _is_lost_batch(error):
            return UserError(_DEAD_WORKER, "its prefetched batch is lost", _WORKER_FIX)
        case OSError():
            return _disk_error(error)
        case MemoryError():
            reason = str(error).partition("\n")[0] or None
            return UserError(
                "out of memory", reason, "a smaller data.batch_size, or fewer data.num_workers"
            )
        case RuntimeError():
            return _loader_error(str(error).partition("\n")[0])
    return None


def one_line(error: BaseException) -> str:
    """Return all of a UserError in one line, or the first line of another error."""
    user_error = as_user_error(error)
    if user_error is not None:
        return "; ".join(" ".join(line.split()) for line in str(user_error).splitlines())
    return f"{type(error).__name__}: {error}".partition("\n")[0]


_NO_SPACE = "free some space, or write elsewhere: run.dir=FOLDER, data.cache_dir=FOLDER"
_NOT_WRITABLE = "allow it, or choose another folder: run.dir=FOLDER, data.cache_dir=FOLDER"
_UNREACHABLE = "check the disk or the mount, then run the command again"
_DISK_ERRORS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EROFS: _NOT_WRITABLE,
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EIO: _UNREACHABLE,
    errno.ESTALE: _UNREACHABLE,
}


def _disk_error(error: OSError) -> UserError | None:
    if error.errno not in _DISK_ERRORS:
        return None
    reason = error.strerror or os.strerror(error.errno)
    path = error.filename if error.filename2 is None else error.filename2
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    where = None if path is None else str(path)
    return UserError(reason[:1].lower() + reason[1:], where, _DISK_ERRORS[error.errno])


_DEAD_WORKER = "a DataLoader worker died (out of memory, or killed)"
_WORKER_FIX = "give it more memory, or data.num_workers=0; a named run resumes from its last checkpoint"


def _loader_error(message: str) -> UserError | None:
    """Return the UserError for a message of torch's DataLoader about its workers; None for any other."""
    if timeout := re.match(r"DataLoader timed out after ([\d.]+) seconds", message):
        what = f"no batch came from the DataLoader workers within {timeout[1]} seconds"
        longer = f"data.worker_timeout={2 * float(timeout[1]):g} waits longer"
        return UserError(what, fix=f"{longer}, data.num_workers=0 loads without workers")
    if re.match(r"DataLoader worker \(pid.*\) (exited unexpectedly|is killed by signal)", message):
        return UserError(_DEAD_WORKER, message.strip(), _WORKER_FIX)
    return None


def _is_lost_batch(error: BaseException) -> bool:
    """Return whether a batch was being fetched from a worker, which is lost if the worker died."""
    return any(
        frame.f_code.co_name == "_try_get_data" for frame, _ in traceback.walk_tb(error.__traceback__)
    )
