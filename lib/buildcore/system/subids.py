"""Whose subordinate uids are whose (subuid(5)): a user's containers run as these, and they count as that user.

The daemon reads them once, as it starts, for its limits. They decide nothing else: a subordinate uid builds nothing.
"""

from __future__ import annotations

import bisect
import pwd

PATH = "/etc/subuid"


class Owners:
    """Answers whose a uid is."""

    def __init__(self, ranges: list[tuple[int, int, int]]) -> None:
        """`ranges` are (first uid, how many, owner's uid)."""
        self._ranges = sorted(ranges)

    def owner_of(self, uid: int) -> int:
        """Return the uid of the account that `uid` is subordinate to, `uid` itself when it is nobody's."""
        index = bisect.bisect_right(self._ranges, (uid, 1 << 32, 0)) - 1
        if index >= 0:
            first, count, owner = self._ranges[index]
            if first <= uid < first + count:
                return owner
        return uid


def load(path: str = PATH) -> Owners:
    """Read the file; a line that says nothing usable is passed over, and so is a file that cannot be read."""
    ranges = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                found = _range(line.strip().split(":"))
                if found is not None:
                    ranges.append(found)
    except OSError:
        pass
    return Owners(ranges)


def _range(fields: list[str]) -> tuple[int, int, int] | None:
    try:
        name, first, count = fields
        owner = int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
        return int(first), int(count), owner
    except (ValueError, KeyError):
        return None
