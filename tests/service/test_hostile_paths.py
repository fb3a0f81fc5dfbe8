"""Directories that change under the eyes of the service: swapped, replaced, removed, unmounted, or with wild names.

A build's directory is the one that was looked at, inside the workspace of that moment, or the request is refused in one
line; a Makefile that never ends keeps a build busy, and no session.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import harness
from daemon import Service, running_service
from forked import running
from harness import popen_as, write_tree
from harness_world import DEV1, DEV2, MS_NODEV, MS_NOSUID
from hostile import become
from wire import RawCaller, at_rest

pytestmark = pytest.mark.needs_root

BUILDS = 300
FEW_BUILDS = 60
"""How many builds run against what changes all the time."""

MOST_ROUNDS = 10
"""How many times as many it may take until some were refused and some were not."""

SHOW_PLACE = "all:\n\t@readlink /proc/self/cwd\n"
AT_FDCWD = -100
RENAME_EXCHANGE = 2
MNT_DETACH = 2
CLONE_NEWNS_NEWUSER = 0x00020000 | 0x10000000
"""open(2), renameat2(2), umount2(2), unshare(2)"""

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def one() -> Iterator[Service]:
    """A service for all tests: none of them changes it."""
    with running_service("root", {"build": {"timeouts": {"grace_sec": 1}}}) as service:
        yield service


@pytest.fixture
def place(one: Service) -> Iterator[Path]:
    """A directory of dev1's own in its workspace."""
    path = one.workspace / "hostile"
    path.mkdir()
    harness.give(path, DEV1)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory outside of every workspace, where dev1 may do what it likes."""
    path = harness.open_directory(DEV1)
    write_tree(path, {"Makefile": SHOW_PLACE, "app/Makefile": SHOW_PLACE}, DEV1)
    yield path
    shutil.rmtree(path)


def call(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def exchange(one: Path, other: Path) -> None:
    """Swaps two names in one step: at no time is either of them missing."""
    names = os.fsencode(one), os.fsencode(other)
    call("renameat2", AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)


@contextmanager
def again_and_again(step: Callable[[], None]) -> Iterator[None]:
    """A process of dev1 that does the step in a loop while the block runs."""

    def loop() -> None:
        become(DEV1)
        while True:
            step()

    with running(loop):
        yield


def outcome(service: Service, cwd: Path | str, *args: str) -> str:
    """Where a build in `cwd` ran, by the kernel's word, or the line that refused it.

    In a directory that is gone meanwhile make itself may complain, or fail: then it is "failed".
    """
    with RawCaller(service) as caller:
        code = caller.ask(*args, cwd=str(cwd)).exit()["code"]
        out, err = (caller.output(stream).decode("utf-8", "surrogateescape") for stream in ("stdout", "stderr"))
    if code == 2:
        return "failed"
    assert (code, out) == (1, "") and err.count("\n") == 1 or code == 0, (code, out, err)
    return (err if code else out).removesuffix("\n")


def outcomes(service: Service, cwd: Path, *args: str, count: int = FEW_BUILDS) -> tuple[set[str], set[str]]:
    """Where so many builds ran, and with which lines the others were refused; more of them until both were seen."""
    ran: set[str] = set()
    refusals: set[str] = set()
    for number in range(count * MOST_ROUNDS):
        if number >= count and ran - {"failed"} and refusals:
            break
        line = outcome(service, cwd, *args)
        (refusals if line.startswith("cwd must be under workspace: ") else ran).add(line)
    assert ran - {"failed"} and refusals, (ran, refusals)
    return ran, refusals


# --- swapped ----------------------------------------------------------------------------------------------------------


def test_a_directory_that_is_swapped_for_a_link_is_entered_as_itself_or_refused(
    one: Service, place: Path, outside: Path
) -> None:
    write_tree(place / "app", {"Makefile": SHOW_PLACE}, DEV1)
    (place / "link").symlink_to(outside)
    with again_and_again(lambda: exchange(place / "app", place / "link")):
        ran, _ = outcomes(one, place / "app", count=BUILDS)
    assert ran <= {str(place / "app"), str(place / "link")}


def test_a_directory_above_that_is_swapped_for_a_link_is_too(one: Service, place: Path, outside: Path) -> None:
    write_tree(place / "above/app", {"Makefile": SHOW_PLACE}, DEV1)
    (place / "link").symlink_to(outside)
    with again_and_again(lambda: exchange(place / "above", place / "link")):
        ran, _ = outcomes(one, place / "above/app")
    assert ran <= {str(place / "above/app"), str(place / "link/app")}


def test_a_workspace_that_is_swapped_for_a_link_is_one_or_the_other_and_never_half_of_each(
    one: Service, outside: Path
) -> None:
    """Its owner may put a link there, and is then held in what that leads to."""
    workspace, link = one.workspace, DEV1.home / "link"
    write_tree(workspace / "app", {"Makefile": SHOW_PLACE}, DEV1)
    link.symlink_to(outside)
    try:
        with again_and_again(lambda: exchange(workspace, link)):
            ran, refusals = outcomes(one, outside / "app")
    finally:
        if workspace.is_symlink():
            exchange(workspace, link)
        link.unlink()
        shutil.rmtree(workspace / "app")
    assert ran == {str(outside / "app")}
    assert refusals <= {
        f"cwd must be under workspace: {outside}/app is not under {root}" for root in (workspace, link)
    } | {f"cwd must be under workspace: {workspace}: No such file or directory on the host"}


def test_a_workspace_that_leads_where_its_owner_may_not_go_is_refused_and_tells_nothing(one: Service) -> None:
    workspace, kept = one.workspace, DEV1.home / "kept"
    private = DEV2.home / "workspace"
    write_tree(private / "there", {"Makefile": SHOW_PLACE}, DEV2)
    workspace.rename(kept)
    try:
        workspace.symlink_to(private)
        lines = {outcome(one, workspace / name).replace("there", "gone") for name in ("there", "gone")}
        assert lines == {f"cwd must be under workspace: {workspace}: Permission denied on the host"}
    finally:
        workspace.unlink()
        kept.rename(workspace)
        shutil.rmtree(private / "there")


# --- gone -------------------------------------------------------------------------------------------------------------


def test_a_directory_that_is_removed_and_made_again_is_entered_or_refused(one: Service, place: Path) -> None:
    app = place / "app"
    write_tree(place, {"build.mk": SHOW_PLACE, "app/.keep": ""}, DEV1)
    (app / ".keep").unlink()

    def remove_and_make() -> None:
        app.rmdir()
        app.mkdir()

    with again_and_again(remove_and_make):
        ran, _ = outcomes(one, app, "-f", str(place / "build.mk"))
    assert ran <= {str(app), f"{app} (deleted)", "failed"}
    assert at_rest(one.daemon)


@contextmanager
def mounted(path: Path) -> Iterator[None]:
    """An empty file system in memory at `path`, dev1's, unmounted behind the block if it still is there."""
    options = f"mode=0755,uid={DEV1.uid},gid={DEV1.gid},size=1m".encode()
    path.mkdir(exist_ok=True)
    call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", ctypes.c_ulong(MS_NODEV | MS_NOSUID), options)
    write_tree(path / "app", {"Makefile": SHOW_PLACE}, DEV1)
    try:
        yield
    finally:
        libc.umount2(os.fsencode(path), MNT_DETACH)


