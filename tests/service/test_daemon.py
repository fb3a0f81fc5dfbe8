"""The daemon: how it starts and refuses to, what its socket is, that it never stands still, and how it ends.

The real program throughout, started as a user starts it.
"""

from __future__ import annotations

import grp
import itertools
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import harness
from daemon import Daemon, Service, toml
from harness import BIN, await_exit, read_until, run_as, write_tree
from harness_world import DEV1, DEV2, OUTSIDER, User, inside
from wire import (
    WAITING,
    Gate,
    RawCaller,
    assert_ended,
    at_rest,
    foreign_processes,
    limit,
    parent_of,
    reap_orphans,
    waiting_make,
)

C_LIBRARYS_OWN = 1 << 31 | 1 << 32
"""Signals 32 and 33 as bits of proc(5): the C library's posix_spawn(3), by which make starts a recipe, ignores them."""

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]
MANY_BUILDS = 60
"""More than the 40 children at which a stock socketserver.ForkingMixIn stops to accept."""

STOPPING = "build-service is stopping: the build was ended\n"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon that is set up and not started; whoever runs the tests is its user."""
    built = Daemon()
    yield built
    built.kill()
    built.remove()


def run_daemon(daemon: Daemon, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Runs build-service with the arguments to its end, as the daemon's user; returns code, stdout and stderr."""
    env = {"PATH": harness.daemon_path(), **(env or {})}
    done = run_as(daemon.user, [BIN / "build-service", *arguments], Path("/"), env)
    return done.returncode, done.stdout, done.stderr


def start_and_fail(daemon: Daemon) -> str:
    """Starts the daemon, which must refuse with exit code 1 and one line; returns that line."""
    code, out, err = run_daemon(daemon, "--config", str(daemon.config))
    assert (code, out) == (1, "")
    assert err.startswith("build-service: ") and err.endswith("\n") and err.count("\n") == 1, err
    return err


def write_config(daemon: Daemon, text: str) -> None:
    write_tree(daemon.directory, {"config.toml": text}, daemon.user)


def say(service: Service, *lines: str) -> None:
    """Writes a Makefile whose only target runs `lines`."""
    write_tree(service.workspace, {"Makefile": "all:\n" + "".join(f"\t{line}\n" for line in lines)}, service.caller)


# --- the command line and the configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["--check-config", "--config", "CONFIG"]])
def test_standard_output_that_takes_no_more_is_one_line(arguments: list[str], daemon: Daemon) -> None:
    words = [str(daemon.config) if word == "CONFIG" else word for word in arguments]
    with open("/dev/full", "w") as full:
        env = {"PATH": harness.daemon_path()}
        done = run_as(daemon.user, [BIN / "build-service", *words], "/", env, stdout=full)
    assert (done.stderr, done.returncode) == ("build-service: No space left on device\n", 1)


def test_a_valid_configuration_is_called_valid_and_nothing_is_started(daemon: Daemon) -> None:
    assert run_daemon(daemon, "--config", str(daemon.config), "--check-config") == (0, "configuration is valid\n", "")
    assert not daemon.socket.exists()
    assert not daemon.log_path.exists()


@pytest.mark.parametrize("check", [True, False], ids=["check", "start"])
def test_every_fault_of_a_configuration_has_a_line_of_its_own(daemon: Daemon, check: bool) -> None:
    write_config(
        daemon,
        '[service]\nsocket_mode = "0999"\nsocket_pth = "/x"\n'
        '[build]\ncommands = { make = "make" }\n[build.timeouts]\nmax_sec = "long"\n[loging]\nlevel = "info"\n',
    )
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), *["--check-config"] * check)
    assert (code, out) == (1, "")
    assert all(line.startswith("build-service: ") for line in err.splitlines()), err
    faults = ["service.socket_mode", "service.socket_pth", "build.commands.make", "build.timeouts.max_sec", "loging"]
    for fault in faults:
        assert sum(fault in line for line in err.splitlines()) == 1, (fault, err)
    assert "Traceback" not in err
    assert not daemon.socket.exists()


NO_TOML = {"table": "[service\n", "value": "a = \n", "nul": "\x00", "not UTF-8": "\udcff"}


