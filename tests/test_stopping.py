"""The end of the service: it comes, whatever callers do meanwhile, and nothing of a build outlives it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, suppress

from forked import running
from harness import PATIENCE_SEC, Service, await_exit

FLOODS = 8


def test_callers_that_connect_without_end_do_not_keep_it(service: Service) -> None:
    """By another name of the socket's file, as a bind mount in a container is one."""
    name = service.daemon.directory / "name"
    os.link(service.daemon.socket, name)

    def flood() -> None:
        while True:
            with suppress(OSError):
                connection = socket.socket(socket.AF_UNIX)
                connection.setblocking(False)
                connection.connect(os.fspath(name))
                connection.close()

    with ExitStack() as stack:
        for _ in range(FLOODS):
            stack.enter_context(running(flood))
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert await_exit(service.daemon.pid, PATIENCE_SEC)
    name.unlink()
