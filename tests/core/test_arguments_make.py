"""The walker against the real GNU make: where make is and what it reads must be what the walker found.

A makefile of the scratch tree prints the directory that make is in and its own name. `MAKE_UNDER_TEST` names
another make (the default is the one on PATH), `ARGUMENTS_EXAMPLES` how many argument lists each test tries.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildcore.core.arguments import Role, directory_walks, makeflags_arguments, path_arguments

MAKE = os.environ.get("MAKE_UNDER_TEST", "make")
EXAMPLES = int(os.environ.get("ARGUMENTS_EXAMPLES", "300"))
TIMEOUT_SEC = 30
REAL_RUNS = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)

NAMES = ("a", "-C")
"""Each directory of the tree has one of each name; the second is there to be mistaken for an option."""
MAKEFILES = ("Makefile", "alt.mk", "-f")
MOST_DIRECTORIES = 3
"""How many -C options an argument list has at most, each up or down by one directory."""
START = "a/-C/a/-C"
"""Deep enough for as many steps up and "../alt.mk" after them."""
DEPTH = START.count("/") + 1 + MOST_DIRECTORIES
ROOT_MARK = "@"
"""Stands for the tree's root in a generated argument."""
STDIN_MARK = "<stdin>"

SHOW = "$(info @@ $(CURDIR) {name})\n.PHONY: all other\nall other: ;\n"

Reads = list[tuple[str, str]]
"""What make reads, in its order: the directory it is in, and the makefile's path."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    level = [root]
    for _ in range(DEPTH + 1):
        for directory in level:
            directory.mkdir(exist_ok=True)
            for name in MAKEFILES:
                (directory / name).write_text(SHOW.format(name="$(lastword $(MAKEFILE_LIST))"))
        level = [directory / name for directory in level for name in NAMES]
    return root


@pytest.fixture(scope="module")
def since_4_4() -> bool:
    """Whether the make under test drops a -C that repeats another, and obeys a -C or -f in MAKEFLAGS."""
    ask = [MAKE, "--version"]
    output = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=TIMEOUT_SEC)
    version = re.match(r"GNU Make (\d+)\.(\d+)", output.stdout)
    assert version, output.stdout
    return (int(version[1]), int(version[2])) >= (4, 4)


def reads_of_make(args: list[str], cwd: str, makeflags: str = "") -> Reads:
    """What the real make reads. An empty list: it stopped before it read anything."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "MAKEFLAGS": makeflags}
    output = subprocess.run(
        [MAKE, *args], cwd=cwd, env=environment, timeout=TIMEOUT_SEC,
        input=SHOW.format(name=STDIN_MARK), capture_output=True, text=True, check=False,
    ).stdout
    marks = [line.split(" ", 2)[1:] for line in output.splitlines() if line.startswith("@@ ")]
    return [(where, posixpath.normpath(posixpath.join(where, name))) for where, name in marks]


def reads_as_found(args: list[str], cwd: str, since_4_4: bool, makeflags: str = "") -> Reads:
    """What make reads, going by the walker."""
    found = (*path_arguments("make", makeflags_arguments(makeflags)), *path_arguments("make", args))
    walk = directory_walks("make", found)[-1 if since_4_4 else 0]
    end = posixpath.normpath(posixpath.join(cwd, *(step.value for step in walk)))
    files = [path.value for path in found if path.role is Role.PATH]
    return [(end, posixpath.normpath(posixpath.join(end, name))) for name in files or ["Makefile"]]


def without_stdin(reads: Reads) -> Reads:
    return [(where, path) for where, path in reads if posixpath.basename(path) != STDIN_MARK]


