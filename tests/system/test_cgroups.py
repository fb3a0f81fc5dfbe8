"""A build's control group: made only where the service was given the right to, open to nobody else, and ended whole.

With a real cgroup v2 hierarchy, in groups of the tests' own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import harness
from buildcore.system import cgroups
from control_group import control_group
from forked import exit_code, fork, in_child, wait_for_ever
from harness_world import DEV1
from wire import acting_as

NO_MARK = b""


@pytest.fixture
def group() -> Iterator[Path]:
    with control_group() as group:
        yield group


def delegated_in(group: Path) -> str | None:
    """What a process in the group finds."""

    def work() -> str | None:
        cgroups.enter(str(group))
        return cgroups.delegated()

    answer = in_child(work)
    return None if answer is None else str(answer)


@pytest.mark.needs_root
@pytest.mark.parametrize("name", cgroups.DELEGATE_ATTRIBUTES)
@pytest.mark.parametrize("mark", [b"1", b"0", b"", b"yes", NO_MARK])
def test_only_a_group_that_was_marked_as_delegated_is_the_service_s(name: str, mark: bytes, group: Path) -> None:
    if mark:
        try:
            os.setxattr(group, name, mark)
        except OSError as exc:
            pytest.skip(f"{name} on a control group: {exc.strerror}")
    assert delegated_in(group) == (str(group) if mark == b"1" else None)


@pytest.mark.needs_root
def test_the_root_of_the_hierarchy_is_nobody_s(group: Path) -> None:
    assert delegated_in(group.parent) is None


@pytest.mark.needs_root
def test_one_that_this_process_may_not_write_is_not_its_own(group: Path) -> None:
    os.setxattr(group, "trusted.delegate", b"1")

    def work() -> str | None:
        cgroups.enter(str(group))
        os.setresuid(DEV1.uid, DEV1.uid, DEV1.uid)
        return cgroups.delegated()

    assert in_child(work) is None


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_whatever_the_umask_nobody_else_may_write_to_a_build_s(umask: int, tmp_path: Path) -> None:
    def work() -> int:
        os.umask(umask)
        cgroups.create(str(tmp_path / "build-1"))
        return stat.S_IMODE((tmp_path / "build-1").stat().st_mode)

    assert in_child(work) == 0o755 & ~umask


@pytest.mark.needs_root
def test_a_build_cannot_leave_its_group_nor_make_one_in_it(group: Path) -> None:
    own = group / "build-1"
    cgroups.create(str(own))
    try:
        with acting_as(DEV1):
            for attempt in (
                lambda: (own / "cgroup.procs").write_text("0"),
                lambda: (group / "cgroup.procs").write_text("0"),
                lambda: (own / "cgroup.kill").write_text("1"),
                lambda: (own / "inner").mkdir(),
            ):
                with pytest.raises(PermissionError):
                    attempt()
    finally:
        own.rmdir()


@pytest.mark.needs_root
def test_a_group_is_ended_with_all_that_is_in_it_and_below(group: Path) -> None:
    own, inner = group / "build-1", group / "build-1" / "inner"
    cgroups.create(str(own))
    inner.mkdir()
    pids = []
    for place in (own, inner):
        pids.append(fork(wait_for_ever))
        (place / "cgroup.procs").write_text(str(pids[-1]))
    try:
        cgroups.remove(str(own), patience_sec=harness.PATIENCE_SEC)
        assert [exit_code(pid) for pid in pids] == [-9, -9]
        cgroups.remove(str(own))
        assert not own.exists()
    finally:
        for path in (inner, own):
            with suppress(FileNotFoundError):
                path.rmdir()