def test_a_directory_that_is_unmounted_is_entered_or_refused(one: Service, place: Path) -> None:
    mount = place / "mount"
    write_tree(mount / "app", {"Makefile": SHOW_PLACE}, DEV1)

    def come_and_go() -> None:
        while True:
            with mounted(mount):
                os.sched_yield()

    with running(come_and_go):
        ran, _ = outcomes(one, mount / "app")
    while libc.umount2(os.fsencode(mount), MNT_DETACH) == 0:
        pass
    lost = "/app"  # the kernel names a directory of a mount that is gone from that mount's root
    assert ran <= {str(mount / "app"), lost, "failed"}
    assert at_rest(one.daemon)


def test_a_directory_whose_mount_is_gone_for_good_is_refused(one: Service, place: Path) -> None:
    """A process of the caller's still has it, and its name would be that of another directory now."""
    python = f"{harness.python_directory()}/python3"
    with mounted(place / "mount"):
        command = [python, "-I", "-c", "print('here', flush=True); input()"]
        holder = popen_as(DEV1, command, place / "mount/app", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder as process:
        assert process.stdout
        harness.read_until(process.stdout.fileno(), "here\n")
        lost = f"/proc/{process.pid}/cwd"
        assert outcome(one, lost) == f"cwd must be under workspace: {lost}: No such file or directory on the host"
        process.communicate(b"\n")


OTHER_NAMESPACE = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare({CLONE_NEWNS_NEWUSER}) != 0:
    print("cannot", flush=True)
    sys.exit()
def mount(source, target):
    assert libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(0x1000), None) == 0
