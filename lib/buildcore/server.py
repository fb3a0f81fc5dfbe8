"""The arbiter: listens, forks a session per caller, reaps, and ends in order. It reads no byte of any caller.

`socketserver.ForkingMixIn` on a Unix stream server, with its loop replaced by one that sleeps until a caller,
a signal or an ended child wakes it, and its `max_children` wait removed: the arbiter never waits for a build
or a caller. `service.prefork` sessions are forked ahead and are handed their connection over a socket pair
(SCM_RIGHTS, unix(7)). It must never open a path that a caller named, and never block.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import grp
import os
import selectors
import signal
import socket
import socketserver
import stat
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from . import cgroups, protocol, session, signals
from .errors import BuildError
from .link import STOPPING
from .settings import Service as ServiceSettings
from .text import escape

LISTEN_BACKLOG = 1024
ACCEPT_PAUSE_SEC = 0.2
"""How long the arbiter leaves new callers waiting after the machine had no descriptor or memory for one."""

WRITER_PAUSE_SEC = 1.0
"""How long the log waits for its next writer, so that one that ends at once does not end in a storm of forks."""

SESSION_MARGIN_SEC = 10.0
"""What sessions get beyond the ladder to end their builds, before the arbiter kills them as it stops."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class ServerError(BuildError):
    """The service cannot start; the text says why, in one line."""

    kind = "server"


