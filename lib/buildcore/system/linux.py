"""The few Linux calls that Python's library has no name for, reached through ctypes.

Nothing here decides anything: each function is one system call with its errno turned into OSError. Used by
`identity`, `keyring`, the arbiter and each session.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_SET_IO_FLUSHER = 57
CAPABILITY_VERSION_3 = 0x20080522
SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)  # named by Python since 3.11; asm-generic's number

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def set_child_subreaper() -> None:
    """Make this process the one that orphans among its descendants are given to (prctl(2))."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privs() -> None:
    """Take from this process, for good, what set-user-ID programs and file capabilities grant (prctl(2))."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def has_no_new_privs() -> bool:
    """Tell whether `set_no_new_privs` is in force."""
    return _prctl(PR_GET_NO_NEW_PRIVS) == 1


def set_dumpable() -> None:
    """Make what /proc shows of this process its user's own, as it is after execve(2) (prctl(2))."""
    _prctl(PR_SET_DUMPABLE, 1)


def unset_io_flusher() -> None:
    """Have this process wait for memory and for writing back as others do; needs CAP_SYS_RESOURCE (prctl(2))."""
    _prctl(PR_SET_IO_FLUSHER, 0)


def drop_inheritable_capabilities() -> None:
    """Empty the inheritable and, with it, the ambient set of this process; the others stay (capabilities(7))."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # twice 32 bits each: effective, permitted, inheritable
    _checked(_libc.capget(header, sets))
    sets[2] = sets[5] = 0
    _checked(_libc.capset(header, sets))


def has_permitted(capability: int) -> bool:
    """Tell whether this process has `capability` in its permitted set, and so in effect when it is root."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # twice 32 bits each: effective, permitted, inheritable
    _checked(_libc.capget(header, sets))
    return bool(sets[3 * (capability // 32) + 1] >> capability % 32 & 1)


def system_call(number: int, *arguments: int) -> int:
    """Make a system call that the C library has no function for, and return what it returns (syscall(2))."""
    return _checked(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))


def peer_groups(connection: socket.socket) -> tuple[int, ...]:
    """Return the supplementary groups that the peer had when it connected (SO_PEERGROUPS, socket(7)).

    Python's own getsockopt takes 1024 bytes at most, which is 256 groups; a process may have 65536
    (credentials(7)). Raises OSError with ENOPROTOOPT where the kernel, before 4.13, does not know the option.
    """
    size = ctypes.c_uint(256 * 4)
    while True:
        room = size.value
        buffer = ctypes.create_string_buffer(room)
        where = (connection.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS)
        if _libc.getsockopt(*where, buffer, ctypes.byref(size)) == 0:
            return struct.unpack("%dI" % (size.value // 4), buffer.raw[: size.value])
        error = ctypes.get_errno()
        if size.value <= room:  # on ERANGE the kernel tells the size that it needs
            raise OSError(error, os.strerror(error))


def _prctl(option: int, argument: int = 0) -> int:
    zero = ctypes.c_ulong(0)
    return _checked(_libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero))


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
