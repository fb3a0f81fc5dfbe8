"""The arbiter: listens, forks a session per caller, reaps, reloads, and ends in order. It reads no byte of any caller.

`socketserver.ForkingMixIn` on a Unix stream server, with its loop replaced by one that sleeps until a caller,
a signal or an ended child wakes it, and its `max_children` wait removed: the arbiter never waits for a build
or a caller. `service.prefork` sessions are forked ahead and are handed their connection over a socket pair
(SCM_RIGHTS, unix(7)). It must never open a path that a caller named, and never block.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import selectors
import signal
import socket
import socketserver
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NoReturn

from .. import __version__
from ..core.errors import BuildError
from ..core.protocol import events
from ..system import cgroups, identity, linux, processes, signals, subids
from ..system.listener import Endpoint
from ..system.notify import Manager
from . import reload as reloading
from . import session
from .link import STOPPING

ACCEPT_PAUSE_SEC = 0.2
"""How long the arbiter leaves new callers waiting after the machine had no descriptor or memory for one."""

RELOAD_PAUSE_SEC = 5.0
"""How long new callers wait for a reload to end, so that who comes after SIGHUP finds the new program."""

WRITER_PAUSE_SEC = 1.0
"""How long the log waits for its next writer, so that one that ends at once does not end in a storm of forks."""

SESSION_MARGIN_SEC = 10.0
"""What sessions get beyond the ladder to end their builds, before the arbiter kills them as it stops."""

FORK_PAUSE_SEC = 1.0
"""How long no session is forked ahead after the machine had no process, descriptor or memory for one."""

ORPHANS_PAUSE_SEC = 1.0
"""How long what a session left runs on when the machine had no descriptor or memory to look for it."""

LEFT_STATUS = 1
"""The exit status of a session that may have left something of its build: the arbiter looks for that."""

LONGEST_WAIT_SEC = 86400.0
"""poll(2) takes no more than 2^31 milliseconds."""

TRIAL_SEC = 60.0
"""How long the installed program may take to check its configuration in a reload."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Arbiter(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Serves callers on `listener` until SIGTERM or SIGINT; `run` is its whole life.

    On SIGHUP it becomes `program`, where it knows one; `handover` is what the process was before it did so.
    """

    timeout = 0.0  # handle_request is called when a caller is there, and must not wait for another
    block_on_close = False

    def __init__(
        self,
        listener: socket.socket,
        endpoint: Endpoint,
        service: session.Service,
        manager: Manager,
        program: reloading.Program | None = None,
        handover: reloading.Handover | None = None,
    ) -> None:
        super().__init__(endpoint.path, socketserver.BaseRequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        listener.setblocking(False)
        self._endpoint = endpoint
        self._service = service
        self._manager = manager
        self._program = program
        self._queue = signals.SignalQueue(_SIGNALS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # a reload held them back until here
        self._selector = selectors.PollSelector()  # needs no descriptor, nor memory for each that it watches
        self._due: dict[Callable[[], None], float] = {}  # what is to be done later, and when
        self._idle: dict[int, socket.socket] = {}  # pid of a session forked ahead -> our end of its channel
        self._handed_over = handover
        self._sessions: dict[int, int] = {}  # pid of a session that serves a caller -> the caller's uid
        self._caller_uid = 0
        self._owners = subids.load()
        self._ending: set[int] = set()  # sessions forked ahead that were hung up on
        self._trial: reloading.Trial | None = None
        self._tries_again = False
        self._told_builds = -1
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
            self._selector.register(self._queue, selectors.EVENT_READ)
            self._selector.register(self.socket, selectors.EVENT_READ)
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

    def _go_on(self, handover: reloading.Handover) -> None:
        """After a reload: take note of what ended meanwhile, and let the next log writer write, as it is to now."""
        self._sessions, self._ending = dict(handover.sessions), set(handover.ending)
        self._reap()
        if self._restart_log_writer in self._due or not handover.writer:
            self._do_in(0.0, self._restart_log_writer)
        else:
            self._service.log.retire_writer()

    def _log_start(self) -> None:
        self._service.log.info(
            "build-service listens",
            socket=self._endpoint.path,
            pid=os.getpid(),
            version=__version__,
            builds=len(self._sessions) or None,
        )

    def _tell_ready(self) -> None:
        if self._ready_fd is not None:
            with suppress(OSError):  # nobody waits any more
                os.write(self._ready_fd, b"ready\n")
            os.close(self._ready_fd)
            self._ready_fd = None
        if not self._manager.tell("READY=1"):
            self._service.log.warn("the service manager does not listen at NOTIFY_SOCKET")
        self._tell_builds()
        if self._manager.watchdog_sec is not None:
            self._kick_watchdog()

    def _tell_builds(self) -> None:
        builds = len(self._sessions)
        if builds != self._told_builds:
            self._told_builds = builds
            self._manager.tell(f"STATUS={builds} {'build' if builds == 1 else 'builds'} running")

    def _kick_watchdog(self) -> None:
        assert self._manager.watchdog_sec is not None
        self._manager.tell("WATCHDOG=1")
        self._do_in(self._manager.watchdog_sec, self._kick_watchdog)

    def _do_in(self, seconds: float, action: Callable[[], None]) -> None:
        self._due[action] = time.monotonic() + seconds

    def _serve_once(self) -> None:
        wait = min(LONGEST_WAIT_SEC, max(0.0, min(self._due.values()) - time.monotonic())) if self._due else None
        ready = [key.fileobj for key, _ in self._selector.select(wait)]
        self._hear_signals()
        if self._stopping:
            return
        if self.socket in ready and self._listen_again not in self._due:
            self.handle_request()
        now = time.monotonic()
        for action in [action for action, at in self._due.items() if at <= now]:
            if self._due.pop(action, None) is not None:  # else one before it has done it, or called it off
                action()
        self._fork_ahead()
        self._tell_builds()

    def _hear_signals(self) -> None:
        came = self._queue.take()
        if signal.SIGCHLD in came:
            self._reap()
        if signal.SIGHUP in came:
            self._try_installed()
        if signal.SIGTERM in came or signal.SIGINT in came:
            self._stopping = True

    def _leave_waiting(self, seconds: float) -> None:
        """Accept nobody for so long: new callers wait in the socket."""
        if self._listen_again not in self._due:
            self._selector.unregister(self.socket)
        self._do_in(seconds, self._listen_again)

    def _listen_again(self) -> None:
        self._due.pop(self._listen_again, None)
        self._selector.register(self.socket, selectors.EVENT_READ)

    # --- what socketserver calls ---

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._service.log.error("cannot accept a caller", reason=exc.strerror)
                self._leave_waiting(ACCEPT_PAUSE_SEC)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a caller who would be one too many, in all or of its user."""
        settings = self._service.settings.service
        try:
            uid = identity.peer_ids(request)[1]
        except OSError as exc:
            self._service.log.error("cannot tell who calls", reason=exc.strerror)
            return False
        self._caller_uid = self._owners.owner_of(uid)  # many subordinate uids are one user all the same
        total, own = len(self._sessions), list(self._sessions.values()).count(self._caller_uid)
        if total < settings.max_connections and own < settings.max_connections_per_user:
            return True
        if total >= settings.max_connections:
            limit = f"{settings.max_connections} callers are served already (service.max_connections)"
        else:
            limit = f"{own} of your builds run already (service.max_connections_per_user)"
        _turn_away(request, f"build-service is busy: {limit}")
        self._service.log.refusal(self._caller_uid, "caller refused", uid=uid, reason=limit)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the caller to a session forked ahead, else fork one for it (and leave the rest to the library)."""
        if _is_gone(request):  # a fork for nobody: who comes and goes in a loop would hold others up with it
            self.shutdown_request(request)
            return
        if self._hand_over(request):
            return
        with _signals_held():
            super().process_request(request, client_address)
        for pid in self.active_children or ():
            self._sessions.setdefault(pid, self._caller_uid)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the forked session: serve the caller."""
        self._become_session()
        if not session.serve(request, self._service):
            os._exit(LEFT_STATUS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what went wrong with one caller: no process for it, or a fault of this program."""
        exc = sys.exc_info()[1] or RuntimeError("unknown")
        self._service.log.error("cannot serve a caller", reason=f"{type(exc).__name__}: {exc}", at=_place(exc))
        reason = getattr(exc, "strerror", None) or "internal error"
        _turn_away(request, f"build-service cannot serve this request: {reason}")

    def collect_children(self, *, blocking: bool = False) -> None:
        """Nothing: children are reaped when SIGCHLD tells of one, and no number of them stops `accept`."""

    # --- sessions ---

    def _fork_ahead(self) -> None:
        if self._fork_ahead in self._due:
            return
        try:
            while len(self._idle) < self._service.settings.service.prefork:
                self._fork_one_ahead()
        except OSError as exc:
            self._service.log.warn("cannot fork a session ahead", reason=exc.strerror)
            self._do_in(FORK_PAUSE_SEC, self._fork_ahead)

    def _fork_one_ahead(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with _signals_held():
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    self._wait_for_caller(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._idle[pid] = ours

    def _wait_for_caller(self, channel: socket.socket) -> NoReturn:
        """In a session forked ahead: wait for its one caller, or for the arbiter's end; never returns.

        Signals stay blocked until the session is ready for them; the arbiter ends an idle one by hanging up.
        """
        status = 1
        try:
            self._become_session()
            _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
            channel.close()
            status = 0 if all(map(self._serve_descriptor, descriptors)) else LEFT_STATUS
        finally:
            os._exit(status)

    def _serve_descriptor(self, descriptor: int) -> bool:
        connection = socket.socket(fileno=descriptor)
        try:
            return session.serve(connection, self._service)
        except Exception:
            self.handle_error(connection, None)
            return False
        finally:
            self.shutdown_request(connection)

    def _hand_over(self, connection: socket.socket) -> bool:
        while self._idle:
            pid, channel = self._idle.popitem()
            try:
                socket.send_fds(channel, [b"\0"], [connection.fileno()])
            except OSError:
                continue  # that session is gone; its end is being reaped
            else:
                self._sessions[pid] = self._caller_uid
                self.close_request(connection)
                return True
            finally:
                channel.close()
        return False

    def _become_session(self) -> None:
        """In a forked session: let go of everything that is the arbiter's."""
        self.socket.close()
        self._hang_up_on_idle()
        if self._ready_fd is not None:
            os.close(self._ready_fd)
        self._queue.close()
        self._service.log.in_child()

    def _hang_up_on_idle(self) -> None:
        """Close the channels of the sessions forked ahead: they end."""
        for channel in self._idle.values():
            channel.close()
        self._ending |= set(self._idle)
        self._idle.clear()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        if pid == self._service.log.writer_pid:
            self._do_in(0.0 if self._service.log.retires else WRITER_PAUSE_SEC, self._restart_log_writer)
            return
        if self._trial is not None and pid == self._trial.pid:
            self._end_trial(self._trial, status)
            return
        if os.WIFSIGNALED(status) and pid in self._known_children():
            self._service.log.error("a session was killed", pid=pid, signal=os.WTERMSIG(status))
        self._sessions.pop(pid, None)
        self._ending.discard(pid)
        if self.active_children:
            self.active_children.discard(pid)
        channel = self._idle.pop(pid, None)
        if channel is not None:
            channel.close()
        if self._service.cgroup is not None:
            group = cgroups.build_path(self._service.cgroup, pid)
            if os.path.isdir(group):
                cgroups.remove(group)
        if status:
            self._kill_orphans()

    def _known_children(self) -> set[int]:
        return {self._service.log.writer_pid, *self._sessions, *self._idle, *self._ending}

    def _kill_orphans(self) -> None:
        """End what a killed session left of its build, and what of it forked away the last time: the arbiter is
        their subreaper, and hears of each that ends."""
        known = self._known_children() | ({self._trial.pid} if self._trial else set())
        own = os.getpid()
        try:
            orphans = [each for each in processes.descendants(own) if each.parent == own and each.pid not in known]
            if orphans:
                processes.kill_trees(orphans)
                names = [f"{orphan.name}[{orphan.pid}]" for orphan in orphans]
                self._service.log.warn("ended what a killed session left running", processes=names)
        except OSError as exc:
            self._service.log.error("cannot look for what a killed session left running", reason=exc.strerror)
            self._do_in(ORPHANS_PAUSE_SEC, self._kill_orphans)

    def _restart_log_writer(self) -> None:
        try:
            self._service.log.restart_writer()
        except BuildError:  # no process for it: lines wait in its socket meanwhile
            self._do_in(WRITER_PAUSE_SEC, self._restart_log_writer)
            return
        if self._handed_over is None:
            self._service.log.error("the log writer had ended and was started again")
        else:  # the first one after a reload
            self._handed_over = None
            self._log_start()

    # --- reload ---

    def _try_installed(self) -> None:
        """Try the installed program; when that ends well, this process becomes it."""
        if self._trial is not None:  # it may have read its file before the last change
            self._tries_again = True
            self._kill_trial()
            return
        self._manager.tell_reloading()
        try:
            if self._program is None:
                raise reloading.ReloadError("the installed program is not known")
            self._service.log.info("build-service reloads", program=self._program.path)
            self._trial = reloading.Trial(self._program, self._handover())
            self._do_in(TRIAL_SEC, self._kill_trial)
            self._leave_waiting(RELOAD_PAUSE_SEC)
        except BuildError as exc:
            self._refuse_reload(exc)

    def _kill_trial(self) -> None:
        if self._trial is not None:
            self._trial.kill()

    def _end_trial(self, trial: reloading.Trial, status: int) -> None:
        self._trial = None
        self._due.pop(self._kill_trial, None)
        try:
            accepted = trial.accepted(status)
            if not self._tries_again and not self._stopping:
                self._become_installed(accepted, trial.program)
        except BuildError as exc:
            if not self._tries_again and not self._stopping:
                self._refuse_reload(exc)
        if self._tries_again and not self._stopping:
            self._tries_again = False
            self._try_installed()

    def _become_installed(self, accepted: reloading.Accepted, program: reloading.Program) -> None:
        with _signals_held():
            if {signal.SIGTERM, signal.SIGINT} & self._queue.take():  # what came just before would be forgotten
                self._stopping = True
                return
            self._hang_up_on_idle()
            reloading.become(accepted.interpreter, program, replace(self._handover(), config=accepted.config))

    def _refuse_reload(self, refusal: BuildError) -> None:
        if self._listen_again in self._due and not self._stopping:
            self._listen_again()
        faults = str(refusal).splitlines()
        for fault in faults:
            self._service.log.error("reload refused, everything stays as it was", fault=fault)
        self._manager.tell("READY=1", f"STATUS=reload refused: {faults[0]}")
        self._told_builds = len(self._sessions)  # the status stays until a build starts or ends

    def _handover(self) -> reloading.Handover:
        log = self._service.log
        return reloading.Handover(
            pid=os.getpid(),
            listener=self.socket.fileno(),
            device=self._endpoint.device,
            inode=self._endpoint.inode,
            ours=self._endpoint.ours,
            channel=log.descriptors(),
            writer=0 if self._restart_log_writer in self._due else log.writer_pid,
            sessions=tuple(self._sessions.items()),
            ending=tuple(self._ending),
        )

    # --- the end ---

    def _stop(self) -> None:
        """Take no more callers, have every session end its build, and wait until all are gone."""
        patience_sec = self._service.settings.build.timeouts.grace_sec + SESSION_MARGIN_SEC
        builds = len(self._sessions)
        self._manager.tell(
            "STOPPING=1", f"STATUS=stopping, {builds} builds to end", f"EXTEND_TIMEOUT_USEC={round(patience_sec * 2e6)}"
        )
        if self._restart_log_writer in self._due:
            self._restart_log_writer()
        self._kill_trial()
        self._service.log.info("build-service stops", builds=builds)
        if self._endpoint.ours:
            self._turn_away_the_waiting()
        self.socket.close()
        self._hang_up_on_idle()
        deadline = time.monotonic() + patience_sec
        _signal_all(self._sessions, signal.SIGTERM)
        with selectors.PollSelector() as selector:
            selector.register(self._queue, selectors.EVENT_READ)
            while (self._sessions or self._ending or self._trial) and time.monotonic() < deadline:
                selector.select(max(0.0, deadline - time.monotonic()))
                self._queue.take()
                self._reap()
        for pid in self._sessions:
            self._service.log.error("a session did not end and is killed", pid=pid)
        _signal_all(self._sessions, signal.SIGKILL)
        self._service.log.info("build-service stopped")
        self._queue.close()

    def _turn_away_the_waiting(self) -> None:
        """Remove the socket and tell who waits in its queue; a socket that somebody else holds keeps them for us."""
        self._endpoint.remove()
        with suppress(OSError):  # until none waits any more
            while True:
                connection, _ = self.socket.accept()
                _turn_away(connection, STOPPING)
                connection.close()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back over a fork, so that none reaches a child that still has the arbiter's handlers.

    The child itself lifts the mask once it has its own; it does not leave the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_gone(connection: socket.socket) -> bool:
    """Tell whether the caller hung up for good: that ends its build (a mere half-close does not), so none is begun."""
    poll = select.poll()
    poll.register(connection, 0)  # POLLHUP and POLLERR come unasked (poll(2))
    return bool(poll.poll(0))


def _turn_away(connection: socket.socket, line: str) -> None:
    """Tell a caller in one line that no session serves it, without waiting for it."""
    exit_ = events.Exit(session.REFUSAL_EXIT_CODE)
    answer = events.encode_output(events.STDERR, line.encode() + b"\n") + events.encode_exit(exit_)
    try:
        connection.setblocking(False)
        connection.send(answer)
    except OSError:
        pass  # it is gone


def _place(exc: BaseException) -> str:
    """Return the innermost place in the code that `exc` came from, for the log."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "unknown"


def _signal_all(pids: Iterable[int], signum: int) -> None:
    for pid in pids:
        os.kill(pid, signum)  # each is a child that was not reaped yet, so the pid is its own
