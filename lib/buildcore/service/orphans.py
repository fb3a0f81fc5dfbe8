"""What sessions left of their builds: the arbiter is the subreaper that it falls to, and has it ended here.

Looking through /proc takes its time, the more so the more processes a caller keeps there. So the arbiter never does it:
a child of its own looks, once for all that is left, one such child at a time, reaped like any other.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from ..core.timers import Timers
from ..system import cgroups, processes, signals
from . import sight
from .children import SIGNALS
from .logs import Log

PAUSE_SEC = 0.2
"""Between two looks, so that a caller who has its orphans end one by one keeps no processor busy."""

SCARCE_PAUSE_SEC = 1.0
"""How long what a session left runs on when the machine had no process, descriptor or memory to look for it."""

SEEK_SEC = 60
"""How long one look may take, in whole seconds (alarm(2))."""

GROUP_SEC = 5.0
"""How long what was killed with its control group may take to end, before the group is left for the next look."""


class Orphans:
    """Looks when told to. `known` are the arbiter's own children; `let_go` closes, in a fork, what is the arbiter's."""

    def __init__(
        self, log: Log, timers: Timers, known: Callable[[], set[int]], let_go: Callable[[], None], parent: str | None
    ) -> None:
        self._log = log
        self._timers = timers
        self._known = known
        self._let_go = let_go
        self._parent = parent  # of the builds' control groups, where they have any
        self._groups: set[str] = set()
        self._seeker = 0  # the pid of the child that looks
        self._again = False

    def pids(self) -> set[int]:
        """Return the pid of the child that looks, if one does."""
        return {self._seeker} - {0}

    def session_ended(self, pid: int, left: bool) -> None:
        """Take note that a child was reaped: look, where it `left` something or its control group is still there."""
        if self._parent is not None:
            group = cgroups.build_path(self._parent, pid)
            if os.path.isdir(group):
                self._groups.add(group)
                left = True
        if left:
            self.seek()

    def seek(self) -> None:
        """Look for orphans and end them: now, or when the look that is being taken is over."""
        if self._seeker:
            self._again = True
        elif self._begin not in self._timers:
            self._begin()

    def seek_at_last(self) -> None:
        """Look, as the service stops and nothing is left to begin anything: at once, unless a look is being taken."""
        self._timers.cancel(self._begin)
        if not self._seeker:
            self._begin()

    def kill(self) -> None:
        """End the look that is being taken. For the arbiter, as long as that child was not reaped."""
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)

    def ended(self, status: int) -> None:
        """Take the wait status of the child that looked."""
        self._seeker = 0
        self._groups = {group for group in self._groups if os.path.isdir(group)}
        if os.WIFSIGNALED(status):
            signum = os.WTERMSIG(status)
            self._log.by_callers("error", "the look for what sessions left running was ended", signal=signum)
        if status or self._again:
            self._timers.set(self._begin, time.monotonic() + (SCARCE_PAUSE_SEC if status else PAUSE_SEC))

    def _begin(self) -> None:
        self._again = False
        arbiter = os.getpid()
        try:
            with signals.held(SIGNALS):
                pid = os.fork()
                if pid == 0:
                    self._seek_and_end(arbiter)
        except OSError as exc:
            self._log.by_callers("error", "cannot look for what a killed session left running", reason=exc.strerror)
            self._timers.set(self._begin, time.monotonic() + SCARCE_PAUSE_SEC)
        else:
            self._seeker = pid

    def _seek_and_end(self, arbiter: int) -> NoReturn:
        """In the child: end what is not the arbiter's own. What comes to the arbiter later has it look again."""
        status = 1
        try:
            known = self._known()
            self._let_go()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            signal.alarm(SEEK_SEC)
            for group in self._groups:
                cgroups.remove(group, GROUP_SEC)
            seen = sight.of_build()  # of those here that no group holds any more
            names = [f"{each.name}[{each.pid}]" for each in processes.kill_orphans(arbiter, known, seen)]
            if names:
                self._log.by_callers("warn", "ended what a killed session left running", processes=names)
            status = 0
        except OSError as exc:
            self._log.by_callers("error", "cannot look for what a killed session left running", reason=exc.strerror)
        finally:
            os._exit(status)
