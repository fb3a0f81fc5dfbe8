"""What the tests stand on: real users, programs run as them, and ways to wait that are no sleeps.

The tests, the demo and the benchmark use it. Every helper works in both flavours: `root`, inside the private world of
harness_world with a daemon that is root and callers that are not, and `user`, where one account is everything.
Nothing here imports the library: what is tested is what a user starts.
"""

from __future__ import annotations

import ctypes
import functools
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from harness_world import CHECKOUT, DEV1, ROOT, User, inside

SYSTEM_PATH = "/usr/bin:/bin"
PATIENCE_SEC = float(os.environ.get("BUILD_TEST_PATIENCE_SEC", "30"))
"""How long anything that should happen at once may take on a busy machine before a test fails."""

GRACE_SEC = 2.0
"""How long a process that was told to end may still be seen at the end of a test."""

TREE = CHECKOUT if inside() else ROOT
"""The source tree at a place that every test user can read."""

BIN = TREE / os.environ.get("BUILD_TEST_BIN", "bin")
"""Where the programs under test are; BUILD_TEST_BIN=dist tests the single files."""


def client_is_python() -> bool:
    """Whether the client under test is the one in Python, and not the one in C."""
    return (BIN / "build-cli").read_bytes().startswith(b"#!")



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
