"""Sees one forked build to its end: hears how it starts, carries its output, and leaves nothing of it running.

`supervise` is called in a process that has no other children, a session as a rule. `launch` has started the build,
`output` carries what it writes to a `Link`, which also brings the caller's cancellation; here is what waits for all of
them, and decides when the build is over. It never polls: it sleeps until a pipe, the link, a signal or a deadline has
something for it.

The ends of a build: the main process exits; the timeout; the caller cancels or goes away; the service stops. They are
its ends from the fork on, as whoever is the caller can hold it before execve(2) already. All but the first climb the
ladder (`core.ladder`), each signal of which goes to everything of the build. What the main process leaves behind climbs
it too, and delays nothing.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from ..core.descent import Process
from ..core.endings import CANCELLED, COMPLETED, STOPPED, TIMED_OUT, Ending
from ..core.ladder import KILL_ATTEMPTS, KILL_WAIT_SEC, Ladder
from ..core.pauses import Pauses
from ..core.timers import LONGEST_WAIT_SEC
from ..system import processes, signals
from .delivery import Delivery
from .launch import Build, Command
from .output import Link, Output
from .place import Place


def signal_below(signum: int) -> None:
    """Send `signum` to everything below this process, as far as its rights go."""
    processes.signal_below(os.getpid(), signum)


def left_below() -> list[Process]:
    """Return what lives below this process, as far as it is to be seen."""
    return processes.descendants(os.getpid())


def supervise(
    command: Command,
    build: Build,
    link: Link,
    queue: signals.SignalQueue,
    signal_all: Callable[[int], None] = signal_below,
    started: Callable[[], None] = lambda: None,
    ended: Callable[[Ending], None] = lambda ending: None,
    place: Place | None = None,
    left: Callable[[], list[Process]] = left_below,
) -> Ending:
    """Carry a forked build to its end and return how it ended; nothing of it runs any more then.

    `queue` catches SIGCHLD, and SIGTERM by which the service stops. `signal_all` sends a signal to everything
    of the build. `started` is called once, when it is on its way no more. `ended` is called once, as soon as nothing of
    the build runs: a slow reader may take its output for a while after that (`delivery`), and `place` is where that is
    told. `left` returns what of the build lives on after the last rung. The build's pipes are closed in the end.
    Raises StartError, and calls neither, when the child says that it cannot become the command. The calling process is
    a subreaper (`linux.set_child_subreaper`) without other children.
    """
    # poll(2) needs no descriptor of its own, so that a machine without any cannot leave a started build alone.
    with selectors.PollSelector() as selector:
        return _Supervision(command, build, link, queue, signal_all, started, ended, place, left, selector).run()


class _Supervision:
    """The state of one `supervise` call: what has ended, what is waited for, what is next."""

    def __init__(
        self,
        command: Command,
        build: Build,
        link: Link,
        queue: signals.SignalQueue,
        signal_all: Callable[[int], None],
        started: Callable[[], None],
        ended: Callable[[Ending], None],
        place: Place | None,
        left: Callable[[], list[Process]],
        selector: selectors.BaseSelector,
    ) -> None:
        self._command = command
        self._build = build
        self._link = link
        self._output = Output(build.pipes, link, lambda fd: self._watch_one(fd, 0))
        self._delivery = Delivery(link, place)
        self._queue = queue
        self._signal_all = signal_all
        self._left = left
        self._tell_started = started
        self._tell_ended = ended
        self._told_ended = False
        self._selector = selector
        self._reason = COMPLETED
        self._status: int | None = None  # of the main process, once it ended
        self._ended = 0.0
        self._ladder = Ladder(command.grace_sec)
        self._pauses = Pauses(command.pause_sec)
        self._deadline: float | None = build.started + command.timeout_sec
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
            self._delivery.go_on(time.monotonic())
            self._tell_once_ended()
        self._tell_once_ended()
        self._output.close()
        if self._build.failed():
            raise self._build.failure()
        return self._ending()

    def _dispatch(self, source: str, events: int) -> None:
        if source in self._output.pipes():
            self._output.read(source)
        elif source == "signals":
            self._hear_signals()
        elif source == "start":
            self._hear_start()
        elif source == "place":
            self._hear_arbiter()
        elif source == "hang_up":
            self._link.hang_up()
        elif events & selectors.EVENT_READ:
            self._hear_caller()

    def _is_over(self) -> bool:
        if self._children_left:
            return False
        if self._build.failed() or self._finished and (self._link.is_gone() or not self._link.has_backlog()):
            return True
        return self._delivery.is_over(time.monotonic())

    # --- what is waited for ---

    def _watch(self) -> None:
        """Watch what can make progress now: a pipe only while there is room for what it holds."""
        gone = self._link.is_gone()
        if self._build.status >= 0:
            self._watch_one(self._build.status, selectors.EVENT_READ, "start")
        if self._delivery.fileno() >= 0:
            self._watch_one(self._delivery.fileno(), selectors.EVENT_READ, "place")
        for stream, fd in self._output.pipes().items():
            self._watch_one(fd, selectors.EVENT_READ if self._output.is_wanted() else 0, stream)
        events = selectors.EVENT_WRITE if self._link.has_backlog() else 0
        if self._link.is_listening():
            events |= selectors.EVENT_READ
        self._watch_one(self._link.fileno(), 0 if gone else events, "link")
        self._watch_one(self._link.hang_up_fileno(), 0 if gone else selectors.EVENT_READ, "hang_up")

    def _watch_one(self, fd: int, events: int, source: str = "") -> None:
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
        deadlines = [at for at in (self._deadline, self._delivery.due()) if at is not None]
        if not deadlines:
            return None
        return max(0.0, min(*deadlines, time.monotonic() + LONGEST_WAIT_SEC) - time.monotonic())

    # --- ends ---

    def _finish_output(self) -> None:
        """End the stream once the main process is gone and what it had written is on its way."""
        if self._finished or self._build.failed() or not self._output.finish():
            return
        self._finished = True
        if not self._link.is_gone():
            self._link.finish(self._ending())
            self._link.flush()

    def _tell_once_ended(self) -> None:
        if not self._children_left and not self._told_ended and not self._build.failed():
            self._told_ended = True
            self._tell_ended(self._ending())
            if not self._is_over():
                self._delivery.begin(time.monotonic())

    def _hear_start(self, at_last: bool = False) -> None:
        """Hear how the child fares on its way to execve(2), `at_last` when it is gone."""
        status = self._build.status
        if status < 0:
            return
        self._build.hear()
        if at_last:
            self._build.let_go()
        if self._build.status < 0:
            self._watch_one(status, 0)
            if not self._build.failed():
                self._tell_started()
        elif self._build.failed() and not self._ladder.begun:  # it ends by itself, unless it is held
            self._deadline = time.monotonic() + KILL_WAIT_SEC

    def _hear_signals(self) -> None:
        came = self._queue.take()
        if signal.SIGCHLD in came:
            self._reap()
        if signal.SIGTERM in came:
            self._delivery.stop_at(time.monotonic() + self._command.grace_sec + KILL_ATTEMPTS * KILL_WAIT_SEC)
            self._end(STOPPED, signal.SIGTERM)

    def _hear_arbiter(self) -> None:
        watched = self._delivery.fileno()
        self._delivery.hear()
        if self._delivery.fileno() < 0:
            self._watch_one(watched, 0)

    def _hear_caller(self) -> None:
        for cancels, signum in self._link.said():
            if cancels:
                self._end(CANCELLED, signum)
            elif self._status is None and not self._ladder.begun:
                self._pass_on(signum)

    def _pass_on(self, signum: signal.Signals) -> None:
        """Send a signal that ends nothing: what a terminal sends to everything of the build, others to its first."""
        if signum in (signal.SIGUSR1, signal.SIGUSR2):
            self._signal_main(signum)
            return
        if signum in (signal.SIGSTOP, signal.SIGCONT):
            if self._pauses.is_paused() == (signum == signal.SIGSTOP):
                return
            self._pause_clock(signum == signal.SIGSTOP)
        with suppress(OSError):  # nothing to find them with
            self._signal_all(signum)
        if signum == signal.SIGSTOP:
            self._link.stopped()

    def _pause_clock(self, pause: bool) -> None:
        now = time.monotonic()
        seconds = self._pauses.begin(now) if pause else -self._pauses.end(now)
        if self._deadline is not None:
            self._deadline += seconds

    def _obey_deadline(self) -> None:
        if self._link.is_gone() and self._status is None:
            self._end(CANCELLED, signal.SIGTERM)
        if self._deadline is None or time.monotonic() < self._deadline:
            return
        if self._ladder.begun:
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
        if self._children_left and self._status is not None and not self._ladder.begun:
            self._start_climbing(signal.SIGTERM)

    def _main_ended(self, status: int) -> None:
        self._status = status
        self._ended = time.monotonic()
        self._hear_start(at_last=True)
        self._output.main_ended()

    def _end(self, reason: str, first: signal.Signals) -> None:
        """Begin the ladder with the signal `first`, or go on to it when a gentler one was sent before."""
        if self._status is None and not self._ladder.begun:
            self._reason = reason
        if self._children_left and self._ladder.leads_to(first):
            self._start_climbing(first)

    def _start_climbing(self, first: signal.Signals) -> None:
        self._ladder.start(first)
        self._climb()

    def _climb(self) -> None:
        """Send the next signal of the ladder to everything of the build, and set the time of the one behind it."""
        rung = self._ladder.climb()
        if rung is None:
            self._give_up()
            return
        signum, wait_sec = rung
        try:
            self._signal_all(signum)
        except OSError:  # nothing to find them with; this needs nothing, and there are more rungs
            self._signal_main_group(signum)
        self._deadline = time.monotonic() + wait_sec

    def _signal_main(self, signum: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self._build.pid, signum)  # not reaped yet, so the number is still its own

    def _signal_main_group(self, signum: int) -> None:
        if self._status is None:  # not reaped yet, so the number is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._build.pid, signum)

    def _give_up(self) -> None:
        """Let go of what no SIGKILL ended, and remember its names."""
        try:
            self._survivors = tuple(f"{process.name}[{process.pid}]" for process in self._left())
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
