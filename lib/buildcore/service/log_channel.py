"""What connects the log's senders and its writer, and what a packet on it is: one finished line, alone or an owner's.

    senders --- line by line, SOCK_SEQPACKET, MSG_DONTWAIT ---> writer ---> build-service.log, .1, .2 ...
            --- one byte for each dropped line, a pipe  ------>        `--> standard error, if asked

The arbiter keeps the reading ends, so a writer that died is replaced without any session noticing: what they send
meanwhile waits in the socket.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from ..core import text
from ..system import descriptors

TARGET = "build_service"

QUEUE_BYTES = 8 << 20
"""What may wait for the writer, in bytes of socket buffer; who is not root gets at most net.core.wmem_max."""

DROP_PIPE_BYTES = 1 << 20
"""Drops that can be counted while the writer takes no notice of them, one byte each."""

_MAX_PACKET_BYTES = len("4294967295\0") + text.SHORT_LINE_BYTES + len("\0") + text.MAX_LINE_BYTES
SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

_SO_SNDBUFFORCE = 32  # Linux's number (socket(7)); Python names it nowhere


@dataclass(frozen=True)
class Channel:
    """What connects senders and writer: a socket pair for the lines, a pipe for the drops."""

    sender: socket.socket
    receiver: socket.socket
    drop_sender: int
    drop_receiver: int

    def descriptors(self) -> tuple[int, int, int, int]:
        """In the order in which `of` takes them."""
        return self.sender.fileno(), self.receiver.fileno(), self.drop_sender, self.drop_receiver

    @classmethod
    def of(cls, descriptors: Sequence[int]) -> Channel:
        sender, receiver, drop_sender, drop_receiver = descriptors
        return cls(socket.socket(fileno=sender), socket.socket(fileno=receiver), drop_sender, drop_receiver)

    def is_open(self) -> bool:
        """Tell whether this process may send."""
        return self.sender.fileno() >= 0

    def keep_sending(self) -> None:
        """In a process that only sends: close the end that the arbiter and the writer need.

        The reading end of the drop pipe stays: as long as the process itself holds it, counting a drop cannot
        raise SIGPIPE, whatever that signal's disposition is.
        """
        self.receiver.close()

    def keep_receiving(self) -> tuple[int, int]:
        """In the writer: close the ends that senders need; return the others, of the lines and of the drops."""
        self.sender.close()
        os.close(self.drop_sender)
        return self.receiver.fileno(), self.drop_receiver

    def send(self, packet: bytes) -> None:
        """Send a packet to the writer, or count it as dropped: this neither blocks nor fails."""
        try:
            self.sender.send(packet, SEND_FLAGS)
        except OSError:
            with suppress(OSError):  # the pipe is full, and the writer will say "at least"
                os.write(self.drop_sender, b"\0")

    def receive(self) -> bytes | None:
        """Return the next packet, None when nothing waits, b"" when no sender is left; never blocks."""
        try:
            return self.receiver.recv(_MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def take_drops(self) -> tuple[int, bool]:
        """Return how many packets were dropped since the last call, and whether it may be more; never blocks."""
        room = descriptors.pipe_size(self.drop_receiver)
        try:
            drops = len(os.read(self.drop_receiver, room))
        except BlockingIOError:
            return 0, False
        return drops, drops == room

    def close(self) -> None:
        # The socket first: the writer takes its end for "no more drops either".
        self.sender.close()
        self.receiver.close()
        os.close(self.drop_sender)
        os.close(self.drop_receiver)


def open_channel() -> Channel:
    """Return a new one; raises OSError."""
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    drop_receiver, drop_sender = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, QUEUE_BYTES)
    except PermissionError:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_BYTES)
    descriptors.set_pipe_size(drop_sender, DROP_PIPE_BYTES)
    return Channel(sender, receiver, drop_sender, drop_receiver)


class Packet(NamedTuple):
    """A line as it comes to the writer: `owner` is the uid as whose it counts, None for a line of the service's own.

    `short` is the form of a build's line that is written when there is no room for all of it: a line that has one is
    never left out.
    """

    owner: int | None
    line: bytes
    short: bytes | None


def record(level: str, message: str, fields: dict[str, object]) -> bytes:
    """Return the record as it goes over the socket and into the file."""
    return _spelled(_now_ms(), level, message, fields)


def owners_record(owner: int, level: str, message: str, fields: dict[str, object]) -> bytes:
    """Return the packet of a line that counts as one of this owner's, and may be left out: see `core.limiter`."""
    return b"%d\0" % owner + record(level, message, fields)


def build_record(owner: int, level: str, message: str, fields: dict[str, object]) -> bytes:
    """Return the packet of a line about this owner's build: it is not left out, but may be shortened."""
    now_ms = _now_ms()
    line = _spelled(now_ms, level, message, fields)
    # Cut here and not from the line: what was cut off is to be told of the values.
    cut = len(line) > text.SHORT_LINE_BYTES
    short = _spelled(now_ms, level, message, fields, text.SHORT_LINE_BYTES) if cut else b""
    return b"%d\0%s\0%s" % (owner, short, line)


def unpacked(packet: bytes) -> Packet:
    """Return what `record`, `owners_record` or `build_record` made."""
    *keys, line = packet.split(b"\0")  # no line holds a NUL
    if not keys:
        return Packet(None, line, None)
    return Packet(int(keys[0]), line, (keys[1] or line) if len(keys) > 1 else None)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _spelled(
    now_ms: int, level: str, message: str, fields: dict[str, object], max_bytes: int = text.MAX_LINE_BYTES
) -> bytes:
    return text.line(now_ms, level, TARGET, message, fields, max_bytes).encode("utf-8") + b"\n"
