"""What a build writes, on its way from the pipes to whoever reads it: never more at once than there is room for.

The supervisor has one `Output` for its build. It reads a pipe only while the link has room, so a slow reader slows the
build and costs no memory; and what the main process had written when it ended is delivered, whoever else still holds
the pipes. This file knows no sockets and no protocol: those are the link's.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from typing import Protocol

from ..core.endings import Ending

READ_BYTES = 64 << 10


class Link(Protocol):
    """Where a build's output goes, and where its caller is heard. None of its methods may block."""

    def fileno(self) -> int:
        """The descriptor to watch: readable when the caller spoke, writable when `flush` gets on."""

    def hang_up_fileno(self) -> int:
        """A descriptor that turns readable when the caller is gone; then `hang_up` is called."""

    def is_gone(self) -> bool:
        """Tell whether nobody is there to read any more."""

    def is_listening(self) -> bool:
        """Tell whether the caller may still say something, so that `fileno` is worth watching for it."""

    def has_room(self) -> bool:
        """Tell whether more output may be sent now."""

    def has_backlog(self) -> bool:
        """Tell whether output waits for the reader to take it."""

    def send(self, stream: str, data: bytes) -> None:
        """Take `data`, written by the build to `stream` (STDOUT, STDERR or OUTPUT)."""

    def finish(self, ending: Ending) -> None:
        """Take the end of the stream; nothing is sent behind it."""

    def stopped(self) -> None:
        """Take that the build stands still, as its caller asked."""

    def flush(self) -> None:
        """Write what the reader takes now."""

    def taken(self) -> int:
        """Return how many bytes the reader took so far."""

    def said(self) -> list[tuple[bool, signal.Signals]]:
        """Read what the caller said: signals for its build, each with whether it is the first of those that end it."""

    def hang_up(self) -> None:
        """Hear that the caller is gone."""


class Output:
    """The reading ends of a build's pipes, by stream. `forget` is called with each descriptor before it is closed."""

    def __init__(self, pipes: Mapping[str, int], link: Link, forget: Callable[[int], None]) -> None:
        self._pipes = dict(pipes)
        self._link = link
        self._forget = forget
        self._owed: dict[str, int] | None = None  # bytes that the main process left in the pipes, once it ended

    def pipes(self) -> Mapping[str, int]:
        """Return what is still open."""
        return self._pipes

    def is_wanted(self) -> bool:
        """Tell whether the pipes are to be read as they fill."""
        return self._owed is None and (self._link.is_gone() or self._link.has_room())

    def read(self, stream: str) -> None:
        """Carry what one read of an open pipe gives, without waiting for it."""
        limit = READ_BYTES if self._owed is None else min(READ_BYTES, self._owed.get(stream, 0))
        try:
            data = os.read(self._pipes[stream], limit)
        except BlockingIOError:
            if self._owed is not None:
                self._owed.pop(stream, None)  # whoever opened the pipe through /proc took it
            return
        if not data:
            self._close(stream)
            return
        if self._owed is not None:
            self._owed[stream] -= len(data)
        if not self._link.is_gone():
            self._link.send(stream, data)

    def main_ended(self) -> None:
        """Take note of what the main process left: that much is carried yet, and no more."""
        self._owed = {stream: _bytes_waiting(fd) for stream, fd in self._pipes.items()}

    def finish(self) -> bool:
        """Carry what the main process left, as far as there is room; tell whether nothing of it is left to carry.

        That is read without waiting for it: it is there, unless another process with a hold on the pipe took it.
        """
        if self._owed is None:
            return False
        while any(self._owed.values()) and not self._link.is_gone() and self._link.has_room():
            for stream in [stream for stream, owed in self._owed.items() if owed]:
                self.read(stream)
            self._link.flush()
        return self._link.is_gone() or not any(self._owed.values())

    def close(self) -> None:
        """Close what is still open."""
        for stream in list(self._pipes):
            self._close(stream)

    def _close(self, stream: str) -> None:
        fd = self._pipes.pop(stream)
        self._forget(fd)
        os.close(fd)
        if self._owed is not None:
            self._owed.pop(stream, None)


def _bytes_waiting(fd: int) -> int:
    """Return how many bytes of a pipe wait to be read (FIONREAD, pipe(7))."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])