@pytest.mark.parametrize("content", NO_TOML.values(), ids=NO_TOML)
def test_a_configuration_that_is_no_toml_is_one_line_that_names_the_file(daemon: Daemon, content: str) -> None:
    daemon.config.write_bytes(content.encode("utf-8", "surrogateescape"))
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), "--check-config")
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("build-service: ") and str(daemon.config) in err


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_configuration_that_cannot_be_read_is_one_line_that_names_the_file(daemon: Daemon, name: str) -> None:
    path = str(daemon.directory / name)
    code, out, err = run_daemon(daemon, "--config", path)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert path in err and "Traceback" not in err


def test_the_environment_names_the_configuration_unless_the_command_line_does(daemon: Daemon) -> None:
    env = {"BUILD_SERVICE_CONFIG": str(daemon.config)}
    assert run_daemon(daemon, "--check-config", env=env) == (0, "configuration is valid\n", "")
    missing = {"BUILD_SERVICE_CONFIG": str(daemon.directory / "none.toml")}
    code, _, err = run_daemon(daemon, "--check-config", env=missing)
    assert code == 1 and "none.toml" in err
    assert run_daemon(daemon, "--config", str(daemon.config), "--check-config", env=missing)[0] == 0


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--ready-fd", "x"], ["extra"]])
def test_a_wrong_command_line_is_refused_with_the_usage(daemon: Daemon, arguments: list[str]) -> None:
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: build-service ") and "Traceback" not in err


@pytest.mark.parametrize("number", ["99", "-1", "99999999999999999999"])
def test_a_ready_descriptor_that_is_not_open_is_one_line(daemon: Daemon, number: str) -> None:
    code, out, err = run_daemon(daemon, "--config", str(daemon.config), f"--ready-fd={number}")
    assert (code, out, err) == (1, "", f"build-service: --ready-fd {number}: not an open descriptor\n")
    assert not daemon.socket.exists()


@pytest.mark.parametrize("prefork", [0, 2])
def test_the_ready_descriptor_gets_one_line_and_is_closed_while_the_service_runs(daemon: Daemon, prefork: int) -> None:
    daemon.settings["service"]["prefork"] = prefork
    write_config(daemon, toml(daemon.settings))
    reader, writer = os.pipe()
    argv = [BIN / "build-service", "--config", daemon.config, "--ready-fd", str(writer)]
    with harness.popen_as(daemon.user, argv, "/", {"PATH": harness.daemon_path()}, pass_fds=[writer]) as process:
        try:
            os.close(writer)
            with open(reader, "rb") as lines:
                assert lines.read() == b"ready\n"  # to the end: no process of the service keeps it open
            assert process.poll() is None
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_need_no_configuration(daemon: Daemon, option: str) -> None:
    code, out, err = run_daemon(daemon, option, env={"BUILD_SERVICE_CONFIG": "/nonexistent"})
    assert (code, err) == (0, "")
    assert "build-service" in out


# --- a single user's service ------------------------------------------------------------------------------------------


@contextmanager
def users_own_service(env: Mapping[str, str], user: User) -> Iterator[subprocess.Popen[bytes]]:
    reader, writer = os.pipe()
    argv = [BIN / "build-service", "--user", "--ready-fd", str(writer)]
    env = {"PATH": harness.daemon_path(), **env}
    with harness.popen_as(user, argv, "/", env, pass_fds=[writer], stdin=subprocess.DEVNULL) as process:
        os.close(writer)
        with open(reader, "rb") as lines:
            try:
                assert lines.readline() == b"ready\n"
                yield process
            finally:
                process.terminate()
    assert process.returncode == 0


@pytest.fixture
def single() -> Iterator[tuple[User, Path]]:
    """A user that is not root, and a directory of its own."""
    user = DEV1 if inside() else harness.current_user()
    directory = harness.open_directory(user)
    yield user, directory
    shutil.rmtree(directory)


def xdg(directory: Path) -> dict[str, str]:
    return {
        "XDG_CONFIG_HOME": f"{directory}/config",
        "XDG_RUNTIME_DIR": f"{directory}/run",
        "XDG_STATE_HOME": f"{directory}/state",
    }


