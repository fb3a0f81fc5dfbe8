"""Whether a program would run is answered for the caller: a check that passes is a build that starts, and no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import Service
from harness_world import DEV1, DEV2, LIBS_GID, User
from wire import RawCaller

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

PROGRAMS = {
    "root-s": (0o700, 0, {}),
    "readable": (0o744, 0, {}),
    "of-a-group": (0o750, LIBS_GID, {DEV1: "ran"}),
    "not-of-the-group": (0o705, LIBS_GID, {DEV2: "ran"}),
    "everybody-s": (0o755, 0, {DEV1: "ran", DEV2: "ran"}),
    "nobody-s": (0o644, 0, {}),
}
"""By name: its mode, its group, and for whom it runs. All are root's, who could run each but the last."""


@pytest.fixture
def service(open_directory: OpenDirectory, start_service: StartService) -> Service:
    directory = open_directory()
    for name, (mode, group, _) in PROGRAMS.items():
        path = directory / name
        path.write_text("#!/bin/sh\necho ran\n")
        path.chmod(mode)
        os.chown(path, 0, group)
    return start_service("root", {"build": {"commands": {name: str(directory / name) for name in PROGRAMS}}})


@pytest.mark.parametrize("user", [DEV1, DEV2], ids=lambda user: user.name)
def test_a_check_says_what_a_build_of_the_caller_would_come_to(user: User, service: Service) -> None:
    found, expected = {}, {}
    for name, (_, _, runs_for) in PROGRAMS.items():
        request = {"command": name, "args": [], "cwd": str(service.daemon.workspace_of(user))}
        with RawCaller(service, user) as check, RawCaller(service, user) as build:
            checked = check.ask(command=None, args=None, cwd=None, check=request).exit()
            built = build.ask(**request).exit()
        found[name] = [checked["code"], check.text(), built["code"], build.text()]
        path = service.daemon.settings["build"]["commands"][name]
        line = f"cannot run {path}: Permission denied\n"
        expected[name] = [0, "", 0, "ran\n"] if user in runs_for else [1, line, 1, line]
    assert found == expected
