"""The arbiter's part of a reload: the trial of the installed program, and what comes of it.

A program that does not run, or a configuration with faults, ends in a refusal that is told, and everything stays as it
was. While the trial runs new callers wait in the socket, so that who comes after SIGHUP finds the new program.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..core.errors import BuildError
from ..core.timers import Timers
from . import reload
from .logs import Log
from .server import Server
from .status import Status

PAUSE_SEC = 5.0
"""How long new callers wait for a reload to end."""

TRIAL_SEC = 60.0
"""How long the installed program may take to check its configuration."""

Become = Callable[[reload.Accepted, reload.Program], None]


class Reloader:
    """Tries `program` when told to, and has the arbiter `become` it; `handover` says what the arbiter has to hand over.

    Both are called by this in the arbiter's own process. `become` returns when the arbiter is to stop instead, and
    raises ReloadError when it cannot be.
    """

    def __init__(
        self,
        program: reload.Program | None,
        log: Log,
        status: Status,
        server: Server,
        timers: Timers,
        handover: Callable[[], reload.Handover],
        become: Become,
    ) -> None:
        self._program = program
        self._log = log
        self._status = status
        self._server = server
        self._timers = timers
        self._handover = handover
        self._become = become
        self._trial: reload.Trial | None = None
        self._tries_again = False
        self._stopped = False

    def pids(self) -> set[int]:
        """Return the pid of the trial, if one runs."""
        return {self._trial.pid} if self._trial else set()

    def begin(self) -> None:
        """Try the installed program; when that ends well, this process becomes it."""
        if self._trial is not None:  # it may have read its file before the last change
            self._tries_again = True
            self._kill_trial()
            return
        self._status.reloading()
        try:
            if self._program is None:
                raise reload.ReloadError("the installed program is not known")
            self._log.info("build-service reloads", program=self._program.path)
            self._trial = reload.Trial(self._program, self._handover())
            self._timers.set(self._kill_trial, time.monotonic() + TRIAL_SEC)
            self._server.leave_waiting(PAUSE_SEC)
        except BuildError as exc:
            self._refuse(exc)

    def stop(self) -> None:
        """End the trial, if one runs, and have nothing come of it."""
        self._stopped = True
        self._kill_trial()

    def trial_ended(self, status: int) -> None:
        """Take the wait status of the trial, which was reaped: become the program, refuse, or try again."""
        trial, self._trial = self._trial, None
        assert trial is not None
        self._timers.cancel(self._kill_trial)
        try:
            accepted = trial.accepted(status)
            if not self._tries_again and not self._stopped:
                self._become(accepted, trial.program)
        except BuildError as exc:
            if not self._tries_again and not self._stopped:
                self._refuse(exc)
        if self._tries_again and not self._stopped:
            self._tries_again = False
            self.begin()

    def _kill_trial(self) -> None:
        if self._trial is not None:
            self._trial.kill()

    def _refuse(self, refusal: BuildError) -> None:
        self._server.listen_again()
        faults = str(refusal).splitlines()
        for fault in faults:
            self._log.error("reload refused, everything stays as it was", fault=fault)
        self._status.reload_refused(faults[0])
