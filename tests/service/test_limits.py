"""What one caller may take: connections, in all and of a user, and lines in the log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import harness
import tools
from buildcore.core import namespaces
from buildcore.core.limiter import LINES, WINDOW_SEC
from buildcore.system import subids
from daemon import Daemon, Service
from harness import write_tree
from harness_world import DEV1, DEV2, User
from subordinate import subuid_file
from wire import WAITING, Gate, RawCaller, at_rest

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]


def busy(limit: str) -> str:
    return f"build-service is busy: {limit}\n"


def test_one_user_cannot_take_more_than_its_share(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour, {"service": {"max_connections_per_user": 3}})
    write_tree(service.workspace, {"Makefile": f"slow:\n{WAITING}quick:\n\t@echo quick\n"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(service)) for _ in range(3)]
        for caller in callers:
            caller.ask("slow").await_output("waits\n")
        refused = service.run("make", "quick")
        line = busy("3 of your builds run already (service.max_connections_per_user)")
        assert (refused.stdout, refused.stderr, refused.returncode) == ("", line, 1)
        gate.open()
        callers[0].exit()
        gate.open(2)
        assert [caller.exit()["code"] for caller in callers[1:]] == [0, 0]
        assert at_rest(service.daemon)
        assert service.run("make", "quick").stdout == "quick\n"
    line = service.daemon.await_log("WARN build_service: caller refused")
    assert f" uid={service.caller.uid} " in line and "max_connections_per_user" in line


@pytest.mark.needs_root
def test_others_are_served_meanwhile(start_service: StartService) -> None:
    service = start_service("root", {"service": {"max_connections_per_user": 2}})
    other = service.daemon.workspace_of(DEV2)
    write_tree(other, {"Makefile": "all:\n\t@echo served\n"}, DEV2)
    with RawCaller(service), RawCaller(service), RawCaller(service) as third:
        assert third.exit()["code"] == 1
        assert service.run("make", user=DEV2, cwd=other).stdout == "served\n"


@pytest.mark.needs_root
def test_a_users_subordinate_uids_have_no_share_of_their_own(
    open_directory: OpenDirectory, start_service: StartService
) -> None:
    ranges = f"nonsense\nnobody-knows:1:2\n{DEV1.name}:400000:65536\n{DEV2.uid}:500000:65536\n"
    with subuid_file(open_directory() / "subuid", ranges):
        service = start_service("root", {"service": {"max_connections_per_user": 2}})
        strangers = [User(f"sub{uid}", uid, uid, DEV1.groups, Path("/")) for uid in (400000, 465535)]
        with RawCaller(service, strangers[0]), RawCaller(service, strangers[1]):
            assert "2 of your builds run already" in service.run("make").stderr
            with RawCaller(service, DEV2) as other:
                other.ask(cwd="/etc").exit()
                assert other.text().startswith("cwd must be under workspace")


def test_whose_a_uid_is(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("root:100000:65536\n1234:165536:10\nno-such-account:300000:10\nroot:many:1\n\n")
    owners = subids.load(str(path))
    answers = {uid: owners.owner_of(uid) for uid in (0, 99999, 100000, 165535, 165536, 165545, 165546, 300000)}
    assert answers == {
        0: 0, 99999: 99999, 100000: 0, 165535: 0, 165536: 1234, 165545: 1234, 165546: 165546, 300000: 300000,
    }
    assert subids.load(str(tmp_path / "none")).owner_of(100000) == 100000


def test_all_together_cannot_take_more_than_the_service_has(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour, {"service": {"max_connections": 2}})
    with RawCaller(service), RawCaller(service):
        line = busy("2 callers are served already (service.max_connections)")
        assert service.run("make").stderr == line


def test_the_callers_of_before_a_reload_count(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour, {"service": {"max_connections_per_user": 1}})
    write_tree(service.workspace, {"Makefile": f"slow:\n{WAITING}"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask("slow").await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGHUP)
        service.daemon.await_log("build-service listens", count=2)
        assert service.run("make").stderr.startswith("build-service is busy: 1 of your builds")
        gate.open()
        assert caller.exit()["code"] == 0


# --- the log ----------------------------------------------------------------------------------------------------------


def test_one_user_cannot_fill_the_log_with_refusals(service: Service) -> None:
    for _ in range(LINES + 5):
        with RawCaller(service) as caller:
            assert caller.ask(command="nonsense").exit()["code"] == 1
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo served\n"}, service.caller)
    assert service.run("make").stdout == "served\n"
    service.daemon.await_log("build completed")
    service.daemon.stop()
    lines = service.daemon.log_lines()
    assert sum("build refused" in line for line in lines) == LINES
    left_out = rf"further lines of a caller were left out uid={service.caller.uid} bytes=\d+ lines=5$"
    assert sum(bool(re.search(left_out, line)) for line in lines) == 1


def test_what_was_left_out_is_told_when_the_time_is_over_though_nothing_else_comes(service: Service) -> None:
    for _ in range(LINES + 1):
        with RawCaller(service) as caller:
            assert caller.ask(command="nonsense").exit()["code"] == 1
    service.daemon.await_log("further lines of a caller were left out .*lines=1$", WINDOW_SEC + harness.PATIENCE_SEC)


def test_a_start_line_says_from_where(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo $$PPID\n"}, service.caller)
    process = service.popen("make")
    process.communicate()
    assert f" peer_pid={process.pid} " in service.daemon.await_log("build started")


@pytest.mark.needs_root
def test_a_start_line_names_the_container_that_the_caller_is_in_and_whose_root_it_has(
    open_directory: OpenDirectory, start_service: StartService
) -> None:
    service = start_service("root")
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo built\n"}, service.caller)
    tree, name = open_directory(), "1f0c2a9b7d3e" + "5" * 52
    subprocess.run(["mount", "-t", "cgroup2", "none", tree], check=True)
    group = tree / f"libpod-{name}.scope"
    group.mkdir()
    try:
        become = ["setpriv", f"--reuid={DEV1.uid}", f"--regid={DEV1.gid}", f"--groups={DEV1.groups[0]}", "--"]
        script = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        env = harness.environment_of(DEV1)
        own_ids = ["unshare", "--user", "--map-current-user", "--"]
        for number, wrapper in enumerate(([], own_ids), start=1):
            command = ["sh", "-c", script, "sh", *become, *wrapper, *service.argv("make")]
            built = subprocess.run(command, cwd=service.workspace, env=env, capture_output=True)
            assert (built.stdout, built.stderr) == (b"built\n", b"")
            service.daemon.await_log("build completed", count=number)
        lines = [line for line in service.daemon.log_lines() if "build started" in line]
        assert all(f" container={name[:12]} " in line for line in lines)
        # Where these tests have ids of their own, so has the "container".
        hosts = namespaces.has_the_host_s_uids(Path("/proc/self/uid_map").read_text())
        assert [" userns=host " in f"{line} " for line in lines] == [hosts, False]
    finally:
        group.rmdir()
        subprocess.run(["umount", tree], check=True)


def test_a_refusal_says_from_where(service: Service) -> None:
    process = service.popen("nonsense")
    process.communicate()
    assert re.search(rf" peer_pid={process.pid}( |$)", service.daemon.await_log("build refused"))


@pytest.mark.needs_root
def test_a_group_that_is_there_twice_is_no_fault_of_the_proof() -> None:
    """As several unmapped groups are in a user namespace (user_namespaces(7))."""
    program = (
        f"import os, sys; sys.path.insert(0, {str(harness.TREE / 'lib')!r})\n"
        "from buildcore.core.settings import Settings; from buildcore.service import proof\n"
        "proof.prove(Settings()); print(len(os.getgroups()))"
    )
    python = f"{harness.daemon_python_directory()}/python3"
    done = harness.run_as(DEV1, [python, "-I", "-c", program], "/", groups=[*DEV1.groups, *DEV1.groups])
    assert (done.stdout, done.stderr) == ("4\n", "")


# --- the proof at the start -------------------------------------------------------------------------------------------

SHIM = """
#define _GNU_SOURCE
#include <stdarg.h>
#include <sys/types.h>
int {name}() {{ return 0; }}
"""
"""A libc whose call does nothing and says that it did it."""


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("setgroups", "groups is "),
        ("setresgid", "group id is "),
        ("setresuid", "root could be regained|capabilities is |user id is "),
        ("prctl", "no_new_privs is "),
    ],
)
def test_a_daemon_whose_drop_does_nothing_serves_nobody(
    name: str, fault: str, tmp_path: Path, open_directory: OpenDirectory
) -> None:
    directory = open_directory()
    tools.need(*tools.TO_COMPILE)
    (tmp_path / "shim.c").write_text(SHIM.format(name=name))
    library = directory / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "shim.c"], check=True, capture_output=True)
    daemon = Daemon(env={"LD_PRELOAD": str(library)})
    try:
        with pytest.raises(AssertionError, match="did not get ready"):
            daemon.start()
        assert re.search(f"build-service: cannot drop privileges for cat: ({fault})", daemon.errors()), daemon.errors()
        assert not daemon.socket.exists()
    finally:
        daemon.kill()
        daemon.remove()
