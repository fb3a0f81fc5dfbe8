"""Session keyrings: the keys that a process has because another one gave them to it (session-keyring(7)).

A session keyring passes fork(2), setresuid(2) and execve(2), and who has it may do with its keys what their possessor
may. So the service, each session and each build join an empty one of their own, which nobody else can join. Must never
leave a process of one user with the keyring of another, where the kernel has keyrings at all.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress

from . import linux

_UNAVAILABLE = (errno.ENOSYS, errno.EPERM, errno.EACCES)
"""A kernel without keys, or a filter of system calls that keeps them from the whole service and its builds."""

_GET_KEYRING_ID, _JOIN_SESSION_KEYRING, _LINK, _SET_REQKEY_KEYRING = 0, 1, 8, 14  # keyctl(2)
_SESSION_KEYRING, _USER_KEYRING = -3, -4
_REQKEY_DEFAULT = 0

_NUMBERS = {
    ("x86_64", 8): 250, ("x86_64", 4): 288, ("i386", 4): 288, ("i486", 4): 288, ("i586", 4): 288, ("i686", 4): 288,
    ("aarch64", 8): 219, ("aarch64", 4): 311, ("armv6l", 4): 311, ("armv7l", 4): 311, ("armv8l", 4): 311,
    ("riscv64", 8): 219, ("loongarch64", 8): 219, ("ppc64le", 8): 271, ("ppc64", 8): 271, ("s390x", 8): 280,
}
"""The number of keyctl(2), which the C library has no function for, by machine and bytes of a pointer."""

_NUMBER = _NUMBERS.get((os.uname().machine, struct.calcsize("P")))


def renew() -> str | None:
    """Join a new session keyring, which is empty and no other process's. Return why there can be none; None when done.

    What this process had before is no longer its own. Raises OSError where there could be one but for the moment is
    not: then this process still has what others have as well.
    """
    try:
        joined = _keyctl(_JOIN_SESSION_KEYRING, 0)
        if session_keyring() != joined:
            raise OSError(errno.EBUSY, "the session keyring is not the one that was joined")
    except OSError as exc:
        if exc.errno not in _UNAVAILABLE:
            raise
        return exc.strerror
    return None


def renew_for_build() -> None:
    """After the drop: join a new session keyring, as a login does, with the user's own keyring in it (pam_keyinit(8)).

    A user who has no room for one more key (keyrings(7), maxkeys) keeps the one that the session joined for this build
    alone. Raises OSError.
    """
    try:
        if renew() is None:
            with suppress(OSError):  # nothing of anybody else's is in it: the user's keys are then to be named
                _keyctl(_LINK, _USER_KEYRING, _SESSION_KEYRING)
    except OSError as exc:
        if exc.errno != errno.EDQUOT:
            raise


def forget_default() -> None:
    """Have keys that are asked for go where they go by default: that another was named passes execve(2) as well."""
    with suppress(OSError):  # no keys, so no default
        _keyctl(_SET_REQKEY_KEYRING, _REQKEY_DEFAULT)


def session_keyring() -> int:
    """Return the serial number of this process's session keyring; raises OSError."""
    return _keyctl(_GET_KEYRING_ID, _SESSION_KEYRING, 0)


def _keyctl(operation: int, *arguments: int) -> int:
    if _NUMBER is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return linux.system_call(_NUMBER, operation, *arguments)
