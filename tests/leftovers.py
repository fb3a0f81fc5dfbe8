"""What a test has to leave as it found it, beside processes and descriptors: the process that all tests share, and the
private world.

conftest.py looks before and behind each test and each module. What they put into the homes of the test users is
removed; any other difference is theirs to answer for, and is undone as well, so that one test fails and not those
behind it. Must never remove what lies below a mount, nor write to a file of the machine.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness_world import PRIVATE

State = dict[tuple[str, str], Any]
"""What was seen, by kind and name."""

HOMES = "/home"
"""Everything below is looked at."""

SHALLOW = tuple(place for place in PRIVATE if place != HOMES)
"""Of these directories what is in them is looked at, and not what is below that."""

FREE = tuple(f"{place}/" for place in (HOMES, "/root"))
"""What is new below is no fault, and goes: builds write there, and programs to their user's home."""

OF_THE_MACHINE = ("/etc/subuid", "/etc/subgid")
"""Files that tests lay others over. /etc/passwd and /etc/group lie in /run."""

NOT_A_TESTS = ("PYTEST_", "/tmp/pytest-of-", "/run/mount", "/run/systemd")
"""How the names begin of what pytest, mount(8) and systemd-analyze(1) keep."""

MOST_BYTES = 1 << 20
"""Of a larger file the size and the time are looked at, and not the content."""

LIMITS = {getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_")}
"""The name of each; one has two."""

MNT_DETACH = 2
"""umount2(2)"""


def look(world: bool) -> State:
    """What is now: of this process, and of the private world where `world` says so."""
    mask = os.umask(0)
    os.umask(mask)
    found: State = {
        ("the", "working directory"): os.readlink("/proc/self/cwd"),
        ("the", "umask"): mask,
        ("the", "ids"): (os.getresuid(), os.getresgid(), os.getgroups()),
        ("the", "path of modules"): tuple(sys.path),
    }
    found.update((("variable", name), value) for name, value in os.environ.items() if not name.startswith(NOT_A_TESTS))
    found.update((("handler of", _name(number)), signal.getsignal(number)) for number in signal.valid_signals())
    found.update((("blocked", _name(number)), True) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    found.update((("limit", name), resource.getrlimit(number)) for number, name in LIMITS.items())
    found.update((("thread", thread.name), thread.ident) for thread in threading.enumerate())
    if world:
        found.update((("mount", path), number) for number, path in _mounts())
        for path in _paths():
            with suppress(FileNotFoundError):  # what ends may still take something away
                found["file", path] = _file(path)
    return found


def differences(before: State, after: State) -> list[str]:
    """What a test has to answer for, a line for each."""
    lines = []
    for kind, name in sorted(before.keys() | after.keys()):
        key = (kind, name)
        if key not in before:
            if kind != "file" or not name.startswith(FREE):
                lines.append(f"{kind} {name} is new")
        elif key not in after:
            if kind != "thread":
                lines.append(f"{kind} {name} is gone")
        elif before[key] != after[key]:
            lines.append(f"{kind} {name} changed")
    return lines


def undo(before: State, after: State) -> None:
    """Makes it as it was `before`, but for threads, ids and mounts that are gone."""
    if before["the", "working directory"] != after["the", "working directory"]:
        os.chdir(before["the", "working directory"])
    os.umask(before["the", "umask"])
    sys.path[:] = before["the", "path of modules"]
    for name in [name for kind, name in after if kind == "variable" and (kind, name) not in before]:
        del os.environ[name]
    os.environ.update({name: value for (kind, name), value in before.items() if kind == "variable"})
    for number in signal.valid_signals():
        key = ("handler of", _name(number))
        if before[key] != after[key]:
            signal.signal(number, before[key])
    blocked = [number for number in signal.valid_signals() if ("blocked", _name(number)) in before]
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for number, name in LIMITS.items():
        if before["limit", name] != after["limit", name]:
            resource.setrlimit(number, before["limit", name])
    _undo_files(before, after)


def _undo_files(before: State, after: State) -> None:
    new = after.keys() - before.keys()
    for _, path in filter(lambda key: key[0] == "mount", new):
        ctypes.CDLL(None).umount2(os.fsencode(path), MNT_DETACH)
    mounts = [path for _, path in _mounts()]
    for _, path in sorted(filter(lambda key: key[0] == "file", new)):
        if not any(f"{mount}/".startswith(f"{path}/") for mount in mounts):
            _remove(path)
    for kind, path in sorted(before.keys()):
        if kind == "file" and before[kind, path] != after.get((kind, path)) and path not in OF_THE_MACHINE:
            _restore(path, *before[kind, path])


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return str(number)


def _mounts() -> Iterator[tuple[str, str]]:
    """The number and the place of each mount (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        number, _, _, _, path, *_ = line.split(" ")
        yield number, re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), path)


def _paths() -> Iterator[str]:
    for directory, inner, files in os.walk(HOMES):
        yield from (os.path.join(directory, name) for name in (*inner, *files))
    for directory in SHALLOW:
        yield from (entry.path for entry in os.scandir(directory) if not entry.path.startswith(NOT_A_TESTS))
    yield from filter(os.path.lexists, OF_THE_MACHINE)


def _file(path: str) -> object:
    """Whose and what it is."""
    found = os.lstat(path)
    content: object = None
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(found.st_mode):
        large = found.st_size > MOST_BYTES
        content = (found.st_size, found.st_mtime_ns) if large else Path(path).read_bytes()
    return found.st_mode, found.st_uid, found.st_gid, content


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):  # what was in a directory is gone with that
        os.unlink(path)


def _restore(path: str, mode: int, uid: int, gid: int, content: Any) -> None:
    """Makes the file what `_file` told of it; in place, where it is still there, as others may lie over it."""
    if not os.path.lexists(path) or stat.S_IFMT(os.lstat(path).st_mode) != stat.S_IFMT(mode):
        _remove(path)
        if stat.S_ISDIR(mode):
            os.mkdir(path)
        elif stat.S_ISLNK(mode):
            os.symlink(content, path)
    if isinstance(content, bytes):
        Path(path).write_bytes(content)
    if os.path.lexists(path):  # else it was none of these
        os.chown(path, uid, gid, follow_symlinks=False)
    if not stat.S_ISLNK(mode) and os.path.lexists(path):
        os.chmod(path, stat.S_IMODE(mode))
