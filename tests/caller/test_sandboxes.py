"""In a sandbox that forbids sockets client, fallback and doctor say so; a socket that was inherited serves."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

import harness
import seccomp
from buildcore.caller import agents
from clients import client, makefile, told
from daemon import Service
from doctors import Done, failure
from fake_server import CALLER
from harness import BIN, run_as
from harness_world import BUILDERS_GID, inside
from wire import acting_as

CALLS = {"socket": seccomp.SOCKET, "connect": seccomp.CONNECT}
AGENTS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "nobody known": ({}, "a sandbox forbids it: that of an agent? build-ctl agents tells what opens it"),
    "Claude Code": (
        {"CLAUDECODE": "1"},
        "the sandbox of Claude Code forbids it:"
        " sandbox.network.allowAllUnixSockets in ~/.claude/settings.json opens it",
    ),
    "Codex": (
        {"CODEX_SANDBOX_NETWORK_DISABLED": "1"},
        "the sandbox of Codex forbids it:"
        " network_access under [sandbox_workspace_write] in ~/.codex/config.toml opens it",
    ),
}


def sandboxed(call: str, service: Service, *command: str | os.PathLike[str], env: Mapping[str, str]) -> Done:
    python = f"{harness.python_directory()}/python3"
    environment = {"BUILD_SERVICE_SOCKET": str(service.daemon.socket), **env}
    launcher = seccomp.launcher(python, CALLS[call])
    argv = [*launcher, "/bin/sh", "-c", 'exec "$0" "$@"', *command]
    return run_as(service.caller, argv, service.workspace, environment)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("agent", AGENTS)
def test_the_client_names_the_sandbox_and_what_opens_it(agent: str, call: str, one: Service) -> None:
    env, hint = AGENTS[agent]
    done = sandboxed(call, one, BIN / "build-cli", "make", env=env)
    line = f"cannot connect to build-service: Operation not permitted ({one.daemon.socket}; {hint})\n"
    assert told(done) == ("", line, 1)


@pytest.mark.parametrize("call", CALLS)
def test_the_fallback_works_there(call: str, one: Service) -> None:
    done = sandboxed(call, one, BIN / "build-cli", "--fallback", "/bin/echo", "make", "it", "ran", env={})
    assert (done.stdout, done.returncode) == ("it ran\n", 0)
    assert done.stderr.endswith("; running /bin/echo here\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("call", CALLS)
def test_the_doctor_says_the_same_and_nothing_of_the_host(call: str, one: Service) -> None:
    done = sandboxed(call, one, BIN / "build-ctl", "doctor", env={"CLAUDECODE": "1"})
    said = failure(done, "socket")
    assert "the sandbox of Claude Code forbids connecting; to mend it: set sandbox.network.allowAllUnixSockets" in said
    unknown = failure(sandboxed(call, one, BIN / "build-ctl", "doctor", env={}), "socket")
    assert "a sandbox forbids connecting (seccomp); to mend it: build-ctl agents" in unknown
    assert "systemctl" not in done.stdout


def test_what_each_agent_needs_is_printed() -> None:
    done = run_as(CALLER, [BIN / "build-ctl", "agents"], "/")
    assert (done.returncode, done.stderr) == (0, "")
    for agent in agents.AGENTS:
        assert agent.name in done.stdout and all(line in done.stdout for line in agent.lines)
    assert all(line in done.stdout for line in agents.INSTRUCTIONS)
    assert run_as(CALLER, [BIN / "build-ctl", "agents", "x"], "/").returncode == 1


# --- a descriptor in place of a path ----------------------------------------------------------------------------------


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def connected(service: Service) -> socket.socket:
    ours = socket.socket(socket.AF_UNIX)
    with acting_as(service.caller, [service.caller.gid, BUILDERS_GID] if inside() else None):
        ours.connect(str(service.daemon.socket))
    return ours


def with_descriptor(number: int, service: Service, *command: str) -> subprocess.CompletedProcess[str]:
    env = {"BUILD_SERVICE_FD": str(number), "BUILD_SERVICE_SOCKET": "/nonexistent"}
    argv = [BIN / "build-cli", *(command or ("make",))]
    return run_as(service.caller, argv, service.workspace, env, pass_fds=[number] if number > 2 else [])


def test_a_connected_socket_that_is_inherited_serves_one_build(one: Service, stack: ExitStack) -> None:
    makefile(one, "all:\n\t@echo built\n")
    ours = stack.enter_context(connected(one))
    assert told(with_descriptor(ours.fileno(), one)) == ("built\n", "", 0)
    reason = "the connection was used, or is closed: it serves one build"
    line = f"cannot connect to build-service: {reason} (BUILD_SERVICE_FD={ours.fileno()})\n"
    assert told(with_descriptor(ours.fileno(), one)) == ("", line, 1)
    again = with_descriptor(ours.fileno(), one, "--fallback", "/bin/echo", "make", "here")
    assert told(again) == ("here\n", line[:-1] + "; running /bin/echo here\n", 0)


def a_pair(stack: ExitStack) -> int:
    """A socket whose other end is nobody's, as the one of a service that has gone."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return stack.enter_context(ours).fileno()


def a_file(stack: ExitStack) -> int:
    return stack.enter_context(open("/etc/passwd")).fileno()


def a_new_socket(stack: ExitStack) -> int:
    return stack.enter_context(socket.socket(socket.AF_UNIX)).fileno()


def a_network_socket(stack: ExitStack) -> int:
    return stack.enter_context(socket.socket()).fileno()


UNFIT: Mapping[str, tuple[Callable[[ExitStack], int], str]] = {
    "closed by the other side": (a_pair, "the connection was used, or is closed: it serves one build"),
    "a file": (a_file, "Socket operation on non-socket"),
    "not connected": (a_new_socket, "Transport endpoint is not connected"),
    "of the network": (a_network_socket, "it is no stream socket of AF_UNIX"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_no_connected_socket_is_one_line(kind: str, one: Service, stack: ExitStack) -> None:
    make, reason = UNFIT[kind]
    number = make(stack)
    line = f"cannot connect to build-service: {reason} (BUILD_SERVICE_FD={number})\n"
    assert told(with_descriptor(number, one)) == ("", line, 1)


@pytest.mark.parametrize("value", ["x", "-1", "1.0", "9" * 30, "\u00b2", "\u0663"])
def test_what_is_no_number_is_one_line(value: str) -> None:
    done = client("make", env={"BUILD_SERVICE_FD": value})
    assert told(done) == ("", "BUILD_SERVICE_FD must be the number of a descriptor\n", 1)


def test_another_service_there_is_one_line(one: Service, stack: ExitStack) -> None:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    theirs.sendall(b"")
    argv = [BIN / "build-cli", "make"]
    env = {"BUILD_SERVICE_FD": str(ours.fileno())}
    process = harness.popen_as(
        one.caller, argv, one.workspace, env, pass_fds=[ours.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with theirs:
        assert theirs.recv(1 << 20)
        theirs.sendall(b"220 mail.example.org ESMTP\r\n")
        out, err = process.communicate(timeout=harness.PATIENCE_SEC)
    assert (out, process.returncode) == (b"", 1)
    assert err == b"invalid response from build-service: an event that is not JSON\n"


def test_a_path_on_the_command_line_goes_before_the_descriptor(one: Service) -> None:
    makefile(one, "all:\n\t@echo built\n")
    assert told(one.run("make", env={"BUILD_SERVICE_FD": "99"})) == ("built\n", "", 0)
