"""Callers without a client, and builds that wait: what the end-to-end tests use beyond the harness.

A `RawCaller` is a real connection under the ids of a test user, on which a test sends any bytes and reads the events
that come back. A `Gate` holds a build until the test lets it go on, so that no test sleeps to find one still running.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import harness
from daemon import Daemon, Service
from harness import PATIENCE_SEC, Process, await_exit, descendants, give, processes, run_as
from harness_world import User

READ_BYTES = 1 << 16


@contextmanager
def acting_as(user: User, groups: Sequence[int] | None = None) -> Iterator[None]:
    """Lets this process have the effective ids of `user` for one block: what a socket tells of who connects."""
    if user.uid == os.geteuid():
        yield
        return
    before = os.getgroups(), os.getegid()
    os.setgroups([user.gid, *user.groups] if groups is None else list(groups))
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[1])
        os.setgroups(before[0])


class RawCaller:
    """A connection of `user` (the service's caller by default) to its daemon, closed at the end of a `with` block."""

    def __init__(self, service: Service, user: User | None = None, groups: Sequence[int] | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.events: list[dict[str, Any]] = []
        self._workspace = service.workspace
        self._buffer = b""
        with acting_as(user or service.caller, groups):
            self.socket.connect(os.fspath(service.daemon.socket))

    def __enter__(self) -> RawCaller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()

    def send(self, data: bytes) -> RawCaller:
        """Sends all of `data`; that the other side hung up meanwhile is seen when its events are read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def ask(self, *args: str, **fields: Any) -> RawCaller:
        """Sends the request `make ARGS` in the workspace, with `fields` over or beside its fields (None: left out)."""
        return self.send(self.line(*args, **fields))

    def hand_over(self, numbers: Sequence[int], *args: str, **fields: Any) -> RawCaller:
        """Sends the same with these descriptors along, whatever the request says of them."""
        socket.send_fds(self.socket, [self.line(*args, **fields)], list(numbers))
        return self

    def line(self, *args: str, **fields: Any) -> bytes:
        """The request as `ask` sends it."""
        request = {"command": "make", "args": list(args), "cwd": os.fspath(self._workspace), **fields}
        return json.dumps({name: value for name, value in request.items() if value is not None}).encode() + b"\n"

    def next_event(self, seconds: float = PATIENCE_SEC) -> dict[str, Any] | None:
        """The next event, None at the end of the stream."""
        while b"\n" not in self._buffer:
            assert select.select([self.socket], [], [], seconds)[0], f"no event; so far: {self.events}"
            try:
                data = self.socket.recv(READ_BYTES)
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self._buffer, f"half an event: {self._buffer!r}"
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        self.events.append(event)
        return event

    def await_output(self, pattern: str) -> str:
        """Reads events until stdout and stderr together match; returns both as one text."""
        while not re.search(pattern, self.text()):
            assert self.next_event(), f"the end before {pattern!r}: {self.events}"
        return self.text()

    def exit(self) -> dict[str, Any]:
        """Reads to the end of the stream and returns its last event, which is its only exit."""
        while self.next_event():
            pass
        kinds = [event["type"] for event in self.events]
        assert kinds.count("exit") == 1 and kinds[-1] == "exit", self.events
        return self.events[-1]

    def output(self, stream: str) -> bytes:
        """What has come on `stream` so far."""
        return b"".join(output_bytes(event) for event in self.events if event["type"] == stream)

    def text(self) -> str:
        """What has come on both streams so far."""
        return b"".join(map(output_bytes, self.events)).decode("utf-8", "surrogateescape")


def output_bytes(event: dict[str, Any]) -> bytes:
    """The bytes that an output event carries, as the protocol has them."""
    if event["type"] not in ("stdout", "stderr", "output"):
        return b""
    if event.get("encoding") == "base64":
        return base64.b64decode(event["data_b64"], validate=True)
    return str(event["data"]).encode()


class Gate:
    """A FIFO named `gate` in `directory` where recipes wait: `read x < gate`. `open` lets so many of them pass."""

    def __init__(self, directory: Path, owner: User) -> None:
        self._path = directory / "gate"
        os.mkfifo(self._path)
        give(self._path, owner)
        self._descriptor = os.open(self._path, os.O_RDWR)  # both ends (fifo(7)): neither side waits for the other

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self._path.unlink()

    def open(self, count: int = 1) -> None:
        """Lets `count` recipes pass."""
        os.write(self._descriptor, b"\n" * count)


WAITING = "\t@echo make $$PPID waits; read x < gate; echo done\n"
"""A recipe that tells the pid of its make and then waits at the gate."""


def waiting_make(text: str) -> int:
    """The pid that the recipe WAITING printed in `text`."""
    found = re.search(r"make (\d+) waits", text)
    assert found, text
    return int(found[1])


def parent_of(pid: int) -> int:
    """The parent of the process: of a build's make, its session."""
    return processes()[pid].parent


def foreign_processes(daemon: Daemon) -> set[Process]:
    """What runs below the daemon and is not part of it: builds and what they started."""
    table = processes()
    own = table[daemon.pid].name
    return {process for process in descendants(daemon.pid, table) if process.name != own}


def await_handler(pid: int, signum: int, seconds: float = PATIENCE_SEC) -> None:
    """Waits until make, which catches the signal, has begun to handle it: then it has the default disposition.

    No event tells of that, so this looks again and again. When the recipe that it waits for ends before make got so
    far, make loses track of it, served or not: "wait: No child processes".
    """
    deadline = time.monotonic() + seconds
    while int(re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())[0], 16) >> (signum - 1) & 1:
        assert time.monotonic() < deadline, f"make did not hear of signal {signum}"
        time.sleep(0.005)


def assert_ended(*pids: int) -> None:
    """Waits until each process ended."""
    for pid in pids:
        assert await_exit(pid), f"{processes().get(pid)} still runs"


def reap_orphans(pids: Iterable[int]) -> None:
    """Waits until these processes ended, and reaps those that came to this process when their parent was killed."""
    for pid in pids:
        assert await_exit(pid), f"{processes().get(pid)} still runs"
        with suppress(ChildProcessError):  # somebody else's
            os.waitpid(pid, os.WNOHANG)


def reap_adopted() -> None:
    """Reaps what ended and came to this process because its parent was killed."""
    for process in descendants(os.getpid()):
        if process.state == "Z" and process.parent == os.getpid():
            os.waitpid(process.pid, 0)


def sleeps(daemon: Daemon) -> bool:
    """Whether the daemon waits for something. Before, it may not have forked yet what a caller made it fork."""
    return processes()[daemon.pid].state == "S"


def at_rest(daemon: Daemon, prefork: int = 1, seconds: float = PATIENCE_SEC) -> bool:
    """Waits until the daemon has no build and no session but those forked ahead; False when that does not come."""
    deadline = time.monotonic() + seconds
    while True:
        settled = sleeps(daemon)  # first: else the last caller's session may stand for the one that is yet to be forked
        below = descendants(daemon.pid)
        if settled and len(below) == 1 + prefork:  # the log writer is the one more
            return True
        pids = []
        for process in below:
            with suppress(ProcessLookupError):
                pids.append(os.pidfd_open(process.pid))
        left = max(0.0, deadline - time.monotonic())
        patience = left if settled and len(below) > 1 + prefork else min(left, 0.01)  # of a fork to come nothing tells
        try:
            if len(pids) == len(below) and not select.select(pids, [], [], patience)[0] and not left:
                return False
        finally:
            for pid in pids:
                os.close(pid)


def log_writer(service: Service) -> int:
    """Who has the log file open. The writer opens it for its first line, and nothing tells of it: this looks again."""
    log = os.fspath(service.daemon.log_path)
    deadline = time.monotonic() + PATIENCE_SEC
    while True:
        for process in descendants(service.daemon.pid):
            directory = f"/proc/{process.pid}/fd"
            with suppress(FileNotFoundError):  # it, or a descriptor of it, is gone meanwhile
                if log in [os.readlink(f"{directory}/{name}") for name in os.listdir(directory)]:
                    return process.pid
        assert time.monotonic() < deadline, "there is no log writer"
        time.sleep(0.01)


def session_ahead(service: Service) -> int:
    """The session that the next caller gets, of a service that keeps one ready and is at rest."""
    assert at_rest(service.daemon)
    (session,) = {process.pid for process in descendants(service.daemon.pid)} - {log_writer(service)}
    return session


def limit(service: Service, kind: str, soft: int | None = None) -> int:
    """Sets a soft limit of the running daemon, as its user (prlimit(2)), if it is given; returns the one before."""
    program = (
        "import resource, sys\n"
        "pid, kind, soft = int(sys.argv[1]), getattr(resource, sys.argv[2]), sys.argv[3]\n"
        "before, hard = resource.prlimit(pid, kind)\n"
        "soft and resource.prlimit(pid, kind, (int(soft), hard))\n"
        "print(before)\n"
    )
    python = f"{harness.daemon_python_directory()}/python3"
    argv = [python, "-I", "-c", program, str(service.daemon.pid), kind, "" if soft is None else str(soft)]
    done = run_as(service.daemon.user, argv, Path("/"))
    assert done.returncode == 0, done
    return int(done.stdout)
