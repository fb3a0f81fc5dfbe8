"""The names of what is not there, and names that are too long: as the kernel has them, and each looked at once."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildcore.core.errors import BuildError
from buildcore.system import paths
from forked import in_child

PATH_SEC = 2.0
"""Far more than one name may take, and far less than looking at each of its beginnings takes."""


DEPTH = 2000
DEEP_SEC = 0.4
"""It takes a tenth of that, and twice as much where each directory is looked for from the first on."""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Directories, files and links, those that lead nowhere or in circles among them."""
    root = tmp_path.resolve() / "workspace"
    (root / "a/b").mkdir(parents=True)
    (root / "a/file").touch()
    (tmp_path / "outside").mkdir()
    links = {
        "up": "..", "down": "a/b", "whole": str(root / "a"), "gone": "a/not", "out": "../outside", "round": "round",
        "there": "back", "back": "there", "a/b/far": "../../gone/x", "root": "/", "dots": "./a//./b/.",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


def hold(workspace: Path, *args: str, cwd: str = ".") -> None:
    root, directory, _ = paths.enter(str(workspace), [os.path.normpath(workspace / cwd)])
    try:
        paths.hold_arguments("make", args, directory, root)
    finally:
        paths.close_all((root, directory))


def refusal(workspace: Path, *args: str) -> str:
    with pytest.raises(BuildError) as refused:
        hold(workspace, *args)
    return str(refused.value)


PARTS = st.sampled_from(
    ["a", "b", "file", "not", "up", "down", "whole", "gone", "out", "far", "root", "dots", "round", ".", ""]
)
"""No "..": behind what is missing realpath takes one for a way back, and no system call does (path_resolution(7))."""


def test_what_is_not_there_has_the_name_that_it_would_have(workspace: Path) -> None:
    """Compared with os.path.realpath, which looks at each beginning of a name anew."""

    @settings(
        max_examples=500, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(PARTS, min_size=1, max_size=6), st.booleans())
    def check(parts: list[str], absolute: bool) -> None:
        path = "/".join(parts) if not absolute else f"{workspace}/" + "/".join(parts)
        base = paths.open_directory(str(workspace))
        try:
            found = os.fsdecode(paths._name_without_file(os.fsencode(path), base))
        finally:
            base.close()
        assert found == os.path.realpath(workspace / path)

    check()


@pytest.mark.parametrize(
    "path",
    ["not", "not/deep", "down/not", "gone", "gone/x", "a/b/far", "whole/not", "round", "round/x", "there", "file/x"],
)
def test_a_name_below_the_workspace_is_the_tool_s_to_miss(path: str, workspace: Path) -> None:
    hold(workspace, "-f", path)
    hold(workspace, "-C", path, "-f", "x")
    hold(workspace, "-f", str(workspace / path))


@pytest.mark.parametrize("path", ["out/not", "../not", "up/not", "root/not", "/not", "gone/../../../../not", "out/a/b"])
def test_a_name_that_leads_out_is_refused_though_nothing_is_there(path: str, workspace: Path) -> None:
    assert refusal(workspace, "-f", path) == f"-f must be under workspace: {path} is not under {workspace}"


@pytest.mark.parametrize("option", ["-f", "-C"])
@pytest.mark.parametrize("part", [256, 2, 4096, 1 << 20], ids=str)
@pytest.mark.parametrize("total", [4096, 1 << 20])
def test_a_name_that_is_too_long_is_refused_in_one_line(total: int, part: int, option: str, workspace: Path) -> None:
    name = (("x" * (part - 1) + "/") * (total // part + 1))[:total]
    begin = time.process_time()
    line = refusal(workspace, option, name)
    assert line == f"{option} must be under workspace: {name}: File name too long on the host"
    assert time.process_time() - begin < PATH_SEC


def test_a_component_that_is_too_long_is_refused_where_the_kernel_gets_to_it(workspace: Path) -> None:
    name = "x" * 256
    assert refusal(workspace, "-f", f"a/{name}").endswith(": File name too long on the host")
    hold(workspace, "-f", f"not/{name}")  # the kernel ends at what is not there


def test_names_that_are_too_long_together_are_refused(workspace: Path) -> None:
    part = "x" * 200
    line = refusal(workspace, *["-C", part] * 30)
    assert line == f"-C must be under workspace: {part}: File name too long on the host"


def test_links_that_lead_to_a_name_that_is_too_long_are_refused(workspace: Path) -> None:
    for number in range(30):
        (workspace / f"link{number}").symlink_to(f"link{number + 1}/" + "x" * 200)
    assert refusal(workspace, "-f", "link0").endswith(": File name too long on the host")


def test_the_longest_name_is_looked_at_once(workspace: Path) -> None:
    """Directories inside each other as deep as a name can say, the last one missing."""
    here = os.open(workspace, os.O_PATH)
    for _ in range(DEPTH):
        with contextlib.suppress(FileExistsError):
            os.mkdir("a", dir_fd=here)
        above, here = here, os.open("a", os.O_PATH, dir_fd=here)
        os.close(above)
    os.close(here)
    begin = time.process_time()
    hold(workspace, *["-f", "/".join(["a"] * DEPTH) + "/not"] * 10)
    spent = time.process_time() - begin
    subprocess.run(["rm", "-r", workspace / "a"], check=True)
    assert spent < DEEP_SEC


def test_any_number_of_directories_takes_no_more_descriptors(workspace: Path) -> None:
    def with_few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        hold(workspace, *["-C", "a", "-C", ".."] * 500)

    in_child(with_few_descriptors)


def test_a_machine_without_descriptors_is_not_taken_for_a_missing_file(workspace: Path) -> None:
    root, directory, _ = paths.enter(str(workspace), [str(workspace)])

    def without_descriptors() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        try:
            paths.hold_arguments("make", ["-f", "out/x"], directory, root)
        except OSError as exc:
            return str(exc.strerror)
        return "nothing was said"

    try:
        assert in_child(without_descriptors) == "Too many open files"
    finally:
        paths.close_all((root, directory))
