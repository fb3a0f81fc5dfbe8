"""Programs of the caller's workspace: `./configure` and others that the configuration names, run there as the caller.

Whatever the name leads to, it is a program that lies in the workspace and that the caller may execute, or one line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import told
from daemon import Service, installed_tools
from forked import running
from harness import write_tree
from harness_world import DEV1, DEV2
from hostile import become
from wire import RawCaller

StartService = Callable[..., Service]

ENTRIES = ["configure", "autogen.sh", "tests/run.sh"]
SHOW = '#!/bin/sh\necho "$0" in "$(pwd -P)" with "$@"\n'
BUILDS = 200
"""How many run while the program is swapped all the time."""

MOST_ROUNDS = 10
"""How many times as many it may take until one ran and one was refused."""

HINT = "; a program of the workspace: build.workspace_commands on the host\n"


def serving(start_service: StartService, flavour: str, **build: Any) -> Service:
    return start_service(flavour, {"build": {"workspace_commands": ENTRIES, **build}})


@pytest.fixture
def app(flavour: str, start_service: StartService) -> Iterator[tuple[Service, Path]]:
    """A service that allows ENTRIES, and a project in the workspace of its caller."""
    service = serving(start_service, flavour)
    directory = service.workspace / "app"
    scripts = dict.fromkeys(("configure", "autogen.sh", "tests/run.sh", "mytests/run.sh", "other.sh"), SHOW)
    yield service, write_tree(directory, {**scripts, "build/.keep": ""}, service.caller)
    shutil.rmtree(directory)


# --- what runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "below", "name"),
    [
        ("./configure", "", "./configure"),
        (".//configure", "", ".//configure"),
        ("../configure", "build", "../configure"),
        ("build/../configure", "", "build/../configure"),
        ("configure", "", "./configure"),
        ("autogen.sh", "", "./autogen.sh"),
        ("tests/run.sh", "", "tests/run.sh"),
        ("./run.sh", "tests", "./run.sh"),
        ("../tests/run.sh", "build", "../tests/run.sh"),
    ],
)
def test_a_program_runs_by_the_name_that_was_typed_where_it_was_typed(
    command: str, below: str, name: str, app: tuple[Service, Path]
) -> None:
    service, directory = app
    done = service.run(command, "--prefix=/x", "-C", "..", cwd=directory / below)
    assert told(done) == (f"{name} in {(directory / below).resolve()} with --prefix=/x -C ..\n", "", 0)


def test_it_is_told_by_its_absolute_name_too(app: tuple[Service, Path]) -> None:
    service, directory = app
    done = service.run(directory / "configure", cwd=directory / "build")
    assert told(done) == (f"{directory}/configure in {(directory / 'build').resolve()} with\n", "", 0)


def test_it_has_the_identity_the_environment_and_the_limits_of_any_build(app: tuple[Service, Path]) -> None:
    service, directory = app
    script = "#!/bin/sh\nid -u; umask; echo $CFLAGS:$SECRET; ulimit -S -n; cat; ls -l /proc/self/fd | wc -l; exit 7\n"
    write_tree(directory, {"configure": script, "Makefile": f"all:\n\t@{script[10:].strip().replace('$', '$$')}\n"})
    (directory / "configure").chmod(0o755)
    env = {"CFLAGS": "-O1", "SECRET": "x"}
    own = service.run("./configure", cwd=directory, env=env, input=b"typed\n")
    made = service.run("make", "-s", cwd=directory, env=env, input=b"typed\n")
    assert own.stdout == made.stdout and own.stdout.startswith(f"{service.caller.uid}\n0022\n-O1:\n")
    assert (own.returncode, made.returncode, own.stderr) == (7, 2, "")
    service.daemon.await_log(r"build started .*command=\./configure")


def test_a_program_that_is_no_script_runs_and_a_link_within_the_workspace_is_followed(
    app: tuple[Service, Path]
) -> None:
    service, directory = app
    shutil.copy("/bin/echo", directory / "tests/echo")
    (directory / "tests/echo").chmod(0o755)
    (directory / "build/configure").symlink_to("../tests/echo")
    (service.workspace / "link").symlink_to("app/build")
    try:
        assert told(service.run("link/configure", "a  b")) == ("a  b\n", "", 0)
    finally:
        (service.workspace / "link").unlink()


def test_the_time_limit_and_a_cancel_end_it(app: tuple[Service, Path]) -> None:
    service, directory = app
    write_tree(directory, {"configure": "#!/bin/sh\necho begun; sleep 600\n"}, service.caller)
    done = service.run("--timeout", "1", "./configure", cwd=directory)
    assert told(done) == ("begun\n", "build timed out after 1s\n", 124)
    with RawCaller(service) as caller:
        caller.ask(command="./configure", cwd=str(directory)).await_output("begun")
        caller.send(b'{"type":"cancel","signal":"INT"}\n')
        assert caller.exit()["code"] == 130


def test_a_check_names_the_program_that_would_run(app: tuple[Service, Path]) -> None:
    service, directory = app
    (directory / "build/configure").symlink_to("../configure")
    request = {"command": "./configure", "args": ["-x"], "cwd": str(directory / "build"), "features": ["details"]}
    with RawCaller(service) as caller:
        check = caller.ask(command=None, args=None, cwd=None, check=request).exit()["check"]
    assert (check["program"], check["args"]) == (f"{directory.resolve()}/configure", ["-x"])
    assert check["commands"] == [*sorted(installed_tools()), "./autogen.sh", "./configure", "tests/run.sh"]


# --- what does not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["./other.sh", "./tests", "mytests/run.sh", "/bin/sh", "../../bin/sh", "./configure/", "./.", "/"]
)
def test_a_path_that_no_entry_names_is_refused_with_the_key(command: str, app: tuple[Service, Path]) -> None:
    service, directory = app
    done = service.run(command, cwd=directory)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith(f"command not allowed: {command} (allowed: ") and done.stderr.endswith(HINT)


def test_an_entry_with_slashes_names_that_end_of_a_path_alone(app: tuple[Service, Path]) -> None:
    service, directory = app
    write_tree(directory, {"run.sh": SHOW, "build/run.sh": SHOW}, service.caller)
    (directory / "build/tests").symlink_to(".")
    for command in ("./run.sh", "build/run.sh", "build/tests/run.sh"):  # the last one is build/run.sh by its real name
        done = service.run(command, cwd=directory)
        assert done.stderr.startswith(f"command not allowed: {command} (") and done.stderr.endswith(HINT), command


def test_without_the_key_nothing_of_the_workspace_runs(service: Service) -> None:
    write_tree(service.workspace, {"configure": SHOW}, service.caller)
    done = service.run("./configure")
    assert done.stderr.startswith("command not allowed: ./configure (allowed: ") and done.stderr.endswith(HINT)
    assert (done.stdout, done.returncode) == ("", 1)


def make_missing(path: Path) -> None:
    path.unlink()


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to("configure")


def make_dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def make_unexecutable(path: Path) -> None:
    path.chmod(0o644)


def make_bare(path: Path) -> None:
    path.write_text("echo without a first line\n")


def make_orphan(path: Path) -> None:
    path.write_text("#!/no/such/interpreter\n")


NOT_THERE = "No such file or directory"
FAULTY: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (make_missing, NOT_THERE),
    "a directory": (make_directory, "it is a directory"),
    "a fifo": (make_fifo, "it is no regular file"),
    "a loop": (make_loop, "Too many levels of symbolic links"),
    "a dangling link": (make_dangling, NOT_THERE),
    "not executable": (make_unexecutable, "Permission denied"),
    "without #!": (
        make_bare, "it is no program of this host's kind, or a script whose first line does not begin with #!"
    ),
    "without its interpreter": (make_orphan, "the host does not have what its first line names to run it"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_what_cannot_run_is_one_line_that_says_why(fault: str, app: tuple[Service, Path]) -> None:
    service, directory = app
    spoil, reason = FAULTY[fault]
    spoil(directory / "configure")
    done = service.run("./configure", cwd=directory)
    assert told(done) == ("", f"cannot run ./configure: {reason}\n", 1)


@pytest.mark.parametrize("fault", ["missing", "a directory", "a fifo", "not executable"])
def test_a_check_finds_it_as_well(fault: str, app: tuple[Service, Path]) -> None:
    service, directory = app
    spoil, reason = FAULTY[fault]
    spoil(directory / "configure")
    request = {"command": "./configure", "args": [], "cwd": str(directory)}
    with RawCaller(service) as caller:
        assert caller.ask(command=None, args=None, cwd=None, check=request).exit()["code"] == 1
        assert caller.text() == f"cannot run ./configure: {reason}\n"


def test_a_directory_on_the_way_that_is_missing_or_none_is_one_line(app: tuple[Service, Path]) -> None:
    service, directory = app
    assert service.run("no/configure", cwd=directory).stderr == f"cannot run no/configure: {NOT_THERE}\n"
    done = service.run("other.sh/configure", cwd=directory)
    assert told(done) == ("", "cannot run other.sh/configure: Not a directory\n", 1)
    done = service.run("x" * 300 + "/configure", cwd=directory)
    assert told(done) == ("", f"cannot run {'x' * 300}/configure: File name too long\n", 1)


@pytest.mark.parametrize("command", ["./a\nb\x1b/configure", "./\udcff/configure"])
def test_what_a_caller_sends_is_one_printable_line(command: str, app: tuple[Service, Path]) -> None:
    service, _ = app
    with RawCaller(service) as caller:
        assert caller.ask(command=command).exit()["code"] == 1
        line = caller.text()
    assert line.startswith("cannot run ./") and line.endswith(f": {NOT_THERE}\n") and line[:-1].isprintable()


def test_a_nul_is_refused(app: tuple[Service, Path]) -> None:
    with RawCaller(app[0]) as caller:
        assert caller.ask(command="./configure\0").exit()["code"] == 1
        assert caller.text() == "invalid request: command holds a NUL\n"


# --- out of the workspace ---------------------------------------------------------------------------------------------


@pytest.fixture
def outside(app: tuple[Service, Path], open_directory: Callable[..., Path]) -> Path:
    """A directory outside of the workspace, with programs that are called as they should be."""
    return write_tree(open_directory(app[0].caller), {"configure": SHOW, "tests/run.sh": SHOW}, app[0].caller)


def refusal(path: Path | str, service: Service) -> str:
    return f"command must be under workspace: {path} is not under {service.workspace.resolve()}\n"


def test_a_link_out_of_the_workspace_is_refused(app: tuple[Service, Path], outside: Path) -> None:
    service, directory = app
    (directory / "configure").unlink()
    (directory / "configure").symlink_to(outside / "configure")
    assert told(service.run("./configure", cwd=directory)) == ("", refusal("./configure", service), 1)
    (directory / "out").symlink_to(outside)
    for command in ("out/configure", "out/tests/run.sh"):
        assert told(service.run(command, cwd=directory)) == ("", refusal(command, service), 1)


def test_a_path_out_of_the_workspace_is_refused(app: tuple[Service, Path], outside: Path) -> None:
    service, directory = app
    command = outside / "configure"
    assert told(service.run(command, cwd=directory)) == ("", refusal(command, service), 1)
    relative = os.path.relpath(command, directory.resolve())
    assert told(service.run(relative, cwd=directory)) == ("", refusal(relative, service), 1)
    command.unlink()
    command.symlink_to(directory / "configure")  # also where it leads back into it
    assert told(service.run(command, cwd=directory)) == ("", refusal(command, service), 1)


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A project of dev2 that everybody may look at."""
    directory = write_tree(DEV2.home / "workspace/app", {"configure": SHOW}, DEV2)
    modes = [(path, path.stat().st_mode) for path in (DEV2.home, directory.parent, directory)]
    for path, _ in modes:
        path.chmod(0o755)
    yield directory
    for path, mode in modes:
        path.chmod(mode)
    shutil.rmtree(directory)


