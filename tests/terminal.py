"""A terminal with a program at it, and somebody who types."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from harness import PATIENCE_SEC, popen_as, text
from harness_world import User

INTERRUPT = "\x03"
"""What ^C sends (termios(3), VINTR)."""

QUIT, SUSPEND = "\x1c", "\x1a"
"""The same of ^\\ and ^Z."""

DOWN, RIGHT, BACKSPACE = "\x1bOB", "\x1bOC", "\x7f"
"""What these keys of an xterm send to a program that has the full screen (kcud1, kcuf1, kbs of terminfo(5))."""


class Terminal:
    """Runs a program as `user` at a terminal of its own, which controls it. Closed at the end of a `with` block."""

    def __init__(
        self,
        user: User,
        argv: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self._screen, theirs = os.openpty()
        self._shown = bytearray()
        try:
            self.process = popen_as(
                user, argv, cwd or user.home, env, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=_control
            )
        finally:
            os.close(theirs)

    def resize(self, rows: int, columns: int) -> None:
        """Gives the terminal another size; the program in its foreground hears of it (SIGWINCH)."""
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Types `keys`; a line ends with \\n."""
        os.write(self._screen, keys.encode())

    def await_text(self, pattern: str) -> str:
        """Waits until what was shown since the last such wait matches; returns that up to the end of the match."""
        deadline = time.monotonic() + PATIENCE_SEC
        while not (found := re.search(pattern, text(self._shown))):
            ready = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))[0]
            more = self._read() if ready else b""
            assert more, f"{'end' if ready else 'nothing more'} before {pattern!r}; shown: {text(self._shown)!r}"
            self._shown += more
        shown = text(self._shown)
        self._shown = bytearray(shown[found.end() :].encode("utf-8", "surrogateescape"))
        return shown[: found.end()]

    def hang_up(self) -> None:
        """Closes the terminal, as who closes its window (SIGHUP to the programs there)."""
        os.close(self._screen)
        self._screen = -1

    def end(self) -> tuple[str, int]:
        """Waits for the program's end; returns what was shown since the last `await_text`, and the exit code."""
        deadline = time.monotonic() + PATIENCE_SEC
        while select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))[0]:
            more = self._read()
            if not more:
                return text(self._shown), self.process.wait(PATIENCE_SEC)
            self._shown += more
        raise AssertionError(f"the program does not end; shown: {text(self._shown)!r}")

    def _read(self) -> bytes:
        """What is there to read; nothing when the last program has closed the terminal (EIO, tty_ioctl(4))."""
        try:
            return os.read(self._screen, 65536)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._screen >= 0:
            os.close(self._screen)


def _control() -> None:
    """In the child: a session of its own, whose terminal is the one at its standard input."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
