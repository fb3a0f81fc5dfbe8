"""Whose build it is when the caller does its worst: groups without number, borrowed sockets, accounts that come and go.

And when the machine does: each step of the drop of privileges is made to fail in turn, or to do nothing and say
otherwise. A build has exactly the identity that its socket was connected with, or it never starts.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import harness
import tools
from daemon import Service, running_service
from forked import in_child, running
from harness import write_tree
from harness_world import BUILDERS_GID, DEV1, DEV2, LIBS_GID, User
from hostile import become, build_on, connect, first_process, pid_namespace, until
from wire import WAITING, Gate, RawCaller, acting_as, assert_ended, at_rest, waiting_make

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]

SHOW_IDS = "all:\n\t@grep -E '^(Uid|Gid|Groups):' /proc/self/status\n\t@touch ran\n"
NGROUPS_MAX = 65536
"""The most supplementary groups that a process can have (credentials(7))."""

IN_BUILDERS = User(DEV1.name, DEV1.uid, BUILDERS_GID, (), DEV1.home)
"""dev1, who reaches the socket by its primary group, so that its supplementary ones can be any."""

RACES = 400
"""How many builds a race may take until both of its outcomes were seen."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    """A service for all tests that leave it as it was."""
    with running_service("root") as service:
        yield service


@pytest.fixture
def one(shared: Service) -> Service:
    """The shared service, with workspaces in which a build shows its ids."""
    for user in (DEV1, DEV2):
        write_tree(shared.daemon.workspace_of(user), {"Makefile": SHOW_IDS}, user)
    return shared


def ids(text: str) -> dict[str, list[int]]:
    """What SHOW_IDS printed: the numbers behind Uid, Gid and Groups."""
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return {name: [int(number) for number in lines[name].split()] for name in ("Uid", "Gid", "Groups")}


def assert_built_as(user: User, groups: tuple[int, ...], outcome: tuple[int, str]) -> None:
    code, text = outcome
    assert code == 0, text
    found = ids(text)
    assert (found["Uid"], found["Gid"]) == ([user.uid] * 4, [user.gid] * 4)
    assert sorted(found["Groups"]) == sorted(groups)


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 31, 32, 255, 256, 257, 1000, NGROUPS_MAX])
def test_a_build_has_exactly_the_groups_of_its_caller_however_many(count: int, one: Service) -> None:
    groups = tuple(range(40000, 40000 + count))
    built = one.run("make", user=IN_BUILDERS, groups=groups)
    assert_built_as(IN_BUILDERS, groups, (built.returncode, built.stdout + built.stderr))


def test_groups_with_the_largest_numbers_and_twice_the_same_are_the_build_s_too(one: Service) -> None:
    highest = 0xFFFFFFFE
    built = one.run("make", user=IN_BUILDERS, groups=(0x80000000, highest, highest, BUILDERS_GID))
    assert_built_as(IN_BUILDERS, (BUILDERS_GID, 0x80000000, highest), (built.returncode, built.stdout + built.stderr))


@contextmanager
def private_file(path: str) -> Iterator[Path]:
    """A file of the private world's own (its /etc/passwd, its /etc/group), as it was before behind the block."""
    file = Path(path)
    assert file.stat().st_dev == Path("/run").stat().st_dev, f"{path} is the machine's"
    before = file.read_bytes()
    try:
        yield file
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("count", [31, 257, 1000])
def test_with_login_groups_a_build_has_all_of_the_account_s_and_none_that_only_the_process_has(
    count: int, start_service: StartService
) -> None:
    service = start_service("root", {"build": {"groups": "login"}})
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, DEV1)
    login = tuple(range(50000, 50000 + count))
    with private_file("/etc/group") as file:
        with file.open("a") as lines:
            lines.writelines(f"many{gid}:x:{gid}:{DEV1.name}\n" for gid in login)
        built = service.run("make", groups=[BUILDERS_GID, 4711])
    expected = (DEV1.gid, BUILDERS_GID, LIBS_GID, *login)
    assert_built_as(DEV1, expected, (built.returncode, built.stdout + built.stderr))


def test_an_account_with_more_groups_than_a_process_can_have_is_refused_and_not_cut_short(
    start_service: StartService,
) -> None:
    service = start_service("root", {"build": {"groups": "login"}})
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, DEV1)
    with private_file("/etc/group") as file:
        with file.open("a") as lines:
            lines.writelines(f"g{gid}:x:{gid}:{DEV1.name}\n" for gid in range(100000, 100001 + NGROUPS_MAX))
        built = service.run("make")
    line = f"{DEV1.name} is in {NGROUPS_MAX + 4} groups, and a process can have {NGROUPS_MAX} at most\n"
    assert (built.stdout, built.stderr, built.returncode) == ("", line, 1)


