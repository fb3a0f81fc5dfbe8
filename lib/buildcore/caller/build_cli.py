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
from ..core.errors import BuildError
from ..core.protocol import events, requests
from . import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, NoReturn, Optional, Sequence

USAGE = (
    "usage: build-cli [--timeout SECONDS] [--socket PATH] [--request-id ID] [--env NAME=VALUE]..."
    " [--fallback PROGRAM] COMMAND [ARG]..."
)
ANSWERS = {"-h": USAGE, "--help": USAGE, "--version": "build-cli " + __version__}
FAILURE = 1
MAX_TIMEOUT_DIGITS = 9
CANCEL_SIGNALS = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGHUP: "HUP"}
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")


class UsageError(BuildError):
    """The command line, or a variable that stands in for an option, is not usable."""

    kind = "usage"


class Options:
    """What the command line says: a command to run, its name first, or an answer to print and nothing to run."""

    def __init__(self) -> None:
        self.timeout_sec: "Optional[int]" = None
        self.socket_path: "Optional[str]" = None
        self.request_id: "Optional[str]" = None
        self.env: "Dict[str, str]" = {}
        self.fallback: "Optional[str]" = None
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
        die_by(signal.SIGPIPE)
    except OSError as exc:
        return _fail("build-cli: %s" % (exc.strerror or exc))


def parse(argv: "Sequence[str]") -> Options:
    """Return what the command line says; everything from COMMAND on is the command's. Raises UsageError."""
    return parse_text([client.text(os.fsencode(arg)) for arg in argv])


def parse_text(rest: "List[str]") -> Options:
    """The same for words in the protocol's text."""
    options = Options()
    values = {"--timeout": "", "--socket": "", "--request-id": "", "--fallback": ""}
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
    more = environ.get("BUILD_SERVICE_ENV", "").replace(",", " ").split()
    options.env = dict(client.forwarded(environ, more), **options.env)
    return options


def _timeout(value: str, name: str) -> "Optional[int]":
    if not value:
        return None
    if value.strip("0123456789") or len(value) > MAX_TIMEOUT_DIGITS or int(value) < 1:
        raise UsageError("build-cli: %s must be a whole number of seconds, at least 1" % name)
    return int(value)


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
        catcher = _SignalCatcher(connection)
        connection.send(request_of(options))
        try:
            exit_ = _relay(connection, catcher)
        except events.ResponseError as exc:
            catcher.finish()
            return _fail("invalid response from build-service: %s" % exc)
    catcher.finish()
    if exit_.timed_out:
        seconds = exit_.timeout_sec or options.timeout_sec
        write_all(2, b"build timed out after %ds\n" % seconds if seconds else b"build timed out\n")
    return exit_.code


def request_of(options: Options, check: bool = False) -> requests.Request:
    """Return the request for the command line `options`; with `check` it is only judged. Raises UsageError."""
    umask = os.umask(0)
    os.umask(umask)
    try:
        cwd = client.current_directory()
    except OSError as exc:
        raise UsageError("build-cli: cannot tell the current directory: %s" % exc.strerror) from exc
    return requests.Request(
        options.command[0],
        options.command[1:],
        cwd,
        options.timeout_sec,
        options.request_id,
        options.env,
        umask & requests.MAX_UMASK,
        ("details",),
        check,
    )


def _relay(connection: client.Connection, catcher: "_SignalCatcher") -> events.Exit:
    """Write the build's output where this process's own would go, until the build's exit."""
    for event in connection.events(catcher.wait):
        if isinstance(event, events.Exit):
            return event
        write_all(1 if event.stream == events.STDOUT else 2, event.data)
    raise events.ResponseError("the connection ended before the build's exit")


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, also to a descriptor that somebody else made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select((), (fd,), ())


class _SignalCatcher:
    """Turns ^C, SIGTERM and SIGHUP into the cancellation of the build.

    The first one asks the service to end the build, so that what make says about it still comes through; the
    next one ends this process at once, and hanging up ends the build. A signal that was ignored when this
    process began (nohup) stays ignored.
    """

    def __init__(self, connection: client.Connection) -> None:
        self._connection = connection
        self._caught: "Optional[int]" = None
        self._wakeup, alarm = os.pipe()
        os.set_blocking(alarm, False)
        signal.set_wakeup_fd(alarm)
        for signum in CANCEL_SIGNALS:
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._cancel)

    def wait(self, fd: int) -> None:
        """Return when `fd` is readable, and let no signal pass unheard meanwhile.

        Python calls its handlers between two steps of the program: one that comes just before a blocking call would
        be heard only after it, so the call has to end by the descriptor that the C handler writes to.
        """
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            ready = [number for number, _ in poll.poll()]
            if self._wakeup in ready:
                os.read(self._wakeup, 64)
            if fd in ready:
                return

    def _cancel(self, signum: int, frame: object) -> None:
        if self._caught is not None:
            die_by(signum)
        self._caught = signum
        self._connection.cancel(CANCEL_SIGNALS[signum])

    def finish(self) -> None:
        """Die by the signal that was caught, if one was: a shell must see what ended its command."""
        if self._caught is not None:
            die_by(self._caught)


def die_by(signum: int) -> "NoReturn":
    """End this process by the signal `signum`, as if it had never been caught (signal(7))."""
    signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signum,))
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)


def _exec_locally(program: str, command: "Sequence[str]") -> "NoReturn":
    """Become the tool of the container itself. Nothing was sent, so nothing can be built twice.

    It gets its full path as its name: make calls itself by it, `$(MAKE)`, and so stays on this side throughout.
    """
    for name in IGNORED_BY_PYTHON:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    argv = [arg.encode("utf-8", "surrogateescape") for arg in (program, *command[1:])]
    try:
        os.execv(argv[0], argv)
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
            die_by(signal.SIGPIPE)
    return FAILURE
