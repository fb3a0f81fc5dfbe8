"""Runs one build and sees it to its end: starts it, carries its output, and leaves nothing of it running.

`supervise` is called in a process that has no other children, a session as a rule; it obeys the command that
it is given and decides nothing about whether it may run. What the build writes goes to a `Link`, which also
brings the caller's cancellation; this file knows no sockets and no protocol. It never gives the link more
than one read of each pipe beyond what it has room for, however slow the reader is, and it never polls: it
sleeps until a pipe, the link, a signal or a deadline has something for it.

The ends of a build: the main process exits; the timeout; the caller cancels or goes away; the service stops.
All but the first climb one ladder: a signal to everything of the build, `grace_sec` later the next one, and
SIGKILL at last. What the main process leaves behind climbs it too, and delays nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import signal
import stat
import struct
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from ..core.errors import BuildError
from ..core.text import escape
from ..system import descriptors, processes, signals

STDOUT = "stdout"
STDERR = "stderr"
READ_BYTES = 64 << 10
PIPE_BYTES = 256 << 10
KILL_ATTEMPTS = 3
KILL_WAIT_SEC = 2.0
"""What survives so many SIGKILLs, so far apart, is in uninterruptible sleep: it is reported and left."""

COMPLETED = "completed"
TIMED_OUT = "timed_out"
CANCELLED = "cancelled"
STOPPED = "stopped"

TOO_MANY_PROCESSES = "the user has too many processes (RLIMIT_NPROC)"
"""What EAGAIN means when it comes from execve(2)."""

_STATUS_BYTES = 4096
_LONGEST_WAIT_SEC = 86400.0  # epoll_wait(2) takes no more than 2^31 milliseconds


class StartError(BuildError):
    """The build could not be started; the text says why."""

    kind = "start"


@dataclass(frozen=True)
class Command:
    """What to run: program (absolute path), argv with its name first, the whole environment, limits.

    `umask` is an int such as 0o022; `timeout_sec` and `grace_sec` are seconds.
    """

    program: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    umask: int
    timeout_sec: float
    grace_sec: float


@dataclass(frozen=True)
class Ending:
    """How a build ended: why, with which code or signal of its main process, after how many seconds.

    `code` is the exit code that a shell would show: the process's own, or 128 + n for signal n. `survivors`
    names what even SIGKILL did not end.
    """

    reason: str
    code: int
    signal: int | None
    duration_sec: float
    survivors: tuple[str, ...] = ()


class Link(Protocol):
    """Where a build's output goes, and where its caller is heard. None of its methods may block."""

    def fileno(self) -> int:
        """The descriptor to watch: readable when the caller spoke, writable when `flush` gets on."""

    def hang_up_fileno(self) -> int:
        """A descriptor that turns readable when the caller is gone; then `hang_up` is called."""

    def is_gone(self) -> bool:
        """Tell whether nobody is there to read any more."""

    def is_listening(self) -> bool:
        """Tell whether the caller may still say something, so that `fileno` is worth watching for it."""

    def has_room(self) -> bool:
        """Tell whether more output may be sent now."""

    def has_backlog(self) -> bool:
        """Tell whether output waits for the reader to take it."""

    def send(self, stream: str, data: bytes) -> None:
        """Take `data`, written by the build to `stream` (STDOUT or STDERR)."""

    def finish(self, ending: Ending) -> None:
        """Take the end of the stream; nothing is sent behind it."""

    def flush(self) -> None:
        """Write what the reader takes now."""

    def cancellation(self) -> int | None:
        """Read what the caller said: the number of the signal to cancel its build with, None for nothing."""

    def hang_up(self) -> None:
        """Hear that the caller is gone."""


@dataclass
class Build:
    """A started build: its main process and the reading ends of its pipes."""

    pid: int
    pipes: dict[str, int]
    started: float = field(default_factory=time.monotonic)


