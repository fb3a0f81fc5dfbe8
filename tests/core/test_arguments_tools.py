"""The walker against the real ninja and the real cmake: what they enter and read must be what was found.

`NINJA_UNDER_TEST` and `CMAKE_UNDER_TEST` name others than those on PATH; `ARGUMENTS_EXAMPLES` says how many
argument lists ninja is tried with (cmake is slow and gets a tenth).
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tools
from buildcore.core.arguments import PathArgument, Role, directory_walks, path_arguments

NINJA = os.environ.get("NINJA_UNDER_TEST", "ninja")
CMAKE = os.environ.get("CMAKE_UNDER_TEST", "cmake")
EXAMPLES = int(os.environ.get("ARGUMENTS_EXAMPLES", "300"))
CMAKE_SHARE = 10
TIMEOUT_SEC = 60
ROOT_MARK = "@"
"""Stands for the scratch directory's path in a generated argument."""

needs_ninja = tools.needed(*["ninja"] if NINJA == "ninja" else [])
needs_cmake = tools.needed(*["cmake"] if CMAKE == "cmake" else [])


def real_runs(examples: int) -> settings:
    too_slow = [HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, database=None, suppress_health_check=too_slow)


def run(command: str, args: list[str], cwd: Path, home: Path | None = None) -> str:
    """What the tool prints, errors too."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(home or cwd)}
    return subprocess.run(
        [command, *args], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, timeout=TIMEOUT_SEC,
    ).stdout


def ends(command: str, found: tuple[PathArgument, ...], cwd: Path) -> list[str]:
    """The directories that the walks lead to."""
    walks = directory_walks(command, found)
    return [posixpath.normpath(posixpath.join(cwd, *(step.value for step in walk))) for walk in walks]


def lists_of(words: st.SearchStrategy[list[str]], most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(words, max_size=most).map(lambda chosen: [string for word in chosen for string in word])


def placed(args: list[str], root: Path) -> list[str]:
    return [arg.replace(ROOT_MARK, str(root)) for arg in args]


# ninja

NINJA_NAMES = ("a", "-C")
NINJA_FILES = ("build.ninja", "alt.ninja", "-")
NINJA_START = "a/-C"
NINJA_DEPTH = 4

_NINJA_DIRECTORIES = st.sampled_from("a -C .. . ./a a/.. ../a @/-C".split())
_NINJA_FILES = st.sampled_from("build.ninja alt.ninja - ../alt.ninja @/a/alt.ninja".split())


def ninja_forms(option: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    cluster = st.sampled_from(["-", "-n", "-vn"]).map(lambda flags: flags + option)
    apart = st.builds(lambda name, value: [name, value], cluster, values)
    return apart | st.builds(lambda name, value: [name + value], cluster, values)


NINJA_WORDS = st.one_of(
    ninja_forms("C", _NINJA_DIRECTORIES),
    ninja_forms("f", _NINJA_FILES),
    st.sampled_from(
        "-v -n -j2 -k0 -l9 -wdupbuild=err -dstats --verbose --verb x -j -k -C -f -- -t -h --version --ver "
        "--quiet -tclean -x -nx --C=a --file=a -dC -w".split()
    ).map(lambda word: [word]),
    st.sampled_from(
        ["-j 2", "-k 0", "-d stats", "-w dupbuild=err", "-t targets", "-t commands"]
    ).map(str.split),
)


@pytest.fixture(scope="module")
def ninja_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories with build files whose only command, and only target, tell the file's own path."""
    root = tmp_path_factory.mktemp("ninja")
    level = [root]
    for _ in range(NINJA_DEPTH + 1):
        for directory in level:
            directory.mkdir(exist_ok=True)
            for name in NINJA_FILES:
                shown = f"@@{directory / name}@@"
                rule = f"rule show\n  command = : {shown}\n  description = {shown}\n"
                (directory / name).write_text(f"{rule}build x: show\nbuild {shown}: phony x\n")
        level = [directory / name for directory in level for name in NINJA_NAMES]
    return root


@needs_ninja
def test_ninja_reads_the_file_that_the_walker_found(ninja_tree: Path) -> None:
    cwd = ninja_tree / NINJA_START
    compared = 0

    @real_runs(EXAMPLES)
    @given(lists_of(NINJA_WORDS, most=5))
    def check(generated: list[str]) -> None:
        nonlocal compared
        args = placed(generated, ninja_tree)
        files = set(re.findall("@@(.*?)@@", run(NINJA, args, cwd)))
        if files:
            compared += 1
            found = path_arguments("ninja", args)
            (end,) = ends("ninja", found, cwd)
            named = [path.value for path in found if path.role is Role.PATH]
            assert files == {posixpath.normpath(posixpath.join(end, (named or ["build.ninja"])[-1]))}

    check()
    assert compared >= EXAMPLES // 10, "too few of the argument lists made ninja read anything"


@needs_ninja
def test_ninja_takes_a_tilde_literally(tmp_path: Path) -> None:
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "build.ninja").write_text("rule r\n  command = : @@\nbuild x: r\n")
    assert "@@" in run(NINJA, ["-v", "-C", "~"], tmp_path)


# cmake

CMAKE_LISTS = """cmake_minimum_required(VERSION 3.13)
project(scratch NONE)
message("@@source ${CMAKE_SOURCE_DIR}@@")
message("@@build ${CMAKE_BINARY_DIR}@@")
message("@@prefix ${CMAKE_INSTALL_PREFIX}@@")
add_custom_target(show ALL COMMAND ${CMAKE_COMMAND} -E echo built)
install(CODE "message(\\"@@install ${CMAKE_CURRENT_BINARY_DIR}@@\\")")
"""
CMAKE_SCRIPT = 'message("@@script ${CMAKE_CURRENT_LIST_FILE}@@")\n'

