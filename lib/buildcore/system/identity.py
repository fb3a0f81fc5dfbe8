"""Who a caller is, and becoming that user: for a while in a session, for good in a build.

The identity comes from the socket alone (SO_PEERCRED and SO_PEERGROUPS, unix(7)), never from a byte that the
caller sent. A session works with the caller's effective ids while its real and saved user id stay 0, so the
kernel refuses the caller's signals and traces (kill(2), ptrace(2)). A build drops all of them, and the drop
is verified before anything of the caller runs. Must never guess: what cannot be proved is an error.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..core import groups as groups_of
from ..core.errors import BuildError
from ..core.settings import GROUPS_COMMON, GROUPS_PEER
from . import linux

MOST_NAMED = 16
"""How many groups a line of the log names."""

_UCRED = struct.Struct("3i")


class IdentityError(BuildError):
    """The caller cannot be served under the identity that it has."""

    kind = "identity"


class DropError(BuildError):
    """Privileges could not be dropped, or are not gone; the build must not start."""

    kind = "privilege"


@dataclass(frozen=True)
class Peer:
    """The other end of a connection as the kernel saw it connect; `groups` is None where it cannot tell.

    `pid` is 0 when the caller is in a pid namespace that this process cannot see.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] | None


@dataclass(frozen=True)
class Account:
    """One line of the user database (passwd(5))."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


@dataclass(frozen=True)
class Identity:
    """What a build runs as: exactly these ids and supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def peer_ids(connection: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of the peer of a connected Unix socket; raises OSError when the kernel does not tell."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF


def peer_of(connection: socket.socket) -> Peer:
    """Return the peer of a connected Unix socket; raises OSError when the kernel does not tell."""
    pid, uid, gid = peer_ids(connection)
    try:
        groups = linux.peer_groups(connection)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise
        groups = None
    return Peer(pid, uid, gid, groups)


def account_of(uid: int, min_uid: int = 0) -> Account:
    """Return the account with this uid. Raises IdentityError for uid 0, one without an account, one below `min_uid`.

    A rootful container's root is the host's root, which no build needs; a uid without account is as a rule a
    subordinate uid (subuid(5)) of a container that was started without `--userns=keep-id`.
    """
    if uid == 0:
        raise IdentityError("root may not build: start the container rootless, with --userns=keep-id, as a user")
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise IdentityError(
            f"uid {uid} has no account on this host: start the container with --userns=keep-id"
        ) from None
    if uid < min_uid:
        raise IdentityError(
            f"uid {uid} ({entry.pw_name}) may not build: it is below {min_uid} (build.min_uid on the host)"
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)


def identity_of(peer: Peer, account: Account, groups: str) -> Identity:
    """Return what the peer's build runs as: its own uid and, by `groups`, its own or its login's groups, or both's.

    With GROUPS_PEER and GROUPS_LOGIN the gid is the peer's; the login's groups (initgroups(3)) also stand in for the
    peer's where the kernel does not tell them. Raises IdentityError where the login has more than a process can have: a
    build never gets a part of them. With GROUPS_COMMON no group, the gid included, is not both's (`core.groups`);
    raises IdentityError where that leaves no gid, and where the kernel does not tell the peer's groups.
    """
    if groups == GROUPS_COMMON:
        return _in_common(peer, account)
    if groups == GROUPS_PEER and peer.groups is not None:
        return Identity(peer.uid, peer.gid, tuple(sorted(set(peer.groups))))
    login = tuple(sorted(set(os.getgrouplist(account.name, peer.gid))))
    most = os.sysconf("SC_NGROUPS_MAX")
    if len(login) > most:
        raise IdentityError(f"{account.name} is in {len(login)} groups, and a process can have {most} at most")
    return Identity(peer.uid, peer.gid, login)


def _in_common(peer: Peer, account: Account) -> Identity:
    if peer.groups is None:
        raise IdentityError("the host's kernel does not tell the caller's groups (build.groups on the host)")
    found = groups_of.in_common(peer.gid, peer.groups, account.gid, _login_groups(account))
    if found is None:
        raise IdentityError(
            f"the caller's group {peer.gid} is none of {account.name}'s, and {account.name}'s own group {account.gid}"
            " is none of the caller's (build.groups on the host)"
        )
    return Identity(peer.uid, *found)


def _login_groups(account: Account) -> set[int]:
    return set(os.getgrouplist(account.name, account.gid))


def foreign_groups(peer: Peer, account: Account, first_gid: int) -> list[str]:
    """Return the groups below `first_gid` that the peer has and its account is not in, as id(1) shows groups.

    Root of a container whose root is the host's can have any. The first MOST_NAMED are named, the others counted.
    """
    if min((peer.gid, *(peer.groups or ()))) >= first_gid:
        return []  # the user database is not asked
    found = groups_of.beyond(peer.gid, peer.groups or (), _login_groups(account), first_gid)
    named = [f"{gid}({_group_name(gid)})" for gid in found[:MOST_NAMED]]
    return named if len(found) <= MOST_NAMED else [*named, f"{len(found) - MOST_NAMED} more"]


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return "?"


def current() -> Identity:
    """Return what this process runs as: its effective ids and its supplementary groups."""
    return Identity(os.geteuid(), os.getegid(), tuple(sorted(set(os.getgroups()))))


def is_privileged() -> bool:
    """Tell whether this process may become other users: its real user id is root's."""
    return os.getuid() == 0


def temporarily_become(identity: Identity) -> None:
    """Take the effective ids and the groups of `identity`; real and saved user id stay root's.

    Every access to files is checked against these (credentials(7)); the capabilities are out of effect until
    `as_root`. Raises OSError when the kernel refuses, DropError when the ids are not what was asked for.
    """
    os.setgroups(identity.groups)
    os.setegid(identity.gid)
    os.seteuid(identity.uid)
    _expect("effective ids", (os.geteuid(), os.getegid()), (identity.uid, identity.gid))
    _expect("groups", sorted(os.getgroups()), sorted(identity.groups))


@contextmanager
def as_root() -> Iterator[None]:
    """Be root for one block and the effective user again behind it; nothing changes without privilege.

    Raises PermissionError when this process, though privileged, is not root then.
    """
    uid = os.geteuid()
    if is_privileged():
        os.seteuid(0)
        if os.geteuid() != 0:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    try:
        yield
    finally:
        if is_privileged():
            os.seteuid(uid)


def permanently_become(identity: Identity, no_new_privs: bool) -> None:
    """Become `identity` for good, in the order groups, gid, uid, and prove that there is no way back.

    For the child that is about to run a build. Without privilege there is nothing to drop; that the process
    already has the user id is proved all the same. Raises OSError or DropError; then the build must not start.
    """
    if no_new_privs:
        linux.set_no_new_privs()
        _expect("no_new_privs", linux.has_no_new_privs(), True)
    if is_privileged():
        os.seteuid(0)
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        _expect("group id", os.getresgid(), (identity.gid,) * 3)
        _expect("groups", sorted(os.getgroups()), sorted(identity.groups))
        _expect("capabilities", _capabilities(), 0)
        for regain in (os.setuid, os.seteuid):
            _expect_refusal(regain)
    _expect("user id", os.getresuid(), (identity.uid,) * 3)


def _expect_refusal(regain: Callable[[int], None]) -> None:
    try:
        regain(0)
    except PermissionError:
        return
    raise DropError("root could be regained after the drop")


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise DropError(f"{what} is {found!r} after the drop, not {wanted!r}")


def _capabilities() -> int:
    """Return the union of the permitted, effective and ambient capabilities of this process (capabilities(7))."""
    union = 0
    with open("/proc/self/status", "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            if name in (b"CapPrm", b"CapEff", b"CapAmb"):
                union |= int(value, 16)
    return union
