"""The units, by their text: what of them holds a promise stands in them, with the value that holds it.

systemd's own reading of them is tried by tests/systemd. What is held here is what an edit could lose without that
anything fails: a right more, a socket that is open to more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from buildcore.core.settings import Service as ServiceSettings
from buildcore.system import oomscore
from daemon import Service
from daemon_by_hand import say
from harness_world import ROOT

UNITS = ROOT / "etc/systemd"

NEEDED = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_RESOURCE": 24,
    "CAP_AUDIT_CONTROL": 30,
}
"""What the service may have at most (capabilities(7))."""

HELD = {
    "build-service.service": {
        "RestrictRealtime": "yes",
        "UMask": "0077",
        "KillMode": "mixed",
        "Delegate": "yes",
        "OOMPolicy": "continue",
        "OOMScoreAdjust": str(oomscore.PROTECTED),
        "LogsDirectoryMode": "0750",
        "WatchdogSec": "60",
        "Restart": "on-failure",
    },
    "build-service.socket": {
        "ListenStream": ServiceSettings().socket_path,
        "SocketGroup": ServiceSettings().socket_group,
        "SocketMode": f"{ServiceSettings().socket_mode:04o}",
        "DirectoryMode": "0755",
    },
    "user/build-service.service": {"KillMode": "mixed", "Delegate": "yes", "OOMPolicy": "continue"},
    "user/build-service.socket": {"SocketMode": "0600", "DirectoryMode": "0700"},
}

KEPT_FROM_BUILDS = (
    "NoNewPrivileges", "SystemCallFilter", "ProtectSystem", "ProtectHome", "PrivateTmp", "AmbientCapabilities",
)
"""What would reach into builds: see the unit, and docs/SECURITY.md."""


def settings_of(unit: str) -> dict[str, list[str]]:
    """Each setting of a unit, and its values in their order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (UNITS / unit).read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    ("unit", "name", "value"), [(unit, name, value) for unit, held in HELD.items() for name, value in held.items()]
)
def test_a_setting_that_holds_a_promise_is_there_once_with_its_value(unit: str, name: str, value: str) -> None:
    assert settings_of(unit).get(name) == [value]


def test_the_service_is_bound_to_the_capabilities_that_it_needs_and_no_more() -> None:
    (bound,) = settings_of("build-service.service")["CapabilityBoundingSet"]
    assert sorted(bound.split()) == sorted(NEEDED)


@pytest.mark.parametrize("unit", HELD)
def test_nothing_is_set_that_builds_would_feel(unit: str) -> None:
    assert not set(KEPT_FROM_BUILDS) & set(settings_of(unit))


def test_the_socket_s_directory_is_root_s_from_boot_on() -> None:
    lines = (ROOT / "etc/tmpfiles.d/build-service.conf").read_text().splitlines()
    assert [line.split() for line in lines if not line.startswith("#")] == [
        ["d", "/run/build-service", "0755", "root", "root", "-"]
    ]


BOUND = f"""
import ctypes, os, sys
for number in range(64):
    if number not in {sorted(NEEDED.values())}:
        ctypes.CDLL(None).prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""


def lacks(service: Service) -> list[str]:
    """What the log says that the service cannot do here; the line of a build is behind all of that."""
    assert service.run("make").returncode == 0
    service.daemon.await_log("build completed")
    return [line.partition(" reason=")[2] for line in service.daemon.log_lines() if "keep builds apart" in line]


@pytest.mark.needs_root
def test_a_service_that_is_bound_so_serves_and_lacks_nothing(start_service: Callable[..., Service]) -> None:
    free = start_service("root")
    launcher = [f"{harness.daemon_python_directory()}/python3", "-I", "-c", BOUND]
    bound = start_service("root", launcher=launcher)
    effective = re.findall(r"CapEff:\s+(\w+)", Path(f"/proc/{bound.daemon.pid}/status").read_text())[0]
    assert int(effective, 16) & ~sum(1 << number for number in NEEDED.values()) == 0
    say(bound, "@grep CapBnd /proc/self/status")
    assert int(bound.run("make").stdout.split()[1], 16) == int(effective, 16)
    assert lacks(bound) == lacks(free)
