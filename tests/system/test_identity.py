"""Who a caller is and becoming that user: real sockets, real forks, real users; what cannot be proved is an error."""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness
from buildcore.core.settings import GROUPS_LOGIN, GROUPS_PEER
from buildcore.system import identity, linux
from buildcore.system.identity import DropError, Identity, IdentityError
from forked import end, exit_code, fork, identity_of, in_child, running, wait_for_ever
from harness_world import BUILDERS_GID, CLONE_NEWNS, DEV1, DEV2, LIBS_GID, OUTSIDER, UID_WITHOUT_ACCOUNT, inside

needs_root = pytest.mark.needs_root

CAP_SETGID = 6
CAP_SETUID = 7
"""capabilities(7)"""

PTRACE_ATTACH = 16
PTRACE_SEIZE = 0x4206
RLIMIT_NOFILE = 7
"""ptrace(2), getrlimit(2)"""

libc = ctypes.CDLL(None, use_errno=True)

DEV1_IDENTITY = Identity(DEV1.uid, DEV1.gid, tuple(sorted(DEV1.groups)))


def status(pid: int | str = "self") -> dict[str, str]:
    """What /proc/PID/status says (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def errno_of(action: Callable[[], Any]) -> str:
    """The name of the errno that `action` fails with, or what it gave."""
    try:
        return repr(action())
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def libc_call(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


# --- who calls ----------------------------------------------------------------------------------------------------


def peer_as(user: Identity, name: Path) -> identity.Peer:
    """What a daemon sees of a process with this identity that connects to it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(name))
        name.chmod(0o777)
        listener.listen()

        def connect() -> None:
            identity.permanently_become(user, no_new_privs=False)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(name))
                connection.recv(1)

        pid = fork(connect)
        try:
            connection, _ = listener.accept()
            with connection:
                peer = identity.peer_of(connection)
        finally:
            code = end(pid)
        assert code in (0, -9)
        assert peer.pid == pid
        return peer


@needs_root
@pytest.mark.parametrize("count", [0, 1, 2, 32, 255, 256, 257, 300, 5000])
def test_a_peer_is_known_with_all_its_groups_however_many(count: int) -> None:
    directory = harness.open_directory()
    groups = tuple(range(40000, 40000 + count))
    try:
        peer = peer_as(Identity(DEV1.uid, DEV1.gid, groups), directory / "socket")
    finally:
        (directory / "socket").unlink()
        directory.rmdir()
    assert (peer.uid, peer.gid, peer.groups) == (DEV1.uid, DEV1.gid, groups)


@needs_root
def test_a_peer_with_the_largest_ids_is_no_negative_number() -> None:
    directory = harness.open_directory()
    highest = 0xFFFFFFFE
    try:
        peer = peer_as(Identity(highest, highest, (highest,)), directory / "socket")
    finally:
        (directory / "socket").unlink()
        directory.rmdir()
    assert (peer.uid, peer.gid, peer.groups) == (highest, highest, (highest,))


def test_this_process_is_its_own_peer_with_its_own_ids() -> None:
    one, other = socket.socketpair()
    with one, other:
        peer = identity.peer_of(one)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert sorted(peer.groups or ()) == sorted(os.getgroups())


def test_a_socket_without_a_peer_is_an_error() -> None:
    with socket.socket(socket.AF_UNIX) as alone, pytest.raises(OSError):
        linux.peer_groups(alone)


def test_root_may_not_build() -> None:
    with pytest.raises(IdentityError, match="^root may not build: .*--userns=keep-id"):
        identity.account_of(0)


@pytest.mark.parametrize("uid", [UID_WITHOUT_ACCOUNT, 166535, 0xFFFFFFFE])
def test_a_uid_without_account_is_told_how_to_start_its_container(uid: int) -> None:
    with pytest.raises(IdentityError) as caught:
        identity.account_of(uid)
    assert str(caught.value) == f"uid {uid} has no account on this host: start the container with --userns=keep-id"


def test_an_account_is_the_line_of_the_user_database() -> None:
    entry = next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    account = identity.account_of(entry.pw_uid)
    first = pwd.getpwuid(entry.pw_uid)
    assert (account.name, account.uid, account.gid) == (first.pw_name, first.pw_uid, first.pw_gid)
    assert (account.home, account.shell) == (first.pw_dir, first.pw_shell)


