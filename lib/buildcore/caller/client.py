"""The caller's side: connects to a build service, sends one request, and gives its events as they come.

`build-cli` is made of it, and any program can use it:

    result = client.run(["make", "-j4"], cwd="/home/dev1/workspace/app", on_output=handle)

It imports little and keeps to the syntax of Python 3.6, because it starts once for every `make` typed in a
container. It must never send anything before it has a connection, so that a caller can still do without.
"""

import errno
import os
import sys

try:
    import _socket as socket  # what `socket` wraps: it saves the import of six modules at each start
except ImportError:
    import socket  # type: ignore[no-redef]

from ..core import variables
from ..core.errors import BuildError
from ..core.protocol import events, requests
from . import whereabouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Union

DEFAULT_SOCKETS = ("/run/build-service/build-service.sock", "/run/build-service.sock")
SOCKET_VARIABLE = "BUILD_SERVICE_SOCKET"
FD_VARIABLE = "BUILD_SERVICE_FD"
"""Names a descriptor that is connected to a service already."""
RECEIVE_BYTES = 256 << 10
MAX_FD_DIGITS = 7
COERCED = (b"C.UTF-8", b"C.utf8", b"UTF-8")
"""What Python may set LC_CTYPE to."""

ABSENT = (errno.ENOENT, errno.ENOTDIR)

FORWARDED_NAMES = frozenset(variables.BY_CUSTOM + ("JAVA_HOME",))
FORWARDED_PREFIXES = variables.prefixes(variables.BY_CUSTOM)
"""What of the caller's environment goes along, by its name or by how that begins: what builds read, and nothing that is
a secret by habit. The service passes on only what its `build.environment.allow` names; by default that is the same, but
for JAVA_HOME, which an image sets to a place of its own."""


class ConnectError(BuildError):
    """There is no service to talk to; nothing was sent. `missing` tells that no socket was found at all."""

    kind = "connect"

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class Connection:
    """A connection to a service, for one build. Use it in a `with` block, or call `close`."""

    def __init__(self, connection: "socket.socket") -> None:
        self._socket = connection
        self._reader = events.EventReader()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def send(self, request: requests.Request) -> None:
        """Send the request, and along with it the standard descriptors of this process that it names.

        Raises RequestError when it is too long. A service that refuses before it has read everything closes its end:
        the refusal is then there to read.
        """
        line = requests.encode_request(request)
        numbers = [requests.DESCRIPTORS.index(name) for name in request.descriptors]
        try:
            if numbers:
                packed = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
                line = line[self._socket.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]) :]
            self._socket.sendall(line)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def cancel(self, signal: str = "TERM") -> None:
        """Ask the service to end the build, first with `signal` (HUP, INT, QUIT or TERM); events keep coming."""
        self._say(requests.encode_cancel(signal))

    def signal(self, name: str) -> None:
        """Pass a signal on to the build, which goes on: one of PASSED_SIGNALS; STOP and CONT stop its clock too."""
        self._say(requests.encode_signal(name))

    def _say(self, line: bytes) -> None:
        try:
            self._socket.send(line)
        except OSError:
            pass  # the service is gone, or so far behind that closing the connection is the better word

    def events(
        self, wait: "Optional[Callable[[int], None]]" = None
    ) -> "Iterator[Union[events.Output, events.Stopped, events.Exit]]":
        """Give the build's events as they come, an Exit last; Stopped only where the request named it as a feature.

        Raises ResponseError.

        `wait` is called with the connection's descriptor before it is read, to return when it can be: for programs
        that have to hear signals meanwhile.
        """
        while True:
            event = self._reader.next_event()
            if event is not None:
                yield event
                if isinstance(event, events.Exit):
                    return
                continue
            if wait is not None:
                wait(self._socket.fileno())
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except ConnectionError:
                data = b""
            if not data:
                self._reader.receive_eof()
            self._reader.receive_data(data)

    def close(self) -> None:
        """Hang up; a build that still runs is cancelled."""
        self._socket.close()


def connect(path: "Optional[str]" = None, patience_sec: "Optional[float]" = None) -> Connection:
    """Connect to the service at the socket `path`, by default over $BUILD_SERVICE_FD, which is connected, else at
    $BUILD_SERVICE_SOCKET, else at the first of `default_sockets` that answers.

    With `patience_sec` whatever the connection does raises OSError after so many seconds without an answer; a build
    may be silent for as long as it likes. Raises ConnectError with the line for the user.
    """
    if not path and _variable(FD_VARIABLE):
        return Connection(inherited_connection(_variable(FD_VARIABLE), patience_sec))
    path = path or _variable(SOCKET_VARIABLE)
    refusal = None
    for candidate in (path,) if path else default_sockets():
        try:
            return Connection(open_connection(candidate, patience_sec))
        except OSError as exc:
            if exc.errno not in ABSENT:
                refusal = refusal or _refusal(candidate, exc)
    if refusal is not None:
        raise refusal
    line = "build-service socket not found at %s" % (path or DEFAULT_SOCKETS[-1])
    if not path and (os.path.exists("/run/.containerenv") or _variable("container")):
        from . import agents

        line += " (start the container with %s)" % agents.MOUNT
    raise ConnectError(line, missing=True)


