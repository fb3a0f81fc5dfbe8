"""Starts a build: a child that becomes the command, as the caller, in a session of its own, or says why it cannot.

The session calls it, and `proof` with a scratch child. It decides nothing about whether the command may run, and no
shell takes part. Whatever fails on the way comes back as one line, and then nothing runs. Nothing here waits for the
child: from the moment that it has the caller's ids, the caller may stop it (kill(2)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..core.errors import BuildError
from ..core.protocol.events import OUTPUT, STDERR, STDOUT
from ..core.protocol.requests import DESCRIPTORS
from ..core.text import escape
from ..system import bounds, descriptors, signals

PIPE_BYTES = 256 << 10

TOO_MANY_PROCESSES = "the user has too many processes (RLIMIT_NPROC)"
"""What EAGAIN means when it comes from execve(2)."""

NO_FORMAT = "it is no program of this host's kind, or a script whose first line does not begin with #!"
NO_INTERPRETER = "the host does not have what its first line names to run it"
"""What ENOEXEC means, and ENOENT where the program itself is there."""

_STATUS = "status"
_STATUS_BYTES = 4096


class StartError(BuildError):
    """The build could not be started; the text says why."""

    kind = "start"


@dataclass(frozen=True)
class Command:
    """What to run: program (a path, absolute or from its directory on), argv with its name first, the whole
    environment, limits.

    `umask` is an int such as 0o022; `timeout_sec` and `grace_sec` are seconds, and so is `pause_sec`, for which it may
    stand still beside the former; `open_files` is the soft limit of open descriptors (RLIMIT_NOFILE), None for that of
    this process; `niceness` and `limits` (`bounds`) bound it where they are stricter than what this process has.
    """

    program: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    umask: int
    timeout_sec: float
    grace_sec: float
    open_files: int | None = None
    pause_sec: float = 0.0
    niceness: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stdio:
    """A build's standard descriptors: those that its caller `handed` over, by name; the others are the service's.

    stdin is /dev/null then, stdout and stderr are pipes, a single one where they are `merged`.
    """

    handed: Mapping[str, int] = field(default_factory=dict)
    merged: bool = False

    def streams(self) -> tuple[str, ...]:
        """Return the names of the pipes that it takes."""
        wanted = tuple(stream for stream in (STDOUT, STDERR) if stream not in self.handed)
        return (OUTPUT,) if self.merged and len(wanted) == 2 else wanted


@dataclass
class Build:
    """A forked build: its main process, the reading ends of its pipes, and what is heard of it on its way to execve(2).

    `status` is readable while that is not over; `started` is when it was forked, in seconds of the monotonic clock.
    """

    pid: int
    pipes: dict[str, int]
    status: int
    started: float
    _said: bytes = b""

    def hear(self) -> None:
        """Read from `status` what is there, without waiting for more; at its end, give it up (-1)."""
        while self.status >= 0:
            try:
                data = os.read(self.status, _STATUS_BYTES)
            except BlockingIOError:
                return
            self._said += data
            if not data:
                self.let_go()

    def let_go(self) -> None:
        """Hear no more from `status`."""
        if self.status >= 0:
            os.close(self.status)
            self.status = -1

    def failed(self) -> bool:
        """Tell whether the child said why it does not become the command."""
        return bool(self._said)

    def failure(self) -> StartError:
        """Return what it said."""
        return StartError(escape(self._said.decode("utf-8", "replace")))


def start(command: Command, directory: int, become: Callable[[], None], stdio: Stdio | None = None) -> Build:
    """Fork a child that becomes `command` in the directory that the descriptor `directory` holds.

    The child leads a session and a process group of its own, has the standard descriptors of `stdio`, default signals,
    no other descriptor and `command.umask`; `become` drops its privileges just before execve(2). When any of that, or
    execve itself, fails, the build tells it (`Build.hear`). Raises StartError when there can be no child.
    """
    stdio = stdio or Stdio()
    reading: dict[str, int] = {}
    writing: dict[str, int] = {}
    started = time.monotonic()
    try:
        for stream in stdio.streams():
            reading[stream], writing[stream] = _pipe()
        reading[_STATUS], writing[_STATUS] = _status_pipe()
        with signals.held(signal.valid_signals()):  # none meets a handler of this process in the child
            pid = os.fork()
            if pid == 0:
                merged = writing.get(OUTPUT, -1)
                standard = {STDOUT: merged, STDERR: merged, **writing, **stdio.handed}
                numbers = [standard.get(name, -1) for name in DESCRIPTORS]
                _run_child(command, directory, become, numbers, writing[_STATUS])
    except OSError as exc:
        for fd in (*reading.values(), *writing.values()):
            os.close(fd)
        raise StartError(escape(f"cannot start {command.argv[0]}: {exc.strerror}")) from exc
    for fd in writing.values():
        os.close(fd)
    status = reading.pop(_STATUS)
    return Build(pid, reading, status, started)


def cannot_run(program: str, reason: object) -> StartError:
    """Return the error of a `program` that would not start."""
    return StartError(f"cannot run {escape(program)}: {reason}")


def why_not(program: str) -> str | None:
    """Tell why this process, by its effective ids, could not execute `program`; None when it could."""
    try:
        mode = os.stat(_bytes(program)).st_mode
    except OSError as exc:
        return exc.strerror
    if stat.S_ISREG(mode) and os.access(_bytes(program), os.X_OK, effective_ids=True):
        return None
    return os.strerror(errno.EACCES)


def _status_pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    return read_end, write_end


def _pipe() -> tuple[int, int]:
    """Return a pipe whose reading end does not block and that holds PIPE_BYTES where the system allows it."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    descriptors.set_pipe_size(write_end, PIPE_BYTES)
    return read_end, write_end


