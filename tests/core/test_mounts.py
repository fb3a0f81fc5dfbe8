"""Mounts as mountinfo lists them, and the names that a place has by them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.caller import whereabouts
from buildcore.core import mounts
from buildcore.core.mounts import Mount

MOUNTINFO = """21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:25 / /proc rw - proc proc rw
40 21 8:2 / /home rw shared:2 master:1 - xfs /dev/sda2 rw
41 40 8:2 /dev1/workspace /srv/dev1 rw - xfs /dev/sda2 rw
42 21 8:2 /dev1/workspace /srv/again rw - xfs /dev/sda2 rw
43 21 0:30 /@home /btr\\040fs/a\\011b\\134c rw - btrfs /dev/sdb rw
44 21 8:2 /gone//deleted /srv/gone rw - xfs /dev/sda2 rw
5 21 8:1 /x /short rw - ext4 /dev/sda1 rw
"""


def test_a_mount_is_found_by_its_number() -> None:
    assert mounts.mount_of(MOUNTINFO, "21") == Mount("8:1", "/", "/", "ext4")
    assert mounts.mount_of(MOUNTINFO, "41") == Mount("8:2", "/dev1/workspace", "/srv/dev1", "xfs")
    assert mounts.mount_of(MOUNTINFO, "5") == Mount("8:1", "/x", "/short", "ext4")
    assert mounts.mount_of(MOUNTINFO, "43") == Mount("0:30", "/@home", "/btr fs/a\tb\\c", "btrfs")
    assert mounts.mount_of(MOUNTINFO, "4") is None
    assert mounts.mount_of("", "21") is None


@pytest.mark.parametrize(
    ("device", "place", "names"),
    [
        ("8:2", "/dev1/workspace/app", ["/srv/again/app", "/srv/dev1/app", "/home/dev1/workspace/app"]),
        ("8:2", "/dev1/workspace", ["/srv/again", "/srv/dev1", "/home/dev1/workspace"]),
        ("8:2", "/dev1/workspaces", ["/home/dev1/workspaces"]),
        ("8:2", "/", ["/home"]),
        ("8:1", "/home/x", ["/home/x"]),
        ("8:1", "/x", ["/short", "/x"]),
        ("0:30", "/@home/dev1", ["/btr fs/a\tb\\c/dev1"]),
        ("0:30", "/@home2", []),
        ("8:3", "/", []),
        ("8", "/", []),
    ],
)
def test_names_of_a_place_come_from_the_mounts_of_its_file_system(device: str, place: str, names: list[str]) -> None:
    assert mounts.names_of(MOUNTINFO, device, place) == names


def test_of_very_many_mounts_some_names_are_taken_in_time() -> None:
    lines = [f"{number} 1 8:2 / /m/{number} rw - xfs /dev/sda2 rw" for number in range(20_000)]
    start = time.process_time()
    names = mounts.names_of("\n".join(lines), "8:2", "/x")
    assert names == [f"/m/{number}/x" for number in range(19_999, 19_999 - mounts.MAX_NAMES, -1)]
    assert time.process_time() - start < 2


@given(st.text(alphabet="0123456789:/ -\\ab\n", max_size=200), st.text(alphabet="0123456789:", max_size=4))
def test_whatever_stands_there_nothing_is_raised(mountinfo: str, number: str) -> None:
    mounts.mount_of(mountinfo, number)
    assert all(isinstance(name, str) for name in mounts.names_of(mountinfo, number, "/a"))


PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(PATHS, PATHS)
def test_what_is_below_is_put_together_again(root: str, path: str) -> None:
    below = mounts.below_of(root, path)
    assert (below is None) == (os.path.commonpath([root, path]) != root)
    assert below is None or mounts.joined(root, below) == path


@pytest.mark.parametrize("system", ["fuse.sshfs", "fuse", "nfs4", "9p", "virtiofs"])
def test_of_these_there_may_be_two_of_one(system: str) -> None:
    assert mounts.may_be_twice(system)


@pytest.mark.parametrize("system", ["overlay", "fuse.fuse-overlayfs", "tmpfs", "ext4", "xfs", "btrfs", "fuseblk", ""])
def test_of_these_there_may_not(system: str) -> None:
    assert not mounts.may_be_twice(system)


def test_a_directory_is_found_again_by_what_the_caller_tells(tmp_path: Path) -> None:
    directory = tmp_path / "a b\\c\n"
    directory.mkdir()
    told = whereabouts.location(str(directory))
    assert told is not None and told.mount is not None
    status = directory.stat()
    assert told.device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    assert told.inode == str(status.st_ino)
    below = mounts.below_of(told.mount.point, str(directory))
    assert below is not None
    place = mounts.joined(told.mount.root, below)
    names = mounts.names_of(Path("/proc/self/mountinfo").read_text(), told.mount.device, place)
    assert any(Path(name).samefile(directory) for name in names if os.path.exists(name))


def test_of_what_is_no_directory_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert whereabouts.location(str(tmp_path / "file")) is None
    assert whereabouts.location(str(tmp_path / "missing")) is None