mount(sys.argv[1], sys.argv[2])
os.chdir(sys.argv[2])
print("mounted", flush=True)
input()
"""


def test_another_mount_namespace_does_not_make_an_outside_directory_one_of_the_workspace(
    one: Service, place: Path, outside: Path
) -> None:
    """There it bears the workspace's name, and /proc leads to it (proc(5), root)."""
    write_tree(place / "app", {"Makefile": SHOW_PLACE}, DEV1)
    python = f"{harness.python_directory()}/python3"
    command = [python, "-I", "-c", OTHER_NAMESPACE, str(outside), f"{place}/app"]
    with popen_as(DEV1, command, "/", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        said = harness.read_until(process.stdout.fileno(), "\n")
        lines = {outcome(one, f"/proc/{process.pid}/{way}") for way in ("cwd", f"root{place}/app")}
        assert outcome(one, place / "app") == str(place / "app")
        process.communicate(b"\n")
    if said == "mounted\n":
        for line in lines:
            assert line.startswith("cwd must be under workspace: /proc/"), lines


# --- a Makefile that is none ------------------------------------------------------------------------------------------


def make_fifo_for(path: Path, text: str | None = None, link: bool = False) -> None:
    """A fifo, and a Makefile that includes it or a link that leads to it."""
    os.mkfifo(path / "fifo")
    harness.give(path / "fifo", DEV1)
    if text is not None:
        write_tree(path, {"Makefile": text}, DEV1)
    if link:
        (path / "GNUmakefile").symlink_to("fifo")


ENDLESS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a fifo by option": (make_fifo_for, ["-f", "fifo"]),
    "a link to a fifo": (lambda path: make_fifo_for(path, link=True), []),
    "a link to an endless device": (lambda path: (path / "Makefile").symlink_to("/dev/zero"), []),
    "an include of a fifo": (lambda path: make_fifo_for(path, "include fifo\n"), []),
}
"""Makefiles that are never read to their end."""


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_build_that_waits_for_its_makefile_ends_when_its_caller_goes(kind: str, one: Service, place: Path) -> None:
    prepare, args = ENDLESS[kind]
    prepare(place)
    with RawCaller(one) as caller:
        caller.ask(*args, cwd=str(place), request_id=f"cancelled {kind}")
        one.daemon.await_log(f'build started .*request_id="?cancelled {kind}')
    one.daemon.await_log(f'build cancelled .*request_id="?cancelled {kind}')
    assert at_rest(one.daemon)


