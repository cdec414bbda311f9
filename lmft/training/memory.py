"""Memory of the process while it trains on a CPU."""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt, as malloc.h numbers them


def keep_freed_memory() -> None:
    """Lets the allocator keep what is freed, where it is glibc's.

    By default it hands large blocks back to the system, and every step asks for them again, page by page. On a virtual
    machine these page faults took up to a third of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0)  # large blocks come from the heap too
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)  # which shrinks only above 2 GB that are free at its end
    mallopt(_TOP_PAD, 64 << 20)
