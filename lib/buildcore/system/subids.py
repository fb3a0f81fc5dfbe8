"""Whose subordinate uids are whose (subuid(5)): a user's containers run as these, and they count as that user.

The daemon reads them once, as it starts, for its limits and its log. They decide nothing else: a subordinate uid builds
nothing. A range whose name is no account's (as that of rootful containers, `containers`) counts as one user all the
same, by its first uid.
"""

from __future__ import annotations

import bisect
import itertools
import pwd

PATH = "/etc/subuid"


class Owners:
    """Answers whose a uid is."""

    def __init__(self, ranges: list[tuple[int, int, int]]) -> None:
        """`ranges` are (first uid, how many, owner's uid); one that lies in another goes before that."""
        self._ranges = sorted(ranges)
        self._ends = list(itertools.accumulate((first + count for first, count, _ in self._ranges), max))

    def owner_of(self, uid: int) -> int:
        """Return the uid of the account that `uid` is subordinate to, `uid` itself when it is nobody's."""
        index = bisect.bisect_right(self._ranges, (uid, 1 << 32, 0)) - 1
        while index >= 0 and uid < self._ends[index]:  # else none of these reaches so far
            first, count, owner = self._ranges[index]
            if uid < first + count:
                return owner
            index -= 1
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
        name, start, count = fields
        first = int(start)
        return first, int(count), int(name) if name.isdigit() else _uid_of(name, first)
    except ValueError:
        return None


def _uid_of(name: str, otherwise: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return otherwise
