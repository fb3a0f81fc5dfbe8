"""Keeps apart what the kernel holds for a process besides its ids: the service's from its sessions', and from builds'.

Session keyrings, login uids and OOM scores pass fork(2), setresuid(2) and execve(2). `main` settles what is the
service's, each session takes its own, and `become` makes a build of the child that is about to run it; `proof` goes the
same way. docs/SECURITY.md has the whole list of what is inherited, on purpose or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import BuildError
from ..system import identity, inherited, keyring, loginuid, oomscore


class ApartError(BuildError):
    """What the service has cannot be kept from its builds: nobody is served."""

    kind = "privilege"


@dataclass(frozen=True)
class Settled:
    """The OOM score that builds start with, and a line for each thing that this host does not let the service do."""

    build_score: int
    lines: tuple[str, ...]


def settle(build_score: int | None) -> Settled:
    """Settle the service's first process, before it has any other. Raises ApartError.

    `build_score` is what builds start with, if the program that this process was before a reload knew it.
    """
    lines: list[str] = []
    try:
        inherited.shed_timers()
        keyring.forget_default()
        started = oomscore.own()
        if identity.is_privileged():  # an ordinary user's service shares what it has with nobody else
            inherited.shed_privileges()
            lines = [*_share_no_keys(), *_protect(started)]
        score = oomscore.of_builds(started, oomscore.own()) if build_score is None else build_score
    except OSError as exc:
        raise ApartError(f"cannot keep the service apart from its builds: {exc.strerror}") from exc
    return Settled(score, tuple(lines))


def become_session() -> None:
    """In a session that root forked, before it becomes its caller: share no keys. Raises OSError.

    Its build has them too where it can have none of its own, and nobody else.
    """
    keyring.renew()


def become(ids: identity.Identity, no_new_privs: bool, score: int, enter: Callable[[], None] | None = None) -> None:
    """Become the build of `ids` for good, with all that is its own. Raises OSError or DropError: then none must start.

    `score` is its OOM score; `enter` is called as root, before any of it.
    """
    with identity.as_root():
        if enter is not None:
            enter()
        loginuid.give(ids.uid)
        oomscore.give(score)
    identity.permanently_become(ids, no_new_privs)
    keyring.renew_for_build()


def _share_no_keys() -> list[str]:
    refusal = keyring.renew()
    if refusal is None:
        return []
    return [f"builds share the session keyring that the service was started with: {refusal}"]


def _protect(score: int) -> list[str]:
    if score > oomscore.PROTECTED:
        try:
            oomscore.give(oomscore.PROTECTED)
        except OSError as exc:
            return [f"the service cannot have a lower OOM score, so builds have a higher one: {exc.strerror}"]
    return []
