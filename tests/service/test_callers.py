"""Who calls is who builds: ids, groups and files of a build are the caller's, and nothing of root's is within reach.

Real callers of several uids and groups, a daemon that is root.
"""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import harness
from daemon import Service
from harness import run_as, write_tree
from harness_world import (
    BUILDERS_GID,
    DEV1,
    DEV2,
    LIBS_GID,
    OUTSIDER,
    UID_WITHOUT_ACCOUNT,
    User,
)
from wire import WAITING, Gate, RawCaller, acting_as, foreign_processes, parent_of, waiting_make

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]
ROOT_USER = User("root", 0, 0, (), Path("/root"))
STRANGER = User("stranger", UID_WITHOUT_ACCOUNT, UID_WITHOUT_ACCOUNT, (BUILDERS_GID,), Path("/"))
SHOW_IDS = (
    "all:\n\t@id -u; id -g; id -G\n"
    "\t@grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status\n"
    "\t@touch made\n"
)

PTRACE_SEIZE = 0x4206
ATTEMPTS = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
def attempt(name, call):
    try:
        call()
    except OSError as exc:
        print(name, exc.errno)
    else:
        print(name, "done")
def trace():
    if libc.ptrace({PTRACE_SEIZE}, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
attempt("signal 0", lambda: os.kill(pid, 0))
attempt("SIGSTOP", lambda: os.kill(pid, 19))
attempt("SIGKILL", lambda: os.kill(pid, 9))
attempt("ptrace", trace)
attempt("mem", lambda: open(f"/proc/{{pid}}/mem", "rb").read(1))
attempt("environ", lambda: open(f"/proc/{{pid}}/environ", "rb").read(1))
attempt("maps", lambda: open(f"/proc/{{pid}}/maps", "rb").read(1))
attempt("fd", lambda: os.listdir(f"/proc/{{pid}}/fd"))
attempt("cwd", lambda: os.readlink(f"/proc/{{pid}}/cwd"))
attempt("oom", lambda: open(f"/proc/{{pid}}/oom_score_adj", "w").write("1000"))
"""
"""What one process may try against another; prints `name errno` or `name done`."""


@pytest.fixture
def service(start_service: StartService) -> Service:
    return start_service("root")


def lines_of(service: Service, user: User, groups: list[int] | None = None) -> dict[str, list[str]]:
    """Builds SHOW_IDS as the caller `user`; returns what `id` and the kernel say of the build, word by word."""
    workspace = service.daemon.workspace_of(user)
    (workspace / "made").unlink(missing_ok=True)
    write_tree(workspace, {"Makefile": SHOW_IDS}, user)
    built = service.run("make", user=user, groups=groups, cwd=workspace)
    assert (built.stderr, built.returncode) == ("", 0)
    uid, gid, all_groups, *status = built.stdout.splitlines()
    found = {line.partition(":")[0]: line.split()[1:] for line in status}
    return {"id -u": [uid], "id -g": [gid], "id -G": sorted(all_groups.split()), **found}


def numbers(*ids: int) -> list[str]:
    return sorted(str(number) for number in ids)


# --- whose build it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [DEV1, DEV2], ids=lambda user: user.name)
def test_a_build_has_every_id_of_its_caller_and_no_power_beyond(user: User, service: Service) -> None:
    found = lines_of(service, user)
    assert found["id -u"] == [str(user.uid)]
    assert found["id -g"] == [str(user.gid)]
    assert found["id -G"] == numbers(user.gid, *user.groups)
    assert found["Uid"] == [str(user.uid)] * 4
    assert found["Gid"] == [str(user.gid)] * 4
    assert sorted(found["Groups"]) == numbers(user.gid, *user.groups)
    assert [found[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Amb")] == [["0" * 16]] * 4
    assert found["NoNewPrivs"] == ["1"]
    made = (service.daemon.workspace_of(user) / "made").stat()
    assert (made.st_uid, made.st_gid) == (user.uid, user.gid)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_a_build_makes_has_the_modes_of_the_callers_umask(umask: int, service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@rm -f file; touch file\n"}, DEV1)
    assert service.run("make", umask=umask).returncode == 0
    assert stat.S_IMODE((service.workspace / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("groups", [[BUILDERS_GID], [BUILDERS_GID, 31000]], ids=["fewer", "others"])
def test_the_groups_of_a_build_are_those_of_the_calling_process_and_not_of_its_login(
    groups: list[int], service: Service
) -> None:
    found = lines_of(service, DEV1, groups)
    assert sorted(found["Groups"]) == numbers(*groups)
    assert found["id -G"] == numbers(DEV1.gid, *groups)


def test_a_caller_with_hundreds_of_groups_keeps_them_all(service: Service) -> None:
    groups = [BUILDERS_GID, *range(40000, 40600)]
    assert sorted(lines_of(service, DEV1, groups)["Groups"]) == numbers(*groups)


def test_the_group_of_a_build_is_the_callers_current_one(service: Service) -> None:
    after_newgrp = User(DEV1.name, DEV1.uid, LIBS_GID, (BUILDERS_GID,), DEV1.home)
    assert lines_of(service, after_newgrp)["Gid"] == [str(LIBS_GID)] * 4
    assert (service.workspace / "made").stat().st_gid == LIBS_GID


def test_with_login_groups_a_build_gets_what_a_fresh_login_would(start_service: StartService) -> None:
    service = start_service("root", {"build": {"groups": "login"}})
    found = lines_of(service, DEV1, [BUILDERS_GID])
    assert found["id -G"] == numbers(DEV1.gid, BUILDERS_GID, LIBS_GID)
    assert sorted(found["Groups"]) == numbers(DEV1.gid, BUILDERS_GID, LIBS_GID)


def test_callers_at_the_same_time_each_build_as_themselves(service: Service) -> None:
    makefile = {"Makefile": f"all:\n{WAITING}\t@id -un; id -G\n"}
    for user in (DEV1, DEV2):
        write_tree(service.daemon.workspace_of(user), makefile, user)
    first, second = (service.daemon.workspace_of(user) for user in (DEV1, DEV2))
    with Gate(first, DEV1) as gate1, Gate(second, DEV2) as gate2, ExitStack() as stack:
        one, two = (stack.enter_context(RawCaller(service, user)) for user in (DEV1, DEV2))
        one.ask(cwd=str(first)).await_output("waits\n")
        two.ask(cwd=str(second)).await_output("waits\n")
        gate2.open()
        gate1.open()
        assert one.exit()["code"] == two.exit()["code"] == 0
        assert re.search(rf"\ndev1\n.*\b{LIBS_GID}\b", one.text())
        assert re.search(rf"\ndev2\n(?!.*\b{LIBS_GID}\b)", two.text())


# --- who may not build ------------------------------------------------------------------------------------------------

REFUSED = [
    (ROOT_USER, "root may not build: start the container rootless, with --userns=keep-id, as a user"),
    (
        STRANGER,
        f"uid {UID_WITHOUT_ACCOUNT} has no account on this host: start the container with --userns=keep-id",
    ),
]


@pytest.mark.parametrize(("user", "line"), REFUSED, ids=["root", "no account"])
def test_who_may_not_build_is_told_why_and_nothing_runs(user: User, line: str, service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@touch ran\n"}, DEV1)
    refused = service.run("make", user=user, groups=[BUILDERS_GID], cwd=Path("/"))
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", line + "\n", 1)
    with RawCaller(service, user, [BUILDERS_GID]) as caller:
        assert caller.ask().exit() == {"type": "exit", "code": 1, "timed_out": False}
        assert caller.text() == line + "\n"
    with RawCaller(service, user, [BUILDERS_GID]) as caller:
        assert caller.ask(features=[]).exit()["error"] == {"kind": "identity", "message": line}
    assert not (service.workspace / "ran").exists()
    service.daemon.await_log(rf'WARN build_service: build refused uid={user.uid} reason="{line.split(":")[0]}')


def test_who_is_not_in_the_socket_s_group_is_told_so_by_the_client(service: Service) -> None:
    refused = service.run("make", user=OUTSIDER, cwd=OUTSIDER.home / "workspace")
    assert (refused.stdout, refused.returncode) == ("", 1)
    assert refused.stderr.startswith(f"cannot connect to build-service: Permission denied ({service.daemon.socket}")
    assert "--group-add keep-groups" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_refused_caller_s_session_is_not_root_while_it_talks(service: Service) -> None:
    """What even root would be refused for must not be done with root's rights."""
    with RawCaller(service, STRANGER) as caller:
        caller.ask()
        assert caller.next_event()
        sessions = [process.pid for process in harness.descendants(service.daemon.pid)]
        uids = {Path(f"/proc/{pid}/status").read_text().split("Uid:\t")[1].split()[1] for pid in sessions}
        assert "65534" in uids, uids  # it waits for this caller to hang up, as nobody


# --- what a caller cannot do to the service ---------------------------------------------------------------------------


def attempts_on(pid: int, user: User) -> dict[str, str]:
    python = f"{harness.python_directory()}/python3"
    done = run_as(user, [python, "-I", "-c", ATTEMPTS, str(pid)], Path("/"))
    assert done.returncode == 0, done
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())


