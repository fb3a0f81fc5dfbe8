"""Signals as something to wait for: a descriptor that turns readable, and the set of what has come.

The handlers only note the number; whatever is to be done is done by the loop that waits, in its own time
(signal-safety(7)). Used by the arbiter and by each session, each in a process of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


class SignalQueue:
    """Catches `signums` from now on, until `close`. Register `fileno()` for reading; then call `take()`."""

    def __init__(self, signums: Iterable[int]) -> None:
        self._pending: set[int] = set()
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._previous = {signum: signal.signal(signum, self._note) for signum in signums}

    def fileno(self) -> int:
        return self._read_end

    def take(self) -> set[int]:
        """Return the signals that came since the last call, each once; never blocks."""
        try:
            while os.read(self._read_end, 4096):
                pass
        except BlockingIOError:
            pass
        taken = set(self._pending)
        self._pending -= taken
        return taken

    def close(self) -> None:
        """Put the former handlers back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._read_end)
        os.close(self._write_end)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._pending.add(signum)


@contextmanager
def held(signums: Iterable[int]) -> Iterator[None]:
    """Hold `signums` back over a fork or an execve(2), so that none meets a handler of what this process was before.

    A forked child does not leave the block: it lifts the mask itself, once it has its own handlers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def await_child(pid: int, seconds: float) -> int | None:
    """Wait for the end of a child of this process, for so long at most; return its wait status, None when it lives on.

    A child that ended and that somebody else traces lives on in this sense (ptrace(2)). For a process with one thread
    that has no handler for SIGCHLD. Raises ChildProcessError when there is no such child.
    """
    deadline = time.monotonic() + seconds
    with held((signal.SIGCHLD,)):
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return status if found else None
            signal.sigtimedwait((signal.SIGCHLD,), left)


def restore_defaults() -> None:
    """Give every signal its default disposition and unblock all, as a program expects them at its start.

    An ignored signal stays ignored across execve(2), and Python ignores SIGPIPE and SIGXFSZ: a build that
    inherited that would not end when its reader goes away.
    """
    for signum in signal.valid_signals():
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
