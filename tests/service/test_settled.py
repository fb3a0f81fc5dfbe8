"""What the service's first process does with what it was started with, before it has any other process."""

from __future__ import annotations

import ctypes
import signal

import pytest

from buildcore.service import apart
from buildcore.system import keyring
from forked import in_child

CAPABILITY_VERSION_3 = 0x20080522


def inheritable(wanted: int | None = None) -> int:
    """The inheritable capabilities of this process, set to `wanted` where that is given."""
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    if wanted is not None:
        sets[2] = wanted
        assert libc.capset(header, sets) == 0
    return int(sets[2])


@pytest.mark.needs_root
def test_what_the_service_was_started_with_is_its_own_no_more() -> None:
    def work() -> tuple[float, int, bool]:
        assert keyring.renew() is None, "this kernel has no keyrings"
        signal.setitimer(signal.ITIMER_REAL, 1000)
        inheritable(1)
        started_in = keyring.session_keyring()
        apart.settle(None)
        return signal.getitimer(signal.ITIMER_REAL)[0], inheritable(), keyring.session_keyring() == started_in

    assert in_child(work) == (0.0, 0, False)
