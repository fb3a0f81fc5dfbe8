"""The command `build-cli`: runs a build on the host, and prints, fails and ends as that build does.

A `make` typed in a container ends here, by way of the wrapper. It must never show a traceback, never hide a
byte of output, and leave no build running when it is gone. Syntax of Python 3.6, and few imports: its
start-up is added to every build.
"""

import errno
import os
import select

try:
    import _signal as signal  # type: ignore[import-not-found]  # what `signal` wraps: it saves the import of enum at each start
except ImportError:
    import signal

from .. import __version__
from ..core import variables
from ..core.errors import BuildError
from ..core.protocol import events, requests
from . import catcher, client, inherited, whereabouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, NoReturn, Optional, Sequence, Set

USAGE = (
    "usage: build-cli [--timeout SECONDS] [--socket PATH] [--request-id ID] [--env NAME=VALUE]..."
    " [--stdio events|pass] [--fallback PROGRAM] COMMAND [ARG]..."
)
ANSWERS = {"-h": USAGE, "--help": USAGE, "--version": "build-cli " + __version__}
FAILURE = 1
MAX_TIMEOUT_DIGITS = 9
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")


class UsageError(BuildError):
    """The command line, or a variable that stands in for an option, is not usable."""

    kind = "usage"


class Options:
    """What the command line says: a command to run, its name first, or an answer to print and nothing to run.

    `env` goes along; `asked` are the names of what was asked for, by --env or BUILD_SERVICE_ENV.
    """

    def __init__(self) -> None:
        self.timeout_sec: "Optional[int]" = None
        self.socket_path: "Optional[str]" = None
        self.request_id: "Optional[str]" = None
        self.env: "Dict[str, str]" = {}
        self.asked: "Set[str]" = set()
        self.fallback: "Optional[str]" = None
        self.stdio = ""
        self.command: "List[str]" = []
        self.answer: "Optional[str]" = None


def main(argv: "Sequence[str]") -> int:
    """Run the command with the arguments `argv`, its own name left out; return the exit code.

    Where the build, or the reader of its output, ended by a signal of this side, the process ends by it too.
    """
    keep_standard_descriptors()
    try:
        options = parse(argv)
        return _run(options) if options.answer is None else _print(options.answer)
    except BuildError as exc:
        return _fail(str(exc))
    except BrokenPipeError:
        catcher.die_by(signal.SIGPIPE)
    except OSError as exc:
        return _fail("build-cli: %s" % (exc.strerror or exc))


def parse(argv: "Sequence[str]") -> Options:
    """Return what the command line says; everything from COMMAND on is the command's. Raises UsageError."""
    return parse_text([client.text(os.fsencode(arg)) for arg in argv])


def parse_text(rest: "List[str]") -> Options:
    """The same for words in the protocol's text."""
    options = Options()
    values = {"--timeout": "", "--socket": "", "--request-id": "", "--fallback": "", "--stdio": ""}
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).partition("=")
        if name in ANSWERS and not equals:
            options.answer = ANSWERS[name]
            return options
        if name == "--" and not equals:
            break
        if name != "--env" and name not in values:
            raise UsageError("build-cli: unknown option %s\n%s" % (name, USAGE))
        if not equals:
            if not rest:
                raise UsageError("build-cli: %s needs a value\n%s" % (name, USAGE))
            value = rest.pop(0)
        if name == "--env":
            variable, equals, value = value.partition("=")
            if not variable or not equals:
                raise UsageError("build-cli: --env takes NAME=VALUE")
            options.env[variable] = value
        else:
            values[name] = value
    if not rest:
        raise UsageError("build-cli: no command\n" + USAGE)
    environ = client.environment()
    options.command = rest
    options.timeout_sec = _timeout(values["--timeout"], "--timeout") or _timeout(
        environ.get("BUILD_SERVICE_TIMEOUT", ""), "BUILD_SERVICE_TIMEOUT"
    )
    options.socket_path = values["--socket"] or None
    options.request_id = values["--request-id"] or None
    options.fallback = values["--fallback"] or None
    options.stdio = _stdio(values["--stdio"], "--stdio") or _stdio(
        environ.get("BUILD_SERVICE_STDIO", ""), "BUILD_SERVICE_STDIO"
    )
    more = environ.get("BUILD_SERVICE_ENV", "").replace(",", " ").split()
    more += variables.allowed(more, environ)  # where they are patterns
    options.asked = set(options.env).union(more)
    options.env = dict(client.forwarded(environ, more), **options.env)
    return options


