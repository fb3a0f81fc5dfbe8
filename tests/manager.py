"""A service manager that a test plays with real sockets: sd_listen_fds(3) and sd_notify(3) are its contract."""

from __future__ import annotations

import re
import select
import shutil
import socket
import time

import harness
from harness import PATIENCE_SEC

PASS_AS_3 = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does between fork and execve: sh cannot name a descriptor above 9."""


class Manager:
    """Holds a listening socket and a notification socket, and starts daemons with them."""

    def __init__(self) -> None:
        self.directory = harness.open_directory()
        self.socket_path = self.directory / "held.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket_path))
        self.socket_path.chmod(0o666)
        self.listener.listen()
        self.notify_path = self.directory / "notify"
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(self.notify_path))
        self.notify_path.chmod(0o666)

    def options(self, script: str = PASS_AS_3, **env: str) -> dict[str, object]:
        """The options of a `Daemon` that is started by this manager."""
        python = f"{harness.daemon_python_directory()}/python3"
        return {
            "launcher": [python, "-I", "-c", script, str(self.listener.fileno())],
            "pass_fds": [self.listener.fileno()],
            "env": {"NOTIFY_SOCKET": str(self.notify_path), **env},
        }

    def settings(self) -> dict[str, object]:
        return {"service": {"socket_path": str(self.socket_path)}}

    def await_message(self, pattern: str) -> str:
        """Waits for a notification that matches; the ones before it are forgotten."""
        deadline = time.monotonic() + PATIENCE_SEC
        seen = []
        while select.select([self.notifications], [], [], max(0.0, deadline - time.monotonic()))[0]:
            seen.append(self.notifications.recv(4096).decode())
            if re.search(pattern, seen[-1], re.MULTILINE):
                return seen[-1]
        raise AssertionError(f"no notification {pattern!r} in {seen}")

    def close(self) -> None:
        self.listener.close()
        self.notifications.close()
        shutil.rmtree(self.directory)


def await_connection(listener: socket.socket) -> bool:
    """Waits until somebody waits in the queue of `listener`."""
    return bool(select.select([listener], [], [], PATIENCE_SEC)[0])
