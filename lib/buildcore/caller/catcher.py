"""Passes on to the build the signals that this process gets, and stops and ends with it as make would."""

import os
import select

try:
    import _signal as signal  # type: ignore[import-not-found]  # what `signal` wraps: it saves the import of enum
except ImportError:
    import signal

from . import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Optional

CANCEL = {signal.SIGHUP: "HUP", signal.SIGINT: "INT", signal.SIGQUIT: "QUIT", signal.SIGTERM: "TERM"}
"""What ends the build; the next one of these ends this process."""

PASSED_ON = {signal.SIGUSR1: "USR1", signal.SIGUSR2: "USR2", signal.SIGWINCH: "WINCH"}

STOP_MS = 1000
"""How long a service may take to stop a build; one that is older says nothing of it."""


class SignalCatcher:
    """Catches signals from now on, for the build that is asked for over `connection`.

    The first ^C, ^\\, SIGTERM or SIGHUP asks the service to end the build, so that what make says about it still comes
    through; the next one ends this process at once, and hanging up ends the build. ^Z stops the build, and this process
    when that is done, so that nothing takes what is typed from the shell. A signal that was ignored when this process
    began (nohup) stays ignored.
    """

    def __init__(self, connection: client.Connection) -> None:
        self._connection = connection
        self._caught: "Optional[int]" = None
        self._sent = False
        self._waits = False
        self._stops = False
        self._wakeup, alarm = os.pipe()
        os.set_blocking(alarm, False)
        signal.set_wakeup_fd(alarm)
        for signums, handler in ((CANCEL, self._cancel), (PASSED_ON, self._pass_on), ((signal.SIGTSTP,), self._stop)):
            for signum in signums:
                if signal.getsignal(signum) != signal.SIG_IGN:
                    signal.signal(signum, handler)

    def sent(self) -> None:
        """Hear that the whole request is on its way: before, there was nothing to say on the connection."""
        self._sent = True
        if self._caught is not None:
            self._connection.cancel(CANCEL[self._caught])

    def wait(self, fd: int) -> None:
        """Return when `fd` is readable, and let no signal pass unheard meanwhile.

        Python calls its handlers between two steps of the program: one that comes just before a blocking call would
        be heard only after it, so the call has to end by the descriptor that the C handler writes to.
        """
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        self._waits = True
        while True:
            ready = [number for number, _ in poll.poll(STOP_MS if self._stops else None)]
            if self._wakeup in ready:
                os.read(self._wakeup, 64)
            if fd in ready:
                self._waits = False
                return
            if not ready and self._stops:
                self.stop()

    def stop(self) -> None:
        """Stop as if ^Z had never been caught; go on, and have the build go on, when continued (SIGCONT)."""
        if not self._stops:
            return
        self._stops = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTSTP,))
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._connection.signal("CONT")
        self._connection.signal("WINCH")  # the screen is not what it was

    def finish(self) -> None:
        """Die by the signal that was caught, if one was: a shell must see what ended its command."""
        if self._caught is not None:
            die_by(self._caught)

    def _cancel(self, signum: int, frame: object) -> None:
        if self._caught is not None:
            die_by(signum)
        self._caught = signum
        if self._sent:
            self._connection.cancel(CANCEL[signum])

    def _pass_on(self, signum: int, frame: object) -> None:
        if self._sent:
            self._connection.signal(PASSED_ON[signum])

    def _stop(self, signum: int, frame: object) -> None:
        """Have the build stop, and wait for it where this process waits; else it may wait for who stops, too."""
        if not self._sent or self._stops:
            return
        self._stops = True
        self._connection.signal("STOP")
        if not self._waits:
            self.stop()


def die_by(signum: int) -> "NoReturn":
    """End this process by the signal `signum`, as if it had never been caught (signal(7))."""
    signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signum,))
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)
