"""The ladder by which a build is ended: which signal comes next, and how long it is given to work.

A gentle signal, `grace_sec` later SIGTERM, `grace_sec` later SIGKILL, and that again until nobody can be helped.
The supervisor climbs it and sends what it says; this only counts.
"""

from __future__ import annotations

from signal import Signals

KILL_ATTEMPTS = 3
KILL_WAIT_SEC = 2.0
"""What survives so many SIGKILLs, so far apart, is in uninterruptible sleep: it is reported and left."""


class Ladder:
    """One build's ladder; it begins with SIGTERM where nothing else is said. `grace_sec` is in seconds."""

    def __init__(self, grace_sec: float) -> None:
        self._grace_sec = grace_sec
        self._rungs = [Signals.SIGTERM] + [Signals.SIGKILL] * KILL_ATTEMPTS
        self.begun = False
        """Whether a signal was sent already."""

    def leads_to(self, signum: Signals) -> bool:
        """Tell whether `signum` is still to come: any is before the first rung, later only those above."""
        return not self.begun or signum in self._rungs

    def start(self, first: Signals) -> None:
        """Make `first` the next rung: those below it are left out, or it is one more in front of them."""
        self.begun = True
        if first in self._rungs:
            del self._rungs[: self._rungs.index(first)]
        else:
            self._rungs.insert(0, first)

    def climb(self) -> tuple[Signals, float] | None:
        """Return the next signal and the seconds until the one behind it is due; None when there is no more."""
        if not self._rungs:
            return None
        signum = self._rungs.pop(0)
        return signum, KILL_WAIT_SEC if signum == Signals.SIGKILL else self._grace_sec
