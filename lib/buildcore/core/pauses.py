"""How long a build may stand still: its clock stands with it, for so long in all and no longer."""

from __future__ import annotations


class Pauses:
    """One build's pauses, of at most `most_sec` seconds together; times are seconds of one clock."""

    def __init__(self, most_sec: float) -> None:
        self._left_sec = most_sec
        self._since: float | None = None

    def is_paused(self) -> bool:
        return self._since is not None

    def begin(self, now: float) -> float:
        """Begin a pause; return the seconds by which a deadline moves back should nobody ever end it."""
        self._since = now
        return self._left_sec

    def end(self, now: float) -> float:
        """End it; return how many of those seconds it did not take, by which the deadline moves forward again."""
        assert self._since is not None
        taken = min(max(0.0, now - self._since), self._left_sec)
        self._since = None
        before, self._left_sec = self._left_sec, self._left_sec - taken
        return before - taken
