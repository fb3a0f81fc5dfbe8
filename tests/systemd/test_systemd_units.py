"""The unit files as systemd reads them: without a fault, and with an exposure that is held to a figure."""

from __future__ import annotations

import re

import pytest

from systemd.machine import ROOT_USER, Machine
from systemd.service import OWNER, SERVICE, SOCKET

MAX_EXPOSURE = 81
"""In tenths. What a build needs of the host cannot be taken from the service that starts it, and systemd counts it:
files, network, namespaces, system calls. So it does CAP_AUDIT_CONTROL and CAP_SYS_RESOURCE, which keep builds apart."""


@pytest.mark.parametrize("unit", [SOCKET, SERVICE])
@pytest.mark.parametrize("kind", ["system", "user"])
def test_a_unit_is_free_of_faults(kind: str, unit: str, machine: Machine) -> None:
    user = OWNER if kind == "user" else ROOT_USER
    command = ["systemd-analyze", f"--{kind}", "verify", "--man=no", f"/usr/lib/systemd/{kind}/{unit}"]
    verified = machine.run(*command, user=user, env={"XDG_RUNTIME_DIR": f"/run/user/{user.uid}"})
    assert (verified.stdout, verified.stderr, verified.returncode) == ("", "", 0)


def test_the_exposure_is_held_to_a_figure(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    analyzed = machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={MAX_EXPOSURE}", SERVICE)
    found = re.search(r"Overall exposure level for .*: (\d+\.\d)", analyzed.stdout)
    assert found, analyzed.stdout + analyzed.stderr
    with capsys.disabled():
        print(f"\nexposure of {SERVICE}: {found[1]}, held to {MAX_EXPOSURE / 10}")
    assert analyzed.returncode == 0, analyzed.stdout
