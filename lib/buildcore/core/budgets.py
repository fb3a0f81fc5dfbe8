"""How many bytes of the log one owner may claim over time, so that nobody alone turns over what is kept of it.

Pure: times go in as seconds of a monotonic clock. `limiter` asks it for each line that a caller has brought about.
"""

from __future__ import annotations

from typing import Optional

SECONDS = 86400.0
"""A budget that was spent is whole again after so long: a day."""

OWNERS = 4096
"""So many owners have a budget of their own, more than a host has users at work. One who is one too many shares a
budget with the others of these: however many uids a caller has to connect with, this is all that is remembered."""

_LOOK_SEC = 10.0  # how long the owners are not gone through again for one that can be forgotten

Owner = Optional[int]
"""Whose a line is: a uid, OTHERS for those who are too many."""

OTHERS: Owner = None


class Budget:
    """`most` bytes at once; what was spent comes back evenly, `most` bytes in SECONDS."""

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, most: float, now: float) -> None:
        self._most = self._left = most
        self._at = now

    def left(self, now: float) -> float:
        """Return how many bytes can be spent now."""
        return min(self._most, self._left + (now - self._at) * self._most / SECONDS)

    def is_whole(self, now: float) -> bool:
        """Tell whether nothing is spent of it."""
        return self.left(now) >= self._most

    def spend(self, size: int, now: float) -> None:
        """Take `size` bytes out of it, or all that is left."""
        self._left = max(0.0, self.left(now) - size)
        self._at = now


class Budgets:
    """The budget of each owner, `most` bytes each. One of which nothing is spent need not be remembered."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._budgets: dict[Owner, Budget] = {}
        self._look_at = 0.0

    def __len__(self) -> int:
        return len(self._budgets)

    def of(self, uid: int, now: float) -> tuple[Owner, Budget]:
        """Return as whom the owner `uid` is known, itself or OTHERS, and the budget."""
        if uid in self._budgets:
            return uid, self._budgets[uid]
        if len(self._budgets) >= OWNERS and now >= self._look_at:
            self._budgets = {owner: one for owner, one in self._budgets.items() if not one.is_whole(now)}
            self._look_at = now + _LOOK_SEC
        owner = uid if len(self._budgets) < OWNERS else OTHERS
        if owner not in self._budgets:
            self._budgets[owner] = Budget(self._most, now)
        return owner, self._budgets[owner]

    def known(self, owner: Owner, now: float) -> Budget:
        """Return the budget of an owner that `of` has named."""
        return self._budgets.setdefault(owner, Budget(self._most, now))
