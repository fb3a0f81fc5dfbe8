"""What of an owner's lines a log takes, so that one owner neither fills it nor turns over what is kept of it.

Pure: times go in as seconds of a monotonic clock. The log's writer asks it for each line that a caller has brought
about. Lines of builds are never left out: once their owner's budget is spent they are written shortened. All others
may be left out, and are told then: as soon as a window is over and the budgets pay for the line that says so.
"""

from __future__ import annotations

from typing import NamedTuple

from .budgets import OTHERS, OWNERS, Budget, Budgets, Owner

LINES = 20
"""Lines of one owner that are written in one window, of those that may be left out."""

WINDOW_SEC = 10.0

OWNERS_PART = 40
"""A budget is a fortieth of what the log keeps. Each owner has two, one for its builds and one for all else, so that
neither is at the other's cost; with what comes back in a day that is a tenth of the log in any 24 hours."""

COMMON_PART = 4
"""What may be left out, of all owners together, has a quarter: uids of ranges that no file names can be very many."""

LEAST_BYTES = 64 << 10
"""No budget is less, however little the log keeps: eight of the longest lines."""

TOLD_BYTES = 192
"""What a line that tells what was left out costs at most, with the longest numbers."""


class LeftOut(NamedTuple):
    """What was left out of one owner's lines: how many, and their bytes."""

    owner: Owner
    lines: int
    size: int


class Limiter:
    """Judges the lines of a log that keeps `kept_bytes` in all its files."""

    def __init__(self, kept_bytes: int) -> None:
        most = max(LEAST_BYTES, kept_bytes / OWNERS_PART)
        self._builds, self._budgets = Budgets(most), Budgets(most)
        self._common = Budget(max(LEAST_BYTES, kept_bytes / COMMON_PART), 0.0)
        self._ends = 0.0
        self._counts: dict[Owner, int] = {}
        self._left_out: dict[Owner, LeftOut] = {}

    def admits_whole(self, uid: int, size: int, short_size: int, now: float) -> bool:
        """Tell whether a build's line of `size` bytes is to be written whole, else in the form of `short_size`."""
        _, budget = self._builds.of(uid, now)
        whole = budget.left(now) >= size
        budget.spend(size if whole else short_size, now)
        return whole

    def admits(self, uid: int, size: int, now: float) -> bool:
        """Count a line that may be left out, and tell whether it is to be written. `take_left_out` comes before."""
        if not self._counts and not self._left_out:
            self._ends = now + WINDOW_SEC
        owner, budget = self._budgets.of(uid, now)
        if owner not in self._counts and len(self._counts) >= OWNERS:
            owner, budget = OTHERS, self._budgets.known(OTHERS, now)
        self._counts[owner] = self._counts.get(owner, 0) + 1
        if self._counts[owner] <= LINES and self._pay(budget, size, now):
            return True
        if owner not in self._left_out and len(self._left_out) >= OWNERS:
            owner = OTHERS
        _, lines, total = self._left_out.get(owner, LeftOut(owner, 0, 0))
        self._left_out[owner] = LeftOut(owner, lines + 1, total + size)
        return False

    def due_in(self, now: float) -> float | None:
        """Return the seconds until something is to be told, None when nothing was left out."""
        return max(0.0, self._ends - now) if self._left_out else None

    def take_left_out(self, now: float) -> list[LeftOut]:
        """Return, once the window is over, what was left out and the budgets pay for; begin a new one."""
        if now < self._ends:
            return []
        self._counts.clear()
        self._ends = now + WINDOW_SEC
        told = []
        for owner in list(self._left_out):
            if self._pay(self._budgets.known(owner, now), TOLD_BYTES, now):
                told.append(self._left_out.pop(owner))
        return told

    def take_all(self) -> list[LeftOut]:
        """Return all that was left out, whatever the budgets: for who ends."""
        told = list(self._left_out.values())
        self._left_out.clear()
        return told

    def _pay(self, budget: Budget, size: int, now: float) -> bool:
        if min(budget.left(now), self._common.left(now)) < size:
            return False
        budget.spend(size, now)
        self._common.spend(size, now)
        return True