def test_builds_that_wait_for_their_makefiles_end_by_their_timeout(one: Service, place: Path) -> None:
    callers = []
    for number, (prepare, args) in enumerate(ENDLESS.values()):
        directory = place / str(number)
        directory.mkdir()
        harness.give(directory, DEV1)
        prepare(directory)
        callers.append(RawCaller(one).ask(*args, cwd=str(directory), timeout_sec=1))
    for caller in callers:
        with caller:
            exit_ = caller.exit()
            assert (exit_["code"], exit_["timed_out"]) == (124, True), caller.events
    assert at_rest(one.daemon)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "Makefile"))


NO_MAKEFILE: dict[str, Callable[[Path], None]] = {
    "a directory": lambda path: (path / "Makefile").mkdir(),
    "a socket": make_socket,
    "a link to an empty device": lambda path: (path / "Makefile").symlink_to("/dev/null"),
    "a link to nothing": lambda path: (path / "Makefile").symlink_to("gone"),
    "a link to itself": lambda path: (path / "Makefile").symlink_to("Makefile"),
}


@pytest.mark.parametrize("kind", NO_MAKEFILE)
def test_what_is_no_makefile_is_make_s_to_complain_of(kind: str, one: Service, place: Path) -> None:
    NO_MAKEFILE[kind](place)
    with RawCaller(one) as caller:
        assert caller.ask(cwd=str(place)).exit()["code"] == 2
        assert caller.text().startswith("make: "), caller.text()


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx"])
def test_a_device_is_no_makefile_of_the_workspace(device: str, one: Service, place: Path) -> None:
    (place / "link").symlink_to(device)
    for name in (device, "link"):
        line = outcome(one, place, "-f", name)
        assert line.startswith(f"-f must be under workspace: {name}"), line


# --- wild names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["new\nline", "\n", "a\r\x1b[2J\x07b", "\udc80\udcff", "caf\udce9 \udce2\udc82", "漢字", " ", "-C", "\\n", "$(X)"],
    ids=ascii,
)
def test_a_directory_of_any_name_is_built_in_and_is_one_line_of_the_log(name: str, one: Service, place: Path) -> None:
    directory = os.fsencode(place) + b"/" + name.encode("utf-8", "surrogateescape")
    os.mkdir(directory)
    os.chown(directory, DEV1.uid, DEV1.gid)
    text = "all:\n\t@readlink -n /proc/self/cwd\n"
    write_tree(place, {"build.mk": text}, DEV1)
    request_id = name.encode("utf-8", "surrogateescape").hex()
    built = one.run("--request-id", request_id, "make", "-f", "../build.mk", cwd=Path(os.fsdecode(directory)))
    assert (built.stdout, built.stderr, built.returncode) == (f"{place}/{name}", "", 0)
    one.daemon.await_log(f"build completed .*request_id={request_id}")
    lines = [line for line in one.daemon.log_path.read_text(errors="surrogateescape").split("\n") if line]
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z +[A-Z]+ build_service: ", line) and line.isprintable(), line


@pytest.mark.parametrize("part", [256, 4095, 4096, 100_000, 2])
@pytest.mark.parametrize("total", [4096, 4097, 100_000])
def test_a_directory_s_name_that_is_too_long_is_one_line(total: int, part: int, one: Service) -> None:
    long = (f"{one.workspace}/" + ("x" * (part - 1) + "/") * (total // part + 1))[:total]
    line = outcome(one, long)
    assert line == f"cwd must be under workspace: {long}: File name too long on the host"


def test_a_directory_too_deep_to_have_a_name_is_one_line_however_it_is_reached(one: Service, place: Path) -> None:
    """Each link on the way is short enough, and what they lead to has a name of more than 4096 bytes."""
    name = "d" * 250
    descriptor = os.open(place, os.O_PATH)
    for _ in range(20):
        os.mkdir(name, dir_fd=descriptor)
        deeper = os.open(name, os.O_PATH, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)
    (place / "half").symlink_to("/".join([name] * 10))
    reached = f"{place}/half/" + "/".join([name] * 10)
    line = outcome(one, reached)
    assert line == f"cwd must be under workspace: {reached}: File name too long on the host"
