"""Reloading: the arbiter goes on as the installed program, under the same pid, and no caller notices.

First a `Trial` runs the installed program with --check-config, so that a broken program or file changes nothing.
What it accepted comes back: the text of the configuration, and the interpreter that the program's launcher chose. The
arbiter then becomes that interpreter with that program by execve(2), without the launcher: a shell would reap children
and unblock signals that are not its own. Sessions stay children, the socket and the log's channel stay open, and a
`Handover` says which is which. Must never be believed by another process than the one that wrote it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import tempfile
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass
from typing import IO, NoReturn

from ..core.errors import BuildError

VARIABLE = "_BUILD_SERVICE_HANDOVER"
"""Names the descriptor of a file that holds the handover: of any length, unlike a variable."""

VERSION = 2
READABLE = (1, 2)
"""Before 2 there were no places: sessions of then take theirs until they end."""

SAID_BYTES = 8192
"""How much of what a trial says is shown."""

_HANDOVER_FD, _ANSWER_FD = 3, 4  # of a trial


class ReloadError(BuildError):
    """The reload cannot be; the text says why, in a line for each fault."""

    kind = "reload"


@dataclass(frozen=True)
class Program:
    """The installed program: its absolute path, and the arguments that it serves with."""

    path: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Accepted:
    """What a trial accepted: the interpreter's path, and the text of the configuration, None where there is no file."""

    interpreter: str
    config: str | None


@dataclass(frozen=True)
class Handover:
    """What the process `pid` has open, and its children.

    `listener` is the listening socket, `device` and `inode` are its file's and `ours` tells whether that is the
    service's to remove. `channel` are the log's descriptors (`logs.Log.descriptors`), `writer` is the pid of its
    writer, 0 for none. `sessions` are pid and caller's uid of each session that serves a caller, and `ending` the
    pids of what was forked ahead and is about to end. `config` is the configuration's text, once a trial accepted it.
    `places` are pid and descriptor of each session's channel, `delivering` the pids of those that only deliver.
    `open_files` is the soft limit that builds have (RLIMIT_NOFILE), None where it is this process's own.
    `build_score` is the OOM score that builds start with, None from a program that did not know of it.
    """

    pid: int
    listener: int
    device: int
    inode: int
    ours: bool
    channel: tuple[int, ...]
    writer: int
    sessions: tuple[tuple[int, int], ...]
    ending: tuple[int, ...]
    config: str | None = None
    places: tuple[tuple[int, int], ...] = ()
    delivering: tuple[int, ...] = ()
    open_files: int | None = None
    build_score: int | None = None

    def file(self) -> int:
        """Return the descriptor of a file without a name that holds it."""
        return _nameless_file(json.dumps({"version": VERSION, **asdict(self)}))

    def pass_on(self, inheritable: bool) -> None:
        """Let its descriptors pass execve(2), or keep them from it."""
        for descriptor in (self.listener, *self.channel, *(descriptor for _, descriptor in self.places)):
            os.set_inheritable(descriptor, inheritable)


def take(environ: MutableMapping[str, str]) -> Handover | None:
    """Take out of `environ` what a running service left there; None for nothing.

    It is meant for the process `pid` of it; any other one that finds it is a trial, if anything. Raises ReloadError
    when it is of a version that this program does not know: a trial finds that out.
    """
    number = environ.pop(VARIABLE, None)
    if number is None:
        return None
    try:
        with open(int(number), encoding="ascii") as file:
            file.seek(0)
            fields = json.load(file)
        version = fields.pop("version")
        if version not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise ReloadError(f"the running service hands over in version {version}, this program reads {known}")
        fields["sessions"] = tuple((int(pid), int(uid)) for pid, uid in fields["sessions"])
        fields["places"] = tuple((int(pid), int(descriptor)) for pid, descriptor in fields.get("places", ()))
        fields["delivering"] = tuple(fields.get("delivering", ()))
        fields["channel"], fields["ending"] = tuple(fields["channel"]), tuple(fields["ending"])
        return Handover(**fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ReloadError(f"what the running service hands over cannot be read: {exc!r}") from exc


def answer(accepted: Accepted) -> None:
    """In a trial: tell the service that tries this program what was accepted. Raises OSError."""
    with open(_ANSWER_FD, "w", encoding="ascii", closefd=False) as file:
        json.dump(asdict(accepted), file)


class Trial:
    """One run of the installed program with --check-config, as a child that the arbiter reaps."""

    def __init__(self, program: Program, handover: Handover) -> None:
        """Start it. Raises ReloadError when the program cannot be run."""
        self.program = program
        files: list[int] = []
        try:
            files += [_nameless_file(), _nameless_file(), handover.file()]
            self._said, self._answer, given = files
            self.pid = os.posix_spawn(
                program.path,
                [program.path, *program.arguments, "--check-config"],
                {**os.environ, VARIABLE: str(_HANDOVER_FD)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self._said, 1),
                    (os.POSIX_SPAWN_DUP2, self._said, 2),
                    (os.POSIX_SPAWN_DUP2, given, _HANDOVER_FD),
                    (os.POSIX_SPAWN_DUP2, self._answer, _ANSWER_FD),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
            os.close(given)
        except OSError as exc:
            for fd in files:
                os.close(fd)
            raise ReloadError(f"cannot run {program.path}: {exc.strerror}") from exc

    def kill(self) -> None:
        """End it, and what its launcher runs. For the arbiter, as long as it was not reaped."""
        os.killpg(self.pid, signal.SIGKILL)

    def accepted(self, status: int) -> Accepted:
        """Return what the ended trial accepted. Raises ReloadError with its lines when it accepted nothing."""
        said, answer = _read(self._said, SAID_BYTES), _read(self._answer)
        try:
            if status == 0:
                return Accepted(**json.loads(answer))
        except (ValueError, TypeError):
            pass
        raise ReloadError(said.strip() or f"{self.program.path} ended with wait status {status}")


def become(interpreter: str, program: Program, handover: Handover) -> NoReturn:
    """Become `program`, run by `interpreter`. The caller holds its signals back until it has handlers again.

    Raises ReloadError when that cannot be; then everything is as before.
    """
    file = None
    try:
        file = handover.file()
        os.set_inheritable(file, True)
        handover.pass_on(True)
        argv = [interpreter, "-I", program.path, *program.arguments]
        os.execve(interpreter, argv, {**os.environ, VARIABLE: str(file)})
    except OSError as exc:
        handover.pass_on(False)
        if file is not None:
            os.close(file)
        raise ReloadError(f"cannot run {interpreter}: {exc.strerror}") from exc


def _nameless_file(text: str = "") -> int:
    """Return the descriptor, above those of a trial, of a new file: in memory, or where Python cannot, on the disk."""
    with _memory_file() if hasattr(os, "memfd_create") else tempfile.TemporaryFile() as file:
        fd = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, _ANSWER_FD + 1)
    with open(fd, "w", encoding="ascii", closefd=False) as out:
        out.write(text)
    return fd


def _memory_file() -> IO[bytes]:
    return open(os.memfd_create("build-service"), "w+b")


def _read(fd: int, limit: int = -1) -> str:
    """Return what a file holds from its beginning, and close it."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read(limit).decode("utf-8", "replace")
