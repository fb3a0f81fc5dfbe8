"""A session's place at the arbiter: the channel between the two, a socket pair that the session's fork made.

On it go records of one byte, never a caller's: that the session only delivers by now, and that it has to make room.
Its end says to the arbiter that the session has ended, and to the session that the arbiter has, which changes nothing
for that one. Nothing here blocks.
"""

from __future__ import annotations

import socket
from contextlib import suppress

DELIVERS = b"d"
"""From a session: nothing of its build runs, and its caller has not read everything yet."""

MAKE_ROOM = b"m"
"""To a session that delivers: let go of the caller."""

RECORDS = 16
"""So many are taken at once."""


class Place:
    """The session's end of it. `fileno` is readable when the arbiter said something; -1 once it has ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(False)

    def fileno(self) -> int:
        return self._channel.fileno()

    def deliver(self) -> None:
        """Say that nothing runs any more, and that this place may be somebody else's."""
        with suppress(OSError):
            self._channel.send(DELIVERS, socket.MSG_NOSIGNAL)

    def is_to_make_room(self) -> bool:
        """Hear what the arbiter says."""
        try:
            data = self._channel.recv(RECORDS)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._channel.close()
        return MAKE_ROOM in data


def heard(channel: socket.socket) -> bytes | None:
    """For the arbiter: return the records that a session sent, None when it has ended."""
    try:
        return channel.recv(RECORDS) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def make_room(channel: socket.socket) -> None:
    """For the arbiter: have the session let go of its caller."""
    with suppress(OSError):
        channel.send(MAKE_ROOM, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
