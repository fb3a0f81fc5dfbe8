"""Keeps apart what the kernel holds for a process besides its ids: the service's from its sessions', and from builds'.

Session keyrings and login uids pass fork(2), setresuid(2) and execve(2). `main` settles what is the service's, each
session takes its own, and `become` makes a build of the child that is about to run it; `proof` goes the same way.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.errors import BuildError
from ..system import identity, keyring, loginuid


class ApartError(BuildError):
    """What the service has cannot be kept from its builds: nobody is served."""

    kind = "privilege"


def settle() -> tuple[str, ...]:
    """Settle the service's first process, before it has any other. Raises ApartError.

    Returns a line for each thing that this host does not let the service do.
    """
    lines: list[str] = []
    try:
        keyring.forget_default()
        if identity.is_privileged():  # an ordinary user's service shares what it has with nobody else
            lines = _share_no_keys()
    except OSError as exc:
        raise ApartError(f"cannot keep the service apart from its builds: {exc.strerror}") from exc
    return tuple(lines)


def become_session() -> None:
    """In a session that root forked, before it becomes its caller: share no keys. Raises OSError.

    Its build has them too where it can have none of its own, and nobody else.
    """
    keyring.renew()


def become(ids: identity.Identity, no_new_privs: bool, enter: Callable[[], None] | None = None) -> None:
    """Become the build of `ids` for good, with all that is its own. Raises OSError or DropError: then none must start.

    `enter` is called as root, before any of it.
    """
    with identity.as_root():
        if enter is not None:
            enter()
        loginuid.give(ids.uid)
    identity.permanently_become(ids, no_new_privs)
    keyring.renew_for_build()


def _share_no_keys() -> list[str]:
    refusal = keyring.renew()
    if refusal is None:
        return []
    return [f"builds share the session keyring that the service was started with: {refusal}"]
