"""From which uid and gid on an account is somebody's, and not one of the system's own (login.defs(5))."""

from __future__ import annotations

import re

PATH = "/etc/login.defs"
DEFAULT = 1000
"""UID_MIN and GID_MIN where the file, or a usable line in it, is missing."""


def first_uid(path: str = PATH) -> int:
    """Return the first uid that is no system account's (UID_MIN)."""
    return _number("UID_MIN", path)


def first_gid(path: str = PATH) -> int:
    """Return the first gid that is no system group's (GID_MIN)."""
    return _number("GID_MIN", path)


def _number(name: str, path: str) -> int:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.findall(rf"^[ \t]*{name}[ \t]+([0-9]{{1,9}})[ \t]*$", file.read(), re.MULTILINE)
    except OSError:
        return DEFAULT
    return int(found[-1]) if found else DEFAULT
