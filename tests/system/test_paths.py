"""Directories held under the workspace, in real trees: what a name leads to counts, not what it looks like."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buildcore.system import paths
from buildcore.system.paths import PathError
from forked import in_child, in_child_as
from harness_world import DEV1, DEV2, User

SYSTEM_DIRECTORY = "/usr"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a workspace, one that looks like it, and a place outside of both."""
    for directory in ("workspace/app/sub", "workspace2/app", "outside"):
        (tmp_path / directory).mkdir(parents=True)
    for file in ("workspace/app/Makefile", "outside/x.mk"):
        (tmp_path / file).write_text("all: ;\n")
    return tmp_path


def entered(workspace: Path | str, *candidates: Path | str) -> tuple[str, str, int]:
    """The real names of the workspace and of the directory that is entered, and which candidate it was."""
    names = [str(candidate) for candidate in candidates]
    workspace_directory, cwd, index = paths.enter(str(workspace), names)
    try:
        return workspace_directory.real, cwd.real, index
    finally:
        paths.close_all((workspace_directory, cwd))


def refusal(workspace: Path | str, *candidates: Path | str) -> str:
    with pytest.raises(PathError) as caught:
        entered(workspace, *candidates)
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith("cwd must be under workspace: ")
    return line


@contextlib.contextmanager
def inside(workspace: Path, cwd: Path) -> Iterator[Callable[..., None]]:
    """check(COMMAND, ARG...) holds the arguments of a build in `cwd`."""
    root, directory, _ = paths.enter(str(workspace), [str(cwd)])
    try:
        yield lambda command, *args: paths.hold_arguments(command, args, directory, root)
    finally:
        paths.close_all((root, directory))


# --- the directory of a build -------------------------------------------------------------------------------------


def test_the_workspace_and_everything_below_it_may_be_entered(root: Path) -> None:
    workspace = root / "workspace"
    assert entered(workspace, workspace) == (str(workspace), str(workspace), 0)
    assert entered(workspace, workspace / "app/sub")[1] == str(workspace / "app/sub")
    assert entered(workspace, f"{workspace}//app/./sub/..//")[1] == str(workspace / "app")
    assert entered(workspace, root / "workspace2/../workspace/app")[1] == str(workspace / "app")


@pytest.mark.parametrize(
    "path", ["workspace2", "workspace2/app", "", "outside", "workspace/..", "workspace/app/../../outside"]
)
def test_nothing_else_may_be_entered(root: Path, path: str) -> None:
    workspace = root / "workspace"
    assert refusal(workspace, root / path).endswith(f" is not under {workspace}")


def test_a_symbolic_link_counts_as_what_it_leads_to(root: Path) -> None:
    workspace = root / "workspace"
    (workspace / "out").symlink_to("../outside")
    (workspace / "system").symlink_to(SYSTEM_DIRECTORY)
    (workspace / "in").symlink_to("app/sub")
    (root / "back").symlink_to("workspace/app")
    assert entered(workspace, workspace / "in")[1] == str(workspace / "app/sub")
    assert entered(workspace, root / "back")[1] == str(workspace / "app")
    assert entered(workspace, workspace / "in/..")[1] == str(workspace / "app")
    refusal(workspace, workspace / "out")
    refusal(workspace, workspace / "system/bin")
    refusal(workspace, workspace / "out/../workspace2")


def test_a_loop_of_symbolic_links_is_refused(root: Path) -> None:
    (root / "workspace/loop").symlink_to("loop")
    line = refusal(root / "workspace", root / "workspace/loop")
    assert line.endswith(": Too many levels of symbolic links on the host")


def test_the_workspace_may_itself_be_a_symbolic_link(root: Path) -> None:
    (root / "link").symlink_to("workspace")
    assert entered(root / "link", root / "link/app") == (str(root / "workspace"), str(root / "workspace/app"), 0)
    assert entered(root / "link", root / "workspace/app")[1] == str(root / "workspace/app")
    refusal(root / "link", root / "workspace2")


@pytest.mark.parametrize("workspace", ["gone", "workspace/app/Makefile"])
def test_a_workspace_that_is_no_directory_is_named(root: Path, workspace: str) -> None:
    assert str(root / workspace) in refusal(root / workspace, root)


def test_the_root_directory_may_be_a_workspace() -> None:
    assert entered("/", SYSTEM_DIRECTORY) == ("/", SYSTEM_DIRECTORY, 0)


def test_the_first_directory_that_exists_is_entered(root: Path) -> None:
    workspace = root / "workspace"
    assert entered(workspace, workspace / "gone", workspace / "app", workspace)[1:] == (str(workspace / "app"), 1)
    refusal(workspace, root / "outside", workspace / "app")


