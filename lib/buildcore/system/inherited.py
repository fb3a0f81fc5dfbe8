"""What the service's first process may have been started with by accident, and every build would have after it.

Each of these passes execve(2), and all but the timers fork(2). What is left is the administrator's to set for the
service and its builds, docs/SECURITY.md has the list: priorities, processors, limits, namespaces and the like.
"""

from __future__ import annotations

import signal
from contextlib import suppress

from . import linux


def shed_timers() -> None:
    """Stop the interval timers: an alarm that was set before this program would end it (setitimer(2))."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)


def shed_privileges() -> None:
    """As root: drop what would give a build rights that are not its user's, or hold up others. Raises OSError."""
    linux.drop_inheritable_capabilities()
    with suppress(OSError):  # before Linux 5.6, or without the right to it: then nobody could set it
        linux.unset_io_flusher()