def _timeout(value: str, name: str) -> "Optional[int]":
    if not value:
        return None
    if value.strip("0123456789") or len(value) > MAX_TIMEOUT_DIGITS or int(value) < 1:
        raise UsageError("build-cli: %s must be a whole number of seconds, at least 1" % name)
    return int(value)


def _stdio(value: str, name: str) -> str:
    if value not in ("", inherited.EVENTS, inherited.PASS):
        raise UsageError("build-cli: %s takes events or pass" % name)
    return value


def _run(options: Options) -> int:
    try:
        connection = client.connect(options.socket_path)
    except client.ConnectError as exc:
        if options.fallback is None:
            raise
        if not exc.missing:
            _fail("%s; running %s here" % (exc, options.fallback))
        _exec_locally(options.fallback, options.command)
    with connection:
        caught = catcher.SignalCatcher(connection)
        connection.send(request_of(options))
        caught.sent()
        try:
            exit_ = _relay(connection, caught)
        except events.ResponseError as exc:
            caught.finish()
            return _fail("invalid response from build-service: %s" % exc)
    caught.finish()
    if exit_.beside and exit_.error is not None and options.fallback is not None:
        _fail("%s; running %s here" % (exit_.error[1], options.fallback))
        _exec_locally(options.fallback, options.command)
    if exit_.env_left_out or exit_.paths_left or not exit_.cwd_compared:
        _tell(exit_, options)
    if exit_.timed_out:
        seconds = exit_.timeout_sec or options.timeout_sec
        write_all(2, b"build timed out after %ds\n" % seconds if seconds else b"build timed out\n")
    return exit_.code


def _tell(exit_: events.Exit, options: Options) -> None:
    from . import left_out  # at most one build in many needs it

    for line in left_out.lines(exit_, options.env, options.asked):
        write_all(2, line.encode("utf-8", "replace") + b"\n")


def request_of(options: Options, check: bool = False) -> requests.Request:
    """Return the request for the command line `options`; with `check` it is only judged. Raises UsageError."""
    umask = os.umask(0)
    os.umask(umask)
    try:
        cwd = client.current_directory()
    except OSError as exc:
        raise UsageError("build-cli: cannot tell the current directory: %s" % exc.strerror) from exc
    descriptors, merge_output = ([], False) if check else inherited.descriptors(options.stdio)
    return requests.Request(
        options.command[0],
        options.command[1:],
        cwd,
        options.timeout_sec,
        options.request_id,
        options.env,
        umask & requests.MAX_UMASK,
        ("details", events.STOPPED) if options.fallback is None else ("details", events.STOPPED, events.BESIDE),
        check,
        descriptors,
        merge_output,
        inherited.niceness(),
        inherited.limits(),
        whereabouts.location(),
    )


def _relay(connection: client.Connection, caught: catcher.SignalCatcher) -> events.Exit:
    """Write the build's output where this process's own would go, until the build's exit."""
    for event in connection.events(caught.wait):
        if isinstance(event, events.Exit):
            return event
        if isinstance(event, events.Stopped):
            caught.stop()
            continue
        write_all(2 if event.stream == events.STDERR else 1, event.data)
    raise events.ResponseError("the connection ended before the build's exit")


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, also to a descriptor that somebody else made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select((), (fd,), ())


def _exec_locally(program: str, command: "Sequence[str]") -> "NoReturn":
    """Become the tool of the container itself. Nothing has run on the host, so nothing is built twice.

    It gets its full path as its name: make calls itself by it, `$(MAKE)`, and so stays on this side throughout.
    """
    for name in IGNORED_BY_PYTHON:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    argv = [arg.encode("utf-8", "surrogateescape") for arg in (program, *command[1:])]
    try:
        os.execve(argv[0], argv, client.raw_environment())
    except OSError as exc:
        raise UsageError("build-cli: cannot run %s: %s" % (program, exc.strerror)) from exc


def keep_standard_descriptors() -> None:
    """Let no descriptor of this program take the place of a closed standard one."""
    while True:
        fd = os.open(os.devnull, os.O_RDONLY)
        if fd > 2:
            os.close(fd)
            return


def _print(line: str) -> int:
    write_all(1, line.encode("utf-8", "surrogateescape") + b"\n")
    return 0


def _fail(line: str) -> int:
    try:
        write_all(2, line.encode("utf-8", "surrogateescape") + b"\n")
    except OSError as exc:
        if exc.errno == errno.EPIPE:
            catcher.die_by(signal.SIGPIPE)
    return FAILURE
