"""Callers that have groups which their accounts are not in, and accounts of the system: what builds have, what is said.

Root of a container whose root is the host's can become any user with any groups before it connects. The kernel's answer
is right then; what can be held is what caller and account have in common, and what is said.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon import Service
from harness import write_tree
from harness_world import BUILDERS_GID, DEV1, LIBS_GID, User

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]

SHOW_IDS = "all:\n\t@id -u; id -g; id -G\n"
SHADOW_GID = 42
OWN_RANGE = 4711
"""A group that is not the host's own, and nobody is in."""


@contextmanager
def account(line: str) -> Iterator[None]:
    """One account more in the private world's /etc/passwd."""
    file = Path("/etc/passwd")
    assert file.stat().st_dev == Path("/run").stat().st_dev, "that is the machine's"
    before = file.read_bytes()
    try:
        file.write_bytes(before + line.encode() + b"\n")
        yield
    finally:
        file.write_bytes(before)


def ids(built: subprocess.CompletedProcess[str]) -> tuple[int, int, set[int]]:
    assert built.returncode == 0, built.stderr
    uid, gid, gids = built.stdout.splitlines()
    return int(uid), int(gid), {int(each) for each in gids.split()}


def common(start_service: StartService) -> Service:
    service = start_service("root", {"build": {"groups": "common"}})
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, DEV1)
    return service


def test_in_common_is_neither_what_the_process_took_nor_what_it_has_not(start_service: StartService) -> None:
    service = common(start_service)
    assert {BUILDERS_GID, LIBS_GID} == set(DEV1.groups)
    built = service.run("make", groups=[BUILDERS_GID, SHADOW_GID, OWN_RANGE])
    assert ids(built) == (DEV1.uid, DEV1.gid, {DEV1.gid, BUILDERS_GID})


def test_a_gid_that_the_account_has_not_gives_way_to_its_own(start_service: StartService) -> None:
    service = common(start_service)
    taken = User(DEV1.name, DEV1.uid, SHADOW_GID, (), DEV1.home)
    built = service.run("make", user=taken, groups=[BUILDERS_GID, DEV1.gid])
    assert ids(built) == (DEV1.uid, DEV1.gid, {DEV1.gid, BUILDERS_GID})


def test_a_gid_of_another_group_of_the_account_is_kept(start_service: StartService) -> None:
    service = common(start_service)
    other = User(DEV1.name, DEV1.uid, LIBS_GID, (), DEV1.home)
    assert ids(service.run("make", user=other, groups=[BUILDERS_GID])) == (DEV1.uid, LIBS_GID, {LIBS_GID, BUILDERS_GID})


def test_without_a_gid_in_common_nothing_is_built(start_service: StartService) -> None:
    service = common(start_service)
    taken = User(DEV1.name, DEV1.uid, SHADOW_GID, (), DEV1.home)
    built = service.run("make", user=taken, groups=[BUILDERS_GID])
    line = (
        f"the caller's group {SHADOW_GID} is none of {DEV1.name}'s, and {DEV1.name}'s own group {DEV1.gid} is none of"
        " the caller's (build.groups on the host)\n"
    )
    assert (built.stdout, built.stderr, built.returncode) == ("", line, 1)


# --- what is said of groups -------------------------------------------------------------------------------------------


def started(service: Service, **options: object) -> str:
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, DEV1)
    before = len(service.daemon.log_lines())
    assert service.run("make", **options).returncode == 0
    service.daemon.await_log("build completed")
    (line,) = [line for line in service.daemon.log_lines()[before:] if "build started" in line]
    return line


@pytest.mark.parametrize("source", ["peer", "login", "common"])
def test_a_group_of_the_host_s_own_that_the_account_is_not_in_is_named(
    source: str, start_service: StartService
) -> None:
    service = start_service("root", {"build": {"groups": source}})
    line = started(service, groups=[BUILDERS_GID, DEV1.gid, SHADOW_GID, OWN_RANGE])
    assert re.search(rf'foreign_groups=\["{SHADOW_GID}\(\S+\)"\]', line.replace("\\", "")), line


def test_nothing_is_said_of_groups_that_the_account_is_in_or_that_are_people_s(start_service: StartService) -> None:
    assert "foreign_groups" not in started(start_service("root"), groups=[BUILDERS_GID, OWN_RANGE])


def test_a_line_names_no_more_than_a_few(start_service: StartService) -> None:
    line = started(start_service("root"), groups=[BUILDERS_GID, *range(100, 900)])
    assert "more" in line and len(line) < 1500, line


# --- accounts of the system -------------------------------------------------------------------------------------------

SYSTEM = User("quiet", 999, 20999, (BUILDERS_GID,), Path("/home/quiet"))


def run_as_system_account(service: Service) -> subprocess.CompletedProcess[str]:
    with account(f"{SYSTEM.name}:x:{SYSTEM.uid}:{SYSTEM.gid}::{SYSTEM.home}:/bin/sh"):
        return service.run("make", user=SYSTEM, cwd=Path("/"))


@pytest.mark.parametrize("settings", [{}, {"build": {"min_uid": 1000}}, {"build": {"min_uid": "login.defs"}}], ids=str)
def test_a_system_account_builds_nothing(settings: dict[str, object], start_service: StartService) -> None:
    refused = run_as_system_account(start_service("root", settings))
    line = f"uid {SYSTEM.uid} ({SYSTEM.name}) may not build: it is below 1000 (build.min_uid on the host)\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", line, 1)


@pytest.mark.parametrize("lowest", [0, 999])
def test_where_it_may_it_is_asked_where_it_builds(lowest: int, start_service: StartService) -> None:
    answer = run_as_system_account(start_service("root", {"build": {"min_uid": lowest}}))
    assert answer.stderr.startswith("cwd must be under workspace: "), answer


def test_a_floor_above_a_person_is_one_too(start_service: StartService) -> None:
    refused = start_service("root", {"build": {"min_uid": DEV1.uid + 1}}).run("make")
    assert refused.stderr.startswith(f"uid {DEV1.uid} ({DEV1.name}) may not build: it is below {DEV1.uid + 1}")


def test_a_service_of_ones_own_does_not_ask(start_service: StartService) -> None:
    service = start_service("user", {"build": {"min_uid": 4000000}})
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, service.caller)
    assert service.run("make").returncode == 0