def test_the_attempts_succeed_on_a_process_of_the_same_user() -> None:
    """The control: what the next tests find refused is refused for whom it is tried on, not for how."""
    python = f"{harness.python_directory()}/python3"
    with harness.popen_as(DEV1, [python, "-I", "-c", "input()"], "/", stdin=-1) as victim:
        found = attempts_on(victim.pid, DEV1)
    assert victim.returncode == -9
    assert {found[name] for name in ("signal 0", "SIGSTOP", "SIGKILL")} == {"done"}


def test_a_caller_can_neither_signal_nor_look_into_its_session_nor_any_process_of_the_service(
    service: Service,
) -> None:
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}"}, DEV1)
    with Gate(service.workspace, DEV1) as gate, RawCaller(service) as caller:
        make = waiting_make(caller.ask().await_output("waits\n"))
        session = parent_of(make)
        status = Path(f"/proc/{session}/status").read_text()
        assert f"Uid:\t0\t{DEV1.uid}\t0\t{DEV1.uid}\n" in status  # it is this one, and works as the caller
        foreign = {process.pid for process in foreign_processes(service.daemon)}
        service_pids = {process.pid for process in harness.descendants(service.daemon.pid)} - foreign
        assert session in service_pids and len(service_pids) >= 3  # the log writer and an idle session as well
        for pid in {service.daemon.pid, *service_pids}:
            found = attempts_on(pid, DEV1)
            assert len(found) == 10
            assert set(found.values()) <= {"1", "13"}, (pid, found)  # EPERM, EACCES
        gate.open()
        assert caller.exit()["code"] == 0


