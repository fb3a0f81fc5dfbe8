"""The arbiter's sessions: those that serve a caller, those forked ahead that wait for one, those that are to end.

A session forked ahead spares its caller the fork: the connection is handed to it over a socket pair (SCM_RIGHTS,
unix(7)). Each serves one caller and ends. The arbiter reaps, and tells this which of them has ended.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from ..core import places
from ..system import signals
from . import place
from .reload import Handover

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""What the arbiter hears; held back over each fork, until the session has handlers of its own."""

LEFT_STATUS = 1
"""The exit status of a session that may have left something of its build: the arbiter looks for that."""

Serve = Callable[[socket.socket, socket.socket], bool]
"""Serves a caller on a connection, with a channel to the arbiter."""


class Children:
    """Which sessions there are. `let_go` is called in a forked one, to close what is the arbiter's alone.

    The channels to those that serve are watched by `selector`, with the pid as data: `hear` is due when one is ready.
    """

    def __init__(self, let_go: Callable[[], None], selector: selectors.BaseSelector, limits: places.Limits) -> None:
        self._let_go = let_go
        self._selector = selector
        self._limits = limits
        self.serving: dict[int, int] = {}
        """The pid of each session that serves a caller, and the uid that this caller counts as."""
        self.ending: set[int] = set()
        """The pids of sessions forked ahead that were hung up on."""
        self.delivering: dict[int, int] = {}
        """Those of `serving` of whose build nothing runs any more, since when they said so."""
        self._made_room: set[int] = set()  # those of `delivering` that were told to
        self._channels: dict[int, socket.socket] = {}  # pid of a session that serves -> our end of its channel
        self._idle: dict[int, socket.socket] = {}  # the same of a session forked ahead

    def known(self) -> set[int]:
        """Return the pids of all sessions that have not been reaped."""
        return {*self.serving, *self.ending, *self._idle}

    def count(self) -> int:
        """Return how many callers are served, those left out whose output is only delivered yet."""
        return len(self.serving) - len(self.delivering)

    def refusal(self, uid: int) -> str | None:
        """Return why one more caller that counts as `uid` cannot be served; None when it can."""
        serving = [owner for pid, owner in self.serving.items() if pid not in self.delivering]
        return places.refusal(serving, uid, self._limits)

    def add(self, pid: int, uid: int, channel: socket.socket) -> None:
        """Take note of a session that serves its caller; `channel` is our end of its channel."""
        channel.setblocking(False)
        self.serving[pid] = uid
        self._channels[pid] = channel
        self._selector.register(channel, selectors.EVENT_READ, pid)

    def hear(self, pid: int) -> None:
        """Hear what the session `pid` says: its place may be somebody else's once it only delivers."""
        channel = self._channels[pid]
        records = place.heard(channel)
        if records is None:  # it is about to be reaped
            self._drop_channel(pid)
        elif place.DELIVERS in records:
            self.delivering[pid] = self.serving[pid]
            self._make_room()

    def _make_room(self) -> None:
        while True:
            waiting = {pid: uid for pid, uid in self.delivering.items() if pid not in self._made_room}
            pid = places.one_too_many(waiting, self._limits)
            if pid is None:
                return
            self._made_room.add(pid)
            if pid in self._channels:
                place.make_room(self._channels[pid])

    def _drop_channel(self, pid: int) -> None:
        channel = self._channels.pop(pid, None)
        if channel is not None:
            self._selector.unregister(channel)
            channel.close()

    def take_over(self, handover: Handover) -> None:
        """Take note of what the program that this process was before a reload had."""
        self.serving, self.ending = dict(handover.sessions), set(handover.ending)
        self.delivering = {pid: self.serving[pid] for pid in handover.delivering if pid in self.serving}
        for pid, descriptor in handover.places:
            os.set_inheritable(descriptor, False)
            self.add(pid, self.serving[pid], socket.socket(fileno=descriptor))
        self._make_room()

    def places(self) -> tuple[tuple[int, int], ...]:
        """Return the pid of each session that serves and the descriptor of our end of its channel."""
        return tuple((pid, channel.fileno()) for pid, channel in self._channels.items())

    def forget(self, pid: int) -> None:
        """Take note that the child `pid` has ended and was reaped."""
        self._drop_channel(pid)
        self.serving.pop(pid, None)
        self.delivering.pop(pid, None)
        self._made_room.discard(pid)
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
                channel.close()
                self.ending.add(pid)  # that session is gone, or as good as: its end is yet to be reaped
                continue
            self.add(pid, uid, channel)
            return True
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
        for channel in self._channels.values():
            channel.close()

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
            connections = [socket.socket(fileno=descriptor) for descriptor in received]
            status = 0 if all(serve(connection, channel) for connection in connections) else LEFT_STATUS
        finally:
            os._exit(status)
