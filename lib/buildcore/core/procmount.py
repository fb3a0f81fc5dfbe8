"""What a /proc hides, from the line of its mount: hidepid= and gid= (proc(5)). Used by `service.sight`."""

from __future__ import annotations

from typing import NamedTuple

SHOWS_ALL = 0
TRACEABLE_ALONE = 4
"""hidepid=ptraceable: whoever may not trace a process does not see it, in whatever group (Linux 5.8)."""

_LEVELS = {"off": 0, "noaccess": 1, "invisible": 2, "ptraceable": 4}


class Hiding(NamedTuple):
    """How much is hidden, as the number that hidepid= takes, and the group to which it is not (root's, unless said)."""

    level: int
    group: int


UNKNOWN = Hiding(_LEVELS["invisible"], 0)


def hiding(mountinfo: str) -> Hiding:
    """Return what the /proc of a /proc/PID/mountinfo hides; UNKNOWN where there is no such line, or one of new words.

    The last of several is on top. The options are those of the file system, not of the one mount: behind its source.
    """
    found = UNKNOWN
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount, system = left.split(" "), right.split(" ")
        if mount[4:5] == ["/proc"] and system[:1] == ["proc"]:
            options = dict(option.partition("=")[::2] for option in system[-1].split(","))
            found = _of(options.get("hidepid", "off"), options.get("gid", "0"))
    return found


def _of(level: str, group: str) -> Hiding:
    known = _LEVELS.get(level, int(level) if level.isdigit() else UNKNOWN.level)
    return Hiding(known, int(group) if group.isdigit() else UNKNOWN.group)