def test_a_build_cannot_kill_its_session(service: Service) -> None:
    recipe = "@session=$$(cut -d' ' -f4 /proc/$$PPID/stat); test $$session -gt 1; kill -9 $$session; echo kill $$?"
    write_tree(service.workspace, {"Makefile": f"all:\n\t{recipe}\n"}, DEV1)
    built = service.run("make")
    assert (built.stdout, built.returncode) == ("kill 1\n", 0)
    assert "not permitted" in built.stderr


# --- what a caller cannot see -----------------------------------------------------------------------------------------


@pytest.fixture
def hidden() -> Iterator[list[str]]:
    """For each place that only somebody else may enter: a directory in it, and a name that it does not hold."""
    for_root = Path("/run/for-root")
    for directory in (for_root, for_root / "there"):
        directory.mkdir(mode=0o700)
    private = DEV2.home / "workspace" / "private"
    write_tree(private, {"there/Makefile": "all:\n\t@echo secret\n"}, DEV2)
    private.chmod(0o700)
    yield [str(for_root), str(private), str(DEV2.home / "workspace")]
    shutil.rmtree(for_root)
    shutil.rmtree(private)


def refusal(service: Service, *args: str, cwd: str) -> str:
    with RawCaller(service) as caller:
        assert caller.ask(*args, cwd=cwd).exit()["code"] == 1
        assert caller.output("stdout") == b""
        return caller.output("stderr").decode()


