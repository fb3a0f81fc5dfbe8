"""Which of this process's own standard descriptors go along with a request, to become the build's.

stdin does as a rule, so that a build reads what its caller has there, and nothing is read ahead. stdout and stderr do
where they are terminals, or `pass` asks for it; else what the build writes comes back as events.
"""

import os
import stat

from ..core.protocol.requests import DESCRIPTORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Tuple

EVENTS = "events"
PASS = "pass"
NULL_DEVICE = os.makedev(1, 3)


def to_hand_over(mode: "str") -> "Tuple[List[str], bool]":
    """Return the names of what goes along, and whether stdout and stderr are one open file that does not.

    With the `mode` EVENTS neither of those goes along, with PASS both, else terminals do.
    """
    names = ["stdin"] if _is_input() else []
    for name in ("stdout", "stderr"):
        if mode == PASS or (mode != EVENTS and os.isatty(DESCRIPTORS.index(name))):
            names.append(name)
    out, err = os.fstat(1), os.fstat(2)
    return names, not {"stdout", "stderr"}.intersection(names) and os.path.samestat(out, err)


def _is_input() -> bool:
    """Tell whether the build gets stdin: not where it is /dev/null there too, nor a terminal that others have.

    Who reads a terminal from the background is stopped (credentials(7)), but only by the session whose terminal it is;
    a build, which is in another, would take what is typed for the shell.
    """
    status = os.fstat(0)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE:
        return False
    try:
        return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # it is not the terminal that controls this process, which may read it at any time
        return True
