"""What stands between a caller and its build: checks that name the cause in a line each, with what mends it.

`build-ctl doctor` prints them; other programs can call `examine`. It works on the host and in a container, as any
user, and asks the running service whether it would build, which runs nothing. Syntax of Python 3.6, for the images
that build-cli serves; what only the host has (the configuration) is looked at where it is. It must change nothing.
"""

import errno
import os
import select
import stat
import sys
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..core import namespaces
from ..core.errors import BuildError
from ..core.protocol import events, requests
from ..core.protocol.lines import ProtocolError
from . import agents, build_cli, client, left_out, wrappers

try:
    import _socket as socket
except ImportError:
    import socket  # type: ignore[no-redef]

OK = "ok"
WARNING = "warning"
FAILURE = "failure"


class Finding(NamedTuple):
    """What one check came to: its name, a state (OK, WARNING or FAILURE), a line, and what mends it or ""."""

    check: str
    state: str
    message: str
    fix: str


ANSWER_SEC = 15.0
"""How long the service may take to answer; longer than it gives a caller to ask."""

MAX_SAID_BYTES = 64 << 10
"""How much of what a service says is kept."""

ENDS = ("build completed", "build timed out", "build cancelled")
"""What the log says of a build that has ended."""

TAIL_BYTES = 256 << 10
"""How much of the log's end is searched for the last build."""

OVERFLOW_GID = "/proc/sys/kernel/overflowgid"
START_SERVICE = "on the host: systemctl enable --now build-service.socket, or systemctl --user for your own"
MOUNT_DIRECTORY = "start the container with " + agents.MOUNT
KEEP_GROUPS = "start the container with --group-add keep-groups (crun obeys it, runc does not)"
LOAD_MODULE = "on the host load build-service.cil, or start the container with --security-opt label=disable"
ROOTLESS = "start the container rootless, as yourself, with --userns=keep-id"

SAME_PATHS = "mount the workspace in the container under the path that it has on the host"

FIXES = {
    "identity": ROOTLESS,
    "path": "build below your workspace, or tell the service how it is mounted: build.path_mapping",
    "path_mapping": "build.path_mapping on the host gives this account no workspace",
    "not_allowed": "add it to build.commands in the host's configuration (or to build.workspace_commands, if it is a "
    "program of the workspace), then systemctl reload build-service",
    "start": "install or mend it on the host, or mend its path in build.commands",
    "privilege": "see the service's log on the host",
    "stopping": "try again",
    "internal": "see the service's log on the host",
}
"""What mends a refusal, by its kind (docs/PROTOCOL.md)."""

SUBJECTS = {"identity": "identity", "path": "directory", "path_mapping": "directory", "not_allowed": "command"}
SUBJECTS["start"] = "command"


def examine(
    command: Sequence[str], socket_path: Optional[str] = None, config_path: Optional[str] = None
) -> Iterator[Finding]:
    """Give the findings for `command` (its name and arguments) in the current directory, one after the other.

    `socket_path` and `config_path` are as for build-cli and build-service. A build would work when none is a FAILURE.
    """
    if in_container():
        if "/" not in command[0]:  # else it is for build-cli, whatever it is here
            yield _wrapper(command[0])
        for finding in _root():
            yield finding
    works = False
    for finding in _service(command, socket_path):
        works = finding.state != FAILURE
        yield finding
    for finding in _host(config_path, works):
        yield finding


def _service(command: Sequence[str], socket_path: Optional[str]) -> Iterator[Finding]:
    """Look for the service and ask it; the last finding says whether a build would work."""
    found = None
    failures = []
    for path in (socket_path,) if socket_path else _candidates():
        finding, found = _reach(path)
        if found is not None:
            yield finding
            break
        failures.append(finding)
    if found is None:
        yield next((failure for failure in failures if "not there" not in failure.message), failures[0])
        return
    for finding in _ask(found, command):
        yield finding


in_container = client.in_container


# --- the socket -------------------------------------------------------------------------------------------------------


def _candidates() -> Sequence[str]:
    named = os.environ.get(client.SOCKET_VARIABLE)
    return (named,) if named else client.default_sockets()


