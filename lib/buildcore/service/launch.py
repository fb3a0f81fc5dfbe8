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
from dataclasses import dataclass

from ..core.errors import BuildError
from ..core.protocol.events import STDERR, STDOUT
from ..core.text import escape
from ..system import descriptors, signals

PIPE_BYTES = 256 << 10

TOO_MANY_PROCESSES = "the user has too many processes (RLIMIT_NPROC)"
"""What EAGAIN means when it comes from execve(2)."""

_STATUS_BYTES = 4096


class StartError(BuildError):
    """The build could not be started; the text says why."""

    kind = "start"


@dataclass(frozen=True)
class Command:
    """What to run: program (absolute path), argv with its name first, the whole environment, limits.

    `umask` is an int such as 0o022; `timeout_sec` and `grace_sec` are seconds; `open_files` is the soft limit of open
    descriptors (RLIMIT_NOFILE), None for that of this process.
    """

    program: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    umask: int
    timeout_sec: float
    grace_sec: float
    open_files: int | None = None


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


def start(command: Command, directory: int, become: Callable[[], None]) -> Build:
    """Fork a child that becomes `command` in the directory that the descriptor `directory` holds.

    The child leads a session and a process group of its own, reads /dev/null, has default signals, no other
    descriptor and `command.umask`; `become` drops its privileges just before execve(2). When any of that, or execve
    itself, fails, the build tells it (`Build.hear`). Raises StartError when there can be no child.
    """
    ends: list[int] = []
    started = time.monotonic()
    try:
        for make in (_pipe, _pipe, _status_pipe):
            ends += make()
        with signals.held(signal.valid_signals()):  # none meets a handler of this process in the child
            pid = os.fork()
            if pid == 0:
                out_read, out_write, err_read, err_write, status_read, status_write = ends
                _run_child(command, directory, become, out_write, err_write, status_write)
    except OSError as exc:
        for fd in ends:
            os.close(fd)
        raise StartError(escape(f"cannot start {command.argv[0]}: {exc.strerror}")) from exc
    out_read, out_write, err_read, err_write, status_read, status_write = ends
    for fd in (out_write, err_write, status_write):
        os.close(fd)
    return Build(pid, {STDOUT: out_read, STDERR: err_read}, status_read, started)


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
    command: Command, directory: int, become: Callable[[], None], out: int, err: int, status: int
) -> None:
    """Turn the forked child into the build, or report on `status` why not; never returns.

    What is the service's is let go of before the drop, as the caller can hold the child from then on.
    """
    step = "prepare"
    try:
        os.setsid()
        signals.restore_defaults()
        directory, out, err, status = (_above_standard(fd) for fd in (directory, out, err, status))
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (err, 2)):
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
        step = "run"
        os.execve(program, argv, environment)
    except BaseException as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        subject = command.argv[0]
        if step == "run":
            subject = command.program
            reason = TOO_MANY_PROCESSES if getattr(exc, "errno", None) == errno.EAGAIN else reason
        line = f"cannot {step} {subject}: {reason}"
        os.write(status, line.encode("utf-8", "backslashreplace")[:_STATUS_BYTES])
    finally:
        os._exit(127)


def _above_standard(fd: int) -> int:
    """Return a duplicate that no dup2(2) onto 0, 1 or 2 overwrites, should the caller have had those closed."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _bytes(text: str) -> bytes:
    """Return the bytes that `text` stands for, whatever locale this process runs in (PEP 383)."""
    return text.encode("utf-8", "surrogateescape")
