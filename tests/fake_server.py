"""A server of which a test plays the service's side, byte by byte, on a real socket: what clients may meet."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

import harness
from harness import BIN
from harness_world import DEV1, inside

CALLER = DEV1 if inside() else harness.current_user()
"""Who starts the clients."""


class FakeServer:
    """A listening socket of which a test plays the service's side, one client at a time."""

    def __init__(self) -> None:
        self.directory = harness.open_directory(CALLER)
        self.path = self.directory / "s"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.path.chmod(0o666)
        self.listener.listen()

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return self.popen([BIN / "build-cli", "--socket", self.path, *(arguments or ("make",))], **options)

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return harness.popen_as(CALLER, argv, "/", **pipes)

    def accept(self) -> tuple[socket.socket, dict[str, Any]]:
        """The next client's connection and its request."""
        connection, _ = self.listener.accept()
        data = b""
        while not data.endswith(b"\n"):
            data += connection.recv(1 << 20)
        return connection, json.loads(data)

    def answer(self, *pieces: bytes) -> tuple[bytes, bytes, int]:
        """Answers one client with `pieces`, hangs up, and returns its stdout, stderr and exit code."""
        return self.answer_to(self.start(), *pieces)

    def answer_to(self, process: subprocess.Popen[bytes], *pieces: bytes) -> tuple[bytes, bytes, int]:
        """The same for a client that was started already."""
        connection, _ = self.accept()
        with connection:
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    break  # it has seen enough
        out, err = process.communicate()
        return out, err, process.returncode

    def close(self) -> None:
        self.listener.close()
        shutil.rmtree(self.directory)
