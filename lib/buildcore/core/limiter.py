"""How many lines of one kind a log takes in a while, so that one caller's refusals do not fill it.

Pure: times go in as seconds of a monotonic clock. The log's writer asks it for each line that has a key.
"""

from __future__ import annotations

LINES = 20
"""Lines of one key that are written in one window."""

WINDOW_SEC = 10.0


class Limiter:
    """Counts lines by key in windows of WINDOW_SEC; what went beyond LINES is told when a window is over."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._counts: dict[bytes, int] = {}

    def admits(self, key: bytes, now: float) -> bool:
        """Count a line of `key`, and tell whether it is to be written. `take_left_out` comes before, when due."""
        if not self._counts:
            self._ends = now + WINDOW_SEC
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key] <= LINES

    def due_in(self, now: float) -> float | None:
        """Return the seconds until something is to be told, None when nothing was left out."""
        left_out = any(count > LINES for count in self._counts.values())
        return max(0.0, self._ends - now) if left_out else None

    def take_left_out(self, now: float) -> list[tuple[bytes, int]]:
        """Return, once the window is over, each key of which lines were left out, and how many; begin a new one."""
        if now < self._ends:
            return []
        counts, self._counts = self._counts, {}
        return [(key, count - LINES) for key, count in counts.items() if count > LINES]
