"""A build shares no keyring: not with the service, not with whoever started it, not with another build.

The service of these tests was started in a session keyring that holds a key, as systemd and logins start one.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
import keys
import seccomp
from buildcore.service import apart
from buildcore.system import identity, keyring
from daemon import Daemon, Service, running_service
from forked import identity_of, in_child
from harness import write_tree
from harness_world import DEV1, DEV2, User
from hostile import until
from wire import Gate, RawCaller

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]

PROGRAM = harness.TREE / "tests/keys.py"
MAKEFILE = "keys:\n\t@$(KEYS)\nhold:\n\t@$(KEYS); read x < gate\n"

SECRET = "what the administrator knows"

LAUNCHER = f"""
import os, sys
sys.path.insert(0, {str(PROGRAM.parent)!r})
import keys
keys.do("join")
key = keys.do("add:session:of the service:{SECRET}")
with open(sys.argv[1], "w") as file:
    print(keys.do("id:session"), key, file=file)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts the daemon in a session keyring, as systemd does, with a key in it: its possessor may do anything to it."""

def python() -> str:
    return f"{harness.daemon_python_directory()}/python3"


def keys_line(*operations: str) -> str:
    return shlex.join([f"{harness.python_directory()}/python3", "-I", str(PROGRAM), *operations])


def write_makefiles(service: Service) -> None:
    for user in (DEV1, DEV2):
        write_tree(service.daemon.workspace_of(user), {"Makefile": MAKEFILE}, user)


def build(service: Service, user: User, *operations: str) -> list[str]:
    """What the operations gave in a build of `user`."""
    cwd = service.daemon.workspace_of(user)
    built = service.run("make", "-s", f"KEYS={keys_line(*operations)}", "keys", user=user, cwd=cwd)
    assert (built.returncode, built.stderr) == (0, ""), built
    return built.stdout.splitlines()


def refused(found: list[str]) -> bool:
    """Whether each operation was, by the rights to a key, or because there is none."""
    return set(found) <= {"EACCES", "EPERM", "ENOKEY", "EKEYREVOKED"}


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Service, int, int]]:
    """A service, and the serial numbers of the keyring that it was started in and of the key in it."""
    directory = harness.open_directory()
    numbers = directory / "numbers"
    with running_service("root", launcher=[python(), "-I", "-c", LAUNCHER, str(numbers)]) as service:
        write_makefiles(service)
        session, key = map(int, numbers.read_text().split())
        yield service, session, key
    numbers.unlink()
    directory.rmdir()


def attack(key: int | str) -> list[str]:
    """Everything that the possessor of a key could do to it."""
    return [f"{do}:{key}" for do in ("read", "permit", "revoke", "clear")] + [
        f"update:{key}:forged",
        f"own:{key}:{DEV2.uid}",
        f"link:{key}:session",
        f"time_out:{key}:1",
    ]


def test_no_build_reaches_the_keyring_that_the_service_was_started_in(shared: tuple[Service, int, int]) -> None:
    service, session, key = shared
    for user in (DEV1, DEV2):
        found = build(service, user, "find:session:of the service", *attack(key), *attack(session), "visible")
        assert refused(found[:-1]), found
        assert not {str(session), str(key)} & set(found[-1].split())


def test_one_users_build_reaches_no_key_of_anothers_while_both_run(shared: tuple[Service, int, int]) -> None:
    service = shared[0]
    line = keys_line("id:session", "add:session:of dev1:secret of dev1")
    with Gate(service.workspace, DEV1) as gate, RawCaller(service) as held:
        session, key = held.ask("-s", f"KEYS={line}", "hold").await_output(r"\d+\n\d+\n").split()
        found = build(service, DEV2, "find:session:of dev1", *attack(key), *attack(session), "visible", "id:session")
        assert refused(found[:-2]), found
        assert not {session, key} & set(found[-2].split())
        assert found[-1] != session
        gate.open()
        assert held.exit()["code"] == 0


def test_two_builds_of_one_user_have_a_session_keyring_each(shared: tuple[Service, int, int]) -> None:
    service = shared[0]
    line = keys_line("id:session", "add:session:of one build:x")
    with Gate(service.workspace, DEV1) as gate, RawCaller(service) as held:
        session, _ = held.ask("-s", f"KEYS={line}", "hold").await_output(r"\d+\n\d+\n").split()
        own, found = build(service, DEV1, "id:session", "find:session:of one build")
        assert own != session and found == "ENOKEY"
        gate.open()
        assert held.exit()["code"] == 0


def test_a_user_s_own_keyring_is_in_reach_of_its_builds_and_of_no_other_user_s(
    shared: tuple[Service, int, int],
) -> None:
    service = shared[0]
    try:
        (key,) = build(service, DEV1, "add:user:lasting:kept")
        found, text = build(service, DEV1, "find:session:lasting", f"read:{key}")
        assert (found, text) == (key, "kept")
        assert refused(build(service, DEV2, "find:session:lasting", *attack(key)))
    finally:
        build(service, DEV1, "clear:user")


def test_a_build_cannot_give_its_keyring_to_its_session() -> None:
    def session() -> str:
        identity.temporarily_become(identity_of(DEV1))

        def become_and_give() -> str:
            apart.become(identity_of(DEV1), no_new_privs=True, score=1000)
            return keys.do("to_parent")

        return str(in_child(become_and_give))

    assert in_child(session) == "EPERM"


def test_a_user_whose_keys_leave_no_room_still_shares_none(shared: tuple[Service, int, int]) -> None:
    service, session, key = shared
    line = keys_line("fill:user")
    without: list[str] = []

    def one_more() -> None:
        _, own, owner, *found = build(
            service, DEV1, "fill:user", "id:session", "owner:session", "find:session:of the service", *attack(key)
        )
        assert refused(found), found
        if owner == "0":  # it could have none, and kept its session's
            without.append(own)

    try:
        with Gate(service.workspace, DEV1) as gate, RawCaller(service) as filler:
            filler.ask("-s", f"KEYS={line}", "hold").await_output("EDQUOT\n")
            # The kernel may still count the keyrings of builds that have ended.
            until(lambda: len(without) >= 3, 50, one_more)
            assert len({*without, str(session)}) == len(without) + 1
            gate.open()
            assert filler.exit()["code"] == 0
    finally:
        build(service, DEV1, "clear:user")
    assert build(service, DEV1, "find:user:filling 0") == ["ENOKEY"]


def test_where_keys_asked_for_go_is_not_what_the_starter_of_the_service_chose(start_service: StartService) -> None:
    program = LAUNCHER.replace('keys.do("join")', 'keys.do("join"); keys.do("default:5")')
    service = start_service("root", launcher=[python(), "-I", "-c", program, "/dev/null"])
    write_makefiles(service)
    assert build(service, DEV1, "default:-1") == ["0"]


def test_after_a_reload_the_keyrings_are_as_before(start_service: StartService, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    service = start_service("root", launcher=[python(), "-I", "-c", LAUNCHER, str(numbers)])
    write_makefiles(service)
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("build-service listens", count=2)
    session, key = numbers.read_text().split()
    assert refused(build(service, DEV1, "find:session:of the service", *attack(key), *attack(session)))


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_where_keys_are_refused_to_the_service_it_serves_and_says_so_once(
    error: int, start_service: StartService
) -> None:
    launcher = seccomp.launcher(python(), keys.KEYCTL, error)
    service = start_service("root", launcher=launcher)
    write_makefiles(service)
    for _ in range(2):
        assert build(service, DEV1, "id:session") == [errno.errorcode[error]]
    line = service.daemon.await_log("builds share the session keyring that the service was started with")
    assert " WARN " in line
    assert sum("session keyring" in each for each in service.daemon.log_lines()) == 1


def test_where_there_is_no_room_for_a_keyring_nobody_is_served() -> None:
    launcher = seccomp.launcher(python(), keys.KEYCTL, errno.EDQUOT)
    daemon = Daemon(launcher=launcher)
    try:
        with pytest.raises(AssertionError, match="did not get ready"):
            daemon.start()
        assert "build-service: cannot keep the service apart from its builds: Disk quota exceeded" in daemon.errors()
    finally:
        daemon.kill()
        daemon.remove()


def test_a_user_s_own_service_gives_each_build_a_keyring_and_starts_without_room_for_any() -> None:
    python_line = [f"{harness.python_directory()}/python3", "-I", str(PROGRAM)]
    assert harness.run_as(DEV1, [*python_line, "fill:user"], "/").stdout == "EDQUOT\n"
    try:
        with running_service("user") as service:
            write_tree(service.workspace, {"Makefile": MAKEFILE}, DEV1)
            assert service.run("make", "-s", f"KEYS={keys_line('id:session')}", "keys").returncode == 0
            harness.run_as(DEV1, [*python_line, "clear:user"], "/")
            line = keys_line("id:session")
            ids = [service.run("make", "-s", f"KEYS={line}", "keys").stdout for _ in range(2)]
            assert len(set(ids)) == 2, ids
    finally:
        harness.run_as(DEV1, [*python_line, "clear:user"], "/")


def test_a_renewed_keyring_is_another_one_and_empty() -> None:
    def work() -> tuple[bool, str, str]:
        keys.do("join")
        keys.do("add:session:before:x")
        before = keyring.session_keyring()
        assert keyring.renew() is None
        return keyring.session_keyring() != before, keys.do("find:session:before"), keys.do("find:user:before")

    assert in_child(work) == (True, "ENOKEY", "ENOKEY")


def test_a_revoked_keyring_is_renewed_like_any() -> None:
    """A login that ends revokes it (pam_keyinit(8)), and a service that was started in it goes on."""

    def work() -> bool:
        keys.do("join")
        keys.do("revoke:session")
        keyring.renew()
        return keys.do("add:session:after:x").isdigit()

    assert in_child(work)
