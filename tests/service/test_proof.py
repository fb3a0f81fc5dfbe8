"""The proof at the start, and in a reload's trial: each thing that it compares, wrong alone, is found and named.

What is wrong is put into the drop itself, in a process of its own, as a fault of this program or of the host would be.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import tools
from buildcore.core.settings import Settings
from buildcore.service import apart, proof
from buildcore.system import keyring, linux, oomscore
from daemon import Service
from daemon_by_hand import say
from forked import in_child
from harness_world import LIBS_GID

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]
Steps = dict[str, Callable[[], object]]

NOBODY = 65534
CAP_CHOWN = 0
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2

libc = ctypes.CDLL(None, use_errno=True)


def raise_ambient() -> None:
    """After a drop that kept its capabilities: have the next program too have one."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)(1, 1, 1)  # effective, permitted, inheritable: CAP_CHOWN
    assert libc.capset(header, sets) == 0
    assert libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0) == 0


def make_inheritable() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[2] = 1
    assert libc.capset(header, sets) == 0


def nothing() -> None:
    """A step that is left out."""


FAULTS: dict[str, tuple[Steps, set[str]]] = {
    "another uid": ({"uid": lambda: os.setresuid(NOBODY - 1, NOBODY - 1, NOBODY - 1)}, {"Uid"}),
    "another real uid": ({"uid": lambda: os.setresuid(NOBODY - 1, NOBODY, NOBODY)}, {"Uid"}),
    "another gid": ({"gid": lambda: os.setresgid(LIBS_GID, LIBS_GID, LIBS_GID)}, {"Gid"}),
    "another real gid": ({"gid": lambda: os.setresgid(LIBS_GID, NOBODY, NOBODY)}, {"Gid"}),
    "root's groups": ({"groups": nothing}, {"Groups"}),
    "one group more": ({"groups": lambda: os.setgroups([NOBODY, LIBS_GID])}, {"Groups"}),
    "no group": ({"groups": lambda: os.setgroups([])}, {"Groups"}),
    "an inheritable capability": ({"last as root": make_inheritable}, {"CapInh"}),
    "a capability": (
        {"last as root": lambda: libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "last": raise_ambient},
        {"CapInh", "CapPrm", "CapEff", "CapAmb"},
    ),
    "no no_new_privs": ({"no_new_privs": nothing}, {"NoNewPrivs"}),
    "a signal that is ignored": ({"last": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)}, {"SigIgn"}),
    "a signal that is blocked": (
        {"last": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])},
        {"SigBlk"},
    ),
    "an open descriptor": ({"last": lambda: os.set_inheritable(os.open("/", os.O_PATH), True)}, {"descriptors"}),
    "standard input closed": ({"last": lambda: os.close(0)}, {"descriptors"}),
    "another OOM score": ({"score": lambda: oomscore.give(777)}, {"oom_score_adj"}),
    "the service's keyring": ({"keyring": nothing}, {"keyring of the service"}),
}
"""What the drop does otherwise, by the step; and what of a build is wrong then."""


def drop(score: int, wrong: Steps) -> None:
    """The drop of `apart.become` without what that verifies itself, so that it is the proof that has to."""
    steps: Steps = {
        "score": lambda: oomscore.give(score),
        "no_new_privs": linux.set_no_new_privs,
        "groups": lambda: os.setgroups([NOBODY]),
        "gid": lambda: os.setresgid(NOBODY, NOBODY, NOBODY),
        "last as root": nothing,
        "uid": lambda: os.setresuid(NOBODY, NOBODY, NOBODY),
        "keyring": keyring.renew_for_build,
        "last": nothing,
    }
    os.seteuid(0)  # as who looks for a build does it, with a session's ids
    for step in {**steps, **wrong}.values():
        step()


def found(wrong: Steps) -> set[str]:
    """The names of what the proof finds wrong."""

    def work() -> str:
        refused = keyring.renew()
        assert refused is None or "keyring" not in wrong, refused
        apart.become = lambda ids, no_new_privs, score, *rest: drop(score, wrong)
        try:
            proof.prove(Settings(), oomscore.own())
        except proof.ProofError as exc:
            return str(exc)
        return ""

    lines = str(in_child(work)).splitlines()
    names = [re.match(r"a build would not run as it is to: ([\w ]+) is '", line) for line in lines]
    assert all(names), lines
    return {name[1] for name in names if name}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_build_would_have_and_is_not_to_is_named(fault: str) -> None:
    wrong, names = FAULTS[fault]
    assert found(wrong) == names


def test_the_drop_of_these_faults_is_right_without_any() -> None:
    assert found({}) == set()


def test_each_thing_that_is_compared_is_wrong_in_one_of_them() -> None:
    compared = set(re.findall(r'^        "([\w ]+)": ', Path(proof.__file__).read_text(), re.MULTILINE))
    assert compared == set.union(*(names for _, names in FAULTS.values()))


# --- a reload ---------------------------------------------------------------------------------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <grp.h>
#include <stdlib.h>
#include <unistd.h>
int setgroups(size_t count, const gid_t *groups) {
    if (access(getenv("SHIM_ORDERED"), F_OK) == 0)
        return 0;
    return ((__typeof__(&setgroups))dlsym(RTLD_NEXT, "setgroups"))(count, groups);
}
"""
"""A setgroups(2) that does nothing, and says that it did it, while a file is there."""


def test_a_reload_to_a_service_whose_builds_would_be_wrong_is_refused_and_everything_stays(
    tmp_path: Path, open_directory: OpenDirectory, start_service: StartService
) -> None:
    tools.need(*tools.TO_COMPILE)
    directory = open_directory()
    ordered, library = directory / "ordered", directory / "shim.so"
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "shim.c", "-ldl"], check=True)
    service = start_service("root", env={"LD_PRELOAD": str(library), "SHIM_ORDERED": str(ordered)})
    daemon = service.daemon
    ordered.touch()
    os.kill(daemon.pid, signal.SIGHUP)
    line = daemon.await_log("reload refused, everything stays as it was")
    assert "cannot drop privileges for cat: groups is " in line
    ordered.unlink()
    say(service, "@echo served")
    assert service.run("make").stdout == "served\n"
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.await_log("build-service listens", count=2)
    assert len([line for line in daemon.log_lines() if "build-service listens" in line]) == 2
