"""What a user can get wrong, said in one to three lines; and the one place that prints it."""

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

    Each part is one line. Commands print it without a traceback and exit with code 2; `LMFT_DEBUG=1` shows
    the traceback as well.

    >>> try:
    ...     compose(["model=gpt3"])
    ... except UserError as error:
    ...     print(error.what)
    no model named 'gpt3' (did you mean 'gpt2'?)
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
    """Turns a `UserError` raised inside, or what is `explained` as one, into its lines on stderr and exit
    code 2.

    Where nobody reads what is printed (`| head`), it ends the process without a word, with exit code 141 as
    SIGPIPE.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, as nothing answers an error that comes while the interpreter ends
    except Exception as error:
        if isinstance(error, BrokenPipeError) and drop_closed_output():
            sys.exit(128 + signal.SIGPIPE)
        said = as_user_error(error)
        if said is None or os.environ.get("LMFT_DEBUG") == "1":
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(EXIT_CODE)


def drop_closed_output() -> bool:
    """Whether nobody reads stdout or stderr any more; what is written there from then on goes nowhere."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    closed = [descriptor for descriptor, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    if closed:
        logging.raiseExceptions = False  # it would print a traceback for the line that could not be written
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in closed:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return bool(closed)


def as_user_error(error: BaseException) -> UserError | None:
    """An error that the user can mend, as a `UserError`; None if it is none.

    These are the errors that may come from anywhere: a disk that is full or gone, too little memory, a loader
    process that died. Others are translated where they arise.
    """
    match error:
        case UserError():
            return error
        case ConnectionError() | EOFError() if _is_a_lost_batch(error):
            return UserError(_DEAD_LOADER, "a batch that it had ready is lost with it", _LOAD_OTHERWISE)
        case OSError():
            return _disk_error(error)
        case MemoryError():
            reason = str(error).partition("\n")[0] or None
            return UserError("out of memory", reason, "a smaller data.batch_size, or fewer data.num_workers")
        case RuntimeError():
            return _loader_error(str(error).partition("\n")[0])
    return None


_NO_SPACE = "free some space, or write elsewhere: run.dir=FOLDER, data.cache_dir=FOLDER"
_NOT_WRITABLE = "allow it, or choose another folder: run.dir=FOLDER, data.cache_dir=FOLDER"
_UNREACHABLE = "look after the disk or the mount, then run the command again"
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
    where = None if path is None else os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
    return UserError(reason[:1].lower() + reason[1:], where, _DISK_ERRORS[error.errno])


_DEAD_LOADER = "a process that loads batches died, for want of memory or killed"
_LOAD_OTHERWISE = (
    "give it more memory, or data.num_workers=0; a run that is named goes on from its last checkpoint"
)


def _loader_error(message: str) -> UserError | None:
    """What torch's DataLoader says of its processes."""
    if found := re.match(r"DataLoader timed out after ([\d.]+) seconds", message):
        fix = f"data.worker_timeout={2 * float(found[1]):g} waits longer, data.num_workers=0 loads without processes"
        return UserError(f"no batch came from the loader's processes within {found[1]} seconds", fix=fix)
    if re.match(r"DataLoader worker \(pid.*\) (exited unexpectedly|is killed by signal)", message):
        return UserError(_DEAD_LOADER, message.strip(), _LOAD_OTHERWISE)
    return None


def _is_a_lost_batch(error: BaseException) -> bool:
    """Whether torch's DataLoader was fetching what one of its processes had ready, which dies with that one."""
    return any(frame.f_code.co_name == "_try_get_data" for frame, _ in traceback.walk_tb(error.__traceback__))