@dataclass(frozen=True)
class Endpoint:
    """The socket file of a listening server: where it is, and which one it is (stat(2))."""

    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Remove the socket file, unless another server has put its own in its place."""
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)
        except OSError:
            pass


def listen(settings: ServiceSettings, private: bool) -> tuple[socket.socket, Endpoint]:
    """Bind the service's socket and return it, listening, with its file. Raises ServerError.

    The file is made under umask 0077 and opened to `socket_group` and `socket_mode` afterwards, or to nobody
    but this user when the service is `private`. A socket file that nobody listens on is replaced; a live
    server's, or anything that is no socket, never is.
    """
    path = settings.socket_path
    directory = os.path.dirname(path)
    group = None if private else _group_id(settings.socket_group)
    try:
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700 if private else 0o755)
        with _only_binder(directory):
            _clear_stale(path)
            listener = _bind(path)
            made = os.lstat(path)
            if group is not None:
                os.chown(path, -1, group)
            os.chmod(path, 0o600 if private else settings.socket_mode)
            listener.listen(LISTEN_BACKLOG)
    except OSError as exc:
        raise ServerError(f"cannot listen on {escape(path)}: {exc.strerror or exc}") from exc
    return listener, Endpoint(path, made.st_dev, made.st_ino)


class Arbiter(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Serves callers on `listener` until SIGTERM or SIGINT; `run` is its whole life."""

    timeout = 0.0  # handle_request is called when a caller is there, and must not wait for another
    block_on_close = False

    def __init__(self, listener: socket.socket, endpoint: Endpoint, service: session.Service) -> None:
        super().__init__(endpoint.path, socketserver.BaseRequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        listener.setblocking(False)
        self._endpoint = endpoint
        self._service = service
        self._queue = signals.SignalQueue(_SIGNALS)
        self._idle: dict[int, socket.socket] = {}  # pid of a session forked ahead -> our end of its channel
        self._sessions: set[int] = set()
        self._listens_again: float | None = None  # when, after the machine had run out of something
        self._writer_starts: float | None = None  # when the log gets its next writer, after one ended
        self._ready_fd: int | None = None  # until the line on it is written
        self._stopping = False

    def run(self, ready_fd: int | None = None) -> None:
        """Serve until told to stop, then end every build by the ladder, and return.

        `ready_fd` gets one line once callers are served, and is closed.
        """
        gc.collect()
        gc.freeze()  # so that the collector of a forked session touches, and copies, none of these pages
        self._service.log.info("build-service listens", socket=self._endpoint.path, pid=os.getpid())
        with selectors.DefaultSelector() as selector:
            selector.register(self._queue, selectors.EVENT_READ)
            selector.register(self.socket, selectors.EVENT_READ)
            self._ready_fd = ready_fd
            self._fork_ahead()
            if ready_fd is not None:
                with suppress(OSError):  # nobody waits any more
                    os.write(ready_fd, b"ready\n")
                os.close(ready_fd)
                self._ready_fd = None
            while not self._stopping:
                self._serve_once(selector)
        self._stop()

    def _serve_once(self, selector: selectors.BaseSelector) -> None:
        deadlines = [at for at in (self._listens_again, self._writer_starts) if at is not None]
        wait = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        ready = [key.fileobj for key, _ in selector.select(wait)]
        self._hear_signals()
        if self._stopping:
            return
        if self.socket in ready:
            self.handle_request()
            if self._listens_again is not None:
                selector.unregister(self.socket)
        now = time.monotonic()
        if self._listens_again is not None and now >= self._listens_again:
            self._listens_again = None
            selector.register(self.socket, selectors.EVENT_READ)
        if self._writer_starts is not None and now >= self._writer_starts:
            self._writer_starts = None
            self._restart_log_writer()
        self._fork_ahead()

    def _hear_signals(self) -> None:
        came = self._queue.take()
        if signal.SIGCHLD in came:
            self._reap()
        if signal.SIGTERM in came or signal.SIGINT in came:
            self._stopping = True

    # --- what socketserver calls ---

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._service.log.error("cannot accept a caller", reason=exc.strerror)
                self._listens_again = time.monotonic() + ACCEPT_PAUSE_SEC
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the caller to a session forked ahead, else fork one for it (and leave the rest to the library)."""
        if self._hand_over(request):
            return
        with _signals_held():
            super().process_request(request, client_address)
        self._sessions |= self.active_children or set()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the forked session: serve the caller."""
        self._become_session()
        session.serve(request, self._service)

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
        while len(self._idle) < self._service.settings.service.prefork:
            ours, theirs = socket.socketpair()
            try:
                with _signals_held():
                    pid = os.fork()
                    if pid == 0:
                        ours.close()
                        self._wait_for_caller(theirs)
            except OSError as exc:
                self._service.log.warn("cannot fork a session ahead", reason=exc.strerror)
                ours.close()
                theirs.close()
                return
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
            for descriptor in descriptors:
                self._serve_descriptor(descriptor)
            status = 0
        finally:
            os._exit(status)

    def _serve_descriptor(self, descriptor: int) -> None:
        connection = socket.socket(fileno=descriptor)
        try:
            session.serve(connection, self._service)
        except Exception:
            self.handle_error(connection, None)
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
                self._sessions.add(pid)
                self.close_request(connection)
                return True
            finally:
                channel.close()
        return False

    def _become_session(self) -> None:
        """In a forked session: let go of everything that is the arbiter's."""
        self.socket.close()
        for channel in self._idle.values():
            channel.close()
        self._idle.clear()
        if self._ready_fd is not None:
            os.close(self._ready_fd)
        self._queue.close()
        self._service.log.in_child()

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
            self._writer_starts = time.monotonic() + WRITER_PAUSE_SEC
            return
        self._sessions.discard(pid)
        if self.active_children:
            self.active_children.discard(pid)
        channel = self._idle.pop(pid, None)
        if channel is not None:
            channel.close()
        if os.WIFSIGNALED(status):
            self._service.log.error("a session was killed", pid=pid, signal=os.WTERMSIG(status))
        if self._service.cgroup is not None:
            group = cgroups.build_path(self._service.cgroup, pid)
            if os.path.isdir(group):
                cgroups.remove(group)

    def _restart_log_writer(self) -> None:
        try:
            self._service.log.restart_writer()
            self._service.log.error("the log writer had ended and was started again")
        except BuildError:  # no process for it: lines wait in its socket meanwhile
            self._writer_starts = time.monotonic() + WRITER_PAUSE_SEC

    def _stop(self) -> None:
        """Take no more callers, have every session end its build, and wait until all are gone."""
        if self._writer_starts is not None:
            self._restart_log_writer()
        self._service.log.info("build-service stops", builds=len(self._sessions))
        self._endpoint.remove()
        with suppress(OSError):  # until none waits any more
            while True:
                connection, _ = self.socket.accept()
                _turn_away(connection, STOPPING)
                connection.close()
        self.socket.close()
        for channel in self._idle.values():
            channel.close()
        grace_sec = self._service.settings.build.timeouts.grace_sec
        deadline = time.monotonic() + grace_sec + SESSION_MARGIN_SEC
        _signal_all(self._sessions, signal.SIGTERM)
        with selectors.DefaultSelector() as selector:
            selector.register(self._queue, selectors.EVENT_READ)
            while self._sessions | set(self._idle) and time.monotonic() < deadline:
                selector.select(max(0.0, deadline - time.monotonic()))
                self._queue.take()
                self._reap()
        for pid in self._sessions:
            self._service.log.error("a session did not end and is killed", pid=pid)
        _signal_all(self._sessions, signal.SIGKILL)
        self._service.log.info("build-service stopped")
        self._queue.close()


def _group_id(name: str) -> int | None:
    """Return the gid of the group `name`, None for no name; raises ServerError."""
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ServerError(f"service.socket_group: there is no group {escape(name)} on this host") from None


@contextmanager
def _only_binder(directory: str) -> Iterator[None]:
    """Hold a lock on the socket's directory, so that of two servers that start at once one finds the other."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _clear_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ServerError(f"cannot listen on {escape(path)}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # somebody listens, and is busy
    raise ServerError(f"cannot listen on {escape(path)}: a build-service is listening there already")


def _bind(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o077)
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


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


def _turn_away(connection: socket.socket, line: str) -> None:
    """Tell a caller in one line that no session serves it, without waiting for it."""
    exit_ = protocol.Exit(session.REFUSAL_EXIT_CODE)
    answer = protocol.encode_output(protocol.STDERR, line.encode() + b"\n") + protocol.encode_exit(exit_)
    try:
        connection.setblocking(False)
        connection.send(answer)
    except OSError:
        pass  # it is gone


def _place(exc: BaseException) -> str:
    """Return the innermost place in the code that `exc` came from, for the log."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "unknown"


def _signal_all(pids: set[int], signum: int) -> None:
    for pid in pids:
        os.kill(pid, signum)  # each is a child that was not reaped yet, so the pid is its own
