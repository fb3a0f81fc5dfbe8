"""How a build ended, and the exit code that its caller is told (the requirement's table)."""

from __future__ import annotations

from dataclasses import dataclass

COMPLETED = "completed"
TIMED_OUT = "timed_out"
CANCELLED = "cancelled"
STOPPED = "stopped"

TIMEOUT_EXIT_CODE = 124


@dataclass(frozen=True)
class Ending:
    """How a build ended: why, with which code or signal of its main process, after how many seconds.

    `code` is the exit code that a shell would show: the process's own, or 128 + n for signal n. `survivors`
    names what even SIGKILL did not end.
    """

    reason: str
    code: int
    signal: int | None
    duration_sec: float
    survivors: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code that the caller is told: TIMEOUT_EXIT_CODE for a timeout, else `code`."""
        return TIMEOUT_EXIT_CODE if self.reason == TIMED_OUT else self.code
