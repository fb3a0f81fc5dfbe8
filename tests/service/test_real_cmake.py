"""A project of cmake is configured, built by ninja and by make, tested, installed through the service as directly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import both_ways
import harness
import real_trees
import tools
from both_ways import Shown, Way, same_both_ways
from daemon import Service

pytestmark = tools.needed("cmake", "ninja", *tools.TO_COMPILE)

MASKS = {
    r".*/\.ninja_deps": r"(?s).*",  # times between paths, in binary
    r".*/\.ninja_log": r"(?m)^\d+\t\d+\t\d+\t",  # times
    r".*/Testing/Temporary/.*": r"(?s).*",  # times
    r".*/CMakeFiles/CMake\w+\.(log|yaml)": r"cmTC_\w{5}|TryCompile-\w{6}|/tmp/cc\w{6}",  # random names
}
SECONDS = r"\d+\.\d\d sec"
"""How long a test took."""

CONFIGURE = "cmake -S . -B build -G Ninja"


@pytest.fixture
def flavour() -> str:
    return both_ways.FLAVOUR


@pytest.fixture
def tree() -> Iterator[Path]:
    directory = harness.write_tree(harness.open_directory(), real_trees.CMAKE)
    yield directory
    shutil.rmtree(directory)


def test_it_is_configured_built_by_ninja_checked_and_installed_the_same(service: Service, tree: Path) -> None:
    commands = f"""
{CONFIGURE}
ninja -C build -j1
cd build && ninja
cmake --build build --target test
DESTDIR=$PWD/stage cmake --install build --prefix /opt/words
touch made.in
cmake --build build -v -j1 2>&1
ninja -C build -t clean
NINJA_STATUS='%f of %t ' ninja -C build -j1
"""
    done = same_both_ways(service, tree, lambda way: way.types(commands), MASKS, SECONDS)
    assert {shown.code for shown in done.shown} == {0}
    assert done.shown[2].stdout == "ninja: no work to do.\n"
    assert "6 of 6 Linking" in done.shown[-1].stdout
    assert {"build/words", "stage/opt/words/bin/words"} <= set(done.left)


def test_it_is_built_by_make_and_configured_anew_the_same(service: Service, tree: Path) -> None:
    """By makefiles of cmake, which call cmake and make themselves."""
    commands = """
cmake -B build 2>&1
make -C build
make -C build test
cmake -B build -DSHOUT=ON
make -C build install DESTDIR=$PWD/stage
echo >> CMakeLists.txt
cd build && make VERBOSE=1 2>&1
"""
    done = same_both_ways(service, tree, lambda way: way.types(commands), MASKS, SECONDS)
    assert {shown.code for shown in done.shown} == {0}
    assert "Nobody listens" in done.shown[3].stderr and "Nobody listens" in done.shown[6].stdout
    assert {"build/words", "stage/usr/local/bin/words"} <= set(done.left)


def test_errors_are_the_same(service: Service, tree: Path) -> None:
    commands = f"""
{CONFIGURE}
echo error >> src/main.c
ninja -C build -j1 -k 0
cmake --build build -j1 2>&1
ninja -C build no-such-target
echo 'no_such_command()' >> CMakeLists.txt
ninja -C build
cmake build
"""
    done = same_both_ways(service, tree, lambda way: way.types(commands), MASKS)
    assert [shown.code for shown in done.shown] == [0, 0, 1, 1, 1, 0, 1, 1]


def test_at_a_terminal_progress_and_colours_are_the_same(service: Service, tree: Path) -> None:
    """ninja writes over its last line; cmake's makefiles and its warnings are coloured."""
    at_terminal = ["ninja -C build -j1", "make -C unix", "cmake -B build -DSHOUT=ON"]

    def typed(way: Way) -> Sequence[Shown]:
        return [*way.types(f"{CONFIGURE}\ncmake -B unix"), *map(way.types_at_terminal, at_terminal)]

    done = same_both_ways(service, tree, typed, MASKS)
    assert {shown.code for shown in done.shown} == {0}
    by_ninja, by_make, by_cmake = [shown.stdout for shown in done.shown[2:]]
    assert "\r[6/6] Linking C executable words\x1b[K\r\n" in by_ninja
    assert "\x1b[32mBuilding C object" in by_make
    assert "\x1b[33mCMake Warning" in by_cmake