def test_the_peers_groups_are_taken_or_the_logins_where_asked_or_unknown() -> None:
    if inside():
        account = identity.account_of(DEV1.uid)
        login = tuple(sorted({DEV1.gid, *DEV1.groups}))
    else:
        entry = pwd.getpwuid(os.getuid())
        account = identity.Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)
        login = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
    peer = identity.Peer(1, account.uid, account.gid, (LIBS_GID, 7, LIBS_GID))
    silent = identity.Peer(1, account.uid, account.gid, None)
    assert identity.identity_of(peer, account, GROUPS_PEER) == Identity(account.uid, account.gid, (7, LIBS_GID))
    assert identity.identity_of(peer, account, GROUPS_LOGIN) == Identity(account.uid, account.gid, login)
    assert identity.identity_of(silent, account, GROUPS_PEER) == Identity(account.uid, account.gid, login)


def test_the_peers_primary_group_is_kept_where_it_is_not_the_accounts() -> None:
    entry = pwd.getpwuid(os.getuid())
    account = identity.Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)
    for groups in (GROUPS_PEER, GROUPS_LOGIN):
        assert identity.identity_of(identity.Peer(1, entry.pw_uid, 4711, ()), account, groups).gid == 4711


# --- becoming a user for a while ----------------------------------------------------------------------------------


@needs_root
def test_files_are_made_and_read_as_the_caller() -> None:
    home = DEV1.home
    secret = harness.open_directory() / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)

    def work() -> Any:
        identity.temporarily_become(DEV1_IDENTITY)
        path = home / f"made-{os.getpid()}"
        path.write_text("")
        made = path.stat()
        path.unlink()
        return made.st_uid, made.st_gid, errno_of(secret.read_text), errno_of(lambda: os.listdir(DEV2.home))

    try:
        assert in_child(work) == (DEV1.uid, DEV1.gid, "EACCES", "EACCES")
    finally:
        secret.unlink()
        secret.parent.rmdir()


@needs_root
def test_the_groups_are_the_callers_alone() -> None:
    shared = harness.open_directory()
    os.chown(shared, 0, LIBS_GID)
    shared.chmod(0o070)

    def listing(user: Identity) -> Any:
        def work() -> str:
            identity.temporarily_become(user)
            return errno_of(lambda: os.listdir(shared))

        return in_child(work)

    try:
        assert listing(DEV1_IDENTITY) == "[]"
        assert listing(identity_of(DEV2)) == "EACCES"
        assert listing(Identity(DEV1.uid, DEV1.gid, ())) == "EACCES"
    finally:
        shared.rmdir()


@needs_root
def test_no_capability_is_in_effect_until_root_returns() -> None:
    def work() -> Any:
        identity.temporarily_become(DEV1_IDENTITY)
        as_caller = int(status()["CapEff"], 16), os.getresuid(), errno_of(lambda: os.setgroups([]))
        with identity.as_root():
            as_root = bool(int(status()["CapEff"], 16)), os.geteuid()
        return as_caller, as_root, os.geteuid(), os.getegid(), int(status()["CapEff"], 16)

    as_caller, as_root, *after = in_child(work)
    assert as_caller == (0, (0, DEV1.uid, 0), "EPERM")
    assert as_root == (True, 0)
    assert after == [DEV1.uid, DEV1.gid, 0]


@needs_root
def test_the_caller_is_back_behind_a_block_of_root_that_failed() -> None:
    def work() -> int:
        identity.temporarily_become(DEV1_IDENTITY)
        with pytest.raises(ZeroDivisionError), identity.as_root():
            raise ZeroDivisionError
        return os.geteuid()

    assert in_child(work) == DEV1.uid


def attacks(pid: int) -> dict[str, str]:
    """What a process gets that turns on another: the errno of each attempt."""
    zero = ctypes.c_void_p(0)
    limits = (ctypes.c_uint64 * 2)(0, 0)
    return {
        "kill": errno_of(lambda: os.kill(pid, 0)),
        "stop": errno_of(lambda: os.kill(pid, 19)),
        "attach": errno_of(lambda: libc_call("ptrace", PTRACE_ATTACH, pid, zero, zero)),
        "seize": errno_of(lambda: libc_call("ptrace", PTRACE_SEIZE, pid, zero, zero)),
        "limits": errno_of(lambda: libc_call("prlimit64", pid, RLIMIT_NOFILE, limits, zero)),
        "memory": errno_of(lambda: open(f"/proc/{pid}/mem", "rb")),
        "descriptors": errno_of(lambda: os.listdir(f"/proc/{pid}/fd")),
        "environment": errno_of(lambda: Path(f"/proc/{pid}/environ").read_bytes()),
    }


