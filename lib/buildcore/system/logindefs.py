"""From which uid and gid on the host's numbers are people's, and not the system's own (login.defs(5)).

The daemon reads them at its start and at each reload.
"""

from __future__ import annotations

import re

PATH = "/etc/login.defs"
USUAL = 1000
"""UID_MIN and GID_MIN where the file does not say."""

_NUMBER = re.compile(r'^[ \t]*(\w+)[ \t]+"?(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,11})"?[ \t]*$', re.MULTILINE)


def first_uid(path: str = PATH) -> int:
    """Return the first uid that is no system account's: UID_MIN."""
    return _numbers(path).get("UID_MIN", USUAL)


def first_gid(path: str = PATH) -> int:
    """Return the first gid that is no system group's: GID_MIN, or what follows SYS_GID_MAX where that is more."""
    numbers = _numbers(path)
    return max(numbers.get("GID_MIN", USUAL), numbers.get("SYS_GID_MAX", -1) + 1)


def _numbers(path: str) -> dict[str, int]:
    """Return the numbers in the file by their names; of a name that is there twice the later one."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return {name: _number(text) for name, text in _NUMBER.findall(file.read())}
    except OSError:
        return {}


def _number(text: str) -> int:
    """Return what strtol(3) makes of the text: it may be hexadecimal, or octal."""
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return int(text, 8) if re.fullmatch("0[0-7]+", text) else int(text)
