"""One caller, from its connection to the end of its build, in a process of its own.

The arbiter forks a session per request. Before the first byte is read, the session takes the caller's
effective ids; parsing happens as the caller, whom the kernel keeps from signalling or tracing it, and so do path
resolution and every access to files, in a thread that can be given up (`planner`). It is root again only to start the
build, to signal what the build left, and for the build's control group. Whatever the caller sent, it gets one clear
line; the session never raises.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from .. import __version__
from ..core import descent, endings, policy, programs
from ..core.errors import BuildError
from ..core.protocol import events, requests
from ..core.settings import Settings
from ..core.text import escape
from ..system import cgroups, identity, linux, origin, processes, signals
from . import apart, launch, planner, sight, supervisor
from .handed import Handed
from .link import STOPPING, CallerLink
from .logs import Log
from .place import Place
from .watch import Stopped, Watch

RECEIVE_BYTES = 64 << 10
GOODBYE_SEC = 2.0
"""How long a refused caller may take to finish its request and read the refusal."""

REFUSAL_EXIT_CODE = 1
NOBODY = identity.Identity(65534, 65534, ())
"""The ids under which a caller that has none of its own is told so (kernel/overflowuid)."""


class NoRequest(BuildError):
    """The caller went away before it asked for anything: a probe, nothing to refuse."""

    kind = "no_request"


@dataclass(frozen=True)
class Service:
    """What every session of a service shares; `only_uid` is set when it serves one user alone.

    `open_files` is the soft limit of open descriptors that the service was started with, and that builds have.
    `build_score` is the OOM score that builds start with. `owner_of` tells as whose a caller's uid counts. `min_uid` is
    the lowest uid that root's service builds for, `first_gid` the lowest gid that is not one of the host's own.
    """

    settings: Settings
    environment: Mapping[str, str]
    log: Log
    only_uid: int | None
    cgroup: str | None
    open_files: int
    build_score: int
    owner_of: Callable[[int], int]
    min_uid: int
    first_gid: int


@dataclass(frozen=True)
class Caller:
    """Whom a session serves: its account, the ids of its build, and the process that connected."""

    account: identity.Account
    ids: identity.Identity
    peer: identity.Peer


def serve(connection: socket.socket, channel: socket.socket, service: Service) -> bool:
    """Serve one caller on `connection`, an accepted Unix stream socket, to the end; `channel` leads to the arbiter.

    Returns whether nothing of its build is left; when it raises, something may be.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the arbiter's to pass on, as SIGTERM
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    queue = signals.SignalQueue((signal.SIGTERM, signal.SIGCHLD))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    linux.set_child_subreaper()
    try:
        if identity.is_privileged():
            apart.become_session()
        return _Session(connection, Place(channel), service, queue).run()
    finally:
        queue.close()


