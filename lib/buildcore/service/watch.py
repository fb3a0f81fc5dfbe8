"""What a session minds while a child of it works before the build: its caller, the stop of the service, the time.

`planner` waits with it. It reads nothing of the caller.
"""

from __future__ import annotations

import math
import select
import signal
import socket
import time

from ..core.errors import BuildError
from ..system import signals
from .link import STOPPING


class Stopped(BuildError):
    """The service stops; the request was not begun."""

    kind = "stopping"


class HungUp(BuildError):
    """The caller went away; nobody hears of it but the log."""

    kind = "cancelled"


class Late(BuildError):
    """The time is over."""


class Watch:
    """Lets a session wait for one descriptor, for `seconds` from now on, as long as somebody is there to wait for it.

    `queue` catches SIGTERM, by which the service stops.
    """

    def __init__(self, connection: socket.socket, queue: signals.SignalQueue, seconds: float) -> None:
        self._queue = queue
        self._connection = connection.fileno()
        self._deadline = time.monotonic() + seconds
        self._poll = select.poll()
        self._poll.register(self._connection, 0)  # POLLHUP comes unasked, and not for a half-close (poll(2))
        self._poll.register(queue, select.POLLIN)

    def until_readable(self, fd: int) -> None:
        """Return when `fd` is readable or at its end. Raises HungUp, Stopped, or Late with an empty line."""
        self._poll.register(fd, select.POLLIN)
        try:
            while True:
                left = self._deadline - time.monotonic()
                ready = {number for number, _ in self._poll.poll(max(0, math.ceil(left * 1000)))}
                if self._connection in ready:
                    raise HungUp("the caller hung up")
                if signal.SIGTERM in self._queue.take():
                    raise Stopped(STOPPING)
                if left <= 0:
                    raise Late("")
                if fd in ready:
                    return
        finally:
            self._poll.unregister(fd)
