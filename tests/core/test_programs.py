"""Programs of the workspace by name: which of them a command can mean, and what the configuration may say of them."""

from __future__ import annotations

import json

import pytest

from buildcore.core import policy, programs
from buildcore.core.policy import PolicyError
from buildcore.core.protocol.requests import Request
from buildcore.core.settings import Build
from buildcore.system.config import parse
from configuration import the_fault

ENTRIES = ("configure", "autogen.sh", "tests/run.sh", "make", "ninja")
COMMANDS = {"make": "/usr/bin/make"}
BUILD = Build(commands=COMMANDS, workspace_commands=ENTRIES)
CALLER = policy.Caller("dev1", "/home/dev1", "/bin/sh")


def plan(command: str, *args: str, build: Build = BUILD) -> policy.Plan:
    return policy.plan(Request(command, args, "/home/dev1/workspace"), build, CALLER, {})


# --- what a command means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("./configure", "./configure"),
        ("../configure", "../configure"),
        ("../../src/configure", "../../src/configure"),
        ("/home/dev1/workspace/configure", "/home/dev1/workspace/configure"),
        ("tests/run.sh", "tests/run.sh"),
        ("./run.sh", "./run.sh"),  # in tests/, for all that the name says
        ("configure", "./configure"),
        ("./make", "./make"),
        ("ninja", "./ninja"),
        ("make", None),
        ("run.sh", None),
        ("tests/run", None),
        ("configure/", None),
        ("./configure/.", None),
        ("sh", None),
        ("./configure.sh", None),
        ("./Configure", None),
        ("", None),
        ("/", None),
        ("..", None),
    ],
)
def test_a_path_may_be_that_of_a_program_and_a_bare_name_one_in_the_directory(command: str, path: str | None) -> None:
    assert programs.of_workspace(command, COMMANDS, ENTRIES) == path


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("configure", True),
        ("app/configure", True),
        ("app/deep/autogen.sh", True),
        ("tests/run.sh", True),
        ("app/tests/run.sh", True),
        ("app/mytests/run.sh", False),
        ("run.sh", False),
        ("app/xconfigure", False),
        ("configure/x", False),
        ("", False),
        (".", False),
    ],
)
def test_an_entry_names_whole_parts_at_the_end_of_a_path(path: str, named: bool) -> None:
    assert programs.is_named(path, ENTRIES) is named


def test_a_command_of_the_host_comes_first() -> None:
    assert (plan("make").program, plan("make").in_workspace) == ("/usr/bin/make", False)
    assert (plan("./make").program, plan("./make").in_workspace) == ("./make", True)


@pytest.mark.parametrize("command", ["ninja", "./ninja", "./make"])
def test_the_arguments_of_a_program_of_the_workspace_are_its_own(command: str) -> None:
    """Whatever it is called: none of them is taken for a path, mapped or held."""
    planned = plan(command, "-C", "~other/x")
    assert policy.host_arguments(planned, planned.views[0]) == ("-C", "~other/x")


# --- what is refused --------------------------------------------------------------------------------------------------

ALLOWED = "(allowed: make, ./autogen.sh, ./configure, ./make, ./ninja, tests/run.sh)"


@pytest.mark.parametrize("command", ["./sh", "/bin/sh", "tests/other.sh", "configure/"])
def test_the_refusal_of_a_path_names_the_key(command: str) -> None:
    with pytest.raises(PolicyError) as caught:
        plan(command)
    hint = "; a program of the workspace: build.workspace_commands on the host"
    assert str(caught.value) == f"command not allowed: {command} {ALLOWED}{hint}"
    assert (caught.value.kind, caught.value.beside) == ("not_allowed", True)


def test_the_refusal_of_a_name_is_as_before() -> None:
    with pytest.raises(PolicyError) as caught:
        plan("run.sh")
    assert str(caught.value) == f"command not allowed: run.sh {ALLOWED}"


@pytest.mark.parametrize("command", ["./configure", "configure", "/home/dev1/workspace/configure"])
def test_without_the_key_there_is_none(command: str) -> None:
    with pytest.raises(PolicyError) as caught:
        plan(command, build=Build())
    assert str(caught.value).startswith(f"command not allowed: {command} (allowed: gmake, make)")


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_takes_names_and_ends_of_paths() -> None:
    entries = ["configure", "autogen.sh", "tests/run.sh", ".hidden", "a/b/c", "caf\u00e9", "a,b"]
    assert parse(f"build.workspace_commands = {json.dumps(entries)}").build.workspace_commands == tuple(entries)
    assert parse("build.workspace_commands = []").build.workspace_commands == ()


NO_PROGRAM = "is no program: its path has no space or control character, no '-' in front"
NO_PATH = "is no path below a directory: that has no / at its ends, no //, . or .."


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ('""', f"'' {NO_PROGRAM}"),
        ("1", f"1 {NO_PROGRAM}"),
        ("[]", f"a list {NO_PROGRAM}"),
        ('"-x"', f"'-x' {NO_PROGRAM}"),
        ('"a b"', f"'a b' {NO_PROGRAM}"),
        ('"a\\n"', f"'a\\n' {NO_PROGRAM}"),
        ('"a\\u0000b"', f"'a\\x00b' {NO_PROGRAM}"),
        ('"/bin/sh"', f"'/bin/sh' {NO_PATH}"),
        ('"./configure"', f"'./configure' {NO_PATH}"),
        ('"../configure"', f"'../configure' {NO_PATH}"),
        ('"a/../configure"', f"'a/../configure' {NO_PATH}"),
        ('"a//b"', f"'a//b' {NO_PATH}"),
        ('"a/"', f"'a/' {NO_PATH}"),
        ('"."', f"'.' {NO_PATH}"),
        ('".."', f"'..' {NO_PATH}"),
        ('"/"', f"'/' {NO_PATH}"),
        ('"a", "b", "a"', "'a' stands there twice"),
    ],
)
def test_a_faulty_entry_is_one_line(entry: str, fault: str) -> None:
    assert the_fault(f"build.workspace_commands = [{entry}]") == f"file: build.workspace_commands: {fault}"


def test_by_default_nothing_of_the_workspace_runs() -> None:
    assert Build().workspace_commands == ()


def test_by_default_gmake_is_the_make_that_every_host_has() -> None:
    assert dict(Build().commands) == {"make": "/usr/bin/make", "gmake": "/usr/bin/make"}