def start(command: Command, directory: int, become: Callable[[], None]) -> Build:
    """Start `command` in the directory that the descriptor `directory` holds, and return the running build.

    The child leads a session and a process group of its own, reads /dev/null, has default signals, no other
    descriptor and `command.umask`; `become` drops its privileges just before execve(2). Raises StartError when
    any of that, or execve itself, fails: then nothing runs.
    """
    ends: list[int] = []
    try:
        for make in (_pipe, _pipe, _status_pipe):
            ends += make()
        pid = os.fork()
    except OSError as exc:
        for fd in ends:
            os.close(fd)
        raise StartError(escape(f"cannot start {command.argv[0]}: {exc.strerror}")) from exc
    out_read, out_write, err_read, err_write, status_read, status_write = ends
    if pid == 0:
        _run_child(command, directory, become, out_write, err_write, status_write)
    for fd in (out_write, err_write, status_write):
        os.close(fd)
    with open(status_read, "rb") as status:
        failure = status.read(_STATUS_BYTES)
    if failure:
        os.close(out_read)
        os.close(err_read)
        os.waitpid(pid, 0)
        raise StartError(escape(failure.decode("utf-8", "replace")))
    return Build(pid, {STDOUT: out_read, STDERR: err_read})


def why_not(program: str) -> str | None:
    """Tell why this process, by its effective ids, could not execute `program`; None when it could."""
    try:
        mode = os.stat(_bytes(program)).st_mode
    except OSError as exc:
        return exc.strerror
    if stat.S_ISREG(mode) and os.access(_bytes(program), os.X_OK, effective_ids=True):
        return None
    return os.strerror(errno.EACCES)


def signal_below(signum: int) -> None:
    """Send `signum` to everything below this process, as far as its rights go."""
    processes.signal_below(os.getpid(), signum)


def supervise(
    command: Command,
    build: Build,
    link: Link,
    queue: signals.SignalQueue,
    signal_all: Callable[[int], None] = signal_below,
    ended: Callable[[Ending], None] = lambda ending: None,
) -> Ending:
    """Carry a started build to its end and return how it ended; nothing of it runs any more then.

    `queue` catches SIGCHLD, and SIGTERM by which the service stops. `signal_all` sends a signal to everything
    of the build. `ended` is called once, as soon as nothing of the build runs: a slow reader may take its output
    for long after that. The calling process is a subreaper (`linux.set_child_subreaper`) without other children.
    """
    # poll(2) needs no descriptor of its own, so that a machine without any cannot leave a started build alone.
    with selectors.PollSelector() as selector:
        return _Supervision(command, build, link, queue, signal_all, ended, selector).run()


