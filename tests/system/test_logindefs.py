"""From which numbers on accounts and groups are people's, as shadow's own programs read login.defs(5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildcore.system import logindefs


@pytest.mark.parametrize(
    ("text", "uid", "gid"),
    [
        ("", 1000, 1000),
        ("UID_MIN\t\t\t  500\nGID_MIN 600\n", 500, 600),
        ("# UID_MIN 500\n#GID_MIN 600\n", 1000, 1000),
        ("  UID_MIN 500  \nUID_MIN 501\n", 501, 1000),
        ('UID_MIN "500"\n', 500, 1000),
        ("UID_MIN 0x1f4\nGID_MIN 0764\n", 500, 500),
        ("UID_MIN lots\nGID_MIN -1\n", 1000, 1000),
        ("SYS_GID_MAX 999\nGID_MIN 1000\n", 1000, 1000),
        ("SYS_GID_MAX 1999\n", 1000, 2000),
        ("OTHER_UID_MIN 5\nUID_MINIMUM 6\n\xff\xfe UID_MIN 7\n", 1000, 1000),
    ],
)
def test_what_the_file_says(text: str, uid: int, gid: int, tmp_path: Path) -> None:
    path = tmp_path / "login.defs"
    path.write_bytes(text.encode("latin-1"))
    assert (logindefs.first_uid(str(path)), logindefs.first_gid(str(path))) == (uid, gid)


def test_no_file_is_what_is_usual(tmp_path: Path) -> None:
    assert (logindefs.first_uid(str(tmp_path)), logindefs.first_gid(str(tmp_path / "none"))) == (1000, 1000)
