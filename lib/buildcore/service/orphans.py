"""What a killed session left of its build: the arbiter is the subreaper that it falls to, and ends it here."""

from __future__ import annotations

import os
from collections.abc import Collection

from ..system import processes


def end(known: Collection[int]) -> list[str]:
    """SIGKILL the children of this process that are not `known` (pids), and all below them; return their names.

    What forks away meanwhile comes to this process as well, which hears of each that ends and calls this again. Raises
    OSError when the machine has no descriptor or memory to look for them.
    """
    own = os.getpid()
    orphans = [each for each in processes.descendants(own) if each.parent == own and each.pid not in known]
    if orphans:
        processes.kill_trees(orphans)
    return [f"{orphan.name}[{orphan.pid}]" for orphan in orphans]
