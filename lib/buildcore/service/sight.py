"""With which ids the service looks for the processes of builds: it sees them whatever hidepid= says (proc(5)).

A /proc that is mounted with hidepid= shows a process only to who might trace it, or is in a certain group.
CAP_SYS_PTRACE is more than the service is to have: whoever has it can become any process of the host. So root looks in
that group, which is its own unless gid= names another. hidepid=ptraceable knows no group; there the session looks with
the ids of its caller, and the build's control group and the kernel's list of a process's own children name what those
do not see. Every session has a `Sight` for its build, as has whoever looks for orphans; `proof` tries one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..core import procmount
from ..system import cgroups, identity, linux
from ..system.proctable import Sight

CAP_SYS_PTRACE = 19
"""capabilities(7)"""


def of_build(group: str | None = None) -> Sight:
    """Return how the build of this session is looked for; `group` is the directory of its control group, if any."""

    def members() -> set[int]:
        if group is None:
            return set()
        with identity.as_root():  # it is closed to the caller
            return cgroups.members(group)

    return Sight(widest, identity.as_root, members)


@contextmanager
def widest() -> Iterator[None]:
    """Have, for one block, the ids to which /proc shows most; without privilege nothing changes."""
    hiding = _hiding()
    if (
        not identity.is_privileged()
        or hiding.level == procmount.SHOWS_ALL
        or (hiding.level >= procmount.TRACEABLE_ALONE and not linux.has_permitted(CAP_SYS_PTRACE))
    ):
        yield
        return
    with identity.as_root():
        gid = os.getegid()
        with suppress(PermissionError):  # no right to that group: then it is not seen by it
            os.setegid(hiding.group)
        try:
            yield
        finally:
            os.setegid(gid)


def _hiding() -> procmount.Hiding:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return procmount.hiding(file.read())
    except FileNotFoundError:
        return procmount.UNKNOWN
