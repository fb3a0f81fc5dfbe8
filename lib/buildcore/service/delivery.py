"""How long a caller may take to read what is left when nothing of its build runs any more.

The supervisor asks. The patience with a caller who takes nothing is DELIVERY_SEC; who takes something has it anew. It
is over at once when the arbiter needs the room for another, and at the time that the service's stop leaves.
"""

from __future__ import annotations

from .output import Link
from .place import Place

DELIVERY_SEC = 300.0
"""How long a caller may take nothing of its output after the end of its build, in seconds."""


class Delivery:
    """The delivery of one build's output to `link`; `place` is this session's at the arbiter, where there is one."""

    def __init__(self, link: Link, place: Place | None) -> None:
        self._link = link
        self._place = place
        self._begun = False
        self._taken = 0
        self._gives_up: float | None = None
        self._stops: float | None = None
        self._makes_room = False

    def begin(self, now: float) -> None:
        """Take note that nothing of the build runs any more, and tell the arbiter."""
        if not self._begun:
            self._begun = True
            self._taken = self._link.taken()
            self._gives_up = now + DELIVERY_SEC
            if self._place is not None:
                self._place.deliver()

    def fileno(self) -> int:
        """Return what is to be watched for the arbiter's word, -1 for nothing."""
        return self._place.fileno() if self._place is not None and self._begun else -1

    def hear(self) -> None:
        """Hear the arbiter's word."""
        if self._place is not None and self._place.is_to_make_room():
            self._makes_room = True

    def go_on(self, now: float) -> None:
        """Look whether the caller took something."""
        if self._begun and self._link.taken() != self._taken:
            self._taken = self._link.taken()
            self._gives_up = now + DELIVERY_SEC

    def stop_at(self, at: float) -> None:
        """End by then, however much is read: the service stops."""
        self._stops = at

    def due(self) -> float | None:
        """Return when it is over if nothing is read until then."""
        return min((at for at in (self._gives_up, self._stops) if at is not None), default=None)

    def is_over(self, now: float) -> bool:
        """Tell whether the caller is to be let go of, though it has not read everything."""
        due = self.due()
        return self._makes_room or (due is not None and now >= due)