@pytest.mark.needs_root
def test_a_program_of_another_user_s_workspace_is_refused_and_nothing_is_told_of_it(
    theirs: Path, start_service: StartService
) -> None:
    service = serving(start_service, "root")
    (service.workspace / "configure").symlink_to(theirs / "configure")
    for command in ("./configure", f"{theirs}/configure", "../../dev2/workspace/app/configure"):
        assert told(service.run(command)) == ("", refusal(command, service), 1)
    theirs.chmod(0o700)
    denied = "cannot run ./configure: Permission denied\n"
    assert told(service.run("./configure")) == ("", denied, 1)
    (theirs / "configure").unlink()
    assert told(service.run("./configure")) == ("", denied, 1)


@pytest.mark.needs_root
def test_who_may_not_execute_it_runs_it_not_though_root_could(start_service: StartService) -> None:
    service = serving(start_service, "root")
    path = write_tree(service.workspace, {"configure": SHOW}) / "configure"
    path.chmod(0o700)
    assert path.stat().st_uid == 0
    assert told(service.run("./configure")) == ("", "cannot run ./configure: Permission denied\n", 1)
    path.chmod(0o755)
    assert service.run("./configure").returncode == 0


@pytest.fixture
def of_root() -> Iterator[Path]:
    """A file system in the workspace of dev1 where root put a program with its own set-user-ID bit."""
    directory = DEV1.home / "workspace/of-root"
    write_tree(directory, {".keep": ""}, DEV1)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "suid,mode=0755", "tmpfs", directory], check=True)
    shutil.copy("/usr/bin/id", directory / "configure")
    (directory / "configure").chmod(0o6755)
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.mark.needs_root
@pytest.mark.parametrize(("no_new_privs", "uid"), [(True, DEV1.uid), (False, 0)])
def test_a_set_user_id_program_has_the_power_that_it_has_in_any_build(
    no_new_privs: bool, uid: int, of_root: Path, start_service: StartService
) -> None:
    service = serving(start_service, "root", no_new_privs=no_new_privs)
    write_tree(service.workspace, {"Makefile": "all:\n\t@of-root/configure -u\n"}, DEV1)
    assert told(service.run("make")) == (f"{uid}\n", "", 0)
    assert told(service.run("of-root/configure", "-u")) == (f"{uid}\n", "", 0)


