"""The end of the service: it comes, whatever callers do meanwhile, and nothing of a build outlives it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from daemon import Service
from forked import running
from harness import PATIENCE_SEC, await_exit, write_tree
from harness_world import inside
from wire import WAITING, Gate, RawCaller, assert_ended, log_writer, parent_of, reap_orphans, waiting_make

StartService = Callable[..., Service]

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


@pytest.mark.parametrize("flavour", ["root" if inside() else "user"])  # it takes its time
def test_what_a_session_that_has_to_be_killed_leaves_is_ended(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour, {"build": {"timeouts": {"grace_sec": 0}}})
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}"}, service.caller)
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        make = waiting_make(caller.ask("all").await_output("waits\n"))
        os.kill(parent_of(make), signal.SIGSTOP)
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert_ended(service.daemon.pid, make)
    service.daemon.await_log("a session did not end and is killed")
    service.daemon.await_log("ended what a killed session left running processes=.*make")


def test_a_log_writer_that_does_not_end_does_not_keep_it(service: Service) -> None:
    writer = log_writer(service)
    os.kill(writer, signal.SIGSTOP)
    try:
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert await_exit(service.daemon.pid)
    finally:
        os.kill(writer, signal.SIGCONT)
    reap_orphans([writer])
    assert service.daemon.log_lines()[-1].endswith("build-service stopped")
