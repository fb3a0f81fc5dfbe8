"""What is to be done later, and when. Pure: times go in as seconds of a monotonic clock, and whoever waits asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Action = Callable[[], None]

LONGEST_WAIT_SEC = 86400.0
"""poll(2) takes no more than 2^31 milliseconds."""


class Timers:
    """Actions by the time at which they are due; each is there once."""

    def __init__(self) -> None:
        self._due: dict[Action, float] = {}

    def __contains__(self, action: Action) -> bool:
        return action in self._due

    def set(self, action: Action, at: float) -> None:
        """Have `action` done at the time `at`, and not when it was to be done before."""
        self._due[action] = at

    def cancel(self, action: Action) -> None:
        """Call `action` off, if it was to be done."""
        self._due.pop(action, None)

    def wait_sec(self, now: float) -> float | None:
        """Return the seconds until the first one is due, at most LONGEST_WAIT_SEC; None when there is nothing to do."""
        return min(LONGEST_WAIT_SEC, max(0.0, min(self._due.values()) - now)) if self._due else None

    def take_due(self, now: float) -> Iterator[Action]:
        """Give what is due by `now`, one after the other; what one of these has done or called off is not given."""
        for action in [action for action, at in self._due.items() if at <= now]:
            if self._due.pop(action, None) is not None:
                yield action
