"""MAKEFILES, the variable that names makefiles to read: the walker against the real GNU make, and what is refused.

With the tree and the spellings of test_arguments_make; `MAKE_UNDER_TEST` and `ARGUMENTS_EXAMPLES` are as there.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_arguments_make import (
    DIRECTORY_OPTION,
    ENDING,
    FILES,
    FLAGS,
    MAKE,
    MAKEFILE_OPTION,
    MOST_DIRECTORIES,
    OPERANDS,
    REAL_RUNS,
    SHOW,
    START,
    STDIN_MARK,
    TIMEOUT_SEC,
    Reads,
    placed,
    reads_as_found,
    since_4_4,
    tree,
)

from buildcore.core import arguments, policy
from buildcore.core.arguments import MAKEFILES, Role, path_arguments
from buildcore.core.protocol.requests import Request
from buildcore.core.settings import Build, Environment, PathMapping
from harness import write_tree

__all__ = ["since_4_4", "tree"]  # fixtures

NAMES = FILES | st.sampled_from(["missing.mk", "a/missing.mk"])
BLANKS = st.sampled_from(["", " ", "\t", "  "])
OPERATORS = st.sampled_from(["=", ":=", "::=", "+=", "?=", " = ", " :=", "\t+= "])


@st.composite
def definitions(draw: st.DrawFn) -> str:
    names = draw(st.lists(NAMES, max_size=3))
    separator = draw(st.sampled_from([" ", "\t", "\n", "   "]))
    return draw(BLANKS) + MAKEFILES + draw(OPERATORS) + separator.join(names) + draw(BLANKS)


@st.composite
def lists_with_a_definition(draw: st.DrawFn) -> list[str]:
    """Argument lists that every make accepts, with one definition among or behind the options."""
    words = draw(st.lists(DIRECTORY_OPTION, max_size=MOST_DIRECTORIES))
    words += draw(st.lists(st.one_of(MAKEFILE_OPTION, FLAGS, OPERANDS), max_size=4))
    words = draw(st.permutations(words))
    definition = draw(definitions())
    if draw(st.booleans()):
        words.insert(draw(st.integers(0, len(words))), [definition])
        return [string for word in [*words, draw(ENDING)] for string in word]
    return [string for word in words for string in word] + ["--", definition]


def reads_of_make(args: list[str], cwd: str, environment: Mapping[str, str]) -> Reads:
    """What the real make reads."""
    output = subprocess.run(
        [MAKE, *args], cwd=cwd, env={"PATH": os.environ["PATH"], "LC_ALL": "C", **environment}, timeout=TIMEOUT_SEC,
        input=SHOW.format(name=STDIN_MARK), capture_output=True, text=True, check=False,
    ).stdout
    marks = [line.split(" ", 2)[1:] for line in output.splitlines() if line.startswith("@@ ")]
    return [(where, posixpath.normpath(posixpath.join(where, name))) for where, name in marks]


def in_make_s_order(args: list[str], cwd: str, since_4_4: bool) -> Reads:
    """What the walker found: the variable's files that are there, before those of options or the default one."""
    found = path_arguments("make", args)
    options = [arg for arg in found if arg.option != MAKEFILES]
    others = reads_as_found([word for each in options for word in (each.option, each.value)], cwd, since_4_4)
    end = others[0][0]
    named = [posixpath.normpath(posixpath.join(end, each.value)) for each in found if each.option == MAKEFILES]
    return [(end, path) for path in named if os.path.isfile(path)] + others


def test_make_reads_the_files_that_the_walker_found_in_a_definition(tree: Path, since_4_4: bool) -> None:
    cwd = str(tree / START)

    @REAL_RUNS
    @given(lists_with_a_definition())
    def check(generated: list[str]) -> None:
        args = placed(generated, tree)
        assert reads_of_make(args, cwd, {}) == in_make_s_order(args, cwd, since_4_4)

    check()


def test_make_reads_of_its_environment_what_the_walker_finds_in_the_argument_for_it(
    tree: Path, since_4_4: bool
) -> None:
    cwd = str(tree / START)

    @REAL_RUNS
    @given(st.lists(NAMES, max_size=3), st.lists(DIRECTORY_OPTION | FLAGS | st.just(["-e"]), max_size=2))
    def check(names: list[str], words: list[list[str]]) -> None:
        (value,) = placed([" ".join(names)], tree)
        args = placed([string for word in words for string in word], tree)
        expected = in_make_s_order([policy.makefiles(value), *args], cwd, since_4_4)
        assert reads_of_make(args, cwd, {MAKEFILES: value}) == expected

    check()


NO_DEFINITIONS = ["MAKEFILES", "XMAKEFILES=x", "MAKEFILESX=x", "MAKE FILES=x", "MAKEFILES x=y", "X=MAKEFILES=x", ""]


@pytest.mark.parametrize("word", NO_DEFINITIONS)
def test_what_is_no_definition_of_it_names_nothing(word: str) -> None:
    assert path_arguments("make", [word]) == ()


def test_a_definition_as_an_option_s_value_is_that_value() -> None:
    found = path_arguments("make", ["-f", "MAKEFILES=x", "-o", "MAKEFILES=y", "-IMAKEFILES=z"])
    assert [(each.option, each.value) for each in found] == [
        ("-f", "MAKEFILES=x"), ("-o", "MAKEFILES=y"), ("-I", "MAKEFILES=z")
    ]


@pytest.mark.parametrize("command", ["ninja", "cmake"])
def test_other_tools_define_nothing_so(command: str) -> None:
    assert MAKEFILES not in {each.option for each in path_arguments(command, ["MAKEFILES=x"])}


