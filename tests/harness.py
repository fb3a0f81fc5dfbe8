"""What the tests stand on: real users, the real daemon and the real client, and ways to wait that are no sleeps.

The tests, the demo and the benchmark use it. Every helper works in both flavours: `root`, inside the private world of
harness_world with a daemon that is root and callers that are not, and `user`, where one account is everything.
Nothing here imports the library: what is tested is what a user starts.
"""

from __future__ import annotations

import ctypes
import functools
import grp
import json
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from harness_world import CHECKOUT, DEV1, ROOT, User, inside

SYSTEM_PATH = "/usr/bin:/bin"
PATIENCE_SEC = 30.0
"""How long anything that should happen at once may take on a busy machine before a test fails."""

GRACE_SEC = 2.0
"""How long a process that was told to end may still be seen at the end of a test."""

TREE = CHECKOUT if inside() else ROOT
"""The source tree at a place that every test user can read."""

BIN = TREE / os.environ.get("BUILD_TEST_BIN", "bin")
"""Where the programs under test are; BUILD_TEST_BIN=dist tests the single files."""


def current_user() -> User:
    """Who runs the tests; without an account nobody can use the service."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        raise SystemExit(f"uid {os.getuid()} has no account: the service builds for users with one") from None
    return User(entry.pw_name, entry.pw_uid, os.getgid(), tuple(os.getgroups()), Path(entry.pw_dir))


# --- running programs as somebody ---------------------------------------------------------------------------------


def _identity(user: User | None, groups: Sequence[int] | None) -> dict[str, Any]:
    """The arguments that make subprocess set groups, gid and uid for good in the child."""
    if user is None or user.uid == os.geteuid():
        return {}
    supplementary = [user.gid, *user.groups] if groups is None else list(groups)
    return {"user": user.uid, "group": user.gid, "extra_groups": supplementary}


@functools.lru_cache(maxsize=None)
def python_directory() -> str:
    """The directory of a python3 that the callers may run: of BUILD_TEST_PYTHON, else the first that works for them."""
    user = DEV1 if inside() else None
    named = os.environ.get("BUILD_TEST_PYTHON")
    candidates = ["/usr/bin/python3", "/usr/local/bin/python3", os.path.join(sys.base_prefix, "bin/python3")]
    for python in [named] if named else candidates:
        command = [os.path.join(os.path.dirname(os.path.abspath(python)), "python3"), "-I", "-c", "import json, socket"]
        try:
            subprocess.run(command, check=True, capture_output=True, cwd="/", **_identity(user, None))
        except (OSError, subprocess.CalledProcessError):
            continue
        return os.path.dirname(command[0])
    raise RuntimeError(
        f"no python3 that the test users may run (tried {named or ', '.join(candidates)}); "
        "install one in /usr/bin or name one that every user can reach: BUILD_TEST_PYTHON=/opt/x/bin/python3"
    )


@functools.lru_cache(maxsize=None)
def daemon_python_directory() -> str:
    """The callers' python3 where it can run the daemon (3.9, a TOML reader), else the one that runs the tests."""
    check = (
        "import sys\ntry: import tomllib\nexcept ImportError:\n"
        " try: import tomli\n except ImportError: import pip._vendor.tomli\nsys.exit(sys.version_info < (3, 9))"
    )
    candidate = python_directory()
    run = subprocess.run([os.path.join(candidate, "python3"), "-I", "-c", check], capture_output=True)
    return candidate if run.returncode == 0 else os.path.dirname(os.path.abspath(sys.executable))


def other_pythons(oldest_minor: int) -> list[str]:
    """Each further Python 3 of this machine, on PATH or in pyenv's place, one of a version."""
    found = {}
    places = [str(path.parent) for path in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))]
    for minor in range(oldest_minor, 20):
        path = shutil.which(f"python3.{minor}", path=os.pathsep.join([SYSTEM_PATH, *places]))
        if path and subprocess.run([path, "-S", "-c", ""], capture_output=True).returncode == 0:
            found[minor] = path
    return list(found.values())


def daemon_path() -> str:
    """The PATH that a daemon is started with."""
    return _search_path(daemon_python_directory())


def _search_path(first: str) -> str:
    return SYSTEM_PATH if first in SYSTEM_PATH.split(":") else f"{first}:{SYSTEM_PATH}"