class _Supervision:
    """The state of one `supervise` call: what is still open, where on the ladder it stands, what is next."""

    def __init__(
        self,
        command: Command,
        build: Build,
        link: Link,
        queue: signals.SignalQueue,
        signal_all: Callable[[int], None],
        ended: Callable[[Ending], None],
        selector: selectors.BaseSelector,
    ) -> None:
        self._command = command
        self._build = build
        self._link = link
        self._queue = queue
        self._signal_all = signal_all
        self._tell_ended = ended
        self._told_ended = False
        self._selector = selector
        self._reason = COMPLETED
        self._status: int | None = None  # of the main process, once it ended
        self._ended = 0.0
        self._owed: dict[str, int] = {}  # bytes that the main process left in the pipes
        self._rungs = [signal.SIGTERM] + [signal.SIGKILL] * KILL_ATTEMPTS
        self._climbing = False
        self._deadline: float | None = build.started + command.timeout_sec
        self._patience_ends: float | None = None  # with a slow reader, once the service stops
        self._children_left = True
        self._finished = False
        self._survivors: tuple[str, ...] = ()

    def run(self) -> Ending:
        self._selector.register(self._queue, selectors.EVENT_READ, "signals")
        self._selector.register(self._link.hang_up_fileno(), selectors.EVENT_READ, "hang_up")
        self._reap()  # a build may be over before anyone looks
        self._finish_output()
        if self._link.is_listening():
            self._hear_caller()  # what was said together with the request
        while not self._is_over():
            self._watch()
            for key, events in self._selector.select(self._time_left()):
                self._dispatch(key.data, events)
            self._obey_deadline()
            self._link.flush()
            self._finish_output()
            self._tell_once_ended()
        self._tell_once_ended()
        for stream in list(self._build.pipes):
            self._close(stream)
        return self._ending()

    def _dispatch(self, source: str, events: int) -> None:
        if source in self._build.pipes:
            self._read(source)
        elif source == "signals":
            self._hear_signals()
        elif source == "hang_up":
            self._link.hang_up()
        elif events & selectors.EVENT_READ:
            self._hear_caller()

    def _is_over(self) -> bool:
        if self._children_left:
            return False
        if self._finished and (self._link.is_gone() or not self._link.has_backlog()):
            return True
        return self._patience_ends is not None and time.monotonic() >= self._patience_ends

    # --- what is waited for ---

    def _watch(self) -> None:
        """Watch what can make progress now: a pipe only while there is room for what it holds."""
        gone = self._link.is_gone()
        for stream, fd in self._build.pipes.items():
            wanted = self._status is None and (gone or self._link.has_room())
            self._watch_one(fd, selectors.EVENT_READ if wanted else 0, stream)
        events = selectors.EVENT_WRITE if self._link.has_backlog() else 0
        if self._link.is_listening():
            events |= selectors.EVENT_READ
        self._watch_one(self._link.fileno(), 0 if gone else events, "link")
        self._watch_one(self._link.hang_up_fileno(), 0 if gone else selectors.EVENT_READ, "hang_up")

    def _watch_one(self, fd: int, events: int, source: str) -> None:
        watched = self._selector.get_map().get(fd)
        if watched is None:
            if events:
                self._selector.register(fd, events, source)
        elif not events:
            self._selector.unregister(fd)
        elif watched.events != events:
            self._selector.modify(fd, events, source)

    def _time_left(self) -> float | None:
        """Return the seconds until the next deadline, None to wait for events alone."""
        deadlines = [at for at in (self._deadline, self._patience_ends) if at is not None]
        if not deadlines:
            return None
        return max(0.0, min(*deadlines, time.monotonic() + _LONGEST_WAIT_SEC) - time.monotonic())

    # --- output ---

    def _read(self, stream: str) -> None:
        limit = READ_BYTES if self._status is None else min(READ_BYTES, self._owed.get(stream, 0))
        try:
            data = os.read(self._build.pipes[stream], limit)
        except BlockingIOError:
            self._owed.pop(stream, None)  # whoever opened the pipe through /proc took it
            return
        if not data:
            self._close(stream)
            return
        if self._status is not None:
            self._owed[stream] -= len(data)
        if not self._link.is_gone():
            self._link.send(stream, data)

    def _close(self, stream: str) -> None:
        fd = self._build.pipes.pop(stream)
        self._watch_one(fd, 0, stream)
        os.close(fd)
        self._owed.pop(stream, None)

    def _finish_output(self) -> None:
        """End the stream once the main process is gone and what it had written is on its way.

        That is read without waiting for it: it is there, unless another process with a hold on the pipe took it.
        """
        if self._status is None or self._finished:
            return
        while any(self._owed.values()) and not self._link.is_gone() and self._link.has_room():
            for stream in [stream for stream, owed in self._owed.items() if owed]:
                self._read(stream)
            self._link.flush()
        if not self._link.is_gone() and any(self._owed.values()):
            return
        self._finished = True
        if not self._link.is_gone():
            self._link.finish(self._ending())
            self._link.flush()

    # --- ends ---

    def _tell_once_ended(self) -> None:
        if not self._children_left and not self._told_ended:
            self._told_ended = True
            self._tell_ended(self._ending())

    def _hear_signals(self) -> None:
        came = self._queue.take()
        if signal.SIGCHLD in came:
            self._reap()
        if signal.SIGTERM in came:
            self._patience_ends = time.monotonic() + self._command.grace_sec + KILL_ATTEMPTS * KILL_WAIT_SEC
            self._end(STOPPED, signal.SIGTERM)

    def _hear_caller(self) -> None:
        wanted = self._link.cancellation()
        if wanted is not None:
            self._end(CANCELLED, signal.Signals(wanted))

    def _obey_deadline(self) -> None:
        if self._link.is_gone() and self._status is None:
            self._end(CANCELLED, signal.SIGTERM)
        if self._deadline is None or time.monotonic() < self._deadline:
            return
        if self._climbing:
            self._climb()
        else:
            self._end(TIMED_OUT, signal.SIGTERM)

    def _reap(self) -> None:
        """Take the status of every child that ended, adopted orphans included."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._build.pid:
                    self._main_ended(status)
        except ChildProcessError:
            self._children_left = False
            self._deadline = None
        if self._children_left and self._status is not None and not self._climbing:
            self._start_climbing(signal.SIGTERM)

    def _main_ended(self, status: int) -> None:
        self._status = status
        self._ended = time.monotonic()
        self._owed = {stream: _bytes_waiting(fd) for stream, fd in self._build.pipes.items()}

    def _end(self, reason: str, first: signal.Signals) -> None:
        """Begin the ladder with the signal `first`, or go on to it when a gentler one was sent before."""
        if self._status is None and not self._climbing:
            self._reason = reason
        if self._children_left and (not self._climbing or first in self._rungs):
            self._start_climbing(first)

    def _start_climbing(self, first: signal.Signals) -> None:
        self._climbing = True
        if first in self._rungs:
            del self._rungs[: self._rungs.index(first)]
        else:
            self._rungs.insert(0, first)
        self._climb()

    def _climb(self) -> None:
        """Send the next signal of the ladder to everything of the build, and set the time of the one behind it."""
        if not self._rungs:
            self._give_up()
            return
        signum = self._rungs.pop(0)
        try:
            self._signal_all(signum)
        except OSError:  # nothing to find them with; this needs nothing, and there are more rungs
            self._signal_main_group(signum)
        wait = KILL_WAIT_SEC if signum == signal.SIGKILL else self._command.grace_sec
        self._deadline = time.monotonic() + wait

    def _signal_main_group(self, signum: int) -> None:
        if self._status is None:  # not reaped yet, so the number is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._build.pid, signum)

    def _give_up(self) -> None:
        """Let go of what no SIGKILL ended, and remember its names."""
        try:
            left = processes.descendants(os.getpid())
            self._survivors = tuple(f"{process.name}[{process.pid}]" for process in left)
        except OSError as exc:
            self._survivors = (f"unknown: {exc.strerror}",)
        self._children_left = False
        self._deadline = None
        if self._status is None:
            self._main_ended(signal.SIGKILL)

    def _ending(self) -> Ending:
        status = self._status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if number is None else 128 + number
        return Ending(self._reason, code, number, self._ended - self._build.started, self._survivors)


def _status_pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def _pipe() -> tuple[int, int]:
    """Return a pipe whose reading end does not block and that holds PIPE_BYTES where the system allows it."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    try:
        fcntl.fcntl(write_end, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
    except OSError:
        pass  # fs.pipe-max-size or the user's share is used up: the default size serves
    return read_end, write_end


def _bytes_waiting(fd: int) -> int:
    """Return how many bytes of a pipe wait to be read (FIONREAD, pipe(7))."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])


def _run_child(
    command: Command, directory: int, become: Callable[[], None], out: int, err: int, status: int
) -> None:
    """Turn the forked child into the build, or report on `status` why not; never returns."""
    step = "prepare"
    try:
        directory, out, err, status = (_above_standard(fd) for fd in (directory, out, err, status))
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(source, target, inheritable=True)
        step = "enter the directory for"
        os.fchdir(directory)
        step = "drop privileges for"
        become()
        step = "prepare"
        os.umask(command.umask)
        descriptors.close_all_but({0, 1, 2, status})  # execve(2) closes this one
        signals.restore_defaults()
        step = "run"
        environment = {_bytes(name): _bytes(value) for name, value in command.environment.items()}
        os.execve(_bytes(command.program), [_bytes(argument) for argument in command.argv], environment)
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