def _reach(path: str) -> Tuple[Finding, Optional[socket.socket]]:
    """Connect to the socket at `path`; return what came of it, and the connection if there is one."""

    def failure(message: str, fix: str) -> Tuple[Finding, None]:
        return Finding("socket", FAILURE, "%s: %s" % (path, message), fix), None

    try:
        connection = client.open_connection(path, ANSWER_SEC)
        return Finding("socket", OK, "%s accepts connections" % path, ""), connection
    except OSError as exc:
        if exc.errno == errno.EPERM:
            return failure(*_sandboxed())
        if exc.errno in client.ABSENT:
            return failure("it is not there", MOUNT_DIRECTORY if in_container() else START_SERVICE)
        if exc.errno == errno.EACCES:
            return failure(*_denied(path))
        if exc.errno == errno.ECONNREFUSED and not _is_socket(path):
            return failure("it is no socket", "remove it on the host, and start the service")
        if exc.errno == errno.ECONNREFUSED and _is_mounted(path):
            return failure(
                "nobody listens there any more: this is the file of a socket that was made anew since",
                "mount the socket's directory, not its file: %s" % MOUNT_DIRECTORY,
            )
        if exc.errno == errno.ECONNREFUSED:
            return failure("nobody listens there", START_SERVICE)
        if exc.errno == errno.EAGAIN:
            return failure("the service does not take callers, its queue is full", "see the service's log on the host")
        return failure(exc.strerror or str(exc), START_SERVICE)