def spelled(letter: str, names: list[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """An option with a value in every form; `names` are long names and abbreviations that make accepts."""
    cluster = st.sampled_from(["-", "-k", "-ks", "-rRn"]).map(lambda flags: flags + letter)
    name = st.sampled_from(names)
    return st.one_of(
        st.builds(lambda option, value: [option, value], cluster, values),
        st.builds(lambda option, value: [option + value], cluster, values),
        st.builds(lambda option, value: [f"--{option}", value], name, values),
        st.builds(lambda option, value: [f"--{option}={value}"], name, values),
    )


DIRECTORIES = st.sampled_from("a -C .. . ./a .//-C ../-C a/.. ./.. @/a/a/a @//a/./-C/a".split())
FILES = st.sampled_from("Makefile alt.mk -f ./alt.mk .//-f ../alt.mk @/-C/alt.mk @/Makefile".split())
DIRECTORY_OPTION = spelled("C", ["directory", "director", "dire", "di"], DIRECTORIES)
MAKEFILE_OPTION = spelled("f", ["file", "fil", "f", "makefile", "makef", "mak"], FILES)
OTHER_WITH_VALUE = st.one_of(
    spelled("I", ["include-dir", "inc"], st.sampled_from([ROOT_MARK, "-C", "-fx", "/usr/include"])),
    spelled("o", ["old-file", "assume-old", "old"], st.sampled_from(["other", "-Ca", "--directory=a", "--"])),
    spelled("W", ["what-if", "new-file", "assume-new", "wh"], st.sampled_from(["other", "-f", "-", "--"])),
    spelled("E", ["eval", "ev"], st.sampled_from(["X=1", "-C=1", "--file=a"])),
)
FLAGS = st.sampled_from(
    "-k -s -n -q -t -r -R -B -i -e -w -S -L -b -m -rR -ksn -j2 -l9 -Oline -kj4 --debug=n --trace --touch "
    "--keep-going --keep --quiet --jobs=2 --load-average=9 --output-sync=none --no-print-directory "
    "--no-print --warn-undefined-variables --environment-overrides --just-p --recon".split()
).map(lambda flag: [flag])
WITHOUT_ITS_VALUE = st.sampled_from(
    "-j -l -O -kj -nl --jobs --load-average --max-load --output-sync --out".split()
).map(lambda flag: [flag])
OPERANDS = st.sampled_from(
    [["all"], ["C"], ["X=1"], ["C=-C"], ["-"], ["-j", "2"], ["-l", "2.5"], ["-j", "all"], ["-l", ".5"]]
)
AFTER_TWO_DASHES = st.lists(st.sampled_from(["all", "-C", "-falt.mk", "--directory=a", "--"]), max_size=3)
NO_ENDING: list[str] = []
ENDING = st.just(NO_ENDING) | AFTER_TWO_DASHES.map(lambda rest: ["--", *rest])


@st.composite
def accepted_lists(draw: st.DrawFn) -> list[str]:
    """Argument lists that every make accepts and that lead to directories and makefiles of the tree."""
    words = draw(st.lists(DIRECTORY_OPTION, max_size=MOST_DIRECTORIES))
    others = st.one_of(MAKEFILE_OPTION, OTHER_WITH_VALUE, FLAGS, WITHOUT_ITS_VALUE, OPERANDS)
    words += draw(st.lists(others, max_size=5))
    words = draw(st.permutations(words))
    return [string for word in [*words, draw(ENDING)] for string in word]


FRAGMENTS = st.one_of(
    DIRECTORY_OPTION, MAKEFILE_OPTION, OTHER_WITH_VALUE, FLAGS, WITHOUT_ITS_VALUE, OPERANDS,
    st.sampled_from(
        "-C -f -I -W -E -o --directory --file --makef --eval -- - -f- -fx -Cx -C- --dir= --file= -kCs -h -v "
        "--d --d=a --di --ma=alt.mk --m=alt.mk --directoryx=a --file-=alt.mk --keep-going=a --=a --w --j=1 "
        "--jobserver-auth --jobserver-fds=a --jobserver-style --jobserver --sync-mutex --sy --shuffle --sh=a "
        "--no --n --a=a --assume --ass=a --o --de --t --tr --E -xC -x -: -C: --dIrectory=a -D -c".split()
    ).map(lambda word: [word]),
    st.text(alphabet="-Cfkj=a./IWo", max_size=6).map(lambda word: [word]),
)


@st.composite
def any_lists(draw: st.DrawFn) -> list[str]:
    """Argument lists with whatever make may refuse among them."""
    return [string for word in draw(st.lists(FRAGMENTS, max_size=6)) for string in word]


@st.composite
def makeflags(draw: st.DrawFn) -> str:
    """Values of MAKEFLAGS that every make accepts, the first word perhaps without its dash."""
    options = st.one_of(DIRECTORY_OPTION, MAKEFILE_OPTION, FLAGS, st.just(["X=a\\b"]), st.just(["X=$"]))
    chosen = draw(st.lists(options, max_size=MOST_DIRECTORIES - 1))
    words = [string for word in chosen for string in word] + draw(ENDING)
    if words and re.match("-[a-zA-Z]", words[0]) and draw(st.booleans()):
        words[0] = words[0][1:]
    if any(word.startswith("--") for word in words[:1]) and draw(st.booleans()):
        words.insert(0, "k")
    escaped = [re.sub(r"[\\ ]", r"\\\g<0>", word).replace("$", "$$") for word in words]
    return draw(st.sampled_from(["", " ", "\n\t "])) + draw(st.sampled_from([" ", "\t", "  "])).join(escaped)


def placed(args: list[str], root: Path) -> list[str]:
    return [arg.replace(ROOT_MARK, str(root)) for arg in args]


def test_make_goes_where_the_walker_says_and_reads_what_it_says(tree: Path, since_4_4: bool) -> None:
    cwd = str(tree / START)

    @REAL_RUNS
    @given(accepted_lists())
    def check(generated: list[str]) -> None:
        args = placed(generated, tree)
        assert reads_of_make(args, cwd) == reads_as_found(args, cwd, since_4_4)

    check()


def test_whatever_make_reads_the_walker_found(tree: Path, since_4_4: bool) -> None:
    cwd = str(tree / START)
    compared = 0

    @REAL_RUNS
    @given(any_lists())
    def check(generated: list[str]) -> None:
        nonlocal compared
        args = placed(generated, tree)
        reads = reads_of_make(args, cwd)
        if reads:
            compared += 1
            expected = reads_as_found(args, cwd, since_4_4)
            assert {end for end, _ in reads} == {end for end, _ in expected}
            # make stops at a makefile that it cannot read, and reads no default one beside standard input
            actual = without_stdin(reads)
            assert actual == [read for read in expected if os.path.isfile(read[1])][: len(actual)]

    check()
    assert compared >= EXAMPLES // 10, "too few of the argument lists made make read anything"


def test_make_obeys_makeflags_as_the_walker_reads_it_or_not_at_all(tree: Path, since_4_4: bool) -> None:
    cwd = str(tree / START)

    @REAL_RUNS
    @given(makeflags(), st.lists(DIRECTORY_OPTION | MAKEFILE_OPTION, max_size=1))
    def check(generated: str, words: list[list[str]]) -> None:
        (flags,) = placed([generated], tree)
        args = placed([string for word in words for string in word], tree)
        expected = reads_as_found(args, cwd, since_4_4, flags if since_4_4 else "")
        assert reads_of_make(args, cwd, flags) == expected

    check()
