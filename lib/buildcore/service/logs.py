"""The log: every process of the service sends finished lines to one writer process, which owns the file.

The arbiter calls `start` once, before it serves; it and the sessions forked from it log through the `Log`
that they share. A sender never blocks and never fails because of the log: what cannot be sent is dropped and
counted, and the writer says how many lines that were. The writer must never die of a full disk, a blocked
console or a signal to the process group; it ends by itself when the last sender is gone, after the last line
is written.

    senders --- line by line, SOCK_SEQPACKET, MSG_DONTWAIT ---> writer ---> build-service.log, .1, .2 ...
            --- one byte for each dropped line, a pipe  ------>        `--> standard error, if asked

The arbiter keeps the reading ends, so a writer that died is replaced (`restart_writer`) without any session
noticing: what they send meanwhile waits in the socket. In the same way a reload puts a writer with other settings in
the place of the former one (`resume`), which SIGUSR1 tells to end after the line in its hands.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import math
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn

from ..core import text
from ..core.errors import BuildError
from ..core.limiter import Limiter
from ..core.settings import LEVELS, Logging
from ..system.signals import SignalQueue

FILE_NAME = "build-service.log"
TARGET = "build_service"

QUEUE_BYTES = 8 << 20
"""What may wait for the writer, in bytes of socket buffer; who is not root gets at most net.core.wmem_max."""

DROP_PIPE_BYTES = 1 << 20
"""Drops that can be counted while the writer takes no notice of them, one byte each."""

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
WRITER_UMASK = 0o077

_STDERR = 2
_RETIRE = signal.SIGUSR1
_MAX_RECORD_BYTES = text.MAX_LINE_BYTES + len("4294967295\0")
_BATCH_LINES = 256  # lines written before the drops are looked at again
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

# Linux's numbers: Python names SO_SNDBUFFORCE nowhere, the pipe sizes (fcntl(2)) since 3.10.
_SO_SNDBUFFORCE = 32
_F_SETPIPE_SZ = 1031
_F_GETPIPE_SZ = 1032

# The writer outlives what ends the arbiter, so that it writes the arbiter's last lines; SIGPIPE and SIGTTOU
# come from a console that went away or is in the hands of another job, and must not end or stop the file.
_IGNORED_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGPIPE,
    signal.SIGTTOU,
)


class LogError(BuildError):
    """The log cannot be opened, or its writer cannot be started."""

    kind = "log"


@dataclass(frozen=True)
class _Channel:
    """What connects senders and writer: a socket pair for the lines, a pipe for the drops."""

    sender: socket.socket
    receiver: socket.socket
    drop_sender: int
    drop_receiver: int

    def descriptors(self) -> tuple[int, int, int, int]:
        """In the order in which `of` takes them."""
        return self.sender.fileno(), self.receiver.fileno(), self.drop_sender, self.drop_receiver

    @classmethod
    def of(cls, descriptors: Sequence[int]) -> _Channel:
        sender, receiver, drop_sender, drop_receiver = descriptors
        return cls(socket.socket(fileno=sender), socket.socket(fileno=receiver), drop_sender, drop_receiver)

    def close(self) -> None:
        # The socket first: the writer takes its end for "no more drops either".
        self.sender.close()
        self.receiver.close()
        os.close(self.drop_sender)
        os.close(self.drop_receiver)


class Log:
    """What a process logs through: a message and its fields by name, in the order of the line.

    Logging never blocks nor raises because of the log's state; after `close` it has no effect.
    """

    def __init__(self, config: Logging, channel: _Channel, writer_pid: int) -> None:
        self.writer_pid = writer_pid
        self.retires = False
        """Whether the writer was told to end, so that its end is no fault."""
        self._config = config
        self._channel = channel
        self._levels = LEVELS[: LEVELS.index(config.level) + 1]

    def error(self, message: str, /, **fields: object) -> None:
        self._send("error", message, fields)

    def warn(self, message: str, /, **fields: object) -> None:
        self._send("warn", message, fields)

    def refusal(self, uid: int, message: str, /, **fields: object) -> None:
        """Like `warn`, for what a caller with this uid can bring about as often as it likes: see `limiter`."""
        self._send("warn", message, fields, b"%d\0" % uid)

    def info(self, message: str, /, **fields: object) -> None:
        self._send("info", message, fields)

    def debug(self, message: str, /, **fields: object) -> None:
        self._send("debug", message, fields)

    def trace(self, message: str, /, **fields: object) -> None:
        self._send("trace", message, fields)

    def restart_writer(self) -> int:
        """For the arbiter, when it reaped a dead writer: fork another on the same sockets, return its pid.

        Nothing that waits in the socket is lost; the line that the old writer had in its hands may be. Raises
        LogError when there can be no process; the senders go on regardless, and the call can be made again.
        """
        self.writer_pid = _fork_writer(self._config, self._channel)
        self.retires = False
        return self.writer_pid

    def descriptors(self) -> tuple[int, ...]:
        """For the arbiter that reloads: what `resume` takes in the program that it becomes."""
        return self._channel.descriptors()

    def retire_writer(self) -> None:
        """For the arbiter after a reload: have the former writer, a child that was not reaped yet, end.

        `restart_writer` is due when it has.
        """
        self.retires = True
        os.kill(self.writer_pid, _RETIRE)

    def in_child(self) -> None:
        """For a forked session: close the end that only the arbiter and the writer need.

        The reading end of the drop pipe stays: as long as the process itself holds it, counting a drop cannot
        raise SIGPIPE, whatever that signal's disposition is.
        """
        self._channel.receiver.close()

    def close(self) -> None:
        """Send no more from here. The writer ends when all that hold this `Log` have closed it or ended."""
        if not self._closed():
            self._channel.close()

    def wait_writer(self) -> None:
        """For the arbiter, after `close`: wait until the writer has written everything and ended.

        This waits for the sessions that still run, too: their lines are yet to come.
        """
        with suppress(ChildProcessError):  # the arbiter's own reaping came first
            os.waitpid(self.writer_pid, 0)

    def _send(self, level: str, message: str, fields: dict[str, object], key: bytes = b"") -> None:
        if level not in self._levels or self._closed():
            return
        try:
            self._channel.sender.send(key + _line(level, message, fields), _SEND_FLAGS)
        except OSError:
            _count_drop(self._channel.drop_sender)

    def _closed(self) -> bool:
        return self._channel.sender.fileno() < 0


def start(config: Logging) -> Log:
    """Fork the log's writer, return what to log through; for the arbiter, once, while it has one thread.

    The log file is opened first, its directory made if only that is missing (mode 0700), so that a log that
    cannot be written is found here: LogError, one line with path and reason. The same error tells that there
    can be no writer process.
    """
    _fill_standard_descriptors()
    config = _proved(config)
    channel = _open_channel()
    try:
        return Log(config, channel, _fork_writer(config, channel))
    except LogError:
        channel.close()
        raise


def resume(config: Logging, descriptors: Sequence[int], writer_pid: int) -> Log:
    """Return what to log through after a reload, on the channel that the former program opened.

    `writer_pid` is its writer, which writes as the former configuration said. It goes on until `Log.retire_writer`.
    """
    return Log(config, _Channel.of(descriptors), writer_pid)


def _proved(config: Logging) -> Logging:
    """Return `config` with an absolute directory (the writer leaves this one), after its file could be opened."""
    if not config.directory:
        return config
    config = replace(config, directory=os.path.abspath(config.directory))
    file = _File(config)
    try:
        file.open()
    except OSError as exc:
        raise LogError(f"cannot open the log file {text.escape(file.path)}: {_reason(exc)}") from exc
    file.close()
    return config


def _line(level: str, message: str, fields: dict[str, object]) -> bytes:
    """Return the record as it goes over the socket and into the file."""
    now_ms = time.time_ns() // 1_000_000
    return text.line(now_ms, level, TARGET, message, fields).encode("utf-8") + b"\n"


def _count_drop(drop_sender: int) -> None:
    with suppress(OSError):  # the pipe is full, and the writer will say "at least"
        os.write(drop_sender, b"\0")


def _reason(exc: OSError) -> str:
    if exc.errno == errno.ELOOP:  # what O_NOFOLLOW gives; its own text speaks of too many links
        return "it is a symbolic link"
    return exc.strerror or str(exc)


def _fill_standard_descriptors() -> None:
    """Open /dev/null on whichever of 0, 1, 2 is closed: else a socket of ours could be "standard error"."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > _STDERR:
            os.close(descriptor)
            return