def open_connection(path: str, patience_sec: "Optional[float]" = None) -> "socket.socket":
    """Return a socket that is connected to the one at `path`; raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(patience_sec)
        connection.connect(path.encode("utf-8", "surrogateescape"))
        return connection
    except OSError:
        connection.close()
        raise


def inherited_connection(number: str, patience_sec: "Optional[float]" = None) -> "socket.socket":
    """Return the socket of descriptor `number`, which must be connected to somebody who listens; it serves one build.

    Raises ConnectError.
    """
    if number.strip("0123456789") or len(number) > MAX_FD_DIGITS:
        raise ConnectError("BUILD_SERVICE_FD must be the number of a descriptor")
    connection = None
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(int(number)))
        kind = [connection.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_DOMAIN, socket.SO_TYPE)]
        if kind != [socket.AF_UNIX, socket.SOCK_STREAM]:
            raise OSError(errno.EPROTOTYPE, "it is no stream socket of AF_UNIX")
        connection.getpeername()
        connection.settimeout(0)
        if not _is_quiet(connection):
            raise OSError(errno.EPIPE, "the connection was used, or is closed: it serves one build")
        connection.settimeout(patience_sec)
        return connection
    except OSError as exc:
        if connection is not None:
            connection.close()
        reason = exc.strerror or str(exc)
        raise ConnectError("cannot connect to build-service: %s (BUILD_SERVICE_FD=%s)" % (reason, number)) from exc


def _is_quiet(connection: "socket.socket") -> bool:
    """Tell whether nothing came over `connection`, its end neither: a service says nothing unasked."""
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False


def in_container() -> bool:
    """Tell whether this process runs in a container, by what podman and others leave there."""
    return os.path.exists("/run/.containerenv") or os.path.exists("/.dockerenv") or "container" in os.environ


def default_sockets() -> "Tuple[str, ...]":
    """Return where a service may listen: DEFAULT_SOCKETS, and behind them this user's own (`build-service --user`)."""
    runtime = _variable("XDG_RUNTIME_DIR")
    return DEFAULT_SOCKETS + ((runtime + "/build-service/build-service.sock",) if runtime else ())


def run(
    command: "Sequence[str]",
    cwd: "Optional[str]" = None,
    on_output: "Optional[Callable[[str, bytes], None]]" = None,
    timeout_sec: "Optional[int]" = None,
    env: "Optional[Mapping[str, str]]" = None,
    socket_path: "Optional[str]" = None,
    request_id: "Optional[str]" = None,
) -> events.Exit:
    """Run `command` (its name and arguments) in the directory `cwd` on the service's host, to its end.

    `on_output` gets the stream ("stdout" or "stderr") and the bytes of every piece of output; `timeout_sec` is
    in seconds, the service's default when None; `env` is what of the environment goes along, by default
    `forwarded(os.environ)`. Returns the Exit with the code; a refusal is an Exit too, with `error` set and its
    line on stderr. Raises ConnectError and ProtocolError.
    """
    directory = current_directory() if cwd is None else cwd
    request = requests.Request(
        command[0],
        command[1:],
        directory,
        timeout_sec,
        request_id,
        forwarded(environment()) if env is None else env,
        None,
        ("details",),
        location=whereabouts.location(directory),
    )
    with connect(socket_path) as connection:
        connection.send(request)
        for event in connection.events():
            if isinstance(event, events.Exit):
                return event
            if on_output is not None and isinstance(event, events.Output):
                on_output(event.stream, event.data)
    raise events.ResponseError("the connection ended before the build's exit")


def forwarded(environ: "Mapping[str, str]", more: "Sequence[str]" = ()) -> "Dict[str, str]":
    """Return the part of `environ` that goes along with a request: FORWARDED_NAMES, those that begin with one of
    FORWARDED_PREFIXES, and the names `more`."""
    wanted = FORWARDED_NAMES.union(more)
    return {name: value for name, value in environ.items() if name in wanted or name.startswith(FORWARDED_PREFIXES)}


def environment() -> "Dict[str, str]":
    """Return the environment that this process was started with in the protocol's text, whatever the locale."""
    return {text(name): text(value) for name, value in raw_environment().items()}


def raw_environment() -> "Dict[bytes, bytes]":
    """Return the environment that this process was started with.

    From 3.7 on Python sets LC_CTYPE in its own where the locale is C (PEP 538). The kernel keeps what was there before
    (proc(5), /proc/PID/environ).
    """
    environ = dict(os.environb)
    if environ.get(b"LC_CTYPE") in COERCED:
        try:
            with open("/proc/self/environ", "rb", 0) as file:
                given = [line[9:] for line in file.read().split(b"\0") if line.startswith(b"LC_CTYPE=")]
        except OSError:
            return environ
        del environ[b"LC_CTYPE"]
        if given:
            environ[b"LC_CTYPE"] = given[0]
    return environ


def current_directory() -> str:
    """Return the current directory in the protocol's text; raises OSError when it does not exist any more."""
    return text(os.getcwdb())


def text(raw: bytes) -> str:
    """Return bytes of the file system as the protocol carries them: UTF-8, other bytes escaped (PEP 383)."""
    return raw.decode("utf-8", "surrogateescape")


def _variable(name: str) -> str:
    return text(os.environb.get(name.encode("ascii"), b""))


def _refusal(path: str, exc: OSError) -> ConnectError:
    reason = exc.strerror or str(exc)
    hint = ""
    if exc.errno == errno.EACCES and in_container():
        hint = "; in a container, --group-add keep-groups is needed"
    elif exc.errno == errno.EACCES:
        hint = "; %s" % _group_hint(path)
    elif exc.errno == errno.EPERM:  # the modes of files give EACCES: this is a filter on the call itself (seccomp(2))
        from . import agents

        hint = "; " + agents.hint(environment())
    return ConnectError("cannot connect to build-service: %s (%s%s)" % (reason, path, hint))


def _group_hint(path: str) -> str:
    """Return what to do about a socket whose mode keeps this user out, on the host itself."""
    try:
        import grp

        return "you are not in its group %s: build-ctl doctor tells more" % grp.getgrgid(os.stat(path).st_gid).gr_name
    except (ImportError, KeyError, OSError):
        return "build-ctl doctor tells more"
