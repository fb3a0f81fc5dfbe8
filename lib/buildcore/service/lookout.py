"""Proves, before a caller is served, that a session would see all of its build, whatever /proc hides.

`proof` calls it. A scratch session, with the ids of nobody as those of its caller, starts a scratch build that stops
where it is hardest to see: behind the drop and before execve(2), when not even whoever has its ids may look at it
(PR_SET_DUMPABLE, prctl(2)). It has a child by then, which is no child of the session. Then the session looks for both
as it would to signal them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ..system import cgroups, identity, linux, processes, proctable, signals
from ..system.proctable import Below, Sight
from . import launch, sight

PROOF_SEC = 10.0
"""How long the scratch session may take: who has the ids of its build can hold that or let it go."""

END_SEC = 2.0
"""How long its build may take to end."""

_SAID_BYTES = 1024

Look = Callable[[int, Sight], Below]
"""What is below a process, seen in this way."""

_ALL, _FIRST, _NONE, _FAILED = 0, 10, 11, 12
_MEANINGS = {
    _ALL: None,
    _FIRST: "what is below the first process of a build may be hidden from the service, and then hears SIGKILL alone "
    "(hidepid= of /proc, no control group)",
    _NONE: "builds are hidden from the service, so that nothing ends one (hidepid= of /proc, no control group)",
}


class LookoutError(OSError):
    """The scratch session did not come to an end, or not to a good one."""


def trial(
    ids: identity.Identity, become: Callable[[Callable[[], None]], None], look: Look = proctable.below
) -> tuple[bool, str | None]:
    """Return whether a session sees its build at all, and a line about what it does not see.

    `become` makes a build of the process that calls it, with what has to be done as root before. Raises LookoutError.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _scratch_session(ids, become, look, writer)
        status = signals.await_child(pid, PROOF_SEC + 2 * END_SEC)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            signals.await_child(pid, END_SEC)
        code = None if status is None or os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if code not in _MEANINGS:
            os.set_blocking(reader, False)
            said = os.read(reader, _SAID_BYTES) if code == _FAILED else b"it did not end"
            raise LookoutError(said.decode("utf-8", "replace"))
    finally:
        os.close(reader)
        os.close(writer)
    return code != _NONE, _MEANINGS[code]


def _scratch_session(
    ids: identity.Identity, become: Callable[[Callable[[], None]], None], look: Look, writer: int
) -> NoReturn:
    code = _FAILED
    try:
        signal.signal(signal.SIGALRM, _too_late)
        signal.alarm(round(PROOF_SEC))
        linux.set_child_subreaper()
        parent = cgroups.delegated()
        group = None if parent is None else cgroups.build_path(parent, os.getpid())
        if identity.is_privileged():
            identity.temporarily_become(ids)
        code = _look_for_build(become, look, group)
    except Exception as exc:
        os.write(writer, str(exc).encode("utf-8", "replace")[:_SAID_BYTES])
    finally:
        os._exit(code)


def _too_late(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeoutError(f"the scratch build did not get to its end within {PROOF_SEC:.0f} s")


def _look_for_build(become: Callable[[Callable[[], None]], None], look: Look, group: str | None) -> int:
    own, seen = os.getpid(), sight.of_build(group)

    def enter() -> None:
        if group is not None:
            cgroups.enter(group)

    def become_and_stop() -> None:
        become(enter)
        if os.fork() == 0:
            while True:
                signal.pause()
        os.kill(os.getpid(), signal.SIGSTOP)

    with identity.as_root():
        if group is not None:
            cgroups.create(group)
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        command = launch.Command("/bin/true", ("true",), {}, 0o022, timeout_sec=0, grace_sec=0)
        build = launch.start(command, directory, become_and_stop)
        os.waitid(os.P_PID, build.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        build.hear()
        if build.failed():
            raise build.failure()
        below = look(own, seen)
        pids = {each.process.pid for each in below.found} | below.hidden
        return _NONE if build.pid not in pids else _ALL if len(pids) > 1 else _FIRST
    finally:
        signal.alarm(0)
        _end_all(own, seen, group)


def _end_all(own: int, seen: Sight, group: str | None) -> None:
    deadline = time.monotonic() + END_SEC
    while time.monotonic() < deadline:
        if group is not None:
            with identity.as_root():
                cgroups.remove(group, END_SEC)
        processes.signal_below(own, signal.SIGKILL, seen)
        try:
            signals.await_child(-1, max(0.0, deadline - time.monotonic()))
        except ChildProcessError:
            break
    with identity.as_root():
        if group is not None:
            cgroups.remove(group)
