"""Reloading: the arbiter goes on as the installed program, under the same pid, and no caller notices.

First a `Trial` runs the installed program with --check-config, so that a broken program or file changes nothing.
Then the arbiter becomes that program by execve(2): sessions stay its children, the socket and the log's channel stay
open, and a `Handover` in the environment says which is which. Must never be believed from another process.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn

from .errors import BuildError

VARIABLE = "_BUILD_SERVICE_HANDOVER"
VERSION = 1
FAULT_BYTES = 8192
"""How much of what a trial says is kept."""


class ReloadError(BuildError):
    """The reload cannot be; the text says why, in one line."""

    kind = "reload"


@dataclass(frozen=True)
class Program:
    """The installed program: its absolute path, and the arguments that it serves with."""

    path: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Handover:
    """What the process `pid` has open, and its children.

    `listener` is the listening socket, `ours` whether its file is the service's to remove; `channel` are the log's
    descriptors (`logs.Log.descriptors`) and `writer` is the log writer's pid; `sessions` are the pids of the
    sessions that serve callers.
    """

    pid: int
    listener: int
    ours: bool
    channel: tuple[int, ...]
    writer: int
    sessions: tuple[int, ...]

    def text(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)})

    def pass_on(self, inheritable: bool) -> None:
        """Let its descriptors pass execve(2), or keep them from it."""
        for descriptor in (self.listener, *self.channel):
            os.set_inheritable(descriptor, inheritable)


def take(environ: MutableMapping[str, str], pid: int) -> Handover | None:
    """Take out of `environ` what the former program of this process, `pid`, left there; None for nothing.

    Raises ReloadError when it is of a version that this program does not know: a trial finds that out.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        version = fields.pop("version")
        if version != VERSION:
            raise ReloadError(f"the running service hands over in version {version}, this program reads {VERSION}")
        fields["channel"], fields["sessions"] = tuple(fields["channel"]), tuple(fields["sessions"])
        handover = Handover(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ReloadError(f"what the running service hands over cannot be read: {exc!r}") from exc
    return handover if handover.pid == pid else None


class Trial:
    """One run of the installed program with --check-config, as a child; the arbiter reaps it and asks for `faults`."""

    def __init__(self, program: Program, handover: Handover) -> None:
        """Start it. Raises ReloadError when the program cannot be run."""
        self._output, output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.pid = os.posix_spawn(
                program.path,
                [program.path, *program.arguments, "--check-config"],
                {**os.environ, VARIABLE: handover.text()},
                file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as exc:
            os.close(self._output)
            raise ReloadError(f"cannot run {program.path}: {exc.strerror}") from exc
        finally:
            os.close(output)

    def faults(self, status: int) -> tuple[str, ...]:
        """Return what speaks against becoming that program, by its wait status and its words; () for nothing."""
        try:
            said = os.read(self._output, FAULT_BYTES).decode("utf-8", "replace").splitlines()
        except BlockingIOError:  # it said nothing, and something that it started holds the pipe
            said = []
        os.close(self._output)
        if status == 0:
            return ()
        return tuple(said) or (f"it ended with wait status {status}",)


def become(program: Program, handover: Handover, held: Sequence[signal.Signals]) -> NoReturn:
    """Become `program`. The signals `held` stay blocked until it has its own handlers; none of them is lost.

    Raises ReloadError when the program cannot be run; then everything is as before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    handover.pass_on(True)
    try:
        os.execve(program.path, [program.path, *program.arguments], {**os.environ, VARIABLE: handover.text()})
    except OSError as exc:
        handover.pass_on(False)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise ReloadError(f"cannot run {program.path}: {exc.strerror}") from exc
