"""A project of autoconf and automake is configured, built, tested, installed through the service as it is directly.

`./configure` runs where it is typed, in the container; what it asks make, and the makefile that its last step pipes
into `make -f -`, go through the wrapper.
"""

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
from harness_world import DEV1, inside

pytestmark = tools.needed("autoconf", "automake", *tools.TO_COMPILE, "ar")

MASKS = {
    r"(.*/)?config\.log": r"(?m)^PATH: .*\n",  # each directory that it looked into, the wrapper's among them
    r"autom4te\.cache/.*": r"(?s).*",  # Perl writes its hashes in another order each time
    r"words-1\.0\.tar\.gz": r"(?s).*",  # with the times of its files; what is in it is unpacked and compared
}
SCRATCH = r"am-dc-\d+"
"""The directory that distcheck installs into has a pid in its name."""

CONFIGURE = "./configure --prefix=/opt/words"


@pytest.fixture
def flavour() -> str:
    return both_ways.FLAVOUR


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """The project as it is released, with its configure."""
    caller = DEV1 if inside() else harness.current_user()
    directory = harness.open_directory(caller)
    harness.write_tree(directory, real_trees.AUTOTOOLS, caller)
    made = harness.run_as(caller, ["autoreconf", "--install"], directory, timeout=both_ways.STEP_SEC)
    assert made.returncode == 0, made.stderr
    yield directory
    shutil.rmtree(directory)


def test_it_is_configured_built_checked_installed_and_packed_the_same(service: Service, tree: Path) -> None:
    """distcheck has what it packed built, tested, installed and taken away again elsewhere."""
    commands = f"""
{CONFIGURE}
make
make 2>&1
make clean
make -s
make check
make install DESTDIR=$PWD/stage
DESTDIR=$PWD/stage-2 make install
make uninstall DESTDIR=$PWD/stage
make distcheck
mkdir unpacked && tar -xzf words-1.0.tar.gz -C unpacked
"""

    def typed(way: Way) -> Sequence[Shown]:
        return [*way.types(commands), way.types_at_terminal("make check")]

    done = same_both_ways(service, tree, typed, MASKS, SCRATCH)
    assert {shown.code for shown in done.shown} == {0}
    assert "Nothing to be done" in done.shown[2].stdout
    assert "\x1b[0;32mPASS\x1b[m: one\r\n" in done.shown[-1].stdout
    assert {"src/words", "stage-2/opt/words/bin/words", "unpacked/words-1.0/src/main.c"} <= set(done.left)
    assert done.left["stage-2/opt/words/share/doc/words/README"].content == "NOTES"
    piped = [line for line in both_ways.builds(service) if "am--depfiles" in line]
    assert piped and all('"-f","-"' in line for line in piped)


def test_a_test_that_is_added_and_fails_is_built_and_fails_the_same(service: Service, tree: Path) -> None:
    """Its Makefile is made anew, by automake and config.status on the host, and by a parallel build."""
    commands = f"""
{CONFIGURE}
make
cp tests/later.sh tests/added.sh && echo exit 1 > tests/added.sh
echo 'TESTS += added.sh' >> tests/Makefile.am
make -j4 2>&1 | sort
make check 2>&1
make -k check
"""
    done = same_both_ways(service, tree, lambda way: way.types(commands), MASKS)
    assert [shown.code for shown in done.shown] == [0, 0, 0, 0, 0, 2, 2]
    remade, failed = done.shown[4].stdout, done.shown[5].stdout
    assert "automake" in remade and "config.status: creating tests/Makefile" in remade
    assert "FAIL: added.sh" in failed
