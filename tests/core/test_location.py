"""Where a caller's directory is: told in a request, read from it, and refused where it is not told as it should be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core.mounts import Mount
from buildcore.core.protocol.location import Location
from buildcore.core.protocol.requests import Request, RequestError, encode_request, parse_request

MOUNT = {"device": "8:2", "root": "/dev1/app", "point": "/workspaces/app", "file_system": "ext4"}
WHOLE = {"device": "0:43", "inode": "18446744073709551615", "mount": MOUNT}
NUMBER = 'must be a string such as "8:1"'

PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20).map("/".__add__)
DEVICES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(lambda pair: f"{pair[0]}:{pair[1]}")
MOUNTS = st.builds(Mount, DEVICES, PATHS, PATHS, st.text("abc.4", max_size=8))
LOCATIONS = st.builds(Location, DEVICES, st.integers(0, 2**64 - 1).map(str), st.none() | MOUNTS)


def parsed(location: Any) -> Location | None:
    return parse_request(json.dumps({"command": "make", "cwd": "/", "location": location}).encode()).location


@given(LOCATIONS)
def test_what_is_told_is_read(location: Location) -> None:
    assert parse_request(encode_request(Request("make", location=location)).strip()).location == location


def test_it_may_be_missing_and_so_may_the_mount() -> None:
    assert parsed(None) is None
    assert parsed({**WHOLE, "mount": None, "later": 1}) == Location("0:43", "18446744073709551615")
    assert parsed({**WHOLE, "mount": {**MOUNT, "later": 1}}) == Location(
        "0:43", "18446744073709551615", Mount("8:2", "/dev1/app", "/workspaces/app", "ext4")
    )


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("8:2", "location must be an object"),
        ([], "location must be an object"),
        ({}, "location.inode must be a string of digits"),
        ({"inode": "1"}, f"location.device {NUMBER}"),
        *(({"inode": inode, "device": "8:1"}, "location.inode must be a string of digits")
          for inode in (1, "", "-1", "1" * 21, "0x1", "\u0661", None)),
        *(({"inode": "1", "device": device}, f"location.device {NUMBER}")
          for device in (1, "8", ":", "8:", ":1", "8:1:2", "a:1", "1" * 11 + ":1", "8:\u0661", "8:1\n")),
        ({**WHOLE, "mount": "x"}, "location.mount must be an object"),
        ({**WHOLE, "mount": {}}, f"location.mount.device {NUMBER}"),
        ({**WHOLE, "mount": {**MOUNT, "root": "x"}}, "location.mount.root must be an absolute path"),
        ({**WHOLE, "mount": {**MOUNT, "point": ""}}, "location.mount.point must be an absolute path"),
        ({**WHOLE, "mount": {**MOUNT, "root": "/\0"}}, "location.mount.root holds a NUL"),
        ({**WHOLE, "mount": {**MOUNT, "point": 1}}, "location.mount.point must be a string"),
        ({**WHOLE, "mount": {**MOUNT, "file_system": None}}, "location.mount.file_system must be a string"),
    ],
    ids=str,
)
def test_what_is_not_as_it_should_be_is_refused_by_its_name(location: Any, reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(location)
    assert str(refused.value) == f"invalid request: {reason}"
