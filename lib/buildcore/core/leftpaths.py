"""Paths of a container that are left in what a build gets: what names them is told, as the host knows them otherwise.

Path options are rewritten (`arguments`); in any other argument, and in variables, nothing says what is a path. A value
is never changed here, only looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MOST_NAMES = 32
MAX_NAME_CHARS = 64
_NAME = re.compile(r"[^=\s]*")


def names_of(
    container_root: str, host_root: str, args: Sequence[str], variables: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the names of those `args` (the part before "=") and `variables` that hold `container_root`, or a path
    below it, where the host has `host_root` in its place. At most MOST_NAMES, each once."""
    root = container_root.rstrip("/")
    if not root or root == host_root.rstrip("/"):
        return ()
    holds = _pattern(root, host_root.rstrip("/"))
    found = dict.fromkeys(
        [*(_name(arg) for arg in args if holds.search(arg)), *_held_by(variables.items(), holds)]
    )
    return tuple(found)[:MOST_NAMES]


def _pattern(root: str, host_root: str) -> re.Pattern[str]:
    """The root where a path may begin, and not as the beginning of a longer name, nor of the host's own.

    `-I/root` and `a:/root` begin one, `/other/root` does not.
    """
    hosts_own = f"(?!{re.escape(host_root)}(?![^/\\s:;,\"']))" if host_root.startswith(root + "/") else ""
    before, after = r"""(?:^|[\s=:;,"'(])(?:-\w)?""", r"""(?![^/\s:;,"')])"""
    return re.compile(before + hosts_own + re.escape(root) + after)


def _held_by(variables: Iterable[tuple[str, str]], holds: re.Pattern[str]) -> Iterable[str]:
    return (name for name, value in variables if holds.search(value))


def _name(arg: str) -> str:
    found = _NAME.match(arg)
    return (found[0] if found else arg)[:MAX_NAME_CHARS]