def environment_of(user: User, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small login environment of `user`, with `extra` on top."""
    return {
        "PATH": _search_path(python_directory()),
        "HOME": str(user.home),
        "USER": user.name,
        "LOGNAME": user.name,
        "LANG": "C.UTF-8",
        **(extra or {}),
    }


def popen_as(
    user: User,
    argv: Sequence[str | os.PathLike[str]],
    cwd: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    groups: Sequence[int] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Starts `argv` as `user`, with exactly the supplementary `groups` if given; `options` go to subprocess.Popen."""
    return subprocess.Popen(
        [os.fspath(argument) for argument in argv],
        cwd=cwd,
        env=environment_of(user, env),
        **_identity(user, groups),
        **options,
    )


def run_as(
    user: User,
    argv: Sequence[str | os.PathLike[str]],
    cwd: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    groups: Sequence[int] | None = None,
    input: bytes | None = None,
    timeout: float = PATIENCE_SEC,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Runs `argv` as `user` to its end; bytes of its output that are no UTF-8 come as surrogates (PEP 383)."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("stdin", subprocess.DEVNULL if input is None else subprocess.PIPE)
    with popen_as(user, argv, cwd, env, groups, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, text(out), text(err))


def text(data: bytes | None) -> str:
    """Output as text that encodes back to the same bytes, line ends untouched."""
    return (data or b"").decode("utf-8", "surrogateescape")


def write_tree(directory: Path, files: Mapping[str, str], owner: User | None = None) -> Path:
    """Writes files given as {relative path: content}, owned by `owner`; a content that starts with #! is executable."""
    for name, content in files.items():
        path = directory / name
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir()
                give(parent, owner)
        path.write_text(content, encoding="utf-8")
        path.chmod(0o755 if content.startswith("#!") else 0o644)
        give(path, owner)
    return directory


def open_directory(owner: User | None = None) -> Path:
    """A fresh directory that every user may enter, with a short path (a socket's has 107 bytes at most, unix(7))."""
    path = Path(tempfile.mkdtemp(prefix="bs-", dir="/run" if inside() else None))
    path.chmod(0o755)
    give(path, owner)
    return path


def give(path: Path, owner: User | None) -> None:
    """Makes `owner` the owner of `path` where that is somebody else."""
    if owner is not None and owner.uid != os.geteuid():
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


# --- waiting ------------------------------------------------------------------------------------------------------


def await_exit(pid: int, seconds: float = PATIENCE_SEC) -> bool:
    """Waits until the process ended (it may still be a zombie); False when it did not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def read_until(descriptor: int, pattern: str, seconds: float = PATIENCE_SEC) -> str:
    """Reads until what was read matches; AssertionError, with what was read, at the end of the data or the time."""
    deadline = time.monotonic() + seconds
    data = b""
    while not re.search(pattern, text(data)):
        ready = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]
        chunk = os.read(descriptor, 65536) if ready else b""
        assert chunk, f"{'end of data' if ready else 'nothing more'} before {pattern!r}; read: {text(data)!r}"
        data += chunk
    return text(data)


def await_in_directory(directory: Path, found: Any, seconds: float = PATIENCE_SEC) -> Any:
    """Calls `found()` now and after each change in `directory` until it gives a true value, and returns that."""
    in_modify, in_moved_to, in_create = 0x2, 0x80, 0x100  # inotify(7)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    try:
        mask = in_modify | in_moved_to | in_create
        watched = libc.inotify_add_watch(descriptor, os.fsencode(directory), mask)
        assert watched >= 0, f"{directory}: {os.strerror(ctypes.get_errno())}"
        deadline = time.monotonic() + seconds
        while True:
            value = found()
            if value:
                return value
            left = deadline - time.monotonic()
            assert left > 0 and select.select([descriptor], [], [], left)[0], f"nothing found in {directory}"
            os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def await_file(path: Path, seconds: float = PATIENCE_SEC) -> str:
    """Waits until the file holds a full line, and returns its content; the directory must exist."""

    def content() -> str:
        found = path.read_text() if path.exists() else ""
        return found if found.endswith("\n") else ""

    return str(await_in_directory(path.parent, content, seconds))


# --- the daemon ---------------------------------------------------------------------------------------------------


def toml(settings: Mapping[str, Any]) -> str:
    """A nested dict as TOML: strings, integers, booleans, lists and tables."""
    lines = _toml_lines(settings, ())
    return "\n".join(lines) + "\n"


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if path:
        yield "[" + ".".join(_toml_text(part) for part in path) + "]"
    for key, value in table.items():
        if key not in inner:
            yield f"{_toml_text(key)} = {_toml_value(value)}"
    for key, value in inner.items():
        yield from _toml_lines(value, (*path, key))


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return str(value) if isinstance(value, (int, float)) else _toml_text(os.fspath(value))


def _toml_text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, table by table; a value None takes a key out."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return {key: value for key, value in result.items() if value is not None}


def installed_tools() -> dict[str, str]:
    """The build tools of this machine, as the allow-list of `build.commands`."""
    found = {name: shutil.which(name, path=SYSTEM_PATH) for name in ("make", "ninja", "cmake")}
    return {name: path for name, path in found.items() if path}


class Daemon:
    """The real build-service in a directory of its own, serving from `with` on until the end of the block.

    `settings` go over defaults that suit a test; `user` starts it as that user, a single-user service. `arguments`
    follow the command line; `programs` is the directory of the daemon's and the client's program. Leaving the block
    stops it by SIGTERM and asserts that it ended well. `launcher` goes before the command line, with the descriptors
    `pass_fds` open; then the socket may be somebody else's, who removes it.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        user: User | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        programs: Path = BIN,
        launcher: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._launcher = launcher
        self._pass_fds = list(pass_fds)
        self.user = user or current_user()
        self.programs = programs
        self.directory = open_directory(self.user)
        self.settings = merged(self._defaults(), settings or {})
        self.socket = Path(self.settings["service"]["socket_path"])
        self._makes_directory = not self.socket.parent.exists()
        self.log_path = Path(self.settings["logging"]["directory"]) / "build-service.log"
        self.config = self.directory / "config.toml"
        write_tree(self.directory, {"config.toml": toml(self.settings), "home/.keep": ""}, self.user)
        self._arguments = list(arguments)
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def _defaults(self) -> dict[str, Any]:
        privileged = self.user.uid == 0
        return {
            "schema_version": "1",
            "service": {
                "socket_path": str(self.directory / "build-service.sock"),
                "socket_group": "builders" if privileged and inside() else grp.getgrgid(self.user.gid).gr_name,
                "socket_mode": "0660",
            },
            "build": {
                "workspace_root": "/home" if privileged and inside() else str(self.directory / "home"),
                "commands": installed_tools(),
            },
            "logging": {"directory": str(self.directory / "log")},
        }

    def workspace_of(self, caller: User) -> Path:
        """The workspace that this daemon serves to the caller, made if it is not there."""
        path = Path(self.settings["build"]["workspace_root"]) / caller.name / "workspace"
        write_tree(path, {".keep": ""}, caller)
        return path

    @property
    def pid(self) -> int:
        """The arbiter."""
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def start(self) -> Daemon:
        """Starts it and waits for its ready line."""
        reader, writer = os.pipe()
        try:
            with open(self.directory / "stderr", "ab") as errors:
                program = self.programs / "build-service"
                options = ["--config", str(self.config), "--ready-fd", str(writer), *self._arguments]
                self._process = popen_as(
                    self.user,
                    [*self._launcher, program, *options],
                    cwd="/",
                    env={"PATH": daemon_path(), **self._env},
                    pass_fds=[writer, *self._pass_fds],
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                )
            os.close(writer)
            writer = -1
            read_until(reader, r"\Aready\n")
            if not self._launcher:  # that may hold the descriptor too
                assert select.select([reader], [], [], PATIENCE_SEC)[0] and not os.read(reader, 1), "it is not closed"
        except BaseException as exc:
            self.kill()
            raise AssertionError(f"the daemon did not get ready: {exc}\n{self.errors()}") from exc
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        return self

    def stop(self) -> None:
        """SIGTERM; it must end with exit code 0, take its socket along, and leave no zombie and no traceback."""
        process = self._process
        assert process is not None, "the daemon was not started"
        if process.returncode is not None:
            return
        zombies = eventually_no_zombies(process.pid)
        process.terminate()
        try:
            code = process.wait(PATIENCE_SEC)
        finally:
            self.kill()
        assert code == 0, f"the daemon ended with {code}\n{self.errors()}"
        assert not zombies, f"the daemon did not reap {zombies}"
        assert "Traceback" not in self.errors(), self.errors()
        assert self._launcher or not self.socket.exists(), f"{self.socket} is still there"

    def kill(self) -> None:
        """SIGKILL to the arbiter alone, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def errors(self) -> str:
        """What it wrote to its stdout and stderr."""
        path = self.directory / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_lines(self) -> list[str]:
        """What the log holds by now; the writer is a process of its own, so a line may still be on its way."""
        return self.log_path.read_text(errors="surrogateescape").splitlines() if self.log_path.exists() else []

    def await_log(self, pattern: str, seconds: float = PATIENCE_SEC, count: int = 1) -> str:
        """Waits until `count` lines of the log match, and returns the last of them."""
        self.log_path.parent.mkdir(exist_ok=True)
        give(self.log_path.parent, self.user)

        def found() -> str | None:
            lines = [line for line in self.log_lines() if re.search(pattern, line)]
            return lines[count - 1] if len(lines) >= count else None

        try:
            return str(await_in_directory(self.log_path.parent, found, seconds))
        except AssertionError as exc:
            raise AssertionError(f"no log line {pattern!r} in\n" + "\n".join(self.log_lines())) from exc

    def await_error(self, pattern: str) -> None:
        """Waits until its stderr matches."""
        await_in_directory(self.directory, lambda: re.search(pattern, self.errors()))

    def remove(self) -> None:
        """Removes its directory, and the socket's where that was missing and is empty."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._makes_directory:
            with suppress(OSError):
                self.socket.parent.rmdir()

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except AssertionError:
            if error is None:
                raise
        finally:
            self.remove()


class Service(NamedTuple):
    """A running daemon and one caller of it."""

    daemon: Daemon
    caller: User
    workspace: Path

    def argv(self, *arguments: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
        """The command line of the client for this daemon."""
        return [self.daemon.programs / "build-cli", "--socket", self.daemon.socket, *arguments]

    def run(
        self, *arguments: str | os.PathLike[str], cwd: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs `build-cli --socket ... ARGUMENTS` as the caller, in its workspace; options as for run_as."""
        return run_as(options.pop("user", self.caller), self.argv(*arguments), cwd or self.workspace, **options)

    def popen(
        self, *arguments: str | os.PathLike[str], cwd: Path | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Starts the same; stdout and stderr are pipes unless `options` say otherwise."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return popen_as(options.pop("user", self.caller), self.argv(*arguments), cwd or self.workspace, **options)


@contextmanager
def running_service(flavour: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Service]:
    """A daemon of the flavour `root` or `user` with one caller; `options` as for Daemon."""
    if flavour == "root":
        assert inside(), "the flavour root needs the private world: run tests/run.py as root"
        caller = DEV1
    else:
        caller = DEV1 if inside() else current_user()
        options["user"] = caller
    with Daemon(settings, **options) as daemon:
        yield Service(daemon, caller, daemon.workspace_of(caller))


# --- processes ----------------------------------------------------------------------------------------------------


class Process(NamedTuple):
    """A process as /proc/PID/stat tells (proc(5)); `start` is in clock ticks and tells apart uses of one pid."""

    pid: int
    name: str
    state: str
    parent: int
    start: int


def processes() -> dict[int, Process]:
    """All processes, by pid."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text(errors="replace")
            except OSError:
                continue
            head, _, tail = stat.rpartition(")")
            fields = tail.split()
            pid = int(entry)
            table[pid] = Process(pid, head.partition("(")[2], fields[0], int(fields[1]), int(fields[19]))
    return table


def descendants(pid: int, table: Mapping[int, Process] | None = None) -> set[Process]:
    """The processes below `pid`, whatever session or group they moved to."""
    table = processes() if table is None else table
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: set[Process] = set()
    waiting = list(children.get(pid, ()))
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting.extend(children.get(process.pid, ()))
    return found


def eventually_no_zombies(pid: int) -> list[Process]:
    """The zombies below `pid` that are still there after GRACE_SEC: no event tells that a parent reaped its child."""
    deadline = time.monotonic() + GRACE_SEC
    while True:
        zombies = [process for process in descendants(pid) if process.state == "Z"]
        if not zombies or time.monotonic() > deadline:
            return zombies
        time.sleep(0.01)


def become_subreaper() -> None:
    """Orphans of what this process starts come to it, so that none gets away unseen (PR_SET_CHILD_SUBREAPER)."""
    pr_set_child_subreaper = 36
    assert ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0


def kill_all(leaked: set[Process]) -> None:
    """SIGKILL to each and to what they leave; reaps those that come to this process."""
    for process in leaked:
        _signal(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + GRACE_SEC
    for process in leaked:
        await_exit(process.pid, max(0.0, deadline - time.monotonic()))
    for process in descendants(os.getpid()):
        if process.state == "Z" and process.parent == os.getpid():
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def end_all(find: Callable[[], set[Process]]) -> set[Process]:
    """Ends whatever `find` finds, also what forks faster than one can look; returns all that it found."""
    found: dict[tuple[int, int], Process] = {}
    deadline = time.monotonic() + PATIENCE_SEC

    def look() -> set[Process]:
        left = find()
        for process in left:
            found.setdefault((process.pid, process.start), process)
        return left

    before: set[Process] = set()
    while left := look():
        alive = left != before or any(not await_exit(process.pid, 0) for process in left)
        stopped: set[int] = set()
        while alive and (fresh := {process.pid for process in left} - stopped) and time.monotonic() < deadline:
            for pid in fresh:  # all of them first, pass by pass, so that nothing forks away meanwhile
                _signal(pid, signal.SIGSTOP)
            stopped |= fresh
            left = look()
        kill_all(left)
        before = look()
        if not alive or time.monotonic() > deadline:
            break
    return set(found.values())


def _signal(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
