"""The private world of the tests, the demo and the benchmark when root runs them: other users, nothing left behind.

`enter()` gives the calling process a mount namespace of its own, where /etc/passwd and /etc/group hold the machine's
entries and the test users, and /home, /root, /run and /tmp are empty file systems in memory. They vanish with the last
process. Outside of it no file, account or mount of the machine changes; that is the one thing this file must keep.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

INSIDE = "BUILD_TEST_WORLD"
"""Set in the environment of whatever runs inside the private world."""

BUILDERS_GID = 20100
LIBS_GID = 20101
GROUPS = {"builders": BUILDERS_GID, "libs": LIBS_GID}
"""`builders` is the group of the socket; `libs` one more that a build may need."""

UID_WITHOUT_ACCOUNT = 29999
"""No account has it, like the subordinate uids of a container."""


@dataclass(frozen=True)
class User:
    """An account: `gid` is its primary group, `groups` are its supplementary ones."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: Path


def _test_user(name: str, uid: int, *groups: int) -> User:
    return User(name, uid, uid, groups, Path("/home") / name)


DEV1 = _test_user("dev1", 20001, BUILDERS_GID, LIBS_GID)
DEV2 = _test_user("dev2", 20002, BUILDERS_GID)
OUTSIDER = _test_user("outsider", 20003)
TEST_USERS = (DEV1, DEV2, OUTSIDER)

PRIVATE = {"/home": "mode=0755", "/root": "mode=0755", "/run": "mode=0755", "/tmp": "mode=1777"}
"""What is an empty tmpfs inside, with its mount options."""

CHECKOUT = Path("/run/checkout")
"""The source tree inside: every user reaches it here, whatever the modes of the directories above the real place."""

CLONE_NEWNS = 0x00020000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
"""unshare(2), mount(2)"""

_libc = ctypes.CDLL(None, use_errno=True)


def inside() -> bool:
    """True in a process that runs in the private world."""
    return os.environ.get(INSIDE) == "1" and os.geteuid() == 0


def enter() -> bool:
    """Moves this process into a private world; False, with the reason on stderr, where that is not possible.

    An ordinary user gets False and no words.
    """
    if inside():
        return True
    if os.geteuid() != 0:
        return False
    try:
        _call(_libc.unshare, CLONE_NEWNS)
    except OSError as exc:
        print(f"no private mount namespace for the test users: {exc.strerror}", file=sys.stderr)
        return False
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in _kept_paths()}
    checkout = os.open(ROOT, os.O_PATH | os.O_CLOEXEC)
    for private, options in PRIVATE.items():
        _mount("tmpfs", private, "tmpfs", MS_NOSUID | MS_NODEV, options)
    for path, fd in [*kept.items(), (CHECKOUT, checkout)]:
        path.mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{fd}", str(path), None, MS_BIND | MS_REC)
        os.close(fd)
    _add_accounts()
    os.chdir(ROOT)
    os.environ[INSIDE] = "1"
    os.environ.pop("TMPDIR", None)
    return True


def restart_inside() -> None:
    """Starts this program anew in a private world if root runs it outside of one, or ends it where that cannot be."""
    if os.geteuid() == 0 and not inside():
        if not enter():
            raise SystemExit("as root this needs a private mount namespace; an ordinary user can run it without")
        os.execv(sys.executable, [sys.executable, *sys.argv])


def _kept_paths() -> list[Path]:
    """What has to stay in the directories that become empty: the sources and the interpreters.

    The directories above them are made anew, open to all: so an interpreter below /root is one for all users.
    """
    wanted = {ROOT, Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path), Path.home() / ".pyenv"}
    named = os.environ.get("BUILD_TEST_PYTHON")
    if named:
        wanted |= {Path(os.path.abspath(named)).parent.parent, Path(os.path.realpath(named)).parent.parent}
    hidden = tuple(path + "/" for path in PRIVATE)
    return sorted(path for path in wanted if str(path).startswith(hidden) and path.is_dir())


def _add_accounts() -> None:
    """Puts the test users into private copies of /etc/passwd and /etc/group, and gives them homes with a workspace."""
    accounts = {user.name: f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:/bin/sh" for user in TEST_USERS}
    groups = {user.name: f"{user.name}:x:{user.gid}:" for user in TEST_USERS}
    for name, gid in GROUPS.items():
        groups[name] = f"{name}:x:{gid}:" + ",".join(user.name for user in TEST_USERS if gid in user.groups)
    for path, added in (("/etc/passwd", accounts), ("/etc/group", groups)):
        numbers = {line.split(":")[2] for line in added.values()}
        lines = [
            line
            for line in Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            if line.count(":") >= 2 and line.split(":")[0] not in added and line.split(":")[2] not in numbers
        ]
        private = Path("/run") / Path(path).name
        text = "\n".join([*lines, *added.values(), ""])
        private.write_text(text, encoding="utf-8", errors="surrogateescape")
        private.chmod(0o644)
        _mount(str(private), path, None, MS_BIND)
    for user in TEST_USERS:
        for directory in (user.home, user.home / "workspace"):
            directory.mkdir(mode=0o700)
            os.chown(directory, user.uid, user.gid)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)"""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _call(_libc.mount, *encoded, ctypes.c_ulong(flags), os.fsencode(options))


def _call(function: Callable[..., int], *arguments: object) -> None:
    """Calls into libc and raises the OSError that errno tells."""
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