# --- whose socket it is -----------------------------------------------------------------------------------------------


def test_who_connects_and_then_becomes_somebody_else_builds_as_who_connected(one: Service) -> None:
    def caller() -> list[tuple[int, str]]:
        outcomes = []
        with acting_as(DEV1):
            connections = [connect(one), connect(one)]
        become(DEV2)
        for connection, user in zip(connections, (DEV1, DEV2)):
            outcomes.append(build_on(connection, user.home / "workspace"))
        return outcomes

    own, others = in_child(caller)
    assert_built_as(DEV1, (DEV1.gid, *DEV1.groups), own)
    assert others[0] == 1 and others[1].startswith(f"cwd must be under workspace: {DEV2.home}/workspace"), others


def test_who_takes_other_groups_after_connecting_builds_with_those_it_had(one: Service) -> None:
    def caller() -> tuple[int, str]:
        os.setgroups([BUILDERS_GID, 7])
        os.setresgid(IN_BUILDERS.gid, IN_BUILDERS.gid, 0)
        os.seteuid(DEV1.uid)
        connection = connect(one)
        os.seteuid(0)
        os.setgroups([BUILDERS_GID, LIBS_GID, 0])
        os.setegid(0)
        return build_on(connection, one.workspace)

    assert_built_as(IN_BUILDERS, (7, BUILDERS_GID), in_child(caller))


def test_of_a_caller_with_two_user_ids_the_effective_one_counts(one: Service) -> None:
    def caller(real: User, effective: User) -> tuple[int, str]:
        os.setgroups([BUILDERS_GID])
        os.setresgid(effective.gid, effective.gid, effective.gid)
        os.setresuid(real.uid, effective.uid, effective.uid)
        return build_on(connect(one), effective.home / "workspace")

    for real, effective in ((DEV2, DEV1), (DEV1, DEV2), (User("root", 0, 0, (), Path("/")), DEV1)):
        outcome = in_child(partial(caller, real, effective))
        assert_built_as(effective, (BUILDERS_GID,), outcome)


@pytest.mark.parametrize("way", ["sent", "inherited"])
def test_a_socket_in_other_hands_is_still_the_connecter_s_even_when_that_one_is_gone(way: str, one: Service) -> None:
    def connecter() -> socket.socket:
        """Returns the connection of a process of dev1 that has ended."""
        ours, theirs = socket.socketpair()

        def lend() -> None:
            become(DEV1)
            with connect(one) as connection:
                socket.send_fds(theirs, [b"\0"], [connection.fileno()])

        in_child(lend)
        return socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])

    def borrower() -> tuple[int, str]:
        if way == "sent":
            connection = connecter()
        else:
            with acting_as(DEV1):
                connection = connect(one)
        connection.settimeout(harness.PATIENCE_SEC)
        become(DEV2)
        return build_on(connection, one.workspace)

    assert_built_as(DEV1, (DEV1.gid, *DEV1.groups) if way == "inherited" else DEV1.groups, in_child(borrower))


def test_a_caller_outside_the_pid_namespace_of_the_service_builds_and_cancels_as_anyone(
    start_service: StartService,
) -> None:
    """The peer's pid is 0 there (unix(7)): nothing may depend on it."""
    service = start_service("root", launcher=pid_namespace())
    daemon = first_process(service.daemon.pid)
    assert os.readlink(f"/proc/{daemon}/ns/pid") != os.readlink("/proc/self/ns/pid")
    write_tree(service.workspace, {"Makefile": f"{SHOW_IDS}wait:\n{WAITING}"}, DEV1)
    built = service.run("make")
    assert_built_as(DEV1, (DEV1.gid, *DEV1.groups), (built.returncode, built.stdout + built.stderr))
    with Gate(service.workspace, DEV1), RawCaller(service) as caller:
        caller.ask("wait").await_output("waits\n")
        makes = [process.pid for process in harness.descendants(daemon) if process.name in ("make", "sh")]
        caller.close()
        assert_ended(*makes)
    service.daemon.await_log("build cancelled user=dev1")


# --- what is not there ------------------------------------------------------------------------------------------------


