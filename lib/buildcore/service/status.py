"""What the service manager is told of the arbiter: that it serves, how many builds run, that it is alive."""

from __future__ import annotations

import time

from ..core.timers import Timers
from ..system.notify import Manager
from .children import Children


class Status:
    """The arbiter's word to `manager`; a watchdog is kept quiet by a timer."""

    def __init__(self, manager: Manager, children: Children, timers: Timers) -> None:
        self._manager = manager
        self._children = children
        self._timers = timers
        self._told = -1  # builds

    def ready(self) -> bool:
        """Say that callers are served; return False when there is a manager that could not be told."""
        return self._manager.tell("READY=1")

    def builds(self) -> None:
        """Say how many builds run, where that is news."""
        count = self._children.count()
        if count != self._told:
            self._told = count
            self._manager.tell(f"STATUS={count} {'build' if count == 1 else 'builds'} running")

    def reloading(self) -> None:
        """Say that a reload begins."""
        self._manager.tell_reloading()

    def reload_refused(self, fault: str) -> None:
        """Say that it came to nothing; that stays the status until a build starts or ends."""
        self._manager.tell("READY=1", f"STATUS=reload refused: {fault}")
        self._told = self._children.count()

    def stopping(self, patience_sec: float) -> None:
        """Say that the service stops, and ask for twice the time that its builds may take to end."""
        self._manager.tell(
            "STOPPING=1",
            f"STATUS=stopping, {self._children.count()} builds to end",
            f"EXTEND_TIMEOUT_USEC={round(patience_sec * 2e6)}",
        )

    def kick_watchdog(self) -> None:
        """Say that the arbiter is alive, now and as often as the manager wants to hear it."""
        if self._manager.watchdog_sec is not None:
            self._manager.tell("WATCHDOG=1")
            self._timers.set(self.kick_watchdog, time.monotonic() + self._manager.watchdog_sec)
