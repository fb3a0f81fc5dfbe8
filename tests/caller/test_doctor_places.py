"""build-ctl doctor where it has more to look at: on the host its configuration and log, in a container the wrapper."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness
from buildcore.core import namespaces
from daemon import Service, merged, toml
from doctors import ctl, ctl_on_host, findings
from harness import BIN, run_as, write_tree

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]


# --- the host's own ---------------------------------------------------------------------------------------------------


def on_host(service: Service, **settings: Any) -> dict[str, str]:
    """The findings of the daemon's own user, with its configuration."""
    config = service.daemon.config
    write_tree(config.parent, {"config.toml": toml(merged(service.daemon.settings, settings))})
    env = {"PATH": harness.daemon_path()}
    return findings(ctl(service, "doctor", "--config", str(config), user=service.daemon.user, env=env))


def test_the_configuration_the_log_and_the_last_build_are_looked_at(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@false\n"}, service.caller)
    assert service.run("make").returncode == 2
    service.daemon.await_log("build completed")
    found = on_host(service)
    assert found["ok configuration"] == f"{service.daemon.config} is valid"
    assert found["ok log"] == f"{service.daemon.log_path.parent} can be written"
    last = rf"\d{{4}}-\d\d-\d\dT[\d:.]+Z build completed, user {service.caller.name}, exit code 2"
    assert re.fullmatch(last, found["ok last build"])


def test_every_fault_of_the_configuration_is_a_failure_unless_the_service_works(one: Service) -> None:
    write_tree(one.daemon.directory, {"config.toml": "[service]\nport = 1\nprefork = -1\n"})
    env = {"PATH": harness.daemon_path()}
    arguments = ["doctor", "--config", str(one.daemon.config)]
    done = ctl(one, *arguments, env=env)
    assert done.stdout.count("warning  configuration: ") == 2 and done.returncode == 0
    one.daemon.stop()
    done = ctl(one, *arguments, env=env)
    assert done.stdout.count("failure  configuration: ") == 2 and done.returncode == 1
    assert "service.port: unknown key" in done.stdout


def test_what_a_caller_sent_does_not_pass_for_the_last_build(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "%:\n\t@exit 3\n"}, service.caller)
    forged = "x build_service: build completed user=root exit_code=0 duration_sec=1"
    assert service.run("make", forged).returncode == 2
    service.daemon.await_log("build completed")
    assert on_host(service)["ok last build"].endswith(f"user {service.caller.name}, exit code 2")


def test_a_program_that_is_missing_is_a_warning_of_the_configuration(one: Service) -> None:
    found = on_host(one, build={"commands": {"make": "/nonexistent/make"}})
    assert found["warning configuration"].startswith("build.commands.make: /nonexistent/make cannot be used")


@pytest.mark.needs_root
def test_a_log_directory_that_is_missing_is_a_warning(one: Service) -> None:
    found = on_host(one, logging={"directory": "/nonexistent/log"})
    assert found["warning log"].startswith("/nonexistent/log: No such file or directory; to mend it: mkdir")


@pytest.mark.needs_root
def test_a_log_directory_that_is_full_is_a_warning(
    open_directory: OpenDirectory, start_service: StartService
) -> None:
    service = start_service("root")
    directory = open_directory()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", directory], check=True)
    try:
        with open(directory / "filler", "wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * 4096)
        assert on_host(service, logging={"directory": str(directory)})["warning log"].startswith(f"{directory} is full")
    finally:
        subprocess.run(["umount", directory], check=True)


# --- in the container -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "state"),
    [('#!/bin/sh\nexec build-cli make "$@"\n', "ok"), ("#!/bin/sh\n", "warning"), (None, "warning")],
    ids=["the wrapper", "another make", "none"],
)
def test_in_a_container_the_wrapper_is_looked_for(
    content: str | None, state: str, open_directory: OpenDirectory, one: Service
) -> None:
    image = open_directory()
    (image / "python3").symlink_to(f"{harness.python_directory()}/python3")
    (image / "sh").symlink_to("/bin/sh")
    if content:
        write_tree(image, {"make": content})
    found = findings(ctl(one, "doctor", env={"PATH": str(image), "container": "podman"}))
    assert f"{state} wrapper" in found


def test_a_container_whose_root_is_the_host_s_is_named_and_one_with_ids_of_its_own_is_not(one: Service) -> None:
    env = {"BUILD_SERVICE_SOCKET": str(one.daemon.socket), "container": "podman"}
    doctor = [str(BIN / "build-ctl"), "doctor"]
    found = findings(run_as(one.caller, doctor, one.workspace, env))
    told = "its root is the host's root, and can build as any user; to mend it: start the container rootless"
    if namespaces.has_the_host_s_uids(Path("/proc/self/uid_map").read_text()):  # else these tests have ids of their own
        assert found["warning container"].startswith(told)
    own = findings(run_as(one.caller, ["unshare", "--user", "--map-current-user", *doctor], one.workspace, env))
    assert "warning container" not in own and own["ok identity"]
    assert "warning container" not in findings(ctl_on_host(one, "doctor"))
