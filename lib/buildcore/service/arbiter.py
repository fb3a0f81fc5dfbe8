"""The arbiter: waits for callers, signals and ended children, reaps, reloads, and ends in order.

One thread that sleeps in one select. `server` accepts, `children` are the sessions, `reloader` tries the installed
program. It must never open a path that a caller named, and never block.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from .. import __version__
from ..core import places
from ..core.errors import BuildError
from ..core.timers import Timers
from ..system import linux, signals
from ..system.listener import Endpoint
from ..system.notify import Manager
from . import reload, session
from .children import SIGNALS, Children
from .link import STOPPING
from .orphans import Orphans
from .reloader import Reloader
from .server import Server
from .status import Status

WRITER_PAUSE_SEC = 1.0
"""How long the log waits for its next writer, so that one that ends at once does not end in a storm of forks."""

SESSION_MARGIN_SEC = 10.0
"""What sessions get beyond the ladder to end their builds, before the arbiter kills them as it stops."""

FORK_PAUSE_SEC = 1.0
"""How long no session is forked ahead after the machine had no process, descriptor or memory for one."""

REAPED_AT_ONCE = 256
"""Ended children that are taken note of before callers are heard again."""

LEFT_SEC = 5.0
"""How long the end of what sessions left may take when the service stops."""


class Arbiter:
    """Serves callers on `listener` until SIGTERM or SIGINT; `run` is its whole life.

    On SIGHUP it becomes `program`, where it knows one; `handover` is what the process was before it did so.
    """

    def __init__(
        self,
        listener: socket.socket,
        endpoint: Endpoint,
        service: session.Service,
        manager: Manager,
        program: reload.Program | None = None,
        handover: reload.Handover | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._service = service
        self._log = service.log
        self._handed_over = handover
        self._queue = signals.SignalQueue(SIGNALS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a reload held them back until here
        self._selector = selectors.PollSelector()  # needs no descriptor, nor memory for each that it watches
        self._selector.register(self._queue, selectors.EVENT_READ)
        self._timers = Timers()
        limits = places.Limits(
            service.settings.service.max_connections, service.settings.service.max_connections_per_user
        )
        self._children = Children(self._let_go, self._selector, limits)
        self._server = Server(listener, endpoint.path, service, self._children, self._selector, self._timers)
        self._status = Status(manager, self._children, self._timers)
        self._reloader = Reloader(
            program, service.log, self._status, self._server, self._timers, self._handover, self._become
        )
        self._orphans = Orphans(
            service.log, self._timers, self._own_children, self._children.become_session, service.cgroup
        )
        self._ready_fd: int | None = None  # until the line on it is written
        self._stopping = False

    def run(self, ready_fd: int | None = None) -> None:
        """Serve until told to stop, then end every build by the ladder, and return.

        `ready_fd` gets one line once callers are served, and is closed.
        """
        linux.set_child_subreaper()
        gc.collect()
        gc.freeze()  # so that the collector of a forked session touches, and copies, none of these pages
        with self._selector:
            self._ready_fd = ready_fd
            if self._handed_over is not None:
                self._go_on(self._handed_over)
            else:
                self._log_start()
            self._fork_ahead()
            self._tell_ready()
            while not self._stopping:
                self._serve_once()
            self._stop()

    def _go_on(self, handover: reload.Handover) -> None:
        """After a reload: take note of what ended meanwhile, and let the next log writer write, as it is to now."""
        self._children.take_over(handover)
        self._reap()
        self._orphans.seek()  # what looked before the reload has ended, or is one of those that are about to
        if self._restart_log_writer in self._timers or not handover.writer:
            self._timers.set(self._restart_log_writer, time.monotonic())
        else:
            self._log.retire_writer()

    def _log_start(self) -> None:
        self._log.info(
            "build-service listens",
            socket=self._endpoint.path,
            pid=os.getpid(),
            version=__version__,
            builds=self._children.count() or None,
        )

    def _tell_ready(self) -> None:
        if self._ready_fd is not None:
            with suppress(OSError):  # nobody waits any more
                os.write(self._ready_fd, b"ready\n")
            os.close(self._ready_fd)
            self._ready_fd = None
        if not self._status.ready():
            self._log.warn("the service manager does not listen at NOTIFY_SOCKET")
        self._status.builds()
        self._status.kick_watchdog()

    def _serve_once(self) -> None:
        keys = [key for key, _ in self._selector.select(self._timers.wait_sec(time.monotonic()))]
        ready = [key.fileobj for key in keys]
        for key in keys:
            if key.data is not None:
                self._children.hear(key.data)
        self._hear_signals()
        if self._stopping:
            return
        if self._server.socket in ready and self._server.is_listening():
            self._server.handle_request()
        for action in self._timers.take_due(time.monotonic()):
            action()
        self._fork_ahead()
        self._status.builds()

    def _hear_signals(self) -> None:
        came = self._queue.take()
        if signal.SIGTERM in came or signal.SIGINT in came:  # first, so that an ended trial is not become any more
            self._stopping = True
            self._reloader.stop()
        if signal.SIGCHLD in came:
            self._reap()
        if signal.SIGHUP in came and not self._stopping:
            self._reloader.begin()

    # --- children ---

    def _fork_ahead(self) -> None:
        if self._fork_ahead in self._timers:
            return
        try:
            self._children.fork_ahead(self._service.settings.service.prefork, self._server.serve_handed_over)
        except OSError as exc:
            self._log.by_callers("warn", "cannot fork a session ahead", reason=exc.strerror)
            self._timers.set(self._fork_ahead, time.monotonic() + FORK_PAUSE_SEC)

    def _let_go(self) -> None:
        """In a forked session: close what is the arbiter's."""
        self._server.socket.close()
        if self._ready_fd is not None:
            os.close(self._ready_fd)
        self._queue.close()
        self._log.in_child()

    def _own_children(self) -> set[int]:
        return {self._log.writer_pid, *self._children.known(), *self._reloader.pids(), *self._orphans.pids()}

    def _reap(self) -> None:
        for _ in range(REAPED_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._log.writer_pid:
                pause = 0.0 if self._log.retires else WRITER_PAUSE_SEC
                self._timers.set(self._restart_log_writer, time.monotonic() + pause)
            elif pid in self._reloader.pids():
                self._reloader.trial_ended(status)
            elif pid in self._orphans.pids():
                self._orphans.ended(status)
            else:
                self._session_ended(pid, status)
        self._timers.set(self._reap, time.monotonic())  # the rest, when those who wait were heard

    def _session_ended(self, pid: int, status: int) -> None:
        """Take the wait status of a session, or of an orphan: what either leaves comes to this process."""
        known = pid in self._children.known()
        if os.WIFSIGNALED(status) and known:
            self._log.by_callers("error", "a session was killed", pid=pid, signal=os.WTERMSIG(status))
        self._children.forget(pid)
        self._orphans.session_ended(pid, left=bool(status) or not known)

    def _restart_log_writer(self) -> None:
        try:
            self._log.restart_writer()
        except BuildError:  # no process for it: lines wait in its socket meanwhile
            self._timers.set(self._restart_log_writer, time.monotonic() + WRITER_PAUSE_SEC)
            return
        if self._handed_over is None:
            self._log.error("the log writer had ended and was started again")
        else:  # the first one after a reload
            self._handed_over = None
            self._log_start()

    # --- reload ---

    def _become(self, accepted: reload.Accepted, program: reload.Program) -> None:
        """Become `program`; return when a signal to stop came first. Raises ReloadError."""
        with signals.held(SIGNALS):
            if {signal.SIGTERM, signal.SIGINT} & self._queue.take():  # what came just before would be forgotten
                self._stopping = True
                return
            self._children.hang_up_on_idle()
            reload.become(accepted.interpreter, program, replace(self._handover(), config=accepted.config))

    def _handover(self) -> reload.Handover:
        return reload.Handover(
            pid=os.getpid(),
            listener=self._server.socket.fileno(),
            device=self._endpoint.device,
            inode=self._endpoint.inode,
            ours=self._endpoint.ours,
            channel=self._log.descriptors(),
            writer=0 if self._restart_log_writer in self._timers else self._log.writer_pid,
            sessions=tuple(self._children.serving.items()),
            ending=(*self._children.ending, *self._orphans.pids()),
            places=self._children.places(),
            delivering=tuple(self._children.delivering),
            open_files=self._service.open_files,
            build_score=self._service.build_score,
        )

    # --- the end ---

    def _stop(self) -> None:
        """Take no more callers, have every session end its build, and wait until all are gone."""
        patience_sec = self._service.settings.build.timeouts.grace_sec + SESSION_MARGIN_SEC
        self._status.stopping(patience_sec)
        if self._restart_log_writer in self._timers:
            self._restart_log_writer()
        self._reloader.stop()
        self._log.info("build-service stops", builds=self._children.count())
        if self._endpoint.ours:  # a socket that somebody else holds keeps those who wait in it for the next service
            self._endpoint.remove()
            self._server.turn_away_the_waiting(STOPPING)
        self._server.socket.close()
        self._children.hang_up_on_idle()
        self._children.signal_serving(signal.SIGTERM)
        self._await_end(lambda: self._own_children() - {self._log.writer_pid}, patience_sec)
        for pid in self._children.serving:
            self._log.error("a session did not end and is killed", pid=pid)
        self._children.signal_serving(signal.SIGKILL)
        self._await_end(self._children.known, LEFT_SEC)
        self._orphans.seek_at_last()
        self._await_end(self._orphans.pids, LEFT_SEC)
        self._orphans.kill()
        self._log.info("build-service stopped")
        self._queue.close()

    def _await_end(self, pids: Callable[[], set[int]], seconds: float) -> None:
        """Reap until none of these is left, for so long at most."""
        deadline = time.monotonic() + seconds
        with selectors.PollSelector() as selector:
            selector.register(self._queue, selectors.EVENT_READ)
            while (pids() or self._reap in self._timers) and (left := deadline - time.monotonic()) > 0:
                selector.select(0.0 if self._reap in self._timers else left)
                self._queue.take()
                self._timers.cancel(self._reap)
                self._reap()