def _run_child(
    command: Command, directory: int, become: Callable[[], None], standard: list[int], status: int
) -> None:
    """Turn the forked child into the build, or report on `status` why not; never returns.

    `standard` are the descriptors that are to be 0, 1 and 2; -1 stands for /dev/null. What is the service's is let go
    of before the drop, as the caller can hold the child from then on.
    """
    step = "prepare"
    try:
        os.setsid()
        signals.restore_defaults()
        null = os.open(os.devnull, os.O_RDONLY)
        directory, status, *standard = (
            _above_standard(null if fd < 0 else fd) for fd in (directory, status, *standard)
        )
        for target, source in enumerate(standard):
            os.dup2(source, target, inheritable=True)
        step = "enter the directory for"
        os.fchdir(directory)
        step = "prepare"
        os.umask(command.umask)
        if command.open_files is not None:
            descriptors.allow_again(command.open_files)
        descriptors.close_all_but({0, 1, 2, status})  # execve(2) closes this one
        program, argv = _bytes(command.program), [_bytes(argument) for argument in command.argv]
        environment = {_bytes(name): _bytes(value) for name, value in command.environment.items()}
        step = "drop privileges for"
        become()
        step = "set limits for"
        bounds.be_nicer(command.niceness)
        bounds.lower(command.limits)
        step = "run"
        os.execve(program, argv, environment)
    except BaseException as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        subject = command.argv[0]
        if step == "run":
            subject = command.program
            reason = _why(exc, command.program) or reason
        line = f"cannot {step} {subject}: {reason}"
        os.write(status, line.encode("utf-8", "backslashreplace")[:_STATUS_BYTES])
    finally:
        os._exit(127)


def _why(exc: BaseException, program: str) -> str | None:
    """Return what a failure of execve(2) means where its errno alone would mislead."""
    number = getattr(exc, "errno", None)
    if number == errno.ENOENT:
        return NO_INTERPRETER if os.path.exists(_bytes(program)) else None
    return {errno.EAGAIN: TOO_MANY_PROCESSES, errno.ENOEXEC: NO_FORMAT}.get(number or 0)


def _above_standard(fd: int) -> int:
    """Return a duplicate that no dup2(2) onto 0, 1 or 2 overwrites, should the caller have had those closed."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _bytes(text: str) -> bytes:
    """Return the bytes that `text` stands for, whatever locale this process runs in (PEP 383)."""
    return text.encode("utf-8", "surrogateescape")
