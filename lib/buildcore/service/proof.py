"""Proves, before a caller is served, that a build would have what it is to have, and nothing else.

The daemon calls it as it starts, and a reload's trial does. A scratch child goes the way of a build, down to execve(2),
as nobody; the program that it becomes shows its own /proc, and each line has to be as expected. `identity` verifies the
drop of every single build as well; this finds what would be wrong with all of them. Whether a session would see its
build is `lookout`'s to find out. Some things are the host's to allow: a build's login uid, that its OOM score stays,
and sight of all that a build hides. Where it does not, `prove` returns a line that says so.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from ..core.errors import BuildError
from ..core.policy import DEFAULT_PATH
from ..core.protocol import events
from ..core.settings import Settings
from ..system import identity, keyring, linux, loginuid, oomscore, signals
from . import apart, launch, lookout

NOBODY = identity.Identity(65534, 65534, (65534,))
"""Whom the scratch child becomes; the kernel's overflow ids, which no account needs to have."""

PROOF_SEC = 10.0
"""How long the scratch child may take. It has ids that others may have as well, and who has them can stop it."""

_NO_CAPABILITIES = f"{0:016x}"
_NO_SIGNALS = f"{0:016x}"
_C_LIBRARYS_OWN = 1 << 31 | 1 << 32
"""Signals 32 and 33 as bits of proc(5): whoever was started by the C library's posix_spawn(3) ignores them."""

_READ_BYTES = 65536
_DESCRIPTORS = "0 1 2 3"  # standard ones, and the one with which the directory is listed

_KEYS = "/proc/keys"
_NO_LOGIN_UID = 0xFFFFFFFF


class ProofError(BuildError):
    """A build would not have what it is to have: nobody is served."""

    kind = "privilege"


def prove(settings: Settings, score: int | None = None) -> tuple[str, ...]:
    """Run the scratch child. Raises ProofError with a line for each thing that is wrong.

    `score` is the OOM score of builds; None for the one that they have beside this process. Returns a line for each
    thing that a build should have and that this host does not allow.
    """
    ids = NOBODY if identity.is_privileged() else identity.current()
    own = oomscore.own()
    build_score = oomscore.of_builds(own, own) if score is None else score

    def become(enter: Callable[[], None] | None = None) -> None:
        apart.become(ids, settings.build.no_new_privs, build_score, enter)

    shown = dict(line.split(":", 1) for line in _shown_by(become, "cat", "/proc/self/status").splitlines())
    shown["descriptors"] = " ".join(sorted(_shown_by(become, "ls", "/proc/self/fd").split()))
    shown["oom_score_adj"] = _shown_by(become, "cat", oomscore.PATH)
    shown["keyring of the service"] = _keyring_shown(become)
    expected = {
        "Uid": " ".join([str(ids.uid)] * 4),
        "Gid": " ".join([str(ids.gid)] * 4),
        "Groups": " ".join(map(str, sorted(ids.groups))),
        "CapInh": _NO_CAPABILITIES,
        "CapPrm": _NO_CAPABILITIES,
        "CapEff": _NO_CAPABILITIES,
        "CapAmb": _NO_CAPABILITIES,
        "NoNewPrivs": str(int(settings.build.no_new_privs)),
        "SigBlk": _NO_SIGNALS,
        "SigIgn": _NO_SIGNALS,
        "descriptors": _DESCRIPTORS,
        "oom_score_adj": str(build_score),
        "keyring of the service": "none",
    }
    for name in ("SigBlk", "SigIgn"):
        shown[name] = f"{int(shown.get(name, '1'), 16) & ~_C_LIBRARYS_OWN:016x}"
    if not identity.is_privileged():  # an ordinary user's own, with what it may have been given
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            del expected[name]
        if not settings.build.no_new_privs:
            del expected["NoNewPrivs"]
    found = {name: " ".join(shown.get(name, "missing").split()) for name in expected}
    if "Groups" in found:
        found["Groups"] = " ".join(sorted(set(found["Groups"].split()), key=int))  # one may be there twice
    wrong = [f"{name} is {found[name]!r}, not {expected[name]!r}" for name in expected if found[name] != expected[name]]
    if wrong:
        raise ProofError("\n".join(f"a build would not run as it is to: {line}" for line in wrong))
    return (*_without_login_uid(become, ids), *_with_the_services_score(become, build_score), *_unseen(become, ids))


