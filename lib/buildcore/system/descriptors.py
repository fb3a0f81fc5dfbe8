"""The open descriptors of this process: the standard ones are there, and no other goes where it is not meant to."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Collection
from contextlib import suppress

STDERR = 2

# Linux's numbers (fcntl(2)): Python names them since 3.10.
_F_SETPIPE_SZ = 1031
_F_GETPIPE_SZ = 1032


def fill_standard() -> None:
    """Open /dev/null on whichever of 0, 1, 2 is closed: else a socket of ours could be "standard error"."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    for fd in _numbers():
        if fd not in keep:
            with suppress(OSError):  # the listing's own is gone already
                os.close(fd)


def keep_from_programs() -> None:
    """Let no descriptor but the standard ones pass execve(2)."""
    for fd in _numbers():
        if fd > STDERR:
            with suppress(OSError):  # the listing's own is gone already
                os.set_inheritable(fd, False)


def set_pipe_size(fd: int, size: int) -> None:
    """Have a pipe hold `size` bytes where the system allows it: a user may be out of its share (pipe(7))."""
    with suppress(OSError):
        fcntl.fcntl(fd, _F_SETPIPE_SZ, size)


def pipe_size(fd: int) -> int:
    """Return how many bytes a pipe holds."""
    return int(fcntl.fcntl(fd, _F_GETPIPE_SZ))


def allow(count: int) -> int:
    """Let this process have `count` open, as far as its hard limit goes; return the soft limit of before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft


def allow_again(soft: int) -> None:
    """Give this process the soft limit of before, as far as its hard limit still goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft if hard == resource.RLIM_INFINITY else hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _numbers() -> list[int]:
    """Return what is open now; one of them, which this listing itself took, is closed again."""
    return [int(name) for name in os.listdir("/proc/self/fd")]