def _sandboxed() -> Tuple[str, str]:
    """Tell what keeps this process from sockets, and what opens it."""
    agent = agents.running(client.environment())
    if agent is None:
        return "a sandbox forbids connecting (seccomp)", "build-ctl agents tells what opens those of known agents"
    return "the sandbox of %s forbids connecting" % agent.name, "set %s" % agent.short


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _is_mounted(path: str) -> bool:
    """Tell whether the file itself is a mount point (proc(5), mountinfo), not only a directory above it."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            return os.path.realpath(path) in [line.split(" ")[4] for line in file]
    except OSError:
        return False


def _denied(path: str) -> Tuple[str, str]:
    """Tell why connect(2) answered EACCES, and what mends it: mode, groups, or the label of this process."""
    try:
        found = os.stat(path)
    except OSError:
        directory = os.path.dirname(path)
        return "%s is closed to you" % directory, "on the host: chmod 0755 %s" % directory
    label = _selinux_label()
    groups = set(os.getgroups()) | {os.getegid()}
    group = _group_name(found.st_gid)
    mode = stat.S_IMODE(found.st_mode)
    by_mode = bool(mode & stat.S_IWOTH or (mode & stat.S_IWGRP and found.st_gid in groups))
    if label and "unconfined" not in label and by_mode:
        return "SELinux keeps %s from it" % label, LOAD_MODULE
    if not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "its mode %04o lets only its owner connect" % mode, "on the host: service.socket_mode, or SocketMode="
    if in_container():
        return "this process has not the socket's group", KEEP_GROUPS
    return "you are not in its group %s" % group, "on the host: usermod -aG %s YOU, then log in again" % group


def _selinux_label() -> str:
    """Return the SELinux label of this process, "" where there is no SELinux (AppArmor's have no three colons)."""
    try:
        with open("/proc/self/attr/current", errors="replace") as file:
            label = file.read().strip("\0\n")
    except OSError:
        return ""
    return label if label.count(":") >= 3 else ""


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


# --- the service ------------------------------------------------------------------------------------------------------


def _ask(found: socket.socket, command: Sequence[str]) -> Iterator[Finding]:
    """Ask the service whether it would run `command` here: just what build-cli would ask it to run."""
    with client.Connection(found) as connection:
        try:
            options = build_cli.parse_text(["--"] + list(command))
            request = build_cli.request_of(options, check=True)
            connection.send(request)
        except (build_cli.UsageError, requests.RequestError) as exc:
            line = str(exc).splitlines()[0]
            check = "directory" if "directory" in line else "command"
            yield Finding(check, FAILURE, line, "mend the command line, its variables or its directory")
            return
        try:
            exit_, said = _answer(connection)
            for finding in _judge(exit_, said, request.cwd):
                yield finding
            for told in left_out.of_paths(exit_):
                yield Finding("directory", WARNING, told.partition(": ")[2], SAME_PATHS)
            for finding in _environment(exit_, options):
                yield finding
            for finding in _beside(exit_, command[0]):
                yield finding
        except ProtocolError as exc:
            yield Finding("service", FAILURE, "it gave no valid answer: %s" % exc, "see the service's log on the host")
        except OSError as exc:
            fix = "on the host: systemctl status build-service; journalctl -u build-service"
            yield Finding("service", FAILURE, "it does not answer: %s" % exc.strerror, fix)


def _answer(connection: client.Connection) -> Tuple[events.Exit, str]:
    """Return the exit event and what was said before it. Raises ProtocolError, and OSError after ANSWER_SEC."""
    deadline = time.monotonic() + ANSWER_SEC

    def wait(fd: int) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select((fd,), (), (), left)[0]:
            raise OSError(errno.ETIMEDOUT, "nothing complete within %g s" % ANSWER_SEC)

    said = b""
    for event in connection.events(wait):
        if isinstance(event, events.Exit):
            return event, said.decode("utf-8", "replace").strip()
        if isinstance(event, events.Output):
            said = (said + event.data)[:MAX_SAID_BYTES]
    raise events.ResponseError("the connection ended before the build's exit")


def _judge(exit_: events.Exit, said: str, cwd: str) -> Iterator[Finding]:
    kind, message = exit_.error or ("", said)
    check = exit_.check
    if check is not None:
        for finding in _would_work(check, cwd):
            yield finding
    elif "schema_version" in message:
        yield Finding("service", FAILURE, message, "use the build-cli and build-ctl of the host's version")
    elif message.startswith("invalid request: "):
        yield Finding(
            "service", FAILURE, "it cannot be asked: %s" % message, "it is older than this build-ctl: upgrade it"
        )
    else:
        yield Finding(SUBJECTS.get(kind, "service"), FAILURE, message, FIXES.get(kind, FIXES["internal"]))


def _would_work(check: Dict[str, Any], cwd: str) -> Iterator[Finding]:
    gids, args = check.get("groups"), check.get("args")
    if not isinstance(gids, list) or not isinstance(args, list) or not check.get("program"):
        raise events.ResponseError("a check that does not say how")
    if not all(isinstance(gid, int) for gid in gids):
        raise events.ResponseError("a check with a group that is no number")
    groups = ", ".join(_group_name(gid) if not in_container() else str(gid) for gid in gids)
    yield Finding("service", OK, "build-service %s answers" % check.get("version"), "")
    yield Finding(
        "identity", OK, "builds run as %s (uid %s, groups %s)" % (check.get("user"), check.get("uid"), groups), ""
    )
    yield Finding(
        "directory", OK, "%s is %s on the host, in %s" % (cwd, check.get("cwd"), check.get("workspace")), ""
    )
    words = " ".join([str(check.get("program"))] + [str(word) for word in args])
    yield Finding("command", OK, "%s, for at most %s s" % (words, check.get("timeout_sec")), "")


def _environment(exit_: events.Exit, options: build_cli.Options) -> Iterator[Finding]:
    """Tell what of the variables that are sent a build would not have; an older service does not tell."""
    allow = (exit_.check or {}).get("env_allow")
    if not isinstance(allow, list):
        return
    allow = [str(name) for name in allow]
    allowed = "the host allows %s" % " ".join(allow)
    if not exit_.env_left_out:
        yield Finding("environment", OK, "builds have all variables that are sent; %s" % allowed, "")
        return
    told = left_out.telling(exit_.env_left_out, options.env, options.asked)
    missing = "; ".join(left_out.why_not(exit_.env_left_out, allow))
    fix = "list them in build.environment.allow on the host, or give them as arguments of make"
    state = WARNING if told else OK
    yield Finding("environment", state, "builds have not all: %s; %s" % (missing, allowed), fix if told else "")


def allowed_commands(socket_path: Optional[str] = None) -> List[str]:
    """Return the names that the service allows. Raises BuildError, when it refuses the caller too, and OSError."""
    # No command of this name can be allowed: the refusal, as any other answer, names those that are.
    request = requests.Request("-", (), "/", features=("details",), check=True)
    with client.connect(socket_path, ANSWER_SEC) as connection:
        connection.send(request)
        refusal = _answer(connection)[1]
    _, named, names = refusal.rpartition("(allowed: ")
    if not named:
        raise BuildError(refusal or "this build-service does not tell what it allows")
    return names[:-1].split(", ")


# --- the surroundings -------------------------------------------------------------------------------------------------


def _wrapper(command: str) -> Finding:
    """Tell whether `command`, typed here, is the wrapper."""
    found = wrappers.which(command)
    if found is None:
        return Finding("wrapper", WARNING, "there is no %s on PATH" % command, "install make-wrapper.sh by that name")
    if wrappers.is_wrapper(found):
        return Finding("wrapper", OK, "%s is %s" % (command, found), "")
    return Finding(
        "wrapper", WARNING, "%s is %s, the container's own" % (command, found), "put the wrapper before it on PATH"
    )


def _beside(exit_: events.Exit, command: str) -> Iterator[Finding]:
    """Tell which tools that the service allows are the container's own where `command` is the wrapper: what finds one
    of them, as cmake finds gmake before make, builds here without a word."""
    names = (exit_.check or {}).get("commands")
    wrapper = wrappers.which(command)
    if not in_container() or not isinstance(names, list) or wrapper is None or not wrappers.is_wrapper(wrapper):
        return
    found = wrappers.beside(str(name) for name in names)
    if found:
        told = ", ".join("%s is %s" % each for each in found)
        fix = "; ".join(wrappers.mend(name, path, wrapper) for name, path in found)
        yield Finding("wrapper", WARNING, "%s, the container's own: what calls it builds here, not there" % told, fix)


def _root() -> Iterator[Finding]:
    """Warn of a container whose root is the host's: whoever is root in it can build as any user of the host."""
    try:
        with open("/proc/self/uid_map") as file:
            uid_map = file.read()
    except OSError:
        return
    if namespaces.has_the_host_s_uids(uid_map):
        yield Finding("container", WARNING, "its root is the host's root, and can build as any user", ROOTLESS)


def _host(config_path: Optional[str], works: bool) -> Iterator[Finding]:
    """Look at what only the host has: the configuration, its log, and the last build in that.

    A fault there is a failure unless the service `works`: it serves with what it read before.
    """
    if sys.version_info < (3, 9):  # build-service does not run here
        return
    try:
        from ..core.faults import ConfigError
        from ..system import config
    except ImportError:  # a Python without all of its library, as of python3-minimal: no host of a service
        return

    path = config.locate(config_path, os.environ)
    if config_path is None and not os.access(path, os.R_OK):  # none, or not for this user to read
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        path = base + "/build-service/config.toml"
        if os.geteuid() == 0 or not os.access(path, os.R_OK):
            return
    try:
        settings = config.load(path)
    except ConfigError as exc:
        state = WARNING if works else FAILURE
        for fault in exc.faults:
            yield Finding("configuration", state, fault, "mend it; build-service --check-config tells when it is")
        return
    yield Finding("configuration", OK, "%s is valid" % path, "")
    for warning in config.warnings(settings):
        yield Finding("configuration", WARNING, warning, "")
    if settings.logging.directory:
        for finding in _log(settings.logging.directory):
            yield finding


def _log(directory: str) -> Iterator[Finding]:
    if os.geteuid() != 0 and not os.access(directory, os.R_OK):
        return  # an ordinary user does not see the host's log
    try:
        space = os.statvfs(directory)
    except OSError as exc:
        yield Finding("log", WARNING, "%s: %s" % (directory, exc.strerror), "mkdir -m 0750 %s" % directory)
        return
    if not os.access(directory, os.W_OK):
        yield Finding("log", WARNING, "%s cannot be written: lines are dropped" % directory, "mend its mode or mount")
    elif not space.f_bavail:
        yield Finding("log", WARNING, "%s is full: lines are dropped" % directory, "make room there")
    else:
        yield Finding("log", OK, "%s can be written" % directory, "")
    path = directory + "/build-service.log"
    try:
        last = _last_build(_last_lines(path))
    except ValueError:
        yield Finding("log", WARNING, "%s is no regular file" % path, "move it away, and restart the service")
        return
    if last:
        yield Finding("last build", OK, last, "")


def _last_lines(path: str) -> List[str]:
    """Return the lines in the last TAIL_BYTES of a file, the later ones first; none when it cannot be read.

    Raises ValueError when it is no regular file. Nothing waits for it: opening a FIFO would.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # a socket, or a device that is not there (open(2))
            raise ValueError(path) from exc
        return []
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(path)
        begin = max(0, found.st_size - TAIL_BYTES)
        lines = os.pread(fd, TAIL_BYTES, begin).split(b"\n")
    except OSError:
        return []
    finally:
        os.close(fd)
    whole = lines[1:] if begin else lines  # a line that was cut begins with whatever stood there
    return [line.decode("utf-8", "replace") for line in reversed(whole)]


def _last_build(lines: List[str]) -> str:
    """Return when and how the last build in these lines of the log ended; "" for none."""
    from ..core import text

    for line in lines:
        record = text.parse(line)
        if record is not None and record.message in ENDS and {"user", "exit_code"} <= set(record.fields):
            user, code = record.fields["user"], record.fields["exit_code"]
            return "%s %s, user %s, exit code %s" % (record.time, record.message, user, code)
    return ""