def _keyring_shown(become: Callable[[], None]) -> str:
    """Return which keyring of this process a build has as well, as far as it can be seen."""
    if not identity.is_privileged() or not os.path.exists(_KEYS):  # a user may see all keyrings of its own
        return "none"
    try:
        own = f"{keyring.session_keyring():08x}"
    except OSError:  # `apart.settle` said it
        return "none"
    return own if own in _shown_by(become, "cat", _KEYS).split() else "none"


def _without_login_uid(become: Callable[[], None], ids: identity.Identity) -> list[str]:
    if not identity.is_privileged() or loginuid.own() is None:
        return []
    shown = int(_shown_by(become, "cat", loginuid.PATH))
    if shown == ids.uid:
        return []
    whose = "none, and may set any" if shown == _NO_LOGIN_UID else f"that of the service, {shown}"
    return [f"the login uid of builds is not their caller's but {whose} (CAP_AUDIT_CONTROL)"]


def _unseen(become: Callable[[Callable[[], None]], None], ids: identity.Identity) -> list[str]:
    try:
        sees, line = lookout.trial(ids, become)
    except OSError as exc:
        raise ProofError(f"cannot look for a build as a session would: {exc}") from exc
    if not sees:
        raise ProofError(f"a build would not be ended as it is to: {line}")
    return [] if line is None else [line]


def _with_the_services_score(become: Callable[[], None], score: int) -> list[str]:
    if not identity.is_privileged():  # its user's, like all that its user runs
        return []
    own = oomscore.own()

    def become_and_take_it_back() -> None:
        become()
        linux.set_dumpable()  # as execve(2) will make it
        with suppress(OSError):
            oomscore.give(own)

    if int(_shown_by(become_and_take_it_back, "cat", oomscore.PATH)) == score:
        return []
    return ["a build may take the OOM score of the service (CAP_SYS_RESOURCE)"]


def _shown_by(become: Callable[[], None], tool: str, path: str) -> str:
    """Return what `tool` prints of `path`, run as a build is that `become` makes."""
    program = shutil.which(tool, path=DEFAULT_PATH)
    if program is None:
        raise ProofError(f"there is no {tool} on this host to prove the drop of privileges with")
    command = launch.Command(program, (tool, path), {}, 0o022, timeout_sec=0, grace_sec=0)
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        build = launch.start(command, directory, become)
    finally:
        os.close(directory)
    deadline = time.monotonic() + PROOF_SEC
    output = {stream: text.decode("utf-8", "replace") for stream, text in _read_all(build, deadline).items()}
    status = signals.await_child(build.pid, max(0.0, deadline - time.monotonic()))
    if status is None:
        os.kill(build.pid, signal.SIGKILL)
        signals.await_child(build.pid, PROOF_SEC)
        raise ProofError(f"{program} {path} did not end within {PROOF_SEC:.0f} s")
    if build.failed():
        raise build.failure()
    if status:
        raise ProofError(f"{program} {path} ended with wait status {status}: {output[events.STDERR].strip()}")
    return output[events.STDOUT]


def _read_all(build: launch.Build, deadline: float) -> dict[str, bytes]:
    """Return what comes out of the pipes of `build` until both end, or until the deadline."""
    output = dict.fromkeys(build.pipes, b"")
    left = dict(build.pipes)
    while left and select.select([*left.values()], [], [], max(0.0, deadline - time.monotonic()))[0]:
        for stream, fd in list(left.items()):
            with suppress(BlockingIOError):
                data = os.read(fd, _READ_BYTES)
                output[stream] += data
                if not data:
                    del left[stream]
    for fd in build.pipes.values():
        os.close(fd)
    build.hear()
    build.let_go()
    return output
