"""The log's writer: the one process that carries finished lines from the channel to the file and the console.

The arbiter forks it. It must never die of a full disk, a blocked console or a signal to the process group; it ends by
itself when the last sender is gone, after the last line is written, or when it is told to retire, after the line in its
hands.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from typing import NoReturn

from ..core.budgets import OTHERS
from ..core.limiter import LeftOut, Limiter
from ..core.settings import Logging
from ..system import descriptors
from ..system.signals import SignalQueue
from .log_channel import Channel, record, unpacked
from .log_outputs import FILE_NAME, Console, Counted, File, drop_line, reason_of

RETIRE = signal.SIGUSR1
WRITER_UMASK = 0o077

_BATCH_LINES = 256  # lines written before the drops are looked at again

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


def fork(config: Logging, channel: Channel) -> int:
    """Fork a writer and return its pid; raises OSError."""
    # No handler of the arbiter may run in the writer, and no signal may end it before it ignores them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _writer_process(config, channel)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _writer_process(config: Logging, channel: Channel) -> NoReturn:
    status = 1
    try:
        # Nothing inherited may be finalised here: it could close a number that by then is the log file's.
        gc.freeze()
        descriptors.close_all_but({descriptors.STDERR, *channel.keep_receiving()})
        descriptors.fill_standard()
        os.chdir("/")
        os.umask(WRITER_UMASK)
        _set_signals()
        _Writer(config, channel).run()
        status = 0
    except BaseException as exc:  # a fault of this file; the arbiter sees the status, starts another writer
        os.write(descriptors.STDERR, record("error", "log writer failed", {"error": repr(exc)}))
    finally:
        os._exit(status)


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

    def __init__(self, config: Logging, channel: Channel) -> None:
        self._limiter = Limiter(config.max_bytes * config.max_files)
        self._channel = channel
        self._path = os.path.join(config.directory, FILE_NAME)
        self._console = Counted(Console(descriptors.STDERR), lambda exc: None)
        self._outputs = [Counted(File(config), self._complain)] if config.directory else []
        if config.console or not config.directory:
            self._outputs.append(self._console)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._channel.receiver, select.POLLIN)
        poll.register(self._channel.drop_receiver, select.POLLIN)
        retired = SignalQueue((RETIRE,))
        poll.register(retired, select.POLLIN)
        more = True
        while more and not retired.take():
            left = self._limiter.due_in(time.monotonic())
            poll.poll(None if left is None else left * 1000)  # whichever it was: all are looked at
            more = self._write_batch()
            # When the last sender is gone, all that it ever counted is in the pipe.
            self._report_drops()
            self._tell(self._limiter.take_left_out(time.monotonic()))
        self._tell(self._limiter.take_all())
        for output in self._outputs:
            output.report()

    def _write_batch(self) -> bool:
        """Write what waits, up to _BATCH_LINES; return False when nothing waits and no sender is left."""
        for _ in range(_BATCH_LINES):
            packet = self._channel.receive()
            if not packet:
                return packet is None
            self._take(packet)
        return True

    def _take(self, packet: bytes) -> None:
        owner, line, short = unpacked(packet)
        if owner is None:
            self._put(line)
            return
        now = time.monotonic()
        if short is not None:
            self._put(line if self._limiter.admits_whole(owner, len(line), len(short), now) else short)
            return
        self._tell(self._limiter.take_left_out(now))
        if self._limiter.admits(owner, len(line), now):
            self._put(line)

    def _tell(self, left_out: list[LeftOut]) -> None:
        for owner, lines, size in left_out:
            who = "other callers" if owner is OTHERS else "a caller"
            fields: dict[str, object] = {"uid": owner, "bytes": size, "lines": lines}
            self._put(record("warn", f"further lines of {who} were left out", fields))

    def _report_drops(self) -> None:
        drops, at_least = self._channel.take_drops()
        if drops:
            self._put(drop_line(drops, at_least))

    def _complain(self, exc: OSError) -> None:
        fields: dict[str, object] = {"path": self._path, "error": reason_of(exc)}
        self._console.put(record("error", "cannot write the log file, lines are dropped", fields))

    def _put(self, line: bytes) -> None:
        for output in self._outputs:
            output.put(line)