def test_a_users_own_service_lives_below_its_xdg_directories_and_builds(single: tuple[User, Path]) -> None:
    user, directory = single
    work = directory / "work" / user.name / "workspace"
    settings = {"build": {"workspace_root": str(directory / "work")}}
    files = {
        "config/build-service/config.toml": toml(settings),
        "run/.keep": "",
        "state/.keep": "",
        str(work.relative_to(directory) / "Makefile"): "all:\n\t@id -un\n",
    }
    write_tree(directory, files, user)
    socket_path = directory / "run/build-service/build-service.sock"
    with users_own_service(xdg(directory), user):
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
        built = run_as(user, [BIN / "build-cli", "--socket", socket_path, "make"], work)
        assert (built.stdout, built.stderr, built.returncode) == (f"{user.name}\n", "", 0)
        assert stat.S_IMODE((directory / "state/build-service/build-service.log").stat().st_mode) == 0o600
    assert not socket_path.exists()


def test_a_users_own_service_needs_no_configuration(single: tuple[User, Path]) -> None:
    user, directory = single
    write_tree(directory, {"run/.keep": "", "state/.keep": ""}, user)
    with users_own_service(xdg(directory), user):
        assert (directory / "run/build-service/build-service.sock").is_socket()


def test_a_users_own_configuration_may_come_and_go_between_reloads(single: tuple[User, Path]) -> None:
    user, directory = single
    write_tree(directory, {"config/build-service/config.toml": "", "run/.keep": "", "state/.keep": ""}, user)
    config, log = directory / "config/build-service/config.toml", directory / "state/build-service/build-service.log"

    def listens(times: int) -> bool:
        return log.exists() and log.read_text().count("build-service listens") == times

    with users_own_service(xdg(directory), user) as process:
        config.unlink()
        process.send_signal(signal.SIGHUP)
        assert harness.await_in_directory(log.parent, lambda: listens(2)), log.read_text()
        write_tree(directory, {"config/build-service/config.toml": "nonsense"}, user)
        process.send_signal(signal.SIGHUP)
        harness.await_in_directory(log.parent, lambda: "reload refused" in log.read_text())


def test_a_relative_xdg_variable_counts_as_unset(single: tuple[User, Path]) -> None:
    user, directory = single
    env = {**xdg(directory), "PATH": harness.daemon_path(), "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config"}
    write_tree(directory, {"config/build-service/config.toml": "nonsense", "run/.keep": ""}, user)
    checked = run_as(user, [BIN / "build-service", "--user", "--check-config"], directory, env)
    assert (checked.stdout, checked.returncode) == ("configuration is valid\n", 0)


def test_a_users_own_service_without_a_runtime_directory_says_what_is_missing(single: tuple[User, Path]) -> None:
    user, directory = single
    env = {**xdg(directory), "XDG_RUNTIME_DIR": f"{directory}/none", "PATH": harness.daemon_path()}
    refused = run_as(user, [BIN / "build-service", "--user"], Path("/"), env)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused
    assert f"{directory}/none/build-service/build-service.sock" in refused.stderr


@pytest.mark.needs_root
def test_root_is_told_that_user_is_not_for_it(daemon: Daemon) -> None:
    expected = "build-service: --user is for ordinary users: root serves everybody, without it\n"
    assert run_daemon(daemon, "--user") == (1, "", expected)


@pytest.mark.needs_root
def test_a_single_users_service_refuses_another_user_whatever_the_socket_lets_through(
    start_service: StartService,
) -> None:
    service = start_service("user")
    service.daemon.socket.chmod(0o666)
    refused = service.run("make", user=DEV2, cwd=Path("/"))
    assert refused.stderr == f"this build-service serves uid {DEV1.uid} alone\n"
    assert (refused.stdout, refused.returncode) == ("", 1)


# --- the socket -------------------------------------------------------------------------------------------------------


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


def kill_arbiter(service: Service) -> list[int]:
    """SIGKILL to the arbiter alone; returns the pids of what it leaves."""
    left = [process.pid for process in harness.descendants(service.daemon.pid)]
    service.daemon.kill()
    return left


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


# --- what the daemon inherits -----------------------------------------------------------------------------------------