def test_when_none_exists_the_refusal_is_about_the_first(root: Path) -> None:
    workspace = root / "workspace"
    line = refusal(workspace, workspace / "app/Makefile", workspace / "gone")
    assert line == f"cwd must be under workspace: {workspace}/app/Makefile: Not a directory on the host"


def test_a_directory_that_was_deleted_is_refused(root: Path) -> None:
    workspace = root / "workspace"
    doomed = workspace / "doomed"
    doomed.mkdir()
    fd = os.open(doomed, os.O_PATH | os.O_DIRECTORY)
    try:
        doomed.rmdir()
        assert "No such file or directory" in refusal(workspace, f"/proc/self/fd/{fd}")
        (workspace / "doomed (deleted)").mkdir()  # what the kernel calls it now
        assert "No such file or directory" in refusal(workspace, f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    assert entered(workspace, workspace / "doomed (deleted)")[1] == str(workspace / "doomed (deleted)")


def test_swapping_the_directory_after_the_check_changes_nothing(root: Path) -> None:
    workspace = root / "workspace"
    held, cwd, _ = paths.enter(str(workspace), [str(workspace / "app")])
    (workspace / "app").rename(workspace / "moved")
    (workspace / "app").symlink_to(root / "outside")

    def enter_as_a_build_does() -> str:
        os.fchdir(cwd.fd)
        return os.getcwd()

    try:
        assert in_child(enter_as_a_build_does) == str(workspace / "moved")
    finally:
        paths.close_all((held, cwd))


@pytest.mark.parametrize("name", ["new\nline", "\x1b[2J", "caf\udce9", "漢", "'\" \\", " (deleted)", "-C"])
def test_a_name_may_hold_anything(root: Path, name: str) -> None:
    workspace = root / "workspace"
    raw = os.fsencode(workspace) + b"/" + name.encode("utf-8", "surrogateescape")
    os.mkdir(raw)
    assert entered(workspace, f"{workspace}/{name}")[1] == f"{workspace}/{name}"
    refusal(f"{workspace}/{name}", workspace)
    refusal(workspace, f"{root}/{name}")


@pytest.mark.parametrize("length", [256, 4095, 4096, 5000, 100_000])
def test_a_name_that_is_too_long_is_refused(root: Path, length: int) -> None:
    assert refusal(root / "workspace", f"{root}/workspace/{'x' * length}").endswith(": File name too long on the host")


def test_a_refusal_leaves_no_descriptor_open(root: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for candidate in (root / "outside", root / "gone"):
        refusal(root / "workspace", candidate)
    refusal(root / "gone", root)
    with inside(root / "workspace", root / "workspace/app") as check:
        opened = count()
        for arguments in (["-C", "../.."], ["-C", "sub", "-f", "/etc/passwd"], ["-f", "/proc/self/fd/1"]):
            with pytest.raises(PathError):
                check("make", *arguments)
        check("make", "-C", "sub", "-C", "..", "-f", "Makefile")
        assert count() == opened
    assert count() == before


# --- path options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["-C", "sub"],
        ["-Csub", "-C../..", "-f", "app/Makefile"],
        ["-C", ".", "-f", "-"],
        ["-f", "Makefile", "--file=../app/Makefile"],
        ["-C", "gone"],
        ["-f", "gone.mk"],
        ["-C", "gone/../sub"],
        ["-f", "Makefile/below"],
        ["-I", "/usr/include", "-I../../outside"],
        ["--", "-C", "/"],
        ["X=/etc/passwd", "/etc/passwd"],
    ],
)
def test_options_that_stay_in_the_workspace_are_left_to_make(root: Path, args: list[str]) -> None:
    with inside(root / "workspace", root / "workspace/app") as check:
        check("make", *args)


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["-C", "../.."], "-C"),
        (["-C", "/"], "-C"),
        (["-C", "..", "-C", ".."], "-C"),
        (["-C", "../../workspace2", "-C", "../workspace"], "-C"),
        (["-kC../../workspace2"], "-C"),
        (["--dir=../../outside", "-C", "../workspace/app"], "-C"),
        (["-C", "out"], "-C"),
        (["-C", "dangling"], "-C"),
        (["-C", "gone/../../../outside"], "-C"),
        (["-f", "/etc/passwd"], "-f"),
        (["-f", "../../outside/x.mk"], "-f"),
        (["all", "--makefile", "out/x.mk"], "-f"),
        (["-f", "link.mk"], "-f"),
        (["-f", "dangling"], "-f"),
        (["-f", "../../outside/gone.mk"], "-f"),
        (["-C", "..", "-f", "../outside/x.mk"], "-f"),
        (["-f", "/dev/zero"], "-f"),
    ],
)
def test_options_that_leave_the_workspace_are_refused_by_name(root: Path, args: list[str], option: str) -> None:
    app = root / "workspace/app"
    (app / "out").symlink_to("../../outside")
    (app / "link.mk").symlink_to("../../outside/x.mk")
    (app / "dangling").symlink_to("../../outside/gone")
    with inside(root / "workspace", app) as check:
        with pytest.raises(PathError) as caught:
            check("make", *args)
        assert str(caught.value).startswith(f"{option} must be under workspace: ")
        assert str(caught.value).isprintable()


