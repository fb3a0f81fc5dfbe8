"""A build that became somebody else by a set-user-ID program is ended like any other: its session signals it as root.

Who wants such builds sets build.no_new_privs to false. A session has the caller's effective and root's real uid: with
these it may signal what is root's or the caller's (kill(2)), and nobody else's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
import tools
from daemon import Service
from harness import write_tree
from harness_world import DEV1, DEV2
from wire import Gate, RawCaller, assert_ended, at_rest

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

MOUNTED = """
import ctypes, os, shutil, sys
CLONE_NEWNS = 0x20000
directory, program = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
call("unshare", CLONE_NEWNS)
call("mount", b"tmpfs", directory.encode(), b"tmpfs", ctypes.c_ulong(0), b"mode=755")
shutil.copyfile(program, f"{directory}/chroot")
os.chmod(f"{directory}/chroot", 0o4755)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts the daemon where a directory has a set-user-ID program: the private world's own file systems obey no such."""

AS_ANOTHER = "{directory}/chroot --userspec={uid}:{uid} / /bin/sh -c 'echo $$$$ is $$(id -ru); exec sleep 1000'"


@pytest.fixture(params=[0, DEV2.uid], ids=["root", DEV2.name])
def service(request: pytest.FixtureRequest, start_service: StartService, open_directory: OpenDirectory) -> Service:
    directory = open_directory()
    chroot = shutil.which("chroot", path=tools.SEARCHED)
    assert chroot
    python = f"{harness.daemon_python_directory()}/python3"
    settings = {"build": {"no_new_privs": False, "timeouts": {"grace_sec": 1}}}
    service = start_service("root", settings, launcher=[python, "-I", "-c", MOUNTED, str(directory), chroot])
    as_another = AS_ANOTHER.format(directory=directory, uid=request.param)
    lines = f"run:\n\t@{as_another}\nleave:\n\t@{as_another} & read x < gate\n"
    write_tree(service.workspace, {"Makefile": lines}, DEV1)
    return service


def other_s(caller: RawCaller) -> int:
    """The pid of what became somebody else in the build."""
    found = re.search(rf"^(\d+) is (?:0|{DEV2.uid})$", caller.await_output(r"is \d+\n"), re.MULTILINE)
    assert found, caller.text()
    return int(found[1])


def assert_all_ended(service: Service, pid: int) -> None:
    assert_ended(pid)
    assert at_rest(service.daemon)
    assert not [line for line in service.daemon.log_lines() if "survivors" in line]


def test_a_timeout_ends_what_became_somebody_else(service: Service) -> None:
    with RawCaller(service) as caller:
        pid = other_s(caller.ask("run", timeout_sec=1))
        assert caller.exit()["code"] == 124
        assert_all_ended(service, pid)


def test_a_hang_up_ends_what_became_somebody_else(service: Service) -> None:
    with RawCaller(service) as caller:
        pid = other_s(caller.ask("run"))
    assert_all_ended(service, pid)


def test_what_became_somebody_else_ends_behind_a_build_that_leaves_it(service: Service) -> None:
    with Gate(service.workspace, DEV1) as gate, RawCaller(service) as caller:
        pid = other_s(caller.ask("leave"))
        gate.open()
        assert caller.exit()["code"] == 0
        assert_all_ended(service, pid)


def test_the_end_of_the_service_ends_what_became_somebody_else(service: Service) -> None:
    with RawCaller(service) as caller:
        pid = other_s(caller.ask("run"))
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert caller.exit()["code"] != 0
        assert_ended(pid)
        assert harness.await_exit(service.daemon.pid)
