"""Descriptors that come over a Unix socket (SCM_RIGHTS, unix(7)), and what they are."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import stat

_INT_BYTES = array.array("i").itemsize
_O_PATH = getattr(os, "O_PATH", 0)


def receive(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int], bool]:
    """Return what one read gives: at most `size` bytes, at most `most` descriptors, and whether one was lost.

    One is lost when there are more, or no room for it in this process (RLIMIT_NOFILE) or in the system. None of them
    passes execve(2). Raises OSError.
    """
    space = socket.CMSG_LEN(most * _INT_BYTES)  # CMSG_SPACE could have room for one more
    data, ancillary, flags, _ = connection.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    received = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(content[: len(content) - len(content) % _INT_BYTES])
    return data, list(received), bool(flags & socket.MSG_CTRUNC)


def is_file(fd: int) -> bool:
    """Tell whether closing the descriptor may wait for a file system (close(2)). This may, too."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def why_unfit(fd: int) -> str | None:
    """Return what makes the descriptor useless as a standard one; None for what programs have there.

    Those are files, pipes, terminals and other character devices, and connected stream sockets (what Node.js gives
    its children). May wait for the file system of a file.
    """
    mode = os.fstat(fd).st_mode
    if fcntl.fcntl(fd, fcntl.F_GETFL) & _O_PATH:
        return "it is not open for reading or writing"
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return None
    if stat.S_ISDIR(mode):
        return "it is a directory"
    if stat.S_ISSOCK(mode):
        return None if _is_connected_stream(fd) else "it is a socket that is no connected stream"
    return "it is neither a file nor a pipe, a terminal or a socket"


def _is_connected_stream(fd: int) -> bool:
    with socket.socket(fileno=os.dup(fd)) as checked:
        try:
            checked.getpeername()
        except OSError:
            return False
        return checked.type == socket.SOCK_STREAM