def test_a_make_that_cmake_starts_does() -> None:
    (_, found) = path_arguments("cmake", ["--build", "b", "--", "MAKEFILES=x"])
    assert (found.option, found.value, found.role) == (MAKEFILES, "x", Role.PATH)


WORDS = st.text(alphabet="ab/.~ \t", max_size=12)


@given(st.lists(WORDS.map(lambda text: MAKEFILES + "=" + text) | WORDS, max_size=4))
def test_what_is_rewritten_is_found_where_it_was(args: list[str]) -> None:
    found = path_arguments("make", args)
    same = arguments.rewrite(args, found, lambda path: path.value)
    assert same == args
    longer = path_arguments("make", arguments.rewrite(args, found, lambda path: "/host/" + path.value))
    assert [each.value for each in longer] == ["/host/" + each.value for each in found]


# --- what the policy makes of it --------------------------------------------------------------------------------------

CALLER = policy.Caller("dev1", "/home/dev1", "/bin/sh")
BUILD = Build(
    path_mapping=PathMapping(container_template="/in"), environment=Environment(allow=("MAKEFILES", "MAKEFLAGS"))
)


def planned(*args: str, build: Build = BUILD, **env: str) -> policy.Plan:
    return policy.plan(Request("make", args, "/in", env=env), build, CALLER, {"MAKEFILES": "/etc/service.mk"})


def host_args(*args: str) -> tuple[str, ...]:
    plan = planned(*args)
    return policy.host_arguments(plan, plan.views[0])


def host_makefiles(value: str) -> str | None:
    plan = planned(MAKEFILES=value)
    return policy.host_makefiles(plan, plan.views[0])


def test_each_name_is_the_host_s() -> None:
    workspace = "/home/dev1/workspace"
    assert host_args("MAKEFILES=/in/a.mk b.mk\t/in/c.mk") == (f"MAKEFILES={workspace}/a.mk b.mk\t{workspace}/c.mk",)
    assert host_args("MAKEFILES += ~/a.mk") == ("MAKEFILES += /home/dev1/a.mk",)
    assert host_makefiles("/in/a.mk ~dev1/b.mk") == f"{workspace}/a.mk /home/dev1/b.mk"
    assert host_makefiles("") == ""


COMPUTED = ["$(X)", "a $X", "$$", "a$(shell id)b", "${X}"]


@pytest.mark.parametrize("value", COMPUTED)
def test_what_make_would_compute_is_refused(value: str) -> None:
    line = f"^MAKEFILES must not refer to variables or commands: {re.escape(value)}$"
    for operator in ("=", ":=", "+=", "?=", "::=", ":::=", "!="):
        with pytest.raises(policy.PolicyError, match=line):
            host_args(f"MAKEFILES{operator}{value}")
    with pytest.raises(policy.PolicyError, match=line):
        host_makefiles(value)


def test_a_command_s_output_is_refused() -> None:
    with pytest.raises(policy.PolicyError, match="^MAKEFILES must not refer to variables or commands: echo a.mk$"):
        host_args("MAKEFILES != echo a.mk")


def test_another_user_s_home_is_refused() -> None:
    with pytest.raises(policy.PolicyError, match="^MAKEFILES must be under workspace: ~dev2/a is another user's home$"):
        host_args("MAKEFILES=a ~dev2/a")


def test_it_must_not_stand_in_makeflags() -> None:
    for value in ("k -- MAKEFILES=a", "MAKEFILES=a", "-k MAKEFILES+=a"):
        with pytest.raises(policy.PolicyError, match="^MAKEFILES must not stand in MAKEFLAGS: give it on the command"):
            planned(MAKEFLAGS=value)


def test_the_service_s_own_is_not_the_caller_s() -> None:
    assert planned().makefiles is None and planned().environment["MAKEFILES"] == "/etc/service.mk"
    fixed = Build(environment=Environment(allow=("MAKEFILES",), set={"MAKEFILES": "/etc/fixed.mk"}))
    assert planned(build=fixed, MAKEFILES="/x").makefiles is None
    without = Build(environment=Environment(allow=("PATH", "MAKEFLAGS")))
    assert planned(build=without, MAKEFILES="/x").makefiles is None
    assert "MAKEFILES" not in planned(build=without, MAKEFILES="/x").environment


# --- other variables --------------------------------------------------------------------------------------------------

LEADING = {
    "MAKEFLAGS": "-C {out} -f {out}/Makefile", "GNUMAKEFLAGS": "-C {out} -f {out}/Makefile", "MFLAGS": "-C {out}",
    "VPATH": "{out}", ".INCLUDE_DIRS": "{out}", "CURDIR": "{out}", "PWD": "{out}", "MAKEFILE_LIST": "{out}/Makefile",
    "SHELL": "{out}/shell", "MAKE": "{out}/make", "MAKE_COMMAND": "{out}/make", "MAKEOVERRIDES": "MAKEFILES={out}/x",
    "MAKE_RESTARTS": "5", "MAKECMDGOALS": "x", "MAKELEVEL": "2",
}
"""What may look as if it led make itself elsewhere."""


@pytest.mark.parametrize("name", LEADING)
def test_no_other_variable_among_the_arguments_leads_make_elsewhere(name: str, tmp_path: Path) -> None:
    """What such a variable does to recipes, and to the makes that these start, is the build's own."""
    inside, out = tmp_path / "inside", tmp_path / "out"
    for directory in (inside, out):
        show = f"$(info {directory.name})\nall: ;\n"
        write_tree(directory, {"Makefile": f"{show}include part.mk\n", "part.mk": show, "x": show})
    argument = f"{name}={LEADING[name].format(out=out)}"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run([MAKE, argument], cwd=inside, env=environment, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line in ("inside", "out")] == ["inside"] * 2, done
    assert path_arguments("make", [argument]) == ()