@needs_root
def test_the_caller_can_neither_signal_nor_trace_nor_read_its_session() -> None:
    ready, told = os.pipe()

    def session() -> None:
        identity.temporarily_become(DEV1_IDENTITY)
        os.write(told, b"\n")
        wait_for_ever()

    def attack(pid: int) -> Any:
        def work() -> dict[str, str]:
            identity.permanently_become(DEV1_IDENTITY, no_new_privs=False)
            return attacks(pid)

        return in_child(work)

    def build() -> None:
        identity.permanently_become(DEV1_IDENTITY, no_new_privs=False)
        os.write(told, b"\n")
        wait_for_ever()

    try:
        with running(session) as pid:
            harness.read_until(ready, "\n")
            refused = attack(pid)
            assert set(refused.values()) <= {"EPERM", "EACCES"}, refused
        with running(build) as pid:  # the same attempts do succeed on a process that is all the caller's
            harness.read_until(ready, "\n")
            assert attack(pid)["kill"] == "None"
    finally:
        os.close(ready)
        os.close(told)


@needs_root
def test_ids_that_are_not_what_was_asked_for_are_an_error() -> None:
    def work() -> None:
        identity.temporarily_become(Identity(0xFFFFFFFF, DEV1.gid, ()))  # seteuid(-1) means no change

    with pytest.raises(AssertionError, match="DropError|OverflowError|OSError"):
        in_child(work)


@needs_root
def test_a_process_that_may_not_set_groups_becomes_nobody() -> None:
    def work() -> str:
        take_capability(CAP_SETGID)
        answer = errno_of(lambda: identity.temporarily_become(DEV1_IDENTITY))
        return f"{answer} {os.geteuid()}"

    assert in_child(work) == "EPERM 0"


def test_groups_are_the_same_in_any_order() -> None:
    if not inside():
        pytest.skip("needs another identity to become")

    def work() -> list[int]:
        identity.temporarily_become(Identity(DEV1.uid, DEV1.gid, (LIBS_GID, BUILDERS_GID)))
        return os.getgroups()

    assert in_child(work) == [BUILDERS_GID, LIBS_GID]


# --- becoming a user for good -------------------------------------------------------------------------------------


