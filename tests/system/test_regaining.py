"""The last of the drop's checks: that root cannot be had back is tried, not concluded from what the others found.

The call that drops the uid does less here than it is told, and leaves nothing that the checks before could see.
"""

from __future__ import annotations

import ctypes
import os

import pytest

from buildcore.system import identity
from buildcore.system.identity import DropError
from forked import identity_of, in_child
from harness_world import DEV1

pytestmark = pytest.mark.needs_root

CAPABILITY_VERSION_3 = 0x20080522


def give_up_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0


def drop(saved: int, real: int, shown: bool) -> str:
    """What a drop says whose call leaves root as the saved or the real uid, without any capability; `shown` tells
    whether getresuid(2) lets it be seen."""

    def work() -> str:
        setresuid = os.setresuid

        def incomplete(ruid: int, euid: int, suid: int) -> None:
            setresuid(ruid if real else 0, euid, suid if saved else 0)
            give_up_capabilities()
            if not shown:
                os.getresuid = lambda: (ruid, euid, suid)  # type: ignore[assignment]

        os.setresuid = incomplete  # type: ignore[assignment]
        try:
            identity.permanently_become(identity_of(DEV1), no_new_privs=True)
        except DropError as exc:
            return str(exc)
        return "started"

    return str(in_child(work))


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "hidden"])
@pytest.mark.parametrize(("saved", "real"), [(0, DEV1.uid), (DEV1.uid, 0), (0, 0)], ids=["saved", "real", "both"])
def test_root_that_is_left_behind_is_found_by_taking_it_back(saved: int, real: int, shown: bool) -> None:
    assert drop(saved, real, shown) == "root could be regained after the drop"


def test_the_same_drop_that_leaves_nothing_is_good() -> None:
    assert drop(DEV1.uid, DEV1.uid, shown=True) == "started"