class _Session:
    def __init__(
        self, connection: socket.socket, place: Place, service: Service, queue: signals.SignalQueue
    ) -> None:
        self._connection = connection
        self._place = place
        self._service = service
        self._queue = queue
        self._reader = requests.RequestReader()
        self._handed = Handed()
        self._request_id = os.urandom(8).hex()
        self._features: tuple[str, ...] | None = None
        self._spoke = False
        self._leaves = False
        self._given_up = False  # on a thread: then nothing may follow but words
        self._seen: dict[str, object] = {}  # what is known of the caller so far, for the log
        self._origin: dict[str, object] = {}
        self._owner = NOBODY.uid  # as whose the lines about this caller count

    def run(self) -> bool:
        """Return whether nothing of the build is left."""
        try:
            try:
                caller = self._identify()
            except identity.IdentityError:
                with suppress(requests.RequestError, Stopped):
                    self._read_request()  # how it is told depends on what it understands
                raise
            request = self._read_request()
            self._build(request, caller)
        except NoRequest:
            self._service.log.by_caller(self._owner, "debug", "connection closed without a request", **self._seen)
        except BuildError as refusal:
            self._refuse(refusal)
        except OSError as exc:
            self._refuse(BuildError(f"build-service cannot serve this request: {exc.strerror or exc}"))
        if self._given_up:
            self._service.log.close()  # the thread may keep the process for long, and with it what is open
        return not self._leaves

    # --- who and what ---

    def _identify(self) -> Caller:
        """Find out who calls and take that caller's effective ids, before a byte of it is read."""
        try:
            peer = identity.peer_of(self._connection)
            self._seen = {"uid": peer.uid}
            self._owner = self._service.owner_of(peer.uid)
            self._origin = origin.describe(self._connection, peer.pid)
            only = self._service.only_uid
            account = identity.account_of(peer.uid, self._service.min_uid if only is None else 0)
            if only is not None and peer.uid != only:
                raise identity.IdentityError(f"this build-service serves uid {only} alone")
            if only is None:
                foreign = identity.foreign_groups(peer, account, self._service.first_gid)
                self._origin["foreign_groups"] = foreign or None
                ids = identity.identity_of(peer, account, self._service.settings.build.groups)
            else:
                ids = identity.current()
        except BaseException:
            self._take_ids(NOBODY)
            raise
        self._seen = {"user": account.name}
        self._take_ids(ids)
        return Caller(account, ids, peer)

    def _take_ids(self, ids: identity.Identity) -> None:
        if identity.is_privileged():
            identity.temporarily_become(ids)

    def _read_request(self) -> requests.Request:
        """Return the caller's request; raises NoRequest, Stopped or RequestError."""
        deadline = time.monotonic() + requests.REQUEST_DEADLINE_SEC
        self._connection.setblocking(False)
        with selectors.PollSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._queue, selectors.EVENT_READ)
            while True:
                event = self._reader.next_event()
                if isinstance(event, requests.Request):
                    self._features = event.features
                    self._request_id = event.request_id or self._request_id
                    return event
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise requests.RequestError(
                        f"invalid request: not complete within {requests.REQUEST_DEADLINE_SEC:.0f} s"
                    )
                if signal.SIGTERM in self._queue.take():
                    raise Stopped(STOPPING)
                self._receive()

    def _receive(self) -> None:
        try:
            data = self._handed.receive(self._connection, RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError as exc:
            raise NoRequest(str(exc)) from exc
        self._spoke = self._spoke or bool(data)
        if data:
            self._reader.receive_data(data)
        elif self._spoke:
            self._reader.receive_eof()
        else:
            raise NoRequest("closed")

    # --- the build ---

    def _build(self, request: requests.Request, caller: Caller) -> None:
        self._seen.update(cwd=request.cwd, args=request.args, command=request.command)
        planned = self._plan(request, caller)
        try:
            self._seen["args"] = planned.command.argv[1:]
            if request.check:
                self._answer_check(planned, caller)
            else:
                command = replace(planned.command, open_files=self._service.open_files)
                self._run(command, planned, caller)
        finally:
            planned.cwd.close()

    def _plan(self, request: requests.Request, caller: Caller) -> planner.Planned:
        """Return what the request comes to; raises BuildError."""
        service = self._service
        account = policy.Caller(caller.account.name, caller.account.home, caller.account.shell)

        def entered(cwd: str) -> None:
            self._seen["cwd"] = cwd

        def work() -> planner.Planned:
            build = service.settings.build
            return planner.plan(request, build, account, service.environment, entered, self._handed)

        planning = planner.Planning(work)
        try:
            return planning.wait(Watch(self._connection, self._queue, planner.PLAN_SEC))
        finally:
            self._given_up = planning.given_up

    def _answer_check(self, planned: planner.Planned, caller: Caller) -> None:
        """Tell how the request would be run, and run nothing."""
        build = self._service.settings.build
        answer = {
            "version": __version__,
            "user": caller.account.name,
            "uid": caller.ids.uid,
            "gid": caller.ids.gid,
            "groups": caller.ids.groups,
            "workspace": planned.workspace,
            "cwd": planned.cwd.real,
            "path_mapping": planned.view,
            "program": planned.program,
            "args": planned.command.argv[1:],
            "timeout_sec": planned.timeout_sec,
            "commands": programs.shown(build.commands, build.workspace_commands),
            "env_allow": build.environment.allow,
        }
        known = {**self._seen, "request_id": self._request_id}
        self._service.log.by_caller(self._owner, "debug", "build checked", **known)
        exit_ = planned.told
        exit_.request_id, exit_.check = self._request_id, answer
        say_goodbye(self._connection, events.encode_exit(exit_, self._features is not None))

    def _run(self, command: launch.Command, planned: planner.Planned, caller: Caller) -> None:
        service = self._service
        group = None if service.cgroup is None else cgroups.build_path(service.cgroup, os.getpid())
        no_new_privs = service.settings.build.no_new_privs

        def enter_group() -> None:
            if group is not None:
                cgroups.enter(group)

        def become() -> None:
            apart.become(caller.ids, no_new_privs, service.build_score, enter_group)

        seen = sight.of_build(group)

        def signal_all(signum: int) -> None:
            if group is not None and signum == signal.SIGKILL:
                with identity.as_root():
                    cgroups.kill(group)
            processes.signal_below(os.getpid(), signum, seen)

        def left() -> list[descent.Process]:
            return processes.descendants(os.getpid(), seen)

        def remove_group() -> None:
            with identity.as_root():
                if group is not None:
                    cgroups.remove(group)

        def started() -> None:
            self._log("info", "build started", timeout_sec=planned.timeout_sec, **self._origin)

        def ended(ending: endings.Ending) -> None:
            remove_group()
            self._log_ending(ending)

        link = CallerLink(self._connection, self._reader)
        planned.told.request_id = self._request_id
        link.describe_exit(planned.told, self._features)
        with identity.as_root():
            if group is not None:
                cgroups.create(group)
        try:
            build = launch.start(command, planned.cwd.fd, become, planned.stdio)
            self._handed.let_go()
            self._leaves = True
            ending = supervisor.supervise(
                command, build, link, self._queue, signal_all, started, ended, self._place, left
            )
            self._leaves = bool(ending.survivors)
        except launch.StartError:
            self._leaves = _has_children()
            remove_group()
            raise
        if link.has_backlog():
            self._service.log.refusal(
                self._owner, "a caller did not read its output", **self._seen, request_id=self._request_id
            )
        link.close()

    def _log_ending(self, ending: endings.Ending) -> None:
        message, level = {
            endings.COMPLETED: ("build completed", "info" if ending.code == 0 else "error"),
            endings.TIMED_OUT: ("build timed out", "warn"),
            endings.CANCELLED: ("build cancelled", "warn"),
            endings.STOPPED: ("build cancelled", "warn"),
        }[ending.reason]
        self._log(
            level,
            message,
            exit_code=ending.exit_code,
            duration_sec=ending.duration_sec,
            reason="build-service stops" if ending.reason == endings.STOPPED else None,
            survivors=ending.survivors or None,
        )

    # --- refusals ---

    def _refuse(self, refusal: BuildError) -> None:
        """Tell the caller why nothing runs, in one line, and the log as well."""
        fields = {**self._seen, "reason": str(refusal), "kind": refusal.kind, "request_id": self._request_id}
        self._service.log.refusal(self._owner, "build refused", **fields, **self._origin)
        line = escape(str(refusal)).encode("utf-8", "replace") + b"\n"
        error = (refusal.kind, escape(str(refusal)))
        exit_ = events.Exit(REFUSAL_EXIT_CODE, request_id=self._request_id, error=error, beside=refusal.beside)
        answer = events.encode_exit(exit_, self._features is not None)
        if not refusal.beside or events.BESIDE not in (self._features or ()):
            answer = events.encode_output(events.STDERR, line) + answer
        say_goodbye(self._connection, answer)

    def _log(self, level: str, message: str, **fields: object) -> None:
        known = {**self._seen, **fields, "request_id": self._request_id}
        self._service.log.build(self._owner, level, message, **known)


def say_goodbye(connection: socket.socket, answer: bytes) -> None:
    """Send `answer`, then let the caller finish what it is sending, for GOODBYE_SEC at most.

    A Unix socket that is closed over unread bytes resets the connection (unix(7)), and a caller that is still
    writing its request would see that instead of the answer.
    """
    deadline = time.monotonic() + GOODBYE_SEC
    try:
        connection.settimeout(GOODBYE_SEC)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(RECEIVE_BYTES):
                return
    except OSError:
        return  # the caller is gone, or slow to the end: it was told


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True