_SOURCES = st.sampled_from("src other ./src ../tree/other @/src sub/../src".split())
_BUILDS = st.sampled_from("out ./out2 sub/out @/out3 ../tree/out".split())
_SCRIPTS = st.sampled_from("s.cmake ./t.cmake sub/s.cmake @/t.cmake".split())


def cmake_forms(option: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.one_of(
        values.map(lambda value: [option, value]),
        values.map(lambda value: [option + value]),
        values.map(lambda value: [f"{option}={value}"]),
    )


CMAKE_WORDS = st.one_of(
    cmake_forms("-S", _SOURCES), cmake_forms("-B", _BUILDS),
    cmake_forms("-C", _SCRIPTS), cmake_forms("-P", _SCRIPTS),
    _SOURCES.map(lambda value: [value]), _SOURCES.map(lambda value: ["-H" + value]),
    st.sampled_from(
        [
            ["-D", "A=b"], ["-DA=src"], ["-U", "src"], ["-W", "no-dev"], ["-G", "Unix Makefiles"], ["-L"],
            ["--log-level=NOTICE"], ["--log-level", "NOTICE"], ["--install-prefix=/x"], ["--graphviz=g.dot"],
            ["--install-prefix", "/x"], ["-N"], ["--"], ["-S"], ["-P"], ["-E"], ["--build", "src"],
        ]
    ),
)


@pytest.fixture(scope="module")
def cmake_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cmake") / "tree"
    for source in ("src", "other", "home/src"):
        (root / source).mkdir(parents=True)
        (root / source / "CMakeLists.txt").write_text(CMAKE_LISTS)
    (root / "sub").mkdir()
    for script in ("s.cmake", "t.cmake", "sub/s.cmake"):
        (root / script).write_text(CMAKE_SCRIPT)
    return root


def shown(output: str) -> list[tuple[str, str]]:
    return re.findall(r"@@(\w+) (.*?)@@", output)


@needs_cmake
def test_whatever_cmake_reads_or_builds_in_the_walker_found(cmake_tree: Path) -> None:
    compared = 0

    @real_runs(max(EXAMPLES // CMAKE_SHARE, 1))
    @given(lists_of(CMAKE_WORDS, most=4))
    def check(generated: list[str]) -> None:
        nonlocal compared
        args = placed(generated, cmake_tree)
        for left in ("out", "out2", "out3", "sub/out", "CMakeFiles"):
            shutil.rmtree(cmake_tree / left, ignore_errors=True)
        (cmake_tree / "CMakeCache.txt").unlink(missing_ok=True)
        output = shown(run(CMAKE, args, cmake_tree))
        found = path_arguments("cmake", args)
        assert ends("cmake", found, cmake_tree) in ([str(cmake_tree)], [str(cmake_tree / "src")])
        held = {posixpath.normpath(cmake_tree / path.value) for path in found if path.role is Role.PATH}
        free = {path.value for path in found if path.role is Role.FREE}
        for what, path in output:
            compared += 1
            assert path in (free | {"/usr/local"} if what == "prefix" else held | {str(cmake_tree)}), what

    check()
    assert compared >= EXAMPLES // CMAKE_SHARE // 3, "too few of the argument lists made cmake read anything"


@needs_cmake
@pytest.mark.parametrize("option", ["-S", "-B", "-C"])
def test_cmake_expands_a_tilde_and_the_walker_says_so(cmake_tree: Path, option: str) -> None:
    home = cmake_tree / "home"
    (home / "s.cmake").write_text(CMAKE_SCRIPT)
    values = {"-S": "src", "-B": "out", "-C": "s.cmake"}
    values[option] = "~/" + values[option]
    args = [name + value for name, value in values.items()]
    shutil.rmtree(cmake_tree / "out", ignore_errors=True)
    output = shown(run(CMAKE, args, cmake_tree, home))
    assert [path for _, path in output if path.startswith(str(home))] == [str(home / values[option][2:])]
    assert [path.value for path in path_arguments("cmake", args) if path.expands_home] == [values[option]]


@needs_cmake
@pytest.mark.parametrize("generator", ["Unix Makefiles", "Ninja"])
@pytest.mark.parametrize(
    "native", [[], ["-C", "in/b"], ["-Cin", "-C", "b"], ["all", "-C", "in", "-C", "."], ["-j2", "--", "all"]]
)
def test_cmake_builds_where_one_of_the_walks_ends(tmp_path: Path, generator: str, native: list[str]) -> None:
    if generator == "Ninja":
        tools.need("ninja")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "CMakeLists.txt").write_text(
        CMAKE_LISTS.replace("-E echo built", "-E echo @@built ${CMAKE_BINARY_DIR}@@")
    )
    for directory in ("b", "b/in", "b/in/b", "b/b"):
        configured = run(CMAKE, ["-G", generator, "-S", "src", "-B", directory], tmp_path)
        assert "Build files have been written to" in configured
    args = ["--build", "b", *(["--", *native] if native else [])]
    built = {path for what, path in shown(run(CMAKE, args, tmp_path)) if what == "built"}
    assert len(built) == 1
    assert built <= set(ends("cmake", path_arguments("cmake", args), tmp_path))


@needs_cmake
def test_cmake_installs_from_the_held_directory(cmake_tree: Path) -> None:
    shutil.rmtree(cmake_tree / "out", ignore_errors=True)
    run(CMAKE, ["-S", "src", "-B", "out"], cmake_tree)
    args = ["--install", "sub/../out", "--prefix", "/opt/x"]
    assert ("install", str(cmake_tree / "out")) in shown(run(CMAKE, args, cmake_tree))
    held = [path.value for path in path_arguments("cmake", args) if path.role is Role.PATH]
    assert held == ["sub/../out"]
