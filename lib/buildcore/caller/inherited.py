"""What of this process goes along with a request, to become the build's as a child of this process would have it.

stdin does as a rule, so that a build reads what its caller has there, and nothing is read ahead. stdout and stderr do
where they are terminals, or `pass` asks for it; else what the build writes comes back as events. Niceness and resource
limits do where they bound a build more than the service does.
"""

import os
import stat

from ..core.protocol.requests import DESCRIPTORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Tuple

EVENTS = "events"
PASS = "pass"
NULL_DEVICE = os.makedev(1, 3)

_LIMITS = {
    "Max address space": "as",
    "Max core file size": "core",
    "Max cpu time": "cpu",
    "Max data size": "data",
    "Max file size": "fsize",
    "Max open files": "nofile",
    "Max stack size": "stack",
}
_NAME_CHARS = 26


def descriptors(mode: str) -> "Tuple[List[str], bool]":
    """Return the names of those that go along, and whether stdout and stderr are one open file that does not.

    With the `mode` EVENTS neither of those goes along, with PASS both, else terminals do.
    """
    names = ["stdin"] if _is_input() else []
    for name in ("stdout", "stderr"):
        if mode == PASS or (mode != EVENTS and os.isatty(DESCRIPTORS.index(name))):
            names.append(name)
    out, err = os.fstat(1), os.fstat(2)
    return names, not {"stdout", "stderr"}.intersection(names) and os.path.samestat(out, err)


def limits() -> "Dict[str, int]":
    """Return the soft resource limits that are set, by the names of the protocol (proc(5), /proc/PID/limits).

    That file says it without the module `resource`, whose import costs more.
    """
    try:
        with open("/proc/self/limits", "rb", 0) as file:
            lines = file.read().decode("ascii").split("\n")
    except OSError:
        return {}
    soft = {_LIMITS.get(line[:_NAME_CHARS].rstrip()): line[_NAME_CHARS:].split(" ", 1)[0] for line in lines}
    return {name: int(value) for name, value in soft.items() if name and value.isdigit()}


def niceness() -> int:
    """Return by how much this process steps back behind others, 0 to 19 (setpriority(2))."""
    return max(0, os.getpriority(os.PRIO_PROCESS, 0))


def _is_input() -> bool:
    """Tell whether the build gets stdin: not where it is /dev/null there too, nor a terminal that others have.

    Who reads a terminal from the background is stopped (credentials(7)), but only in the session whose terminal it is;
    a build, which is in another, would take what is typed for the shell.
    """
    status = os.fstat(0)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE:
        return False
    try:
        return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # it is not the terminal that controls this process, which may read it at any time
        return True
