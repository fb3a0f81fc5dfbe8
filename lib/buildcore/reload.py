"""Reloading: the arbiter goes on as the installed program, under the same pid, and no caller notices.

First a `Trial` runs the installed program with --check-config, so that a broken program or file changes nothing; it
also tells the interpreter that the program's launcher chose. The arbiter then becomes that interpreter with that
program by execve(2), without the launcher: a shell would reap children and unblock signals that are not its own.
Sessions stay children, the socket and the log's channel stay open, and a `Handover` in the environment says which is
which. Must never be believed by another process than the one that wrote it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass
from typing import NoReturn

from .errors import BuildError

VARIABLE = "_BUILD_SERVICE_HANDOVER"
VERSION = 1
SAID_BYTES = 8192
"""How much of what a trial says is read."""


class ReloadError(BuildError):
    """The reload cannot be; the text says why, in a line for each fault."""

    kind = "reload"


@dataclass(frozen=True)
class Program:
    """The installed program: its absolute path, and the arguments that it serves with."""

    path: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Handover:
    """What the process `pid` has open, and its children.

    `listener` is the listening socket, `ours` whether its file is the service's to remove. `channel` are the log's
    descriptors (`logs.Log.descriptors`), `writer` is the pid of its writer, 0 for none, `sessions` are pid and caller's
    uid of each session that serves a caller, and `ending` those of what was forked ahead and is about to end.
    """

    pid: int
    listener: int
    ours: bool
    channel: tuple[int, ...]
    writer: int
    sessions: tuple[tuple[int, int], ...]
    ending: tuple[int, ...]

    def text(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)})

    def pass_on(self, inheritable: bool) -> None:
        """Let its descriptors pass execve(2), or keep them from it."""
        for descriptor in (self.listener, *self.channel):
            os.set_inheritable(descriptor, inheritable)


def take(environ: MutableMapping[str, str]) -> Handover | None:
    """Take out of `environ` what a running service left there; None for nothing.

    It is meant for the process `pid` of it; any other one that finds it is a trial, if anything. Raises ReloadError
    when it is of a version that this program does not know: a trial finds that out.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        version = fields.pop("version")
        if version != VERSION:
            raise ReloadError(f"the running service hands over in version {version}, this program reads {VERSION}")
        fields["sessions"] = tuple((int(pid), int(uid)) for pid, uid in fields["sessions"])
        fields["channel"], fields["ending"] = tuple(fields["channel"]), tuple(fields["ending"])
        return Handover(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ReloadError(f"what the running service hands over cannot be read: {exc!r}") from exc


class Trial:
    """One run of the installed program with --check-config, as a child that the arbiter reaps."""

    def __init__(self, program: Program, handover: Handover) -> None:
        """Start it. Raises ReloadError when the program cannot be run."""
        self.program = program
        try:
            self._output, output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise ReloadError(f"cannot run {program.path}: {exc.strerror}") from exc
        try:
            self.pid = os.posix_spawn(
                program.path,
                [program.path, *program.arguments, "--check-config"],
                {**os.environ, VARIABLE: handover.text()},
                file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as exc:
            os.close(self._output)
            raise ReloadError(f"cannot run {program.path}: {exc.strerror}") from exc
        finally:
            os.close(output)

    def kill(self) -> None:
        """End it, and what its launcher runs. For the arbiter, as long as it was not reaped."""
        os.killpg(self.pid, signal.SIGKILL)

    def interpreter(self, status: int) -> str:
        """Return the path of the interpreter that the ended trial told, the last of its lines.

        Raises ReloadError with its lines when it ended with another wait status than 0, or told none.
        """
        try:
            said = os.read(self._output, SAID_BYTES).decode("utf-8", "replace").splitlines()
        except BlockingIOError:  # it said nothing, and something that it started holds the pipe
            said = []
        os.close(self._output)
        if status or not said or not said[-1].startswith("/"):
            raise ReloadError("\n".join(said) or f"{self.program.path} ended with wait status {status}")
        return said[-1]


def become(interpreter: str, program: Program, handover: Handover) -> NoReturn:
    """Become `program`, run by `interpreter`. The caller holds its signals back until it has handlers again.

    Raises ReloadError when that cannot be; then everything is as before.
    """
    handover.pass_on(True)
    try:
        argv = [interpreter, "-I", program.path, *program.arguments]
        os.execve(interpreter, argv, {**os.environ, VARIABLE: handover.text()})
    except OSError as exc:
        handover.pass_on(False)
        raise ReloadError(f"cannot run {interpreter}: {exc.strerror}") from exc