def test_a_request_does_not_tell_what_is_in_a_directory_that_its_caller_may_not_enter(
    hidden: list[str], service: Service
) -> None:
    for place in hidden:
        there = refusal(service, cwd=f"{place}/there")
        missing = refusal(service, cwd=f"{place}/missing")
        assert there.startswith(f"cwd must be under workspace: {place}/there"), there
        assert there.replace("/there", "/missing") == missing


@pytest.mark.parametrize("option", ["-C", "-f", "-I", "--directory=", "--makefile="])
def test_nor_do_path_options_tell(option: str, hidden: list[str], service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@:\n"}, DEV1)
    for place in hidden:
        lines = []
        for name in ("there", "missing"):
            args = [f"{option}{place}/{name}"] if option.endswith("=") else [option, f"{place}/{name}"]
            with RawCaller(service) as caller:
                caller.ask(*args).exit()
                lines.append(caller.text().replace(f"/{name}", "/NAME"))
        assert lines[0] == lines[1]


def test_nor_does_a_symbolic_link_in_the_workspace(hidden: list[str], service: Service) -> None:
    link = service.workspace / "link"
    try:
        for place in hidden:
            lines = []
            for name in ("there", "missing"):
                link.unlink(missing_ok=True)
                link.symlink_to(f"{place}/{name}")
                lines.append(refusal(service, cwd=str(link)))
                lines.append(refusal(service, "-C", "link", cwd=str(service.workspace)).replace(name, "NAME"))
            assert lines[0] == lines[2]
            assert lines[1] == lines[3]
    finally:
        link.unlink()


def test_no_file_that_only_root_may_read_comes_out_by_any_path_option(service: Service) -> None:
    secret = service.workspace / "secret.mk"
    secret.write_text("$(error the-secret-text)\n")
    secret.chmod(0o600)  # root's, in the caller's own workspace
    write_tree(service.workspace, {"Makefile": "-include secret.mk\nall:\n\t@echo built\n"}, DEV1)
    try:
        for args in (["-f", "secret.mk"], ["-fsecret.mk"], ["--eval", "include secret.mk"], []):
            built = service.run("make", *args)
            assert "the-secret-text" not in built.stdout + built.stderr
        assert service.run("make", "-f", "secret.mk").returncode == 2  # make's own: it may not read it
    finally:
        secret.unlink()


def test_the_place_of_a_request_must_be_the_callers_own_workspace(service: Service) -> None:
    with acting_as(DEV2):
        other = DEV2.home / "workspace" / "open"
        other.mkdir()
        (other / "Makefile").write_text("all:\n\t@touch ran\n")
        modes = [(path, path.stat().st_mode) for path in (DEV2.home, DEV2.home / "workspace", other)]
        for path, _ in modes:
            path.chmod(0o777)
    try:
        line = refusal(service, cwd=str(other))
        assert line == f"cwd must be under workspace: {other} is not under {DEV1.home}/workspace\n"
        assert not (other / "ran").exists()
    finally:
        for path, mode in modes:
            path.chmod(mode)
        shutil.rmtree(other)


def test_the_log_and_the_configuration_are_not_the_callers_to_read(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": f"all:\n\t@cat {service.daemon.log_path}\n"}, DEV1)
    built = service.run("make")
    assert built.stdout == "" and "Permission denied" in built.stderr