def test_every_way_that_make_may_go_is_held(root: Path) -> None:
    """make 4.4 drops the second -C app and stays in the workspace; make 4.3 obeys it and leaves."""
    (root / "workspace/app/app").symlink_to(root / "outside")
    with inside(root / "workspace", root / "workspace") as check:
        with pytest.raises(PathError, match="^-C must be under workspace: app is not under"):
            check("make", "-C", "app", "-C", "app")


def test_what_has_no_name_of_its_own_is_refused_by_option(root: Path) -> None:
    reader, writer = os.pipe()
    try:
        with inside(root / "workspace", root / "workspace/app") as check:
            pipe = f"/proc/{os.getpid()}/fd/{reader}"
            with pytest.raises(PathError, match=f"^-f must be under workspace: {pipe}: No such file"):
                check("make", "-f", pipe)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_directory_too_deep_to_have_a_name_is_refused_by_option(root: Path) -> None:
    name = "d" * 250
    with inside(root / "workspace", root / "workspace/app") as check:
        fd = os.open(root / "workspace/app", os.O_PATH)
        for _ in range(18):
            os.mkdir(name, dir_fd=fd)
            deeper = os.open(name, os.O_PATH, dir_fd=fd)
            os.close(fd)
            fd = deeper
        os.close(fd)
        check("make", "-C", "/".join([name] * 15))
        with pytest.raises(PathError, match="^-C must be under workspace: d+: File name too long on the host$"):
            check("make", "-C", "/".join([name] * 15), *["-C", name] * 3)


@pytest.mark.parametrize(
    ("command", "allowed", "refused"),
    [
        ("ninja", ["-C", "sub"], ["-f", "../../outside/x.mk"]),
        ("cmake", ["-S", ".", "-B", "sub"], ["-B", "../../outside"]),
        ("cmake", ["--build", "sub"], ["--build", "/"]),
        ("scons", ["-C", "/"], None),
    ],
)
def test_each_command_is_held_by_its_own_options(
    root: Path, command: str, allowed: list[str], refused: list[str] | None
) -> None:
    with inside(root / "workspace", root / "workspace/app") as check:
        check(command, *allowed)
        if refused is not None:
            with pytest.raises(PathError):
                check(command, *refused)


# --- as the caller ------------------------------------------------------------------------------------------------


def outcome_as(user: User, workspace: Path, cwd: Path, *args: str) -> str:
    """What a session of this user makes of a build of make: the real directory, or the refusal."""

    def look() -> str:
        try:
            real = entered(workspace, cwd)[1]
            with inside(workspace, cwd) as check:
                check("make", *args)
        except PathError as exc:
            return str(exc)
        return real

    return str(in_child_as(user, look))


@pytest.mark.needs_root
def test_everything_is_looked_at_with_the_callers_rights(workspace: Callable[[User], Path]) -> None:
    private = workspace(DEV2)
    private.chmod(0o700)
    (private / "secret").mkdir()
    own = workspace(DEV1)
    (own / "link").symlink_to(private / "secret")
    assert outcome_as(DEV2, private, private / "secret") == str(private / "secret")
    for path in (private / "secret", private / "gone", own / "link"):
        line = outcome_as(DEV1, own, path)
        assert line == f"cwd must be under workspace: {path}: Permission denied on the host"
    assert "Permission denied" in outcome_as(DEV1, private, private)


@pytest.mark.needs_root
def test_a_path_option_tells_nothing_of_what_the_caller_cannot_see(workspace: Callable[[User], Path]) -> None:
    private = workspace(DEV2)
    private.chmod(0o700)
    (private / "secret.mk").write_text("")
    own = workspace(DEV1)
    lines = {outcome_as(DEV1, own, own, "-f", str(private / name)) for name in ("secret.mk", "gone.mk")}
    assert {line.replace("secret", "gone") for line in lines} == {
        f"-f must be under workspace: {private}/gone.mk is not under {own}"
    }


@pytest.mark.needs_root
def test_a_directory_that_cannot_be_read_but_passed_may_be_built_in(workspace: Callable[[User], Path]) -> None:
    own = workspace(DEV1)
    (own / "passage/app").mkdir(parents=True)
    (own / "passage").chmod(0o711)
    assert outcome_as(DEV1, own, own / "passage/app", "-C", "..") == str(own / "passage/app")
    (own / "passage").chmod(0o700)
    assert "Permission denied" in outcome_as(DEV1, own, own / "passage/app")
