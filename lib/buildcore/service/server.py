"""Accepts callers: each gets a session, or is told in one line why not. It reads no byte of any caller.

`socketserver.ForkingMixIn` on a Unix stream server, with its wait at `max_children` removed: the arbiter, which has one
and tells it when a caller is there, never waits for a build or a caller. It must never block.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import socketserver
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

from ..core.protocol import events
from ..core.timers import Timers
from ..system import identity, signals
from ..system.listener import BACKLOG
from . import session
from .children import LEFT_STATUS, SIGNALS, Children

ACCEPT_PAUSE_SEC = 0.2
"""How long new callers are left waiting after the machine had no descriptor or memory for one."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Accepts on `listener` when `handle_request` is called: the arbiter does, as `selector` tells it to."""

    timeout = 0.0  # handle_request is called when a caller is there, and must not wait for another
    block_on_close = False

    def __init__(
        self,
        listener: socket.socket,
        path: str,
        service: session.Service,
        children: Children,
        selector: selectors.BaseSelector,
        timers: Timers,
    ) -> None:
        super().__init__(path, socketserver.BaseRequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        listener.setblocking(False)
        self._service = service
        self._children = children
        self._selector = selector
        self._timers = timers
        self._caller_uid = 0
        selector.register(listener, selectors.EVENT_READ)

    # --- when there is no session for anybody ---

    def leave_waiting(self, seconds: float) -> None:
        """Accept nobody for so long: new callers wait in the socket."""
        if self.is_listening():
            self._selector.unregister(self.socket)
        self._timers.set(self.listen_again, time.monotonic() + seconds)

    def listen_again(self) -> None:
        """Accept callers again, if they were left waiting."""
        self._timers.cancel(self.listen_again)
        if not self.is_listening():
            self._selector.register(self.socket, selectors.EVENT_READ)

    def is_listening(self) -> bool:
        """Tell whether callers are accepted now."""
        return self.socket in self._selector.get_map()

    def turn_away_the_waiting(self, line: str) -> None:
        """Accept whoever waits in the socket's queue, and tell each in one line that it is not served.

        As many as there is room for in the queue: callers that come as fast as they are told hold nobody up.
        """
        with suppress(OSError):  # until none waits any more
            for _ in range(BACKLOG + 1):
                connection, _ = self.socket.accept()
                _turn_away(connection, line)
                connection.close()

    # --- what socketserver calls ---

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._service.log.by_callers("error", "cannot accept a caller", reason=exc.strerror)
                self.leave_waiting(ACCEPT_PAUSE_SEC)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a caller who would be one too many, in all or of its user."""
        try:
            uid = identity.peer_ids(request)[1]
        except OSError as exc:
            self._service.log.error("cannot tell who calls", reason=exc.strerror)
            return False
        self._caller_uid = self._service.owner_of(uid)  # many subordinate uids are one user all the same
        limit = self._children.refusal(self._caller_uid)
        if limit is None:
            return True
        _turn_away(request, f"build-service is busy: {limit}")
        self._service.log.refusal(self._caller_uid, "caller refused", uid=uid, reason=limit)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the caller to a session forked ahead, else fork one for it (and leave the rest to the library)."""
        if _is_gone(request):  # a fork for nobody: who comes and goes in a loop would hold others up with it
            self.shutdown_request(request)
        elif self._children.hand_over(request, self._caller_uid):
            self.close_request(request)
        else:
            self._fork_session(request, client_address)

    def _fork_session(self, request: Any, client_address: Any) -> None:
        self._ours, self._theirs = socket.socketpair()
        try:
            with signals.held(SIGNALS):
                super().process_request(request, client_address)
        except BaseException:
            self._ours.close()
            raise
        finally:
            self._theirs.close()
        for pid in self.active_children or ():
            self._children.add(pid, self._caller_uid, self._ours)
        self.active_children = None  # the library's own list, which nobody else would shorten

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the forked session: serve the caller."""
        self._children.become_session()
        self._ours.close()
        if not session.serve(request, self._theirs, self._service):
            os._exit(LEFT_STATUS)

    def serve_handed_over(self, connection: socket.socket, channel: socket.socket) -> bool:
        """In a session forked ahead: serve the caller on `connection`; tell whether nothing of its build is left."""
        try:
            return session.serve(connection, channel, self._service)
        except Exception:
            self.handle_error(connection, None)
            return False
        finally:
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what went wrong with one caller: no process for it, or a fault of this program."""
        exc = sys.exc_info()[1] or RuntimeError("unknown")
        fault = {"reason": f"{type(exc).__name__}: {exc}", "at": _place(exc)}
        self._service.log.by_caller(self._owner_of(request), "error", "cannot serve a caller", **fault)
        reason = getattr(exc, "strerror", None) or "internal error"
        _turn_away(request, f"build-service cannot serve this request: {reason}")

    def _owner_of(self, connection: socket.socket) -> int:
        """Return as whose the caller counts; the service's own user where that cannot be told."""
        try:
            return self._service.owner_of(identity.peer_ids(connection)[1])
        except OSError:
            return os.getuid()

    def collect_children(self, *, blocking: bool = False) -> None:
        """Nothing: children are reaped when SIGCHLD tells of one, and no number of them stops `accept`."""


def _is_gone(connection: socket.socket) -> bool:
    """Tell whether the caller hung up for good: that ends its build (a mere half-close does not), so none is begun."""
    poll = select.poll()
    poll.register(connection, 0)  # POLLHUP and POLLERR come unasked (poll(2))
    return bool(poll.poll(0))


def _turn_away(connection: socket.socket, line: str) -> None:
    """Tell a caller in one line that no session serves it, without waiting for it."""
    exit_ = events.Exit(session.REFUSAL_EXIT_CODE)
    answer = events.encode_output(events.STDERR, line.encode() + b"\n") + events.encode_exit(exit_)
    try:
        connection.setblocking(False)
        connection.send(answer)
    except OSError:
        pass  # it is gone


def _place(exc: BaseException) -> str:
    """Return the innermost place in the code that `exc` came from, for the log."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "unknown"