def _open_channel() -> _Channel:
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    drop_receiver, drop_sender = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, QUEUE_BYTES)
    except PermissionError:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_BYTES)
    with suppress(OSError):  # an ordinary user with many pipes may not; the usual size will do
        fcntl.fcntl(drop_sender, _F_SETPIPE_SZ, DROP_PIPE_BYTES)
    return _Channel(sender, receiver, drop_sender, drop_receiver)


def _fork_writer(config: Logging, channel: _Channel) -> int:
    """Fork a writer and return its pid."""
    # No handler of the arbiter may run in the writer, and no signal may end it before it ignores them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _writer_process(config, channel)
    except OSError as exc:
        raise LogError(f"cannot start the log writer: {exc.strerror}") from exc
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


# From here on: the writer process.


def _writer_process(config: Logging, channel: _Channel) -> NoReturn:
    status = 1
    try:
        # Nothing inherited may be finalised here: it could close a number that by then is the log file's.
        gc.freeze()
        channel.sender.close()
        os.close(channel.drop_sender)
        _close_inherited(keep={_STDERR, channel.receiver.fileno(), channel.drop_receiver})
        _fill_standard_descriptors()
        os.chdir("/")
        os.umask(WRITER_UMASK)
        _set_signals()
        _Writer(config, channel).run()
        status = 0
    except BaseException as exc:  # a fault of this file; the arbiter sees the status, starts another writer
        os.write(_STDERR, _line("error", "log writer failed", {"error": repr(exc)}))
    finally:
        os._exit(status)


