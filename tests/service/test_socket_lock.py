"""The lock beside the socket: its file is the daemon's user's alone while it is there, and it is no way elsewhere."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from daemon import Daemon, Service
from daemon_by_hand import start_and_fail
from harness import give

StartService = Callable[..., Service]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_while_it_is_held_its_file_is_open_to_nobody_else_whatever_the_umask(umask: int, daemon: Daemon) -> None:
    """Python tells a hook of the socket's chmod before it is done: the lock is held then."""
    program = (
        "import os, sys\n"
        "from buildcore.system import listener\n"
        "from buildcore.core.settings import Service\n"
        "path, umask = sys.argv[1:]\n"
        "def look(event, args):\n"
        "    if event == 'os.chmod':\n"
        "        found = os.lstat(path + '.lock')\n"
        "        print(oct(found.st_mode), found.st_uid == os.geteuid())\n"
        "os.umask(int(umask))\n"
        "sys.addaudithook(look)\n"
        "listener.bind(Service(socket_path=path), private=True)\n"
        "print(os.path.lexists(path + '.lock'))\n"
    )
    command = [sys.executable, "-c", program, str(daemon.socket), str(umask)]
    env = {"PYTHONPATH": str(harness.TREE / "lib")}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert shown.stdout == f"{oct(stat.S_IFREG | 0o600)} True\nFalse\n"


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_in_its_place_leads_nowhere(there: bool, daemon: Daemon) -> None:
    lock, target = Path(f"{daemon.socket}.lock"), daemon.directory / "target"
    if there:
        target.write_text("precious\n")
        give(target, daemon.user)
    lock.symlink_to(target)
    reason = "Too many levels of symbolic links"
    assert start_and_fail(daemon) == f"build-service: cannot listen on {daemon.socket}: {reason}\n"
    assert lock.is_symlink() and os.path.exists(target) == there
    assert not there or target.read_text() == "precious\n"
    assert not daemon.socket.exists()


@pytest.mark.parametrize("left", [0o600, 0o000], ids=oct)
def test_one_that_a_killed_daemon_left_stops_none(left: int, flavour: str, start_service: StartService) -> None:
    with_lock = start_service(flavour).daemon
    with_lock.stop()
    lock = Path(f"{with_lock.socket}.lock")
    lock.touch()
    give(lock, with_lock.user)
    lock.chmod(left if with_lock.user.uid == 0 else 0o600)
    with_lock.start()
    assert not lock.exists()
