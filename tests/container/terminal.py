"""A terminal with a program at it, and somebody who types: what `podman run -it` is for."""

from __future__ import annotations

import errno
import os
import re
import select
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from harness import PATIENCE_SEC, popen_as, text
from harness_world import User

INTERRUPT = "\x03"
"""What ^C sends (termios(3), VINTR)."""


class Terminal:
    """Runs a program as `user` at a terminal of its own."""

    def __init__(self, user: User, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._screen, theirs = os.openpty()
        self._shown = b""
        try:
            self.process = popen_as(
                user, argv, user.home, env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
            )
        finally:
            os.close(theirs)

    def press(self, keys: str) -> None:
        """Types `keys`; a line ends with \\n."""
        os.write(self._screen, keys.encode())

    def await_text(self, pattern: str) -> None:
        """Waits until what was shown since the last such wait matches; what follows the match is kept."""
        deadline = time.monotonic() + PATIENCE_SEC
        while not (found := re.search(pattern, text(self._shown))):
            ready = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))[0]
            more = self._read() if ready else b""
            assert more, f"{'end' if ready else 'nothing more'} before {pattern!r}; shown: {text(self._shown)!r}"
            self._shown += more
        self._shown = text(self._shown)[found.end() :].encode("utf-8", "surrogateescape")

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
        os.close(self._screen)
