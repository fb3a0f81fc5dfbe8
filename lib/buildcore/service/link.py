"""The caller's connection as a build's link: events out, cancellations in, never more buffered than allowed.

A session hands it to `supervisor.supervise`. The connection is the caller's hold on the build: a full
hang-up ends it, a mere half-close (a client that has said all it had to say) does not. Nothing here blocks.
"""

from __future__ import annotations

import select
import signal
import socket

from ..core.endings import COMPLETED, STOPPED, TIMED_OUT, Ending
from ..core.protocol import events, requests

BACKLOG_BYTES = 256 << 10
"""Encoded output that may wait for a slow reader before the build's pipes are left alone."""

RECEIVE_BYTES = 4096
STOPPING = "build-service is stopping: the build was ended"


class CallerLink:
    """One caller's connection, after its request was read by `reader`."""

    def __init__(self, connection: socket.socket, reader: requests.RequestReader) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._reader = reader
        self._hang_up = select.epoll()
        self._hang_up.register(connection.fileno(), 0)  # EPOLLHUP and EPOLLERR come unasked (epoll_ctl(2))
        self._backlog = bytearray()
        self._unfinished: dict[str, bytes] = {}
        self._exit = events.Exit(0)
        self._features: tuple[str, ...] | None = None
        self._taken = 0
        self._gone = False
        self._listening = True

    def describe_exit(self, exit_: events.Exit, features: tuple[str, ...] | None) -> None:
        """Set what `exit` says beyond the ending itself, and what the caller understands (None: nothing)."""
        self._exit = exit_
        self._features = features

    def fileno(self) -> int:
        return self._connection.fileno()

    def hang_up_fileno(self) -> int:
        return self._hang_up.fileno()

    def is_gone(self) -> bool:
        return self._gone

    def is_listening(self) -> bool:
        return self._listening

    def has_room(self) -> bool:
        return len(self._backlog) < BACKLOG_BYTES

    def has_backlog(self) -> bool:
        return bool(self._backlog)

    def hang_up(self) -> None:
        self._gone = True
        self._backlog.clear()

    def send(self, stream: str, data: bytes) -> None:
        data = self._unfinished.get(stream, b"") + data
        end = events.whole_characters(data)
        self._unfinished[stream] = data[end:]
        if end:
            self._backlog += events.encode_output(stream, data[:end])

    def finish(self, ending: Ending) -> None:
        for stream, rest in self._unfinished.items():
            if rest:
                self._backlog += events.encode_output(stream, rest)
        if ending.reason == STOPPED:
            self._backlog += events.encode_output(events.STDERR, STOPPING.encode("ascii") + b"\n")
            self._exit.error = ("stopping", STOPPING)
        elif ending.reason not in (COMPLETED, TIMED_OUT):
            self._exit.error = (ending.reason, "the build was cancelled")
        self._exit.code = ending.exit_code
        self._exit.timed_out = ending.reason == TIMED_OUT
        self._exit.signal = ending.signal
        self._exit.duration_ms = round(ending.duration_sec * 1000)
        self._backlog += events.encode_exit(self._exit, self._features is not None)

    def stopped(self) -> None:
        if events.STOPPED in (self._features or ()):
            self._backlog += events.encode_stopped()

    def flush(self) -> None:
        while self._backlog:
            try:
                sent = self._connection.send(self._backlog)
            except BlockingIOError:
                return
            except OSError:
                self.hang_up()
                return
            del self._backlog[:sent]
            self._taken += sent

    def taken(self) -> int:
        return self._taken

    def said(self) -> list[tuple[bool, signal.Signals]]:
        try:
            data = self._connection.recv(RECEIVE_BYTES)
            self._listening = bool(data)
            self._reader.receive_data(data)
        except BlockingIOError:
            pass
        except OSError:
            self.hang_up()
        words = []
        while (event := self._reader.next_event()) is not None:
            if not isinstance(event, requests.Request):
                words.append((isinstance(event, requests.Cancel), signal.Signals["SIG" + event.signal]))
        return words

    def close(self) -> None:
        """Give back the descriptor that this object made; the connection is its owner's."""
        self._hang_up.close()
