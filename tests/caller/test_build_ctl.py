"""build-ctl beside its doctor: the commands that the service allows, its command line, and output that nobody takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import harness
from daemon import Service, installed_tools
from doctors import ON_A_HOST, ctl
from fake_server import CALLER, FakeServer
from harness import BIN, run_as, write_tree
from harness_world import User, inside

StartService = Callable[..., Service]


def test_commands_lists_what_is_allowed(start_service: StartService) -> None:
    commands = {**dict.fromkeys(installed_tools()), "make": "/usr/bin/make", "id": "/usr/bin/id"}
    service = start_service("root" if inside() else "user", {"build": {"commands": commands}})
    done = ctl(service, "commands")
    assert (done.stdout, done.stderr, done.returncode) == ("id\nmake\n", "", 0)
    assert ctl(service, "commands", "--socket", "/nonexistent").stderr == (
        "build-service socket not found at /nonexistent\n"
    )


@pytest.mark.needs_root
def test_commands_is_a_line_and_exit_1_for_a_caller_whom_the_service_refuses(start_service: StartService) -> None:
    service = start_service("root")
    done = ctl(service, "commands", user=User("root", 0, 0, (), Path("/root")))
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("root may not build: ")


WRONG = ["", "heal", "doctor ''", "doctor --nonsense", "doctor --socket", "commands make", "commands -x"]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_exit_1_with_the_usage(line: str, one: Service) -> None:
    done = ctl(one, *shlex.split(line))
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("build-ctl: ") and "\nusage: build-ctl doctor " in done.stderr


def test_commands_does_not_wait_for_ever(fake: FakeServer) -> None:
    impatient = ON_A_HOST.replace("doctor.in_container =", "doctor.ANSWER_SEC = 0.2; doctor.in_container =")
    python = f"{harness.python_directory()}/python3"
    done = run_as(CALLER, [python, "-I", "-c", impatient, "commands", "--socket", str(fake.path)], "/")
    assert (done.stdout, done.stderr, done.returncode) == ("", "build-ctl: nothing complete within 0.2 s\n", 1)


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_and_version_go_to_stdout(option: str, one: Service) -> None:
    done = ctl(one, option)
    assert re.match(r"usage: build-ctl doctor|build-ctl \d+\.\d+\.\d+$", done.stdout)
    assert (done.stderr, done.returncode) == ("", 0)


def test_output_that_nobody_takes_is_one_line_at_most(one: Service) -> None:
    with open("/dev/full", "w") as full:
        done = ctl(one, "doctor", stdout=full)
    assert (done.stderr, done.returncode) == ("build-ctl: No space left on device\n", 1)


def test_without_a_current_directory_it_says_so(one: Service) -> None:
    gone: Mapping[str, str] = {".keep": ""}
    directory = write_tree(one.workspace / "gone", gone, one.caller)
    script = f"cd {directory}; rm -r {directory}; exec {BIN}/build-ctl doctor --socket {one.daemon.socket}"
    done = run_as(one.caller, ["/bin/sh", "-c", script], "/")
    assert "failure  directory: build-cli: cannot tell the current directory" in done.stdout
    assert done.returncode == 1 and "Traceback" not in done.stderr
