"""The open descriptors of this process: the standard ones are there, and no other goes where it is not meant to."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress

STDERR = 2


def fill_standard() -> None:
    """Open /dev/null on whichever of 0, 1, 2 is closed: else a socket of ours could be "standard error"."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)


def numbers() -> list[int]:
    """Return what is open now; one of them, which this listing itself took, is closed again."""
    return [int(name) for name in os.listdir("/proc/self/fd")]


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    for fd in numbers():
        if fd not in keep:
            with suppress(OSError):  # the listing's own is gone already
                os.close(fd)
