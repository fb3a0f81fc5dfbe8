"""Restart, stop, crash and a broken configuration: what becomes of running builds, and that callers wait."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from harness import PATIENCE_SEC, read_until
from systemd.machine import end
from systemd.service import SERVICE, SOCKET, Installed
from wire import Gate, waiting_make

ENDED = b"build-service is stopping: the build was ended\n"
GRACE_SEC = 60
"""Longer than a stop may take by the unit, so that a stubborn build is ended by the test alone."""


def test_a_restart_ends_running_builds_and_tells_their_callers(service: Installed, gate: Gate) -> None:
    client = service.start_waiting_build("slow")
    before = service.main_pid
    service.systemctl("restart", SERVICE)
    _, err = client.communicate(timeout=PATIENCE_SEC)
    assert err.endswith(ENDED)
    assert client.returncode not in (0, None)
    assert service.main_pid not in (0, before)
    service.journal("build cancelled .*reason=.build-service stops")


def test_a_stop_ends_running_builds_and_tells_their_callers(service: Installed, gate: Gate) -> None:
    client = service.start_waiting_build("slow")
    service.systemctl("stop", SERVICE)
    _, err = client.communicate(timeout=PATIENCE_SEC)
    assert err.endswith(ENDED)
    assert service.show("Result") == "success"


def test_callers_that_come_during_a_restart_wait_and_are_served(service: Installed, gate: Gate) -> None:
    service.configure({"build": {"timeouts": {"grace_sec": GRACE_SEC}}})
    stubborn = service.start_waiting_build("stubborn")
    before = service.main_pid
    service.systemctl("restart", "--no-block", SERVICE)
    service.await_property("ActiveState", "deactivating")
    waiting = service.start_build("make", "quick")
    service.await_waiting_caller()
    assert (service.show("ActiveState"), waiting.poll()) == ("deactivating", None)
    gate.open()
    _, err = stubborn.communicate(timeout=PATIENCE_SEC)
    assert err.endswith(ENDED)
    out, err = waiting.communicate(timeout=PATIENCE_SEC)
    assert (out, err, waiting.returncode) == (b"quick\n", b"", 0)
    assert service.main_pid != before


@contextmanager
def container_with_the_socket_file(service: Installed) -> Iterator[subprocess.Popen[bytes]]:
    """A shell where the socket's own file is mounted and its directory is hidden; a line of input is one build."""
    mounted = "/mnt/socket"
    user = service.caller
    script = f"""
        touch {mounted}
        mount --bind {service.socket} {mounted}
        mount -t tmpfs tmpfs {service.socket.parent}
        cd {service.workspace}
        while read target; do
            setpriv --reuid={user.uid} --regid={user.gid} --init-groups build-cli --socket {mounted} make $target 2>&1
            echo "exit code $?"
        done
    """
    command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script]
    with service.machine.popen(*command, stdin=subprocess.PIPE) as shell:
        try:
            yield shell
        finally:
            end(shell)


def build_in(shell: subprocess.Popen[bytes], target: str) -> str:
    """What a build in the container prints, its exit code included."""
    assert shell.stdin and shell.stdout
    shell.stdin.write(f"{target}\n".encode())
    shell.stdin.flush()
    return read_until(shell.stdout.fileno(), r"exit code \d+\n")


def test_a_container_that_mounts_the_socket_file_goes_on_building(service: Installed) -> None:
    built = "quick\nexit code 0\n"
    with container_with_the_socket_file(service) as container:
        assert build_in(container, "quick") == built
        service.systemctl("restart", SERVICE)
        assert build_in(container, "quick") == built
        service.systemctl("stop", SERVICE)
        assert build_in(container, "quick") == built
        service.signal_main("KILL")
        assert build_in(container, "quick") == built
        service.systemctl("reload", SERVICE)
        service.journal("build-service reloads")
        assert build_in(container, "quick") == built


def test_a_daemon_that_is_killed_is_started_again_and_its_builds_are_ended(service: Installed, gate: Gate) -> None:
    client = service.start_build("make", "slow")
    assert client.stdout
    make = waiting_make(read_until(client.stdout.fileno(), "waits\n"))
    killed = service.main_pid
    service.signal_main("KILL")
    _, err = client.communicate(timeout=PATIENCE_SEC)
    assert err.startswith(b"invalid response from build-service: ")
    assert client.returncode == 1
    service.await_property("NRestarts", "1")
    service.await_property("ActiveState", "active")
    assert service.main_pid != killed
    assert service.machine.run("test", "-e", f"/proc/{make}").returncode == 1
    assert service.build("make", "quick").stdout == "quick\n"


def test_with_a_broken_configuration_callers_wait_until_it_is_mended(service: Installed) -> None:
    service.write_config("[service]\nport = 80\n")
    waiting = [service.start_build("make", "quick") for _ in range(2)]
    service.await_property("NRestarts", "[2-9]")
    assert service.show("ActiveState", SOCKET) == "active"
    service.journal("service.port: unknown key")
    assert [client.poll() for client in waiting] == [None, None]
    service.configure()
    for client in waiting:
        out, err = client.communicate(timeout=PATIENCE_SEC)
        assert (out, err, client.returncode) == (b"quick\n", b"", 0)


def test_a_daemon_that_fails_at_once_and_often_does_not_make_the_socket_fail(service: Installed) -> None:
    """However fast it fails: systemd's limit to how often callers may start a service does not end the socket."""
    inode = service.machine.path(service.socket).stat().st_ino
    service.drop_in("[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=0\n")
    waiting = service.start_build("make", "quick")
    service.await_property("NRestarts", "[3-9][0-9]|[1-9][0-9]{2,}")
    assert service.machine.path(service.socket).stat().st_ino == inode
    assert waiting.poll() is None
    service.undo_drop_in()
    out, err = waiting.communicate(timeout=PATIENCE_SEC)
    assert (out, err, waiting.returncode) == (b"quick\n", b"", 0)