@contextmanager
def wrapped_daemon(preparation: str, redirections: str = "") -> Iterator[Path]:
    """A directory of programs whose build-service first runs a line of sh, and starts with some redirections."""
    directory = harness.open_directory()
    program = f'#!/bin/sh\n{preparation}\nexec "{BIN}/build-service" "$@" {redirections}\n'
    write_tree(directory, {"build-service": program})
    (directory / "build-cli").symlink_to(BIN / "build-cli")
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"])
def test_a_daemon_that_starts_without_standard_descriptors_serves(
    closed: str, flavour: str, start_service: StartService
) -> None:
    with wrapped_daemon("", closed) as programs:
        service = start_service(flavour, programs=programs)
        say(service, "@echo out", "@echo err >&2", "@cat")
        built = service.run("make")
        assert (built.stdout, built.stderr, built.returncode) == ("out\n", "err\n", 0)
        service.daemon.await_log("build completed")


def test_a_build_gets_no_descriptor_that_the_daemon_was_started_with(flavour: str, start_service: StartService) -> None:
    with wrapped_daemon("", "3</etc/passwd 7</etc/passwd 9>/dev/null") as programs:
        service = start_service(flavour, programs=programs)
        say(service, "@ls -l /proc/self/fd")
        built = service.run("make")
    shown = [line.split(" ", 8)[-1].strip() for line in built.stdout.splitlines()[1:]]
    numbers = sorted(int(line.split()[-3]) for line in built.stdout.splitlines()[1:])
    assert numbers == [0, 1, 2, 3], shown  # 3 is the directory that ls lists
    assert "/etc/passwd" not in built.stdout
    assert "0 -> /dev/null" in built.stdout


def test_signals_that_the_daemon_was_started_with_ignored_do_not_reach_a_build_ignored(
    flavour: str, start_service: StartService
) -> None:
    with wrapped_daemon("trap '' HUP INT QUIT PIPE USR1 TERM") as programs:
        service = start_service(flavour, programs=programs)
        say(service, "@grep -E 'Sig(Ign|Blk)' /proc/self/status")
        built = service.run("make")
    for line in built.stdout.splitlines():
        bits = int(line.split()[1], 16)
        assert bits & ~C_LIBRARYS_OWN == 0, built.stdout
    assert built.stdout.count("Sig") == 2


# --- it never stands still --------------------------------------------------------------------------------------------


def test_many_builds_at_once_do_not_stop_the_next_one(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}quick:\n\t@echo quick\n"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(service)).ask() for _ in range(MANY_BUILDS)]
        for caller in callers:
            caller.await_output("waits\n")
        with RawCaller(service) as one_more:
            assert one_more.ask("quick").exit()["code"] == 0
            assert one_more.text() == "quick\n"
        gate.open(MANY_BUILDS)
        assert [caller.exit()["code"] for caller in callers] == [0] * MANY_BUILDS
    assert at_rest(service.daemon)


def test_silent_callers_hold_nobody_up(service: Service) -> None:
    say(service, "@echo served")
    with ExitStack() as stack:
        for count in range(MANY_BUILDS):
            caller = stack.enter_context(RawCaller(service))
            caller.send(b'{"command":' if count % 2 else b"")
        assert service.run("make").stdout == "served\n"
    assert at_rest(service.daemon)


def test_without_a_descriptor_for_the_next_caller_the_daemon_waits_and_goes_on(
    flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour)
    say(service, "@echo served")
    used = {int(name) for name in os.listdir(f"/proc/{service.daemon.pid}/fd")}
    before = limit(service, "RLIMIT_NOFILE", next(number for number in itertools.count() if number not in used))
    with RawCaller(service) as caller:
        caller.ask()
        service.daemon.await_log("ERROR build_service: cannot accept a caller reason=")
        limit(service, "RLIMIT_NOFILE", before)
        assert caller.exit()["code"] == 0
        assert caller.text() == "served\n"


def test_without_a_process_for_a_caller_the_daemon_tells_it_and_goes_on(start_service: StartService) -> None:
    service = start_service("user", {"service": {"prefork": 0}})
    say(service, "@echo served")
    before = limit(service, "RLIMIT_NPROC", 0)
    refused = service.run("make")
    limit(service, "RLIMIT_NPROC", before)
    expected = "build-service cannot serve this request: Resource temporarily unavailable\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", expected, 1)
    assert service.run("make").stdout == "served\n"


