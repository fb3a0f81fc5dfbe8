"""Bounds that a process sets itself: its niceness and its soft resource limits, never to more than it had."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping

LIMITS = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "nofile": resource.RLIMIT_NOFILE,
    "stack": resource.RLIMIT_STACK,
}
"""By their names in a request: seconds of `cpu`, a count of `nofile`, bytes of the others (setrlimit(2))."""


def lower(limits: Mapping[str, int]) -> None:
    """Lower this process's soft limits to those given, where they are lower; raises OSError."""
    for name, wanted in limits.items():
        soft, hard = resource.getrlimit(LIMITS[name])
        if soft == resource.RLIM_INFINITY or wanted < soft:
            resource.setrlimit(LIMITS[name], (wanted, hard))


def be_nicer(niceness: int) -> None:
    """Give this process the niceness given, where it is higher than its own (setpriority(2)); raises OSError."""
    if niceness > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
