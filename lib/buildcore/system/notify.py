"""Tells the service manager how the service is doing (sd_notify(3)), and when it wants to hear (the watchdog).

The arbiter calls it. Without a service manager it does nothing; a manager that does not listen any more is told
nothing and is no fault of the service. Must never block.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

SOCKET_VARIABLE = "NOTIFY_SOCKET"
MAX_USEC_DIGITS = 18
"""Longer is 30000 years or "infinity"."""

_KICKS = 2.5
"""How often it hears within its patience: twice (sd_watchdog_enabled(3)), also when one word comes a little late."""

_USEC = 1_000_000


class Manager:
    """The service manager of this process, as the environment of `environ` tells; `pid` is this process."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        name = environ.get(SOCKET_VARIABLE, "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self.watchdog_sec = _watchdog_sec(environ, pid) if name else None
        """How often the manager wants to hear `WATCHDOG=1`, in seconds; None for never."""

    def tell(self, *assignments: str) -> bool:
        """Send e.g. `READY=1`, `STATUS=...`; return False when there is a manager that could not be told."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.connect(self._address)
                sender.send("\n".join(assignments).encode("utf-8", "replace"))
        except OSError:
            return False
        return True

    def tell_reloading(self) -> None:
        """Say that a reload begins; `READY=1` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")


def _watchdog_sec(environ: Mapping[str, str], pid: int) -> float | None:
    """Return a part of WATCHDOG_USEC where it is meant for this process (sd_watchdog_enabled(3))."""
    usec = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid) or not (usec.isascii() and usec.isdigit()):
        return None
    return int(usec) / _USEC / _KICKS if len(usec) <= MAX_USEC_DIGITS and int(usec) else None