def test_a_user_with_too_many_processes_is_told_so_and_builds_again_with_fewer(start_service: StartService) -> None:
    """At RLIMIT_NPROC the drop succeeds and execve(2) fails, with EAGAIN."""
    service = start_service("root", {"service": {"prefork": 0}})
    write_tree(service.workspace, {"Makefile": f"{SHOW_IDS}wait:\n{WAITING}"}, DEV1)
    with Gate(service.workspace, DEV1) as gate, RawCaller(service) as other:
        other.ask("wait").await_output("waits\n")
        limits = resource.prlimit(service.daemon.pid, resource.RLIMIT_NPROC)
        resource.prlimit(service.daemon.pid, resource.RLIMIT_NPROC, (1, limits[1]))
        refused = service.run("make")
        resource.prlimit(service.daemon.pid, resource.RLIMIT_NPROC, limits)
        assert (refused.stdout, refused.returncode) == ("", 1)
        assert refused.stderr == f"cannot run {shutil.which('make')}: the user has too many processes (RLIMIT_NPROC)\n"
        assert service.run("make").returncode == 0
        gate.open()
        assert other.exit()["code"] == 0


@pytest.mark.parametrize("groups", ["peer", "login"])
def test_while_an_account_comes_and_goes_each_build_is_its_caller_s_or_refused(
    groups: str, start_service: StartService
) -> None:
    service = start_service("root", {"build": {"groups": groups}})
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, DEV1)
    refusal = f"uid {DEV1.uid} has no account on this host: start the container with --userns=keep-id\n"
    built = refused = 0
    with private_file("/etc/passwd") as file:
        at = file.read_bytes().index(f"\n{DEV1.name}:".encode()) + 1
        descriptor = os.open(file, os.O_WRONLY)

        def come_and_go() -> None:
            while True:
                for first in (b"#", DEV1.name[:1].encode()):  # what begins with # is no account
                    os.pwrite(descriptor, first, at)
                    os.sched_yield()

        def attempt() -> None:
            nonlocal built, refused
            with RawCaller(service) as caller:
                code = caller.ask().exit()["code"]
            if code == 1:
                assert caller.text() == refusal
                refused += 1
            else:
                assert_built_as(DEV1, (DEV1.gid, *DEV1.groups), (code, caller.text()))
                built += 1

        with running(come_and_go):
            until(lambda: built >= 20 and refused >= 20, RACES, attempt)
        os.close(descriptor)


def test_a_build_whose_account_vanishes_goes_on_to_its_end(one: Service) -> None:
    write_tree(one.workspace, {"wait.mk": f"all:\n{WAITING}"}, DEV1)
    with Gate(one.workspace, DEV1) as gate, RawCaller(one) as caller:
        waiting_make(caller.ask("-f", "wait.mk").await_output("waits\n"))
        with private_file("/etc/passwd") as file:
            file.write_bytes(file.read_bytes().replace(f"\n{DEV1.name}:".encode(), b"\n#gone:"))
            gate.open()
            assert caller.exit()["code"] == 0
            assert caller.text().endswith("done\n")


# --- a drop that fails ------------------------------------------------------------------------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static int in_build; /* only the child that becomes a build leads a session of its own */
static char way[16];

