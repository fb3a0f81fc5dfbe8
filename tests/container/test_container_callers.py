"""Who a container's caller is on the host, for each way of starting the container; who is refused, in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from container.podman import KEEP_GROUPS, KEEP_ID, SOCKET, mounts, run
from container.world import PODMAN_USER, SUBID_START
from daemon import Daemon
from harness import write_tree

SHOW_IDENTITY = "all:\n\t@id -u; id -g; id -G; touch made\n"


@pytest.mark.parametrize("as_user", [[KEEP_ID, KEEP_GROUPS], [KEEP_GROUPS]], ids=["the user", "root of the container"])
@pytest.mark.usefixtures("daemon")
def test_a_build_is_the_users_with_all_groups(as_user: list[str], project: Path) -> None:
    write_tree(project, {"Makefile": SHOW_IDENTITY}, PODMAN_USER)
    built = run("make", options=mounts(project), as_user=as_user)
    uid, gid, groups = built.stdout.splitlines()
    assert (int(uid), int(gid)) == (PODMAN_USER.uid, PODMAN_USER.gid)
    assert set(map(int, groups.split())) == {PODMAN_USER.gid, *PODMAN_USER.groups}
    assert (project / "made").stat().st_uid == PODMAN_USER.uid


@pytest.mark.parametrize("as_user", [[KEEP_ID], []], ids=["the user", "root of the container"])
def test_without_keep_groups_the_kernel_refuses_and_the_client_names_the_option(
    as_user: list[str], daemon: Daemon, project: Path
) -> None:
    refused = run("make", options=mounts(project), as_user=as_user)
    reason = f"Permission denied ({SOCKET}; in a container, --group-add keep-groups is needed)"
    assert refused.stderr == f"cannot connect to build-service: {reason}\n"
    assert (refused.stdout, refused.returncode) == ("", 1)


SUBORDINATES = {
    "keep-id, --user 0:0": ([KEEP_ID, KEEP_GROUPS, "--user=0:0"], SUBID_START),
    "default, --user 1000:1000": ([KEEP_GROUPS, "--user=1000:1000"], SUBID_START + 999),
}
"""podman's options, and the caller's uid on the host (user_namespaces(7)). Where the user is root inside, the first
subordinate uid is 1 inside."""


@pytest.mark.parametrize("case", SUBORDINATES)
@pytest.mark.usefixtures("daemon")
def test_a_subordinate_uid_is_refused_and_told_how_to_start_the_container(case: str, project: Path) -> None:
    as_user, uid = SUBORDINATES[case]
    refused = run("make", options=mounts(project), as_user=as_user)
    expected = f"uid {uid} has no account on this host: start the container with --userns=keep-id\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", expected, 1)
