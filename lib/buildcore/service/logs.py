"""The log: every process of the service sends finished lines to one writer process, which owns the file.

The arbiter calls `start` once, before it serves; it and the sessions forked from it log through the `Log`
that they share. A sender never blocks and never fails because of the log: what cannot be sent is dropped and
counted, and the writer says how many lines that were. A writer that died is replaced (`restart_writer`); in the same
way a reload puts a writer with other settings in the place of the former one (`resume`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from ..core import text
from ..core.errors import BuildError
from ..core.settings import LEVELS, Logging
from ..system import descriptors, signals
from . import log_writer
from .log_channel import Channel, build_record, open_channel, owners_record, record
from .log_outputs import File, reason_of

WRITER_SEC = 5.0
"""How long a service that has stopped waits for the writer's last line."""


class LogError(BuildError):
    """The log cannot be opened, or its writer cannot be started."""

    kind = "log"


class Log:
    """What a process logs through: a message and its fields by name, in the order of the line.

    Logging never blocks nor raises because of the log's state; after `close` it has no effect.
    """

    def __init__(self, config: Logging, channel: Channel, writer_pid: int) -> None:
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

    def refusal(self, owner: int, message: str, /, **fields: object) -> None:
        """Like `warn`, for what a caller that counts as `owner` can bring about as often as it likes."""
        self.by_caller(owner, "warn", message, **fields)

    def by_caller(self, owner: int, level: str, message: str, /, **fields: object) -> None:
        """The same with any level: a line that may be left out, and is counted then. See `core.limiter`."""
        if self._takes(level):
            self._channel.send(owners_record(owner, level, message, fields))

    def by_callers(self, level: str, message: str, /, **fields: object) -> None:
        """The same for what callers can have repeated and nobody can tell which of them: as the service's own user."""
        self.by_caller(os.getuid(), level, message, **fields)

    def build(self, owner: int, level: str, message: str, /, **fields: object) -> None:
        """For the start and the end of a build whose caller counts as `owner`: never left out, shortened if need be."""
        if self._takes(level):
            self._channel.send(build_record(owner, level, message, fields))

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
        os.kill(self.writer_pid, log_writer.RETIRE)

    def in_child(self) -> None:
        """For a forked session: close what only the arbiter and the writer need."""
        self._channel.keep_sending()

    def close(self) -> None:
        """Send no more from here. The writer ends when all that hold this `Log` have closed it or ended."""
        if self._channel.is_open():
            self._channel.close()

    def wait_writer(self) -> None:
        """For the arbiter, after `close`: wait until the writer has written everything and ended.

        It goes on for as long as there are sessions, and this does not wait for those: WRITER_SEC at most.
        """
        with suppress(ChildProcessError):  # the arbiter's own reaping came first
            signals.await_child(self.writer_pid, WRITER_SEC)

    def _send(self, level: str, message: str, fields: dict[str, object]) -> None:
        if self._takes(level):
            self._channel.send(record(level, message, fields))

    def _takes(self, level: str) -> bool:
        return level in self._levels and self._channel.is_open()


def start(config: Logging) -> Log:
    """Fork the log's writer, return what to log through; for the arbiter, once, while it has one thread.

    The log file is opened first, its directory made if only that is missing (mode 0700), so that a log that
    cannot be written is found here: LogError, one line with path and reason. The same error tells that there
    can be no writer process.
    """
    descriptors.fill_standard()
    config = _proved(config)
    channel = open_channel()
    try:
        return Log(config, channel, _fork_writer(config, channel))
    except LogError:
        channel.close()
        raise


def resume(config: Logging, channel: Sequence[int], writer_pid: int) -> Log:
    """Return what to log through after a reload, on the `channel` (`Log.descriptors`) that the former program opened.

    `writer_pid` is its writer, which writes as the former configuration said. It goes on until `Log.retire_writer`.
    """
    return Log(config, Channel.of(channel), writer_pid)


def _fork_writer(config: Logging, channel: Channel) -> int:
    try:
        return log_writer.fork(config, channel)
    except OSError as exc:
        raise LogError(f"cannot start the log writer: {exc.strerror}") from exc


def _proved(config: Logging) -> Logging:
    """Return `config` with an absolute directory (the writer leaves this one), after its file could be opened."""
    if not config.directory:
        return config
    config = replace(config, directory=os.path.abspath(config.directory))
    file = File(config)
    try:
        file.open()
    except OSError as exc:
        raise LogError(f"cannot open the log file {text.escape(file.path)}: {reason_of(exc)}") from exc
    file.close()
    return config
