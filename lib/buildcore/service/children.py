"""The arbiter's sessions: those that serve a caller, those forked ahead that wait for one, those that are to end.

A session forked ahead spares its caller the fork: the connection is handed to it over a socket pair (SCM_RIGHTS,
unix(7)). Each serves one caller and ends. The arbiter reaps, and tells this which of them has ended.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import NoReturn

from ..system import signals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""What the arbiter hears; held back over each fork, until the session has handlers of its own."""

LEFT_STATUS = 1
"""The exit status of a session that may have left something of its build: the arbiter looks for that."""

Serve = Callable[[socket.socket], bool]


class Children:
    """Which sessions there are. `let_go` is called in a forked one, to close what is the arbiter's alone."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self.serving: dict[int, int] = {}
        """The pid of each session that serves a caller, and the uid that this caller counts as."""
        self.ending: set[int] = set()
        """The pids of sessions forked ahead that were hung up on."""
        self._idle: dict[int, socket.socket] = {}  # pid of a session forked ahead -> our end of its channel

    def known(self) -> set[int]:
        """Return the pids of all sessions that have not been reaped."""
        return {*self.serving, *self.ending, *self._idle}

    def count(self) -> int:
        """Return how many callers are served."""
        return len(self.serving)

    def count_of(self, uid: int) -> int:
        """Return how many callers that count as `uid` are served."""
        return list(self.serving.values()).count(uid)

    def add(self, pid: int, uid: int) -> None:
        """Take note of a session that was forked for its caller."""
        self.serving.setdefault(pid, uid)

    def take_over(self, serving: Iterable[tuple[int, int]], ending: Iterable[int]) -> None:
        """Take note of what the program that this process was before a reload had."""
        self.serving, self.ending = dict(serving), set(ending)

    def forget(self, pid: int) -> None:
        """Take note that the child `pid` has ended and was reaped."""
        self.serving.pop(pid, None)
        self.ending.discard(pid)
        channel = self._idle.pop(pid, None)
        if channel is not None:
            channel.close()

    def signal_serving(self, signum: int) -> None:
        """Send a signal to each session that serves a caller."""
        for pid in self.serving:
            os.kill(pid, signum)  # each is a child that was not reaped yet, so the pid is its own

    # --- sessions forked ahead ---

    def fork_ahead(self, count: int, serve: Serve) -> None:
        """Have `count` sessions wait for a caller, to `serve` it; raises OSError where there can be no more."""
        while len(self._idle) < count:
            self._fork_one_ahead(serve)

    def hand_over(self, connection: socket.socket, uid: int) -> bool:
        """Give the caller, which counts as `uid`, to a session that waits; tell whether there was one."""
        while self._idle:
            pid, channel = self._idle.popitem()
            try:
                socket.send_fds(channel, [b"\0"], [connection.fileno()])
            except OSError:
                continue  # that session is gone; its end is being reaped
            else:
                self.serving[pid] = uid
                return True
            finally:
                channel.close()
        return False

    def hang_up_on_idle(self) -> None:
        """Close the channels of the sessions forked ahead: they end."""
        for channel in self._idle.values():
            channel.close()
        self.ending |= set(self._idle)
        self._idle.clear()

    def become_session(self) -> None:
        """In a forked session: let go of everything that is the arbiter's."""
        self._let_go()
        self.hang_up_on_idle()

    def _fork_one_ahead(self, serve: Serve) -> None:
        ours, theirs = socket.socketpair()
        try:
            with signals.held(SIGNALS):
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    self._wait_for_caller(theirs, serve)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._idle[pid] = ours

    def _wait_for_caller(self, channel: socket.socket, serve: Serve) -> NoReturn:
        """In a session forked ahead: wait for its one caller, or for the arbiter's end; never returns.

        Signals stay blocked until the session is ready for them; the arbiter ends an idle one by hanging up.
        """
        status = 1
        try:
            self.become_session()
            _, received, _, _ = socket.recv_fds(channel, 1, 1)
            channel.close()
            connections = [socket.socket(fileno=descriptor) for descriptor in received]
            status = 0 if all(map(serve, connections)) else LEFT_STATUS
        finally:
            os._exit(status)
