"""Which program a request means: one of the host, by its name in the allowlist, or one of the caller's own workspace.

The latter are named by entries of `build.workspace_commands`: "configure" is a program of that name in any directory of
the workspace, "tests/run.sh" one at the end of such a path. What is said of a name here is said of text alone; where a
path leads is for whoever opens it to find out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

_HERE = "./"


def of_workspace(command: str, commands: Collection[str], entries: Iterable[str]) -> str | None:
    """Return the path of the program of the workspace that `command` can mean by its last part, None for none.

    A bare name that `commands` has is the host's; one that `entries` have is a program in the current directory.
    """
    if command in commands:
        return None
    name = command.rpartition("/")[2]
    if "/" in command:
        return command if any(entry.rpartition("/")[2] == name for entry in entries) else None
    return _HERE + command if command in entries else None


def is_named(path: str, entries: Iterable[str]) -> bool:
    """Tell whether `path`, of a program and relative to the workspace, ends as one of `entries`, by whole parts."""
    return any(path == entry or path.endswith("/" + entry) for entry in entries)


def shown(commands: Iterable[str], entries: Iterable[str]) -> tuple[str, ...]:
    """Return all that may be run as callers type it, those of the workspace behind the others."""
    return (*sorted(commands), *sorted(entry if "/" in entry else _HERE + entry for entry in entries))
