"""What the tests of hostile callers share: services in a pid namespace of their own, and callers who change or lend.

The files test_hostile_*.py use it, all of them as root inside the private world of harness_world. Nothing here may
reach a process or an account outside of that world: signals to everybody are for builds in a pid namespace alone.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from buildcore.system import identity
from daemon import Service
from harness_world import User
from wire import output_bytes

PID_NAMESPACE = """
import ctypes, os, signal, sys
CLONE_NEWPID, CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000000, 0x20000, 0x4000, 0x40000
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)
call("unshare", CLONE_NEWPID | CLONE_NEWNS)
call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
pid = os.fork()
if pid == 0:
    call("prctl", 1, signal.SIGKILL, 0, 0, 0)
    call("mount", b"proc", b"/proc", b"proc", ctypes.c_ulong(0), None)
    os.execv(sys.argv[1], sys.argv[1:])
for fd in range(3, 64):
    try:
        os.close(fd)
    except OSError:
        pass
signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, number))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""Starts a program as the first process of a pid namespace, passes SIGTERM on to it, and ends as it does."""

GRACE_SEC = 1


def settings() -> dict[str, object]:
    """Any program for the builds, and little patience with them."""
    python = f"{harness.python_directory()}/python3"
    return {"build": {"commands": {"python3": python, "make": "/usr/bin/make"}, "timeouts": {"grace_sec": GRACE_SEC}}}


def pid_namespace() -> list[str]:
    """The launcher of a daemon that sees no process but its own and its builds' (pid_namespaces(7))."""
    return [f"{harness.daemon_python_directory()}/python3", "-I", "-c", PID_NAMESPACE]


def first_process(launcher: int) -> int:
    """The pid, seen from here, of the daemon that `pid_namespace` started."""
    (pid,) = (process.pid for process in harness.processes().values() if process.parent == launcher)
    return pid


def connect(service: Service) -> socket.socket:
    """A connection to the service under the effective ids of this process."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(harness.PATIENCE_SEC)
    connection.connect(os.fspath(service.daemon.socket))
    return connection


def build_on(connection: socket.socket, cwd: Path, *args: str, command: str = "make") -> tuple[int, str]:
    """Asks for a build on the connection, whoever this process is by now; returns its exit code and its output."""
    request = {"command": command, "args": list(args), "cwd": os.fspath(cwd)}
    connection.sendall(json.dumps(request).encode() + b"\n")
    with connection.makefile("rb") as stream:
        events: list[dict[str, Any]] = [json.loads(line) for line in stream]
    assert events and events[-1]["type"] == "exit", events
    return events[-1]["code"], b"".join(map(output_bytes, events)).decode("utf-8", "surrogateescape")


def become(user: User, groups: tuple[int, ...] | None = None) -> None:
    """Makes this process `user`'s for good, with all its ids."""
    wanted = user.groups if groups is None else groups
    identity.permanently_become(identity.Identity(user.uid, user.gid, wanted), no_new_privs=False)


def until(found: Callable[[], bool], attempts: int, attempt: Callable[[], None]) -> None:
    """Attempts something until it was `found` what was looked for, `attempts` times at most; then it must be."""
    for _ in range(attempts):
        if found():
            return
        attempt()
    assert found(), f"not seen in {attempts} attempts"