@pytest.mark.parametrize("prefork", [0, 1, 4])
def test_so_many_sessions_as_configured_are_forked_ahead(
    prefork: int, flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour, {"service": {"prefork": prefork}})
    say(service, "@echo served")
    for _ in range(prefork + 2):
        assert service.run("make").stdout == "served\n"
    assert at_rest(service.daemon, prefork)


def test_a_session_forked_ahead_that_is_killed_is_replaced(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    say(service, "@echo served")
    writer, *idle = sorted(process.pid for process in harness.descendants(service.daemon.pid))
    for _ in range(3):
        os.kill(idle[0], signal.SIGKILL)
        assert await_exit(idle[0])
        assert service.run("make").stdout == "served\n"
        idle = [process.pid for process in harness.descendants(service.daemon.pid) if process.pid != writer]
    service.daemon.await_log("a session was killed pid=[0-9]+ signal=9")
    assert at_rest(service.daemon)


def wake_ups(pids: list[int]) -> list[str]:
    """How often each process gave up the processor because it had nothing to do (proc(5))."""
    counts = []
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        counts.append(next(line for line in lines if line.startswith("voluntary_ctxt_switches")))
    return counts


def test_nothing_wakes_up_while_nothing_happens(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        make = waiting_make(caller.ask().await_output("waits\n"))
        assert parent_of(make) in {process.pid for process in harness.descendants(service.daemon.pid)}
        quiet = select.select([caller.socket], [], [], 0.2)  # what the build's start still set going comes to rest
        pids = [service.daemon.pid, *sorted(process.pid for process in harness.descendants(service.daemon.pid))]
        before = wake_ups(pids)
        assert quiet == select.select([caller.socket], [], [], 0.5) == ([], [], [])
        assert wake_ups(pids) == before
        gate.open()
        assert caller.exit()["code"] == 0


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_when_told_to_stop_it_ends_builds_by_the_ladder_and_tells_their_callers(
    signum: signal.Signals, flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour)
    say(service, "@trap 'echo heard TERM; exit 3' TERM; echo make $$PPID waits; read x < gate")
    with Gate(service.workspace, service.caller), RawCaller(service) as raw:
        client = service.popen("make")
        assert client.stdout and client.stderr
        first = waiting_make(read_until(client.stdout.fileno(), "waits\n"))
        second = waiting_make(raw.ask(features=[]).await_output("waits\n"))
        os.kill(service.daemon.pid, signum)
        out, err = client.communicate()
        assert "heard TERM" in out.decode()
        assert err.decode().endswith(STOPPING)
        assert client.returncode not in (0, 124)
        exit_ = raw.exit()
        assert "heard TERM" in raw.text() and raw.text().endswith(STOPPING)
        assert exit_["error"] == {"kind": "stopping", "message": STOPPING.strip()}
        assert exit_["timed_out"] is False
        assert_ended(first, second)
        assert await_exit(service.daemon.pid)
    service.daemon.stop()  # it was 0, and the socket is gone
    lines = service.daemon.log_lines()
    assert sum("build cancelled" in line and "reason=" in line for line in lines) == 2, lines
    assert lines[-1].endswith("build-service stopped")


def test_a_build_that_ignores_sigterm_is_killed_after_the_grace_when_the_daemon_stops(
    flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour, {"build": {"timeouts": {"grace_sec": 1}}})
    say(service, "@trap '' TERM; echo make $$PPID waits; while :; do read x < gate; done")
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        caller.ask().await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert caller.exit()["code"] != 0
        assert caller.text().endswith(STOPPING)
    assert await_exit(service.daemon.pid)
    assert not {process.name for process in harness.descendants(os.getpid())} & {"make", "sh"}


def test_a_daemon_that_stops_takes_no_more_callers_and_does_not_wait_for_silent_ones(service: Service) -> None:
    with RawCaller(service) as silent, RawCaller(service) as half:
        half.send(b'{"command":"make"')
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert await_exit(service.daemon.pid, 8)
        refused = service.run("make")
        assert refused.stderr == f"build-service socket not found at {service.daemon.socket}\n"
        assert silent.exit()["code"] == half.exit()["code"] == 1
        assert silent.text() == half.text() == STOPPING


def test_a_second_sigterm_does_not_cut_the_ladder_short(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    on_term = "echo heard; read x < gate; echo finished; exit 0"
    say(service, f"@trap '{on_term}' TERM; echo waits; while :; do read x < gate; done")
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask().await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGTERM)
        caller.await_output("heard\n")
        os.kill(service.daemon.pid, signal.SIGTERM)
        gate.open(2)  # make passes the signal on, so the recipe may hear it, and wait, twice
        caller.exit()
        assert "finished\n" in caller.text()
    assert await_exit(service.daemon.pid)


def test_builds_of_a_killed_daemon_finish_and_the_next_one_serves_beside_them(
    flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour)
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}quick:\n\t@echo quick\n"}, service.caller)
    with Gate(service.workspace, service.caller) as gate:
        client = service.popen("--request-id", "over-the-kill", "make")
        assert client.stdout
        read_until(client.stdout.fileno(), "waits\n")
        left = kill_arbiter(service)
        service.daemon.start()
        assert service.run("make", "quick").stdout == "quick\n"
        gate.open()
        out, err = client.communicate()
        assert (out, err, client.returncode) == (b"done\n", b"", 0)
    reap_orphans(left)
    service.daemon.await_log("build completed .*exit_code=0 .*request_id=over-the-kill")


def test_builds_of_a_killed_daemon_still_time_out(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    say(service, WAITING.strip())
    with Gate(service.workspace, service.caller):
        client = service.popen("--timeout", "1", "make")
        assert client.stdout
        make = waiting_make(read_until(client.stdout.fileno(), "waits\n"))
        left = kill_arbiter(service)
        _, err = client.communicate()
        assert client.returncode == 124
        assert err.endswith(b"build timed out after 1s\n")
        reap_orphans([make, *left])
    service.daemon.start()


def test_builds_of_a_killed_daemon_still_end_with_their_caller(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    say(service, WAITING.strip())
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        make = waiting_make(caller.ask().await_output("waits\n"))
        left = kill_arbiter(service)
        caller.close()
        reap_orphans([make, *left])
    service.daemon.start()


def test_the_log_writer_that_is_killed_is_replaced_and_loses_no_build(service: Service) -> None:
    say(service, "@echo served")
    writer = min(process.pid for process in harness.descendants(service.daemon.pid))
    os.kill(writer, signal.SIGKILL)
    assert service.run("--request-id", "between", "make").stdout == "served\n"
    service.daemon.await_log("the log writer had ended and was started again")
    service.daemon.await_log("build completed .*request_id=between")


def test_a_session_that_is_killed_is_reported_and_nothing_of_its_build_is_left(service: Service) -> None:
    hidden = "setsid sh -c 'trap \"\" TERM INT HUP; echo hidden $$$$; exec 3<gate; read x <&3' &"
    say(service, f"@{hidden} echo make $$PPID waits; read x < gate")
    with Gate(service.workspace, service.caller):
        client = service.popen("make")
        assert client.stdout
        text = read_until(client.stdout.fileno(), r"(?s)(?=.*waits\n).*hidden \d+\n")
        make, away = waiting_make(text), int(re.findall(r"hidden (\d+)", text)[0])
        os.kill(parent_of(make), signal.SIGKILL)
        _, err = client.communicate()
        expected = b"invalid response from build-service: the connection ended before the build's exit\n"
        assert (err, client.returncode) == (expected, 1)
        service.daemon.await_log("a session was killed pid=[0-9]+ signal=9")
        service.daemon.await_log("ended what a killed session left running processes=.*make")
        assert_ended(make, away)
    say(service, "@echo served")
    assert service.run("make").stdout == "served\n"
    assert not foreign_processes(service.daemon)


def test_a_build_that_timed_out_is_logged_while_its_caller_does_not_read(service: Service) -> None:
    say(service, "@yes")
    with RawCaller(service) as caller:
        caller.ask(timeout_sec=1)
        service.daemon.await_log("WARN build_service: build timed out .*exit_code=124 ")
        assert caller.exit() == {"type": "exit", "code": 124, "timed_out": True}
