"""The OOM score: whom the kernel ends when memory runs out (proc(5), oom_score_adj).

It passes fork(2) and execve(2). The service protects itself, as nobody else would end the builds; a build is to be
ended like any other program, or before others, if that was said. Must never leave a build with the service's score.
"""

from __future__ import annotations

import os

PATH = "/proc/self/oom_score_adj"
PROTECTED = -900
"""Others go first. Not -1000, by which the kernel would rather stop the machine than end the service."""

NEUTRAL = 0
APART = 300
"""By how much a build comes before its service at least: less than that is nothing in a small control group."""

_HIGHEST = 1000


def own() -> int:
    """Return the score of this process, -1000 to 1000; raises OSError."""
    with open(PATH, "rb") as file:
        return int(file.read())


def of_builds(started: int, own: int) -> int:
    """Return the score that builds start with, for a service that was started with one and now has its `own`.

    The neutral one, or a higher one that was given to the service; and where the service could not protect itself, one
    that has builds go first all the same.
    """
    return min(max(started, NEUTRAL, own + APART), _HIGHEST)


def give(score: int) -> None:
    """Set the score of this process; raises OSError.

    Any process may raise its score. Root with CAP_SYS_RESOURCE may lower it, and what it sets is the least that others
    can go back to.
    """
    fd = os.open(PATH, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % score)
    finally:
        os.close(fd)
