"""Which program a name on PATH is: the make wrapper, or a tool of the container itself, which builds there.

The doctor asks. Syntax of Python 3.6, and no module that small images lack. It looks at files, and runs none.
"""

import os
from typing import Iterable, List, Optional, Tuple

MARK = b"build-cli"
"""What the wrapper holds, and no tool."""

_HEAD_BYTES = 4096


def which(command: str) -> Optional[str]:
    """Return what the shell would run for `command`, as shutil.which does it; small images have no shutil."""
    if "/" in command:
        return command if os.path.exists(command) else None
    for directory in _search_path():
        path = os.path.join(directory, command)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def is_wrapper(path: str) -> bool:
    """Tell whether the program at `path` is the wrapper."""
    try:
        with open(path, "rb") as file:
            return MARK in file.read(_HEAD_BYTES)
    except OSError:
        return False


def beside(allowed: Iterable[str]) -> List[Tuple[str, str]]:
    """Return the names among `allowed`, bare ones, that are tools of the container itself; each with its path."""
    found = [(name, which(name)) for name in allowed if "/" not in name]
    return [(name, path) for name, path in found if path is not None and not is_wrapper(path)]


def mend(name: str, path: str, wrapper: str) -> str:
    """Return what has `wrapper`, the path of the wrapper, stand for the tool `name`, which is at `path` now."""
    directories = _search_path()
    ours, theirs = (os.path.dirname(each) for each in (wrapper, path))
    if ours in directories and theirs in directories and directories.index(ours) < directories.index(theirs):
        return "ln -s %s %s" % (os.path.basename(wrapper), os.path.join(ours, name))
    return "put a link to %s, called %s, before it on PATH" % (wrapper, name)


def _search_path() -> List[str]:
    return [directory or "." for directory in os.environ.get("PATH", os.defpath).split(os.pathsep)]