def take_capability(number: int) -> None:
    """Takes one capability from this process: from the bounding, effective, permitted and inheritable set."""
    pr_capbset_drop = 24
    libc_call("prctl", pr_capbset_drop, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # capget(2), version 3
    sets = (ctypes.c_uint32 * 6)()
    libc_call("capget", header, sets)
    half, bit = divmod(number, 32)
    for index in range(3):
        sets[3 * half + index] &= ~(1 << bit)
    libc_call("capset", header, sets)


@needs_root
@pytest.mark.parametrize("user", [DEV1, OUTSIDER], ids=lambda user: user.name)
@pytest.mark.parametrize("from_session", [True, False])
def test_a_build_has_the_callers_ids_and_groups_and_nothing_more(user: Any, from_session: bool) -> None:
    def work() -> dict[str, str]:
        if from_session:
            identity.temporarily_become(identity_of(user))
        identity.permanently_become(identity_of(user), no_new_privs=True)
        return status()

    found = in_child(work)
    assert found["Uid"].split() == [str(user.uid)] * 4
    assert found["Gid"].split() == [str(user.gid)] * 4
    assert found["Groups"].split() == [str(group) for group in sorted(user.groups)]
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"


@needs_root
def test_there_is_no_way_back() -> None:
    def work() -> list[str]:
        identity.temporarily_become(DEV1_IDENTITY)
        identity.permanently_become(DEV1_IDENTITY, no_new_privs=False)
        attempts: list[Callable[[], Any]] = [
            lambda: os.setuid(0),
            lambda: os.seteuid(0),
            lambda: os.setresuid(0, 0, 0),
            lambda: os.setgid(0),
            lambda: os.setegid(0),
            lambda: os.setgroups([0]),
            lambda: os.setuid(DEV2.uid),
        ]
        answers = [errno_of(attempt) for attempt in attempts]
        with identity.as_root():
            answers.append(str(os.geteuid()))
        return answers

    assert in_child(work) == ["EPERM"] * 7 + [str(DEV1.uid)]


@needs_root
@pytest.mark.parametrize(("no_new_privs", "effective"), [(True, DEV1.uid), (False, 0)])
def test_no_new_privs_takes_the_power_of_set_user_id_programs(no_new_privs: bool, effective: int) -> None:
    directory = harness.open_directory()
    program = directory / "id"
    reader, writer = os.pipe()

    def build() -> None:
        libc_call("unshare", CLONE_NEWNS)
        libc_call("mount", b"tmpfs", os.fsencode(directory), b"tmpfs", ctypes.c_ulong(0), b"mode=755")
        program.write_bytes(Path("/usr/bin/id").read_bytes())
        program.chmod(0o4755)
        os.dup2(writer, 1)
        identity.permanently_become(DEV1_IDENTITY, no_new_privs)
        os.execv(program, ["id", "-u"])

    pid = fork(build)
    os.close(writer)
    with os.fdopen(reader) as output:
        said = output.read()
    assert (exit_code(pid), said) == (0, f"{effective}\n")
    directory.rmdir()


def drop(without: int | None, ids: Identity) -> str:
    """What a build says that drops to `ids` with one capability missing; `started` is what must not happen."""

    def work() -> str:
        if without is not None:
            take_capability(without)
        try:
            identity.permanently_become(ids, no_new_privs=True)
        except (OSError, DropError, OverflowError) as exc:
            return type(exc).__name__
        return "started"

    return str(in_child(work))


@needs_root
def test_the_drop_works_with_what_root_has() -> None:
    assert drop(None, DEV1_IDENTITY) == "started"


@needs_root
@pytest.mark.parametrize("missing", [CAP_SETGID, CAP_SETUID])
def test_a_drop_without_the_right_to_it_is_an_error_and_never_a_build(missing: int) -> None:
    assert drop(missing, DEV1_IDENTITY) in ("PermissionError", "DropError")


@needs_root
@pytest.mark.parametrize(
    "ids",
    [
        Identity(0xFFFFFFFF, DEV1.gid, ()),
        Identity(DEV1.uid, 0xFFFFFFFF, ()),
        Identity(-1, DEV1.gid, ()),
        Identity(DEV1.uid, -1, ()),
    ],
)
def test_an_id_that_stands_for_no_change_is_an_error_and_never_a_build(ids: Identity) -> None:
    assert drop(None, ids) in ("DropError", "OverflowError", "OSError")


@needs_root
def test_becoming_root_is_an_error_and_never_a_build() -> None:
    assert drop(None, Identity(0, 0, ())) == "DropError"


@needs_root
def test_capabilities_that_survive_the_drop_are_an_error_and_never_a_build() -> None:
    pr_set_keepcaps, pr_set_securebits = 8, 28
    keep_caps, no_setuid_fixup = 1 << 4, 1 << 2

    def work(option: int, value: int) -> str:
        libc_call("prctl", option, value, 0, 0, 0)
        try:
            identity.permanently_become(DEV1_IDENTITY, no_new_privs=False)
        except DropError as exc:
            return str(exc)
        return "started"

    for option, value in ((pr_set_keepcaps, 1), (pr_set_securebits, keep_caps), (pr_set_securebits, no_setuid_fixup)):
        line = in_child(lambda option=option, value=value: work(option, value))
        assert line.startswith("capabilities is "), line


def test_without_privilege_only_ones_own_id_is_one_to_become() -> None:
    def work() -> list[str]:
        if inside():
            identity.permanently_become(DEV1_IDENTITY, no_new_privs=False)
        own = identity.current()
        identity.permanently_become(own, no_new_privs=True)
        with identity.as_root():
            as_root = os.geteuid()
        try:
            identity.permanently_become(Identity(own.uid + 1, own.gid, own.groups), no_new_privs=True)
        except DropError as exc:
            return [str(as_root == own.uid), status()["NoNewPrivs"], str(exc)]
        return ["started"]

    same, no_new_privs, line = in_child(work)
    assert (same, no_new_privs) == ("True", "1")
    assert line.startswith("user id is ")
