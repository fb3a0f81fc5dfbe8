"""A log of a test's own, with its writer, and what came of it in files and on a console.

Real forks, sockets, files and signals. `finish` is the barrier of most tests of the log: when the writer has ended,
everything is written. Where a test needs to know that the writer has come to some line while it goes on, the log has a
console that the test reads: a line goes to the file first, then to the console.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from buildcore.core.settings import Logging
from buildcore.service import logs

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (ERROR| WARN| INFO|DEBUG|TRACE) build_service: (.*)"
)
DROPPED = re.compile(r"(?:at least )?(\d+) log lines? dropped")


def opened(directory: Path, **settings: object) -> logs.Log:
    return logs.start(Logging(directory=str(directory), **settings))  # type: ignore[arg-type]


def finish(log: logs.Log) -> int:
    """Close the log here and wait for its writer; return the writer's exit status."""
    log.close()
    return wait(log.writer_pid)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(function: Callable[[], None]) -> int:
    """Run `function` in a forked process that then ends with status 0, or 1 when it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def files(directory: Path) -> list[Path]:
    """The log's files, the oldest first."""
    found = sorted(directory.iterdir(), key=lambda path: int(path.suffix[1:]) if path.suffix != ".log" else 0)
    return found[::-1]


def messages(directory: Path) -> list[str]:
    """Level and message of all lines, the oldest first; every line has to be whole and well-formed."""
    data = b"".join(path.read_bytes() for path in files(directory))
    assert data == b"" or data.endswith(b"\n")
    found = [LINE.fullmatch(line) for line in data.decode().split("\n")[:-1]]
    assert all(found)
    return [match[2] for match in found if match]


def dropped(lines: list[str]) -> int:
    return sum(int(match[1]) for match in map(DROPPED.fullmatch, lines) if match)


def without_reports(lines: list[str]) -> list[str]:
    return [line for line in lines if not DROPPED.fullmatch(line)]


def stop(pid: int) -> None:
    """Stop a process and return when it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


@contextlib.contextmanager
def standard_error(descriptor: int) -> Iterator[None]:
    """Let `descriptor` be the standard error of this process, and of what it forks, for a while."""
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


class Console:
    """A log whose console is a pipe that the test reads."""

    def __init__(self, directory: Path | None, console: bool = True, **settings: object) -> None:
        read_end, write_end = os.pipe()
        with standard_error(write_end):
            name = str(directory) if directory else ""
            self.log = logs.start(Logging(directory=name, console=console, **settings))  # type: ignore[arg-type]
        os.close(write_end)
        self.lines = os.fdopen(read_end, encoding="utf-8")

    def next_message(self) -> str:
        match = LINE.fullmatch(self.lines.readline().rstrip("\n"))
        assert match
        return match[2]

    def finish(self) -> list[str]:
        """Close the log, wait for the writer, and return the messages that the console had not yet read."""
        self.log.close()
        rest = self.lines.read().splitlines()
        self.lines.close()
        assert wait(self.log.writer_pid) == 0
        return [match[2] for match in map(LINE.fullmatch, rest) if match]
