"""The socket that the daemon binds: whose it is, what it takes the place of and what never, and who wins it."""

from __future__ import annotations

import grp
import os
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import harness
from daemon import Daemon, Service, toml
from daemon_by_hand import kill_arbiter, say, start_and_fail, wrapped_daemon, write_config
from harness import BIN, read_until, write_tree
from harness_world import OUTSIDER, User
from wire import reap_orphans

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]


@pytest.mark.needs_root
@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_the_socket_has_the_configured_mode_and_group_whatever_the_umask(
    mode: int, start_service: StartService
) -> None:
    with wrapped_daemon("umask 0") as programs:
        service = start_service("root", {"service": {"socket_mode": f"{mode:04o}"}}, programs=programs)
        found = service.daemon.socket.stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert (found.st_uid, grp.getgrgid(found.st_gid).gr_name) == (0, "builders")


def test_until_it_is_opened_the_socket_is_its_owners_alone(daemon: Daemon) -> None:
    """Python tells a hook of every chmod and chown before it is done: there the mode that bind(2) left is seen."""
    program = (
        "import os, sys\n"
        "from buildcore.system import listener\n"
        "from buildcore.core.settings import Service\n"
        "path, group = sys.argv[1:]\n"
        "def look(event, args):\n"
        "    if event in ('os.chown', 'os.chmod'):\n"
        "        print(event, oct(os.stat(path).st_mode & 0o777))\n"
        "os.umask(0)\n"
        "sys.addaudithook(look)\n"
        "listener.bind(Service(socket_path=path, socket_group=group, socket_mode=0o666), private=False)\n"
        "print(oct(os.umask(0)))\n"
    )
    group = daemon.settings["service"]["socket_group"]
    command = [sys.executable, "-c", program, str(daemon.socket), group]
    env = {"PYTHONPATH": str(harness.TREE / "lib")}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert shown.stdout == "os.chown 0o700\nos.chmod 0o700\n0o0\n"
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o666


def test_a_group_that_does_not_exist_is_one_line(daemon: Daemon) -> None:
    daemon.settings["service"]["socket_group"] = "no-such-group"
    write_config(daemon, toml(daemon.settings))
    if daemon.user.uid == 0:
        expected = "build-service: service.socket_group: there is no group no-such-group on this host\n"
        assert start_and_fail(daemon) == expected
        assert not daemon.socket.exists()
    else:
        daemon.start().stop()  # a single user's service gives its socket to no group


def test_a_directory_that_cannot_be_made_is_one_line(daemon: Daemon) -> None:
    daemon.settings["service"]["socket_path"] = str(daemon.directory / "a/b/c.sock")
    write_config(daemon, toml(daemon.settings))
    line = start_and_fail(daemon)
    assert line == f"build-service: cannot listen on {daemon.directory}/a/b/c.sock: No such file or directory\n"


def test_a_log_that_cannot_be_opened_is_one_line_and_leaves_no_socket(daemon: Daemon) -> None:
    write_tree(daemon.directory, {"log/build-service.log/x": ""}, daemon.user)
    assert "cannot open the log file" in start_and_fail(daemon)
    assert not daemon.socket.exists()


def leave_stale_socket(path: Path, owner: User) -> None:
    """What a daemon that was killed leaves: a socket file on which nobody listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    harness.give(path, owner)


@pytest.mark.needs_root
def test_nobody_else_can_keep_the_daemon_from_its_socket(
    open_directory: OpenDirectory, start_service: StartService
) -> None:
    """The socket's directory is open to all: whoever may read it may lock it (flock(2))."""
    directory = open_directory()
    hold = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), 2); print('held', flush=True); input()"
    python = f"{harness.python_directory()}/python3"
    command = [python, "-c", hold, directory]
    with harness.popen_as(OUTSIDER, command, "/", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outsider:
        assert outsider.stdout
        read_until(outsider.stdout.fileno(), "held\n")
        service = start_service("root", {"service": {"socket_path": str(directory / "s")}})
        assert sorted(path.name for path in directory.iterdir()) == ["s"]
        assert outsider.poll() is None
        say(service, "@echo served")
        assert service.run("make").stdout == "served\n"
        outsider.communicate(b"\n")


def test_a_stale_socket_is_replaced(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    reap_orphans(kill_arbiter(service))
    assert service.daemon.socket.is_socket()  # SIGKILL leaves no time to remove it
    service.daemon.start()
    say(service, "@echo served")
    assert service.run("make").stdout == "served\n"


def test_the_socket_of_a_live_daemon_is_left_to_it(service: Service) -> None:
    inode = service.daemon.socket.stat().st_ino
    reason = f"cannot listen on {service.daemon.socket}: a build-service is listening there already"
    assert start_and_fail(service.daemon) == f"build-service: {reason}\n"
    assert service.daemon.socket.stat().st_ino == inode
    say(service, "@echo served")
    assert service.run("make").stdout == "served\n"


def test_a_live_server_that_is_too_busy_to_accept_keeps_its_socket(daemon: Daemon) -> None:
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(daemon.socket))
        busy.listen(0)
        for _ in range(3):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            caller.connect_ex(str(daemon.socket))
        harness.give(daemon.socket, daemon.user)
        assert "listening there already" in start_and_fail(daemon)
        assert daemon.socket.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "link to a stale socket", "dangling link"])
def test_what_is_no_socket_is_never_replaced(daemon: Daemon, kind: str) -> None:
    path = daemon.socket
    if kind == "file":
        write_tree(path.parent, {path.name: "precious\n"}, daemon.user)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a stale socket":
        leave_stale_socket(path.with_suffix(".other"), daemon.user)
        path.symlink_to(path.with_suffix(".other"))
    else:
        path.symlink_to("nowhere")
    before = path.lstat()
    assert start_and_fail(daemon) == f"build-service: cannot listen on {path}: it exists and is no socket\n"
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    if kind == "link to a stale socket":
        assert path.with_suffix(".other").is_socket()


def test_of_daemons_that_start_at_once_one_serves_and_the_others_say_why_not(daemon: Daemon) -> None:
    leave_stale_socket(daemon.socket, daemon.user)
    argv = [BIN / "build-service", "--config", daemon.config]
    env = {"PATH": harness.daemon_path()}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    started = [harness.popen_as(daemon.user, argv, "/", env, **pipes) for _ in range(6)]
    try:
        pidfds = {os.pidfd_open(process.pid): process for process in started}
        ended: list[subprocess.Popen[bytes]] = []
        while len(ended) < len(started) - 1:
            ready = select.select(list(pidfds), [], [], harness.PATIENCE_SEC)[0]
            assert ready, f"{len(pidfds)} daemons run"
            for pidfd in ready:
                ended.append(pidfds.pop(pidfd))
                os.close(pidfd)
        for process in ended:
            _, err = process.communicate()
            assert process.returncode == 1
            assert err.endswith(b": a build-service is listening there already\n") and err.count(b"\n") == 1, err
        (pidfd, serving), = pidfds.items()
        os.close(pidfd)
        daemon.await_log(f"build-service listens .*pid={serving.pid} ")
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(daemon.socket))
    finally:
        for process in started:
            process.terminate()
            process.wait()
            assert process.stderr
            process.stderr.close()
    assert serving.returncode == 0
    assert not daemon.socket.exists()


def test_a_daemon_that_stops_leaves_a_socket_that_is_not_its_own(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    service.daemon.socket.unlink()
    leave_stale_socket(service.daemon.socket, service.daemon.user)
    with pytest.raises(AssertionError, match="is still there"):  # what the harness looks at last
        service.daemon.stop()
    service.daemon.socket.unlink()