/* Whether the orders say something else than the call itself, for who this is. */
static int ordered(const char *step) {
    char text[64] = "", who[16], name[16];
    int fd = open(getenv("SHIM_ORDERS"), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(fd);
    return sscanf(text, "%15s %15s %15s", who, name, way) == 3 && !strcmp(name, step)
        && !strcmp(who, in_build ? "build" : "session");
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define SHIMMED(name, otherwise, ...) \
    if (ordered(#name)) { \
        if (!strcmp(way, "refused")) { errno = EPERM; return -1; } \
        if (!strcmp(way, "ignored")) return 0; \
        return otherwise; \
    } \
    return NEXT(name)(__VA_ARGS__);

pid_t setsid(void) { in_build = 1; return NEXT(setsid)(); }

int setgroups(size_t count, const gid_t *groups) {
    gid_t more[64] = {0}; /* root's, and the caller's as far as they fit */
    size_t taken = count < 63 ? count : 63;
    if (taken)
        memcpy(more + 1, groups, taken * sizeof *groups);
    SHIMMED(setgroups, NEXT(setgroups)(taken + 1, more), count, groups)
}

int setresgid(gid_t r, gid_t e, gid_t s) { SHIMMED(setresgid, NEXT(setresgid)(r, e, -1), r, e, s) }
int setresuid(uid_t r, uid_t e, uid_t s) {
    uid_t next = r + 1; /* somebody else */
    SHIMMED(setresuid, strcmp(way, "wrong") ? NEXT(setresuid)(r, e, 0) : NEXT(setresuid)(next, next, next), r, e, s)
}
int setegid(gid_t e) { SHIMMED(setegid, 0, e) }
int seteuid(uid_t e) { SHIMMED(seteuid, 0, e) }

int prctl(int option, ...) {
    unsigned long given[4];
    va_list list;
    va_start(list, option);
    for (int i = 0; i < 4; i++)
        given[i] = va_arg(list, unsigned long);
    va_end(list);
    if (option != PR_SET_NO_NEW_PRIVS)
        return NEXT(prctl)(option, given[0], given[1], given[2], given[3]);
    SHIMMED(prctl, 0, option, given[0], given[1], given[2], given[3])
}
"""
"""Between the service and the C library: a call of the drop is refused, ignored or done otherwise, as a file orders."""


class Faults:
    """A service whose system calls go wrong as ordered."""

    def __init__(self, service: Service, orders: Path) -> None:
        self.service = service
        self._orders = orders

    @contextmanager
    def ordered(self, who: str, step: str, way: str) -> Iterator[None]:
        self._orders.write_text(f"{who} {step} {way}\n")
        try:
            yield
        finally:
            self._orders.unlink()


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    tools.need(*tools.TO_COMPILE)
    directory = harness.open_directory()
    source, library, orders = (directory / name for name in ("shim.c", "shim.so", "orders"))
    source.write_text("#include <stdio.h>\n" + SHIM)
    subprocess.run(["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    env = {"LD_PRELOAD": str(library), "SHIM_ORDERS": str(orders)}
    with running_service("root", env=env) as service:
        yield Faults(service, orders)
    shutil.rmtree(directory)


STEPS = [
    ("build", "prctl", "refused", "Operation not permitted"),
    ("build", "prctl", "ignored", "no_new_privs is False after the drop, not True"),
    ("build", "seteuid", "refused", "Operation not permitted"),
    ("build", "seteuid", "ignored", "Operation not permitted"),
    ("build", "setgroups", "refused", "Operation not permitted"),
    ("build", "setgroups", "in part", "groups is [0, "),
    ("build", "setresgid", "refused", "Operation not permitted"),
    ("build", "setresgid", "ignored", "group id is "),
    ("build", "setresgid", "in part", "group id is "),
    ("build", "setresuid", "refused", "Operation not permitted"),
    ("build", "setresuid", "ignored", "capabilities is "),
    ("build", "setresuid", "in part", "capabilities is "),
    ("build", "setresuid", "wrong", "user id is "),
    ("session", "setgroups", "refused", "Operation not permitted"),
    ("session", "setgroups", "ignored", "groups is "),
    ("session", "setgroups", "in part", "groups is [0, "),
    ("session", "setegid", "refused", "Operation not permitted"),
    ("session", "setegid", "ignored", "effective ids is "),
    ("session", "seteuid", "refused", "Operation not permitted"),
    ("session", "seteuid", "ignored", "effective ids is "),
]


@pytest.mark.parametrize(("who", "step", "way", "reason"), STEPS, ids=[" ".join(step[:3]) for step in STEPS])
def test_a_drop_that_goes_wrong_at_any_step_is_one_line_and_never_a_build(
    who: str, step: str, way: str, reason: str, faults: Faults
) -> None:
    service = faults.service
    request_id = "-".join([who, step, *way.split()])
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, DEV1)
    with faults.ordered(who, step, way.split()[-1]):
        refused = service.run("--request-id", request_id, "make")
    assert (refused.stdout, refused.returncode, refused.stderr.count("\n")) == ("", 1, 1), refused
    assert reason in refused.stderr
    if who == "build":
        assert refused.stderr.startswith("cannot drop privileges for make: ")
    assert not (service.workspace / "ran").exists()
    assert at_rest(service.daemon)
    assert not [line for line in service.daemon.log_lines() if "build started" in line and request_id in line]


def test_a_drop_that_goes_wrong_is_in_the_log_with_the_step(faults: Faults) -> None:
    with faults.ordered("build", "setresgid", "refused"):
        faults.service.run("make", user=DEV2, cwd=faults.service.daemon.workspace_of(DEV2))
    line = faults.service.daemon.await_log(f"build refused user={DEV2.name} ")
    assert 'reason="cannot drop privileges for make: Operation not permitted"' in line


def test_the_service_of_these_faults_builds_when_none_is_ordered(faults: Faults) -> None:
    """The control of what the others look at: the file that a build makes, and its line in the log."""
    service = faults.service
    write_tree(service.workspace, {"Makefile": SHOW_IDS}, DEV1)
    built = service.run("--request-id", "control", "make")
    assert (service.workspace / "ran").exists()
    service.daemon.await_log("build started .*request_id=control")
    assert_built_as(DEV1, (DEV1.gid, *DEV1.groups), (built.returncode, built.stdout + built.stderr))
