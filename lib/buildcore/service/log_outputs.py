"""Where the lines of the log go: the file and its rotation, and the console. Each takes a line whole, or an OSError.

The log's writer owns them. None may block, and a full disk or a console that nobody reads is no end of the writer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

from ..core.settings import Logging
from .log_channel import SEND_FLAGS, record

FILE_NAME = "build-service.log"
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class Target:
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


class Counted:
    """An output that may fail for a while: what it did not take is counted, and told in it later."""

    def __init__(self, output: Target, complain: Callable[[OSError], None]) -> None:
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
                self._output.write(drop_line(self._lost))
            except OSError:
                return False
            self._lost = 0
        return True


class Console(Target):
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
            return lambda data: peer.send(data, SEND_FLAGS)
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


class File(Target):
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


def drop_line(count: int, at_least: bool = False) -> bytes:
    lines = "log line" if count == 1 else "log lines"
    return record("warn", f"{'at least ' if at_least else ''}{count} {lines} dropped", {})


def reason_of(exc: OSError) -> str:
    if exc.errno == errno.ELOOP:  # what O_NOFOLLOW gives; its own text speaks of too many links
        return "it is a symbolic link"
    return exc.strerror or str(exc)
