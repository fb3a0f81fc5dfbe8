"""Subordinate uids for a test: an /etc/subuid of its own, and a process that has all of a user's, as podman's have."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from buildcore.system import subids
from forked import exit_code, fork
from harness_world import User

CLONE_NEWUSER = 0x10000000
"""unshare(2)"""


@contextmanager
def subuid_file(mine: Path, text: str) -> Iterator[None]:
    """Lets /etc/subuid hold `text` for a block: the private world has the machine's, and `mine` is laid over it."""
    mine.write_text(text)
    given = Path(subids.PATH)
    made = not given.exists()
    if made:
        given.touch()
    subprocess.run(["mount", "--bind", mine, given], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", given], check=True)
        if made:
            given.unlink()


def in_user_namespace(user: User, first: int, count: int, work: Callable[[], None]) -> int:
    """Does `work` in a child whose user namespace has `user` as uid 0, and the uids from `first` on as 1 and on.

    Its supplementary groups are the user's still (`--group-add keep-groups`). Returns its exit code.
    """
    inner, mapped = os.pipe()
    told, unshared = os.pipe()

    def enter_and_work() -> None:
        os.close(mapped)
        os.setgroups([user.gid, *user.groups])
        assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) == 0, os.strerror(ctypes.get_errno())
        os.write(unshared, b"\n")
        assert os.read(inner, 1)
        os.setresuid(0, 0, 0)
        work()

    pid = fork(enter_and_work)
    os.close(inner)
    os.close(unshared)
    try:
        if os.read(told, 1):
            for kind, own in (("uid", user.uid), ("gid", user.gid)):
                Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {own} 1\n1 {first} {count}\n")
            os.write(mapped, b"\n")
    finally:
        os.close(told)
        os.close(mapped)
    return exit_code(pid)