def _close_inherited(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with suppress(OSError):  # the descriptor of this very listing
                os.close(int(name))


def _set_signals() -> None:
    """Forget the arbiter's handlers, ignore what would end the writer too early, unblock the rest."""
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    for signum in _IGNORED_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _Writer:
    """Carries lines from the channel to the outputs until no sender is left; it sleeps in poll(2)."""

    def __init__(self, config: Logging, channel: _Channel) -> None:
        self._limiter = Limiter()
        self._receiver = channel.receiver
        self._drop_receiver = channel.drop_receiver
        self._drop_capacity = fcntl.fcntl(channel.drop_receiver, _F_GETPIPE_SZ)
        self._path = os.path.join(config.directory, FILE_NAME)
        self._console = _Counted(_Console(_STDERR), lambda exc: None)
        self._outputs = [_Counted(_File(config), self._complain)] if config.directory else []
        if config.console or not config.directory:
            self._outputs.append(self._console)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._receiver, select.POLLIN)
        poll.register(self._drop_receiver, select.POLLIN)
        retired = SignalQueue((_RETIRE,))
        poll.register(retired, select.POLLIN)
        more = True
        while more and not retired.take():
            left = self._limiter.due_in(time.monotonic())
            poll.poll(None if left is None else left * 1000)  # whichever it was: all are looked at
            more = self._write_batch()
            # When the last sender is gone, all that it ever counted is in the pipe.
            self._report_drops()
            self._report_left_out(time.monotonic())
        self._report_left_out(math.inf)
        for output in self._outputs:
            output.report()

    def _write_batch(self) -> bool:
        """Write what waits, up to _BATCH_LINES; return False when nothing waits and no sender is left."""
        for _ in range(_BATCH_LINES):
            try:
                line = self._receiver.recv(_MAX_RECORD_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            if not line:
                return False
            self._take(line)
        return True

    def _take(self, record: bytes) -> None:
        key, mark, line = record.partition(b"\0")  # no line holds a NUL
        if not mark:
            self._put(record)
            return
        now = time.monotonic()
        self._report_left_out(now)
        if self._limiter.admits(key, now):
            self._put(line)

    def _report_left_out(self, now: float) -> None:
        for key, count in self._limiter.take_left_out(now):
            fields: dict[str, object] = {"uid": int(key), "lines": count}
            self._put(_line("warn", "further refusals of a caller were left out", fields))

    def _report_drops(self) -> None:
        try:
            drops = len(os.read(self._drop_receiver, self._drop_capacity))
        except BlockingIOError:
            return
        if drops:
            self._put(_drop_line(drops, at_least=drops == self._drop_capacity))

    def _complain(self, exc: OSError) -> None:
        fields: dict[str, object] = {"path": self._path, "error": _reason(exc)}
        self._console.put(_line("error", "cannot write the log file, lines are dropped", fields))

    def _put(self, line: bytes) -> None:
        for output in self._outputs:
            output.put(line)


def _drop_line(count: int, at_least: bool = False) -> bytes:
    lines = "log line" if count == 1 else "log lines"
    return _line("warn", f"{'at least ' if at_least else ''}{count} {lines} dropped", {})


class _Output:
    """Where lines go. A line that broke off, as on a full disk, is ended before the next one begins."""

    broken_off = False

    def write(self, line: bytes) -> None:
        """Write a whole line without blocking, or raise OSError."""
        raise NotImplementedError

    def _push(self, write: Callable[[bytes], int], line: bytes) -> None:
        data = b"\n" + line if self.broken_off else line
        done = 0
        try:
            while done < len(data):
                done += write(data[done:])
        finally:
            if done:
                self.broken_off = not data[:done].endswith(b"\n")


class _Counted:
    """An output that may fail for a while: what it did not take is counted, and told in it later."""

    def __init__(self, output: _Output, complain: Callable[[OSError], None]) -> None:
        self._output = output
        self._complain = complain
        self._lost = 0

    def put(self, line: bytes) -> None:
        """Write `line`, or count it. `complain` is called when a time of losses begins."""
        if not self.report():
            self._lost += 1
            return
        try:
            self._output.write(line)
        except OSError as exc:
            self._lost = 1
            self._complain(exc)

    def report(self) -> bool:
        """Say how many lines were lost, if any were; return False when that cannot be written either."""
        if self._lost:
            try:
                self._output.write(_drop_line(self._lost))
            except OSError:
                return False
            self._lost = 0
        return True


class _Console(_Output):
    """The standard error that the service was started with; systemd's journal reads it there.

    It must not block, and O_NONBLOCK must not be set on it: it is shared with whoever started the service. So
    a pipe or a terminal is opened anew, a socket has MSG_DONTWAIT, and a regular file does not block. Where a
    pipe or terminal cannot be opened (another user's), it is asked with poll(2) before each piece, which for
    a pipe is as good.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._write = self._choose()

    def write(self, line: bytes) -> None:
        self._push(self._write, line)

    def _choose(self) -> Callable[[bytes], int]:
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISREG(mode):
            return lambda data: os.write(self._descriptor, data)
        if stat.S_ISSOCK(mode):
            peer = socket.socket(fileno=os.dup(self._descriptor))
            return lambda data: peer.send(data, _SEND_FLAGS)
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            own = os.open(f"/proc/self/fd/{self._descriptor}", flags)
        except OSError:
            return self._write_if_ready
        return lambda data: os.write(own, data)

    def _write_if_ready(self, data: bytes) -> int:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self._descriptor, data[: select.PIPE_BUF])


class _File(_Output):
    """The log file, FILE_NAME, and before it FILE_NAME.1 (the youngest) and so on, `max_files` in all.

    Another daemon may write to the same file for a while: the sessions of the last one end their builds after
    the next one has started. So each line is one append, the file's name is looked up before it, and a
    rotation is made under a lock.
    """

    def __init__(self, config: Logging) -> None:
        self._directory = config.directory
        self._max_bytes = config.max_bytes
        self._max_files = config.max_files
        self._descriptor = -1
        self.path = os.path.join(self._directory, FILE_NAME)

    def open(self) -> None:
        """Open the file to append; make it and its directory if missing. OSError for a link or a device."""
        with suppress(FileExistsError):
            os.mkdir(self._directory, DIRECTORY_MODE)
        # Reading is for one byte, the last one. O_NONBLOCK: a FIFO of that name must not hold the daemon up.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
        descriptor = os.open(self.path, flags | os.O_CLOEXEC, FILE_MODE)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        self.close()
        self._descriptor = descriptor
        # A writer that was killed, or a crash of the machine, may have left half a line.
        self.broken_off = status.st_size > 0 and os.pread(descriptor, 1, status.st_size - 1) != b"\n"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, line: bytes) -> None:
        if not self._is_current():
            self.open()
        size = os.fstat(self._descriptor).st_size
        if size > 0 and size + len(line) > self._max_bytes:
            self._rotate()
        self._push(lambda data: os.write(self._descriptor, data), line)

    def _is_current(self) -> bool:
        """Tell whether the open file still has that name: was neither rotated, moved nor removed."""
        if self._descriptor < 0:
            return False
        try:
            named = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._descriptor))

    def _rotate(self) -> None:
        """Rename every file to its next number and open a new one; go on with this one if that fails.

        The lock is asked for without waiting: who holds it is at this very moment doing the same, and a line
        more in the old file is better than a log that stands still. It goes away with the descriptor.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        try:
            if self._is_current():
                self._shift()
        except OSError:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            return  # the directory takes no changes; the file still may
        self.open()

    def _shift(self) -> None:
        number = self._max_files - 1
        # More than max_files are there after the setting was lowered.
        while _remove(self._numbered(number)):
            number += 1
        for number in range(self._max_files - 1, 0, -1):
            with suppress(FileNotFoundError):  # there are not so many yet
                os.rename(self._numbered(number - 1), self._numbered(number))

    def _numbered(self, number: int) -> str:
        return f"{self.path}.{number}" if number else self.path


def _remove(path: str) -> bool:
    """Remove a file; return False when there was none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
