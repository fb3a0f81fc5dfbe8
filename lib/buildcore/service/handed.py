"""What a caller hands over with its request: descriptors that become its build's standard ones.

A session receives and passes them on. It never reads nor writes them, and looks at them with its caller's rights, in
the thread that plans: they may lie in a file system that does not answer.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

from ..core.protocol import requests
from ..system import passing


class Handed:
    """The descriptors of one request, from its first byte on. What is still open in the end goes with the process."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._files: list[int] = []
        self._lost = False

    def receive(self, connection: socket.socket, size: int) -> bytes:
        """Read at most `size` bytes, and note what comes along. Raises OSError."""
        data, received, lost = passing.receive(connection, size, len(requests.DESCRIPTORS))
        self._received += received
        self._lost = self._lost or lost
        return data

    def named(self, names: Sequence[str]) -> dict[str, int]:
        """Return the descriptors by the names that the request has for them; raises RequestError."""
        if self._lost:
            most = len(requests.DESCRIPTORS)
            raise requests.RequestError(
                f"invalid request: descriptors were lost: more than {most}, or the host has no room for them"
            )
        if len(self._received) != len(names):
            raise requests.RequestError(
                f"invalid request: {len(names)} descriptors are named, and {len(self._received)} came"
            )
        return dict(zip(names, self._received))

    def check(self, named: Mapping[str, int]) -> None:
        """Raise RequestError for one that no program could use. May wait for a file system."""
        for name, fd in named.items():
            reason = passing.why_unfit(fd)
            if reason:
                raise requests.RequestError(f"invalid request: {name} cannot be used: {reason}")
            if passing.is_file(fd):
                self._files.append(fd)

    def let_go(self) -> None:
        """Once the build has its own: close what somebody may wait for the end of.

        Not so a file, whose close(2) may wait for its file system, and nobody for it.
        """
        for fd in [fd for fd in self._received if fd not in self._files]:
            self._received.remove(fd)
            os.close(fd)