# --- paths of a container ---------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_a_path_of_the_container_is_mapped_as_the_directory_is(start_service: StartService) -> None:
    mapping = {"container_template": "/workspaces", "host_template": "{workspace_root}/{user}/workspace"}
    service = serving(start_service, "root", path_mapping=mapping)
    write_tree(service.workspace / "app", {"configure": SHOW, "build/.keep": ""}, DEV1)
    with RawCaller(service) as caller:
        caller.ask(command="/workspaces/app/configure", cwd="/workspaces/app/build").exit()
        place = service.workspace / "app"
        assert caller.text() == f"{place}/configure in {place}/build with\n"


# --- changed meanwhile ------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_whatever_it_is_swapped_for_runs_as_its_caller_or_not_at_all(
    open_directory: Callable[..., Path], start_service: StartService
) -> None:
    service = serving(start_service, "root")
    directory = write_tree(service.workspace / "race", {"mine": "#!/bin/sh\nid -u; id -G\n"}, DEV1)
    outside = write_tree(open_directory(), {"script": "#!/bin/sh\nid -u\n"}) / "script"

    def swap() -> None:
        become(DEV1)
        while True:
            os.link(directory / "mine", directory / "next")
            os.replace(directory / "next", directory / "configure")
            os.symlink(outside, directory / "next")
            os.replace(directory / "next", directory / "configure")

    groups = " ".join(str(gid) for gid in (DEV1.gid, *DEV1.groups))
    ran = {f"{DEV1.uid}\n", f"{DEV1.uid}\n{groups}\n"}
    refused = {refusal("./configure", service), f"cannot run ./configure: {NOT_THERE}\n"}
    seen = set()
    with running(swap):
        for number in range(BUILDS * MOST_ROUNDS):
            if number >= BUILDS and seen & ran and seen & refused:
                break
            with RawCaller(service) as caller:
                caller.ask("-u", command="./configure", cwd=str(directory)).exit()
                seen.add(caller.text())
    assert seen <= ran | refused and seen & ran and seen & refused, seen
