"""What may run: a request and the settings come to a plan, or to one line that says why not."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import harness
from buildcore.core import policy
from buildcore.core.policy import PolicyError, View, without_jobserver
from buildcore.core.protocol.requests import Request
from buildcore.core.settings import Build, Environment, PathMapping, Timeouts

CALLER = policy.Caller("dev1", "/home/dev1", "/bin/bash")
WORKSPACE = "/home/dev1/workspace"
MAKE = shutil.which("make", path=harness.SYSTEM_PATH) or "make"


def plan(
    command: str = "make",
    args: tuple[str, ...] = (),
    cwd: str = WORKSPACE,
    inherited: dict[str, str] | None = None,
    build: Build | None = None,
    caller: policy.Caller = CALLER,
    **fields: Any,
) -> policy.Plan:
    return policy.plan(Request(command, args, cwd, **fields), build or Build(), caller, inherited or {})


def environment(
    asked: dict[str, str] | None = None, inherited: dict[str, str] | None = None, **settings: Any
) -> dict[str, str]:
    build = Build(environment=Environment(**settings))
    return dict(plan(env=asked, inherited=inherited, build=build).environment)


# --- the allowlist ------------------------------------------------------------------------------------------------


def test_a_command_on_the_allowlist_is_planned_with_the_program_that_it_names() -> None:
    build = Build(commands={"make": "/usr/bin/make", "ninja": "/opt/ninja"})
    assert plan("ninja", build=build).program == "/opt/ninja"
    assert plan("make", ("-j4", "all"), build=build).args == ("-j4", "all")


@pytest.mark.parametrize("command", ["sh", "/usr/bin/make", "Make", "make ", "../make", ""])
def test_any_other_command_is_refused_with_the_allowed_ones(command: str) -> None:
    with pytest.raises(PolicyError) as caught:
        plan(command, build=Build(commands={"ninja": "/usr/bin/ninja", "make": "/usr/bin/make"}))
    hint = "; a program of the workspace: build.workspace_commands on the host" if "/" in command else ""
    assert str(caught.value) == f"command not allowed: {command} (allowed: make, ninja){hint}"
    assert caught.value.kind == "not_allowed"


def test_the_refusal_of_a_command_is_one_printable_line() -> None:
    with pytest.raises(PolicyError) as caught:
        plan("rm\n\x1b[2J\udcff")
    assert str(caught.value) == "command not allowed: rm\\x0a\\x1b[2J\\udcff (allowed: gmake, make)"


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "in_force"), [(None, 60), (1, 1), (90, 90), (91, 90), (10**17, 90)])
def test_the_timeout_is_the_callers_or_the_default_and_is_capped_not_refused(asked: int | None, in_force: int) -> None:
    build = Build(timeouts=Timeouts(default_sec=60, max_sec=90, grace_sec=7))
    planned = plan(timeout_sec=asked, build=build)
    assert (planned.timeout_sec, planned.grace_sec) == (in_force, 7)


def test_the_umask_is_the_callers() -> None:
    assert plan(umask=0).umask == 0
    assert plan(umask=0o077).umask == 0o077
    assert plan().umask == 0o022


# --- the environment ----------------------------------------------------------------------------------------------


def test_home_user_and_shell_are_the_accounts_whatever_the_caller_says() -> None:
    names = ("HOME", "USER", "LOGNAME", "SHELL")
    lies = dict.fromkeys(names, "lie")
    expected = {"HOME": "/home/dev1", "USER": "dev1", "LOGNAME": "dev1", "SHELL": "/bin/bash"}
    assert environment(lies, lies, allow=names) == expected


def test_an_account_without_a_shell_has_the_standard_one() -> None:
    build = Build(environment=Environment(allow=("SHELL",)))
    assert plan(build=build, caller=policy.Caller("dev1", "/home/dev1", "")).environment == {"SHELL": "/bin/sh"}


def test_path_is_the_services() -> None:
    assert environment({"PATH": "/container"}, {"PATH": "/host"}, allow=("PATH",)) == {"PATH": "/host"}
    for inherited in ({}, {"PATH": ""}):
        assert environment({"PATH": "/container"}, inherited, allow=("PATH",)) == {"PATH": policy.DEFAULT_PATH}


def test_pwd_is_left_to_whoever_enters_the_directory() -> None:
    assert environment({"PWD": "/container"}, {"PWD": "/"}, allow=("PWD",)) == {"PWD": ""}


def test_every_other_allowed_name_is_the_callers_else_the_services() -> None:
    allow = ("CC", "CXX", "LANG", "LDFLAGS")
    asked, inherited = {"CC": "gcc-12", "CXX": ""}, {"CC": "cc", "CXX": "c++", "LANG": "C.UTF-8"}
    assert environment(asked, inherited, allow=allow) == {"CC": "gcc-12", "CXX": "", "LANG": "C.UTF-8"}


def test_what_the_settings_set_comes_last_and_needs_no_permission() -> None:
    set_ = {"PATH": "/tools", "HOME": "/elsewhere", "MAKEFLAGS": "-j2", "EXTRA": "1"}
    asked = {"MAKEFLAGS": "-j99", "PATH": "/container"}
    assert environment(asked, {"PATH": "/host"}, allow=("PATH", "HOME", "MAKEFLAGS"), set=set_) == set_


NAMES = st.sampled_from(["CC", "LD_PRELOAD", "PATH", "HOME", "MAKEFLAGS", "PWD", "BASH_ENV", "X"])
VALUES = st.dictionaries(NAMES, st.text(st.sampled_from("ab/ ")))


@given(VALUES, VALUES, st.lists(NAMES), VALUES)
def test_no_name_reaches_a_build_that_the_settings_do_not_name(
    asked: dict[str, str], inherited: dict[str, str], allow: list[str], set_: dict[str, str]
) -> None:
    given_names = set(environment(asked, inherited, allow=tuple(allow), set=set_))
    assert given_names <= {*allow, *set_}


def test_the_default_allowlist_has_no_name_that_loads_code() -> None:
    assert not {"LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "PYTHONPATH"} & set(Environment().allow)


# --- MAKEFLAGS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("makeflags", "expected"),
    [
        # GNU make 3.82 and 4.1: the number of jobs is not told
        ("--jobserver-fds=3,4 -j", ""),
        (" --jobserver-fds=3,4 -j", " "),
        ("k --jobserver-fds=3,4 -j -- CC=gcc", "k -- CC=gcc"),
        # 4.2 and 4.3
        (" -j2 --jobserver-auth=3,4 --no-print-directory", " -j2 --no-print-directory"),
        (" -j --no-print-directory", " -j --no-print-directory"),
        ("k -j2 --jobserver-auth=3,4", "k -j2"),
        ("s -Ia\\\\ -j2 --jobserver-auth=3,4", "s -Ia\\\\ -j2"),
        (" -Ix\\ --jobserver-auth=3,4 -j2", " -Ix\\ --jobserver-auth=3,4 -j2"),
        (" -j2 --jobserver-auth=3,4 -- A=$$(B)\\ c D=e\\\\f", " -j2 -- A=$$(B)\\ c D=e\\\\f"),
        # 4.4
        (" -j8 --jobserver-auth=fifo:/tmp/GMfifo12345", " -j8"),
        ("ks -j8 --jobserver-auth=fifo:/tmp/GMfifo12345 -- CFLAGS=-O2\\ -g", "ks -j8 -- CFLAGS=-O2\\ -g"),
        # what is no jobserver
        ("", ""),
        ("k", "k"),
        ("-j4", "-j4"),
        (" -- --jobserver-auth=3,4", " -- --jobserver-auth=3,4"),
        ("--jobserver-style=pipe", "--jobserver-style=pipe"),
    ],
)
def test_makeflags_keeps_everything_but_the_jobserver(makeflags: str, expected: str) -> None:
    assert without_jobserver(makeflags) == expected
    assert environment({"MAKEFLAGS": makeflags}, allow=("MAKEFLAGS",)) == {"MAKEFLAGS": expected}


WORDS = ["", "k", "-j", "-j4", "--jobserver-auth=3,4", "--jobserver-fds=3,4", "--", "A=b", "-Ix\\", "\\", "\\\\", "a b"]


@given(st.lists(st.sampled_from(WORDS)).map(" ".join) | st.text(st.sampled_from("-j \\a=")))
def test_no_jobserver_is_left_and_nothing_else_is_lost(makeflags: str) -> None:
    stripped = without_jobserver(makeflags)
    assert without_jobserver(stripped) == stripped
    words = options_of(stripped)
    assert not [word for word in words if word.startswith(("--jobserver-auth", "--jobserver-fds"))]
    kept = [word for word in options_of(makeflags) if not word.startswith("--jobserver-")]
    assert [word for word in words if word != "-j"] == [word for word in kept if word != "-j"]
    assert makeflags.partition("-- ")[2] == stripped.partition("-- ")[2] or "\\" in makeflags


def options_of(makeflags: str) -> list[str]:
    """The words before `--`: blanks separate them, a backslash takes the meaning of what follows."""
    words = re.findall(r"(?:\\.|[^ \\]|\\\Z)+", makeflags)
    return words[: words.index("--")] if "--" in words else words


@pytest.mark.parametrize(
    "options",
    [
        ["-j2"],
        ["-j2", "-k", "-s", "-l", "3"],
        ["-j2", "-I", "x y\\"],
        ["-j2", "-I", "a\\", "CFLAGS=-O2 -g", "EMPTY=", "D=e\\f", "E=--jobserver-auth=9,9"],
        ["-j2", "A=$(B) c"],
        [],
    ],
)
def test_the_makeflags_of_a_real_make_are_read_by_the_next_one_without_a_complaint(
    options: list[str], tmp_path: Path
) -> None:
    show = "@+printf '%s|%s|%s|%s\\n' \"$$MAKEFLAGS\" '$(CFLAGS)' '$(D)' '$(E)'"
    harness.write_tree(tmp_path, {"Makefile": f"all: ; @$(MAKE) show\nB = b\nshow: ; {show}\n"})

    def run(target: str, *arguments: str, makeflags: str = "") -> list[str]:
        env = {"PATH": harness.SYSTEM_PATH, "LC_ALL": "C", "MAKEFLAGS": makeflags}
        command = [MAKE, "--no-print-directory", *arguments, target]
        made = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        assert made.stderr == ""
        return made.stdout.rstrip("\n").split("|")

    in_sub_make = run("all", *options)
    assert ("--jobserver-" in in_sub_make[0].partition(" -- ")[0]) == ("-j2" in options)
    handed_on = environment({"MAKEFLAGS": in_sub_make[0]}, allow=("MAKEFLAGS",))["MAKEFLAGS"]
    again = run("all", makeflags=handed_on)
    assert without_jobserver(again[0]) == without_jobserver(in_sub_make[0])
    assert again[1:] == in_sub_make[1:]


@pytest.mark.parametrize("name", ["MAKEFLAGS", "GNUMAKEFLAGS"])
@pytest.mark.parametrize("value", ["-C /etc", "C/etc", " -f/etc/passwd", "--directory=/etc", "k -C /etc -- A=b"])
def test_makeflags_that_lead_make_elsewhere_are_refused(name: str, value: str) -> None:
    with pytest.raises(PolicyError, match=name):
        environment({name: value}, allow=(name,))


@pytest.mark.parametrize("value", ["$(shell id)", "-k ${X}", "-- A=$(B)"])
def test_makeflags_that_make_would_expand_are_refused(value: str) -> None:
    with pytest.raises(PolicyError, match="must not refer to variables"):
        environment({"MAKEFLAGS": value})


# --- the view of a container --------------------------------------------------------------------------------------

ELSEWHERE = View("/workspace", WORKSPACE)
REQUIREMENT = View("/home/dev1", WORKSPACE)
"""The requirement's own mount: -v $HOME/workspace:$HOME"""


@pytest.mark.parametrize(
    ("view", "path", "expected"),
    [
        (ELSEWHERE, "/workspace", WORKSPACE),
        (ELSEWHERE, "/workspace/", WORKSPACE),
        (ELSEWHERE, "//workspace/./app//x/", f"{WORKSPACE}/app/x"),
        (ELSEWHERE, "/workspace/app", f"{WORKSPACE}/app"),
        (ELSEWHERE, "/workspace/../etc", f"{WORKSPACE}/../etc"),
        (ELSEWHERE, "/workspace//../etc", f"{WORKSPACE}/../etc"),
        (ELSEWHERE, "/workspace//etc/..", f"{WORKSPACE}/etc/.."),
        (ELSEWHERE, "/workspace2/app", "/workspace2/app"),
        (ELSEWHERE, "/etc", "/etc"),
        (ELSEWHERE, "/", "/"),
        (ELSEWHERE, "workspace/app", "workspace/app"),
        (ELSEWHERE, "../app", "../app"),
        (ELSEWHERE, "", ""),
        (ELSEWHERE, "/workspace/a\n\udcff", f"{WORKSPACE}/a\n\udcff"),
        (REQUIREMENT, "/home/dev1/app", f"{WORKSPACE}/app"),
        (REQUIREMENT, "/home/dev1", WORKSPACE),
        (REQUIREMENT, "/home/dev1/workspace/app", f"{WORKSPACE}/workspace/app"),
        (REQUIREMENT, "/home/dev12/app", "/home/dev12/app"),
        (View("/", WORKSPACE), "/", WORKSPACE),
        (View("/", WORKSPACE), "/app", f"{WORKSPACE}/app"),
        (View(WORKSPACE, WORKSPACE), f"{WORKSPACE}//a/", f"{WORKSPACE}//a/"),
    ],
)
def test_a_path_of_the_container_is_read_as_the_hosts(view: View, path: str, expected: str) -> None:
    assert view.to_host(path) == expected


@given(st.lists(st.sampled_from(["", ".", "..", "a", "workspace", "etc"])).map("/".join))
@example("/workspace//etc/..")
def test_what_is_below_the_containers_root_stays_below_the_hosts_or_is_left_alone(path: str) -> None:
    hosted = ELSEWHERE.to_host(path)
    assert hosted == path or hosted == WORKSPACE or hosted.startswith(WORKSPACE + "/")
    if hosted != path:
        names = [name for name in path.split("/") if name not in ("", ".")]
        assert [*Path(WORKSPACE).parts[1:], *names[1:]] == [name for name in hosted.split("/") if name]


def mapped(container: str, host: str) -> Build:
    return Build(path_mapping=PathMapping(container, host))


def test_the_views_are_the_mapped_one_and_the_hosts_own() -> None:
    planned = plan(build=mapped("/workspace", "{home}/src"))
    assert planned.workspace == "/home/dev1/src"
    assert planned.views == (View("/workspace", "/home/dev1/src"), View("/home/dev1/src", "/home/dev1/src"))
    assert plan().views == (View(WORKSPACE, WORKSPACE),)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ("make", ["-C", "/w/a", "-f/w/x.mk", "all"], ["-C", f"{WORKSPACE}/a", f"-f{WORKSPACE}/x.mk", "all"]),
        ("make", ["-kC/w", "--file=/w/m", "--", "-C/w"], [f"-kC{WORKSPACE}", f"--file={WORKSPACE}/m", "--", "-C/w"]),
        ("make", ["-I/w/inc", "-I/usr/include"], [f"-I{WORKSPACE}/inc", "-I/usr/include"]),
        ("make", ["-C", "sub", "X=/w/a", "-f", "-"], ["-C", "sub", "X=/w/a", "-f", "-"]),
        ("ninja", ["-C", "/w/out", "-t", "clean"], ["-C", f"{WORKSPACE}/out", "-t", "clean"]),
        ("cmake", ["-S/w", "-B", "/w/b", "-DX=/w"], [f"-S{WORKSPACE}", "-B", f"{WORKSPACE}/b", "-DX=/w"]),
        ("scons", ["-C", "/w/a"], ["-C", "/w/a"]),
    ],
)
def test_the_paths_among_the_arguments_are_read_as_the_hosts(
    command: str, args: list[str], expected: list[str]
) -> None:
    build = dataclasses.replace(mapped("/w", "{home}/workspace"), commands={command: "/usr/bin/" + command})
    planned = plan(command, tuple(args), build=build)
    assert policy.host_arguments(planned, planned.views[0]) == tuple(expected)
    assert policy.host_arguments(planned, planned.views[1]) == tuple(args)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-C", "~"], ["-C", "/home/dev1"]),
        (["-C~/workspace/a"], [f"-C{WORKSPACE}/a"]),
        (["-C", "~dev1/workspace"], ["-C", WORKSPACE]),
        (["-f", "./~/workspace/x.mk"], ["-f", f"{WORKSPACE}/x.mk"]),
        (["-f", ".//~dev1/x.mk"], ["-f", "/home/dev1/x.mk"]),
        (["-C", "./~"], ["-C", "./~"]),
        (["-f", "a~"], ["-f", "a~"]),
        (["-f", "a/~"], ["-f", "a/~"]),
        (["-I", "~dev2/include"], ["-I", "~dev2/include"]),
        (["X=~dev2", "~dev2"], ["X=~dev2", "~dev2"]),
    ],
)
def test_a_tilde_is_the_callers_home_where_make_reads_it_so(args: list[str], expected: list[str]) -> None:
    planned = plan(args=tuple(args))
    assert policy.host_arguments(planned, planned.views[0]) == tuple(expected)


@pytest.mark.parametrize("args", [["-C", "~dev2"], ["-f~root/x"], ["-f", "././~dev2/x.mk"], ["-C", "~dev1\n/x"]])
def test_a_tilde_of_somebody_else_is_refused(args: list[str]) -> None:
    planned = plan(args=tuple(args))
    with pytest.raises(PolicyError, match="^-[Cf] must be under workspace: .* is another user's home$") as caught:
        policy.host_arguments(planned, planned.views[0])
    assert str(caught.value).isprintable()


def test_a_tilde_in_the_requirements_mount_is_the_workspace() -> None:
    planned = plan(args=("-C", "~/app"), build=mapped("/home/{user}", "/home/{user}/workspace"))
    assert policy.host_arguments(planned, planned.views[0]) == ("-C", f"{WORKSPACE}/app")


def test_a_real_make_reads_a_tilde_as_the_plan_says(tmp_path: Path) -> None:
    home = tmp_path / "home"
    makefiles = {"x.mk": "all: ; @echo $(CURDIR)\n", "Makefile": "include x.mk\n"}
    harness.write_tree(home, makefiles)
    caller = policy.Caller("dev1", str(home), "")
    env = {"HOME": str(home), "PATH": harness.SYSTEM_PATH}

    def run(args: tuple[str, ...]) -> str:
        command = [MAKE, "-s", *args]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    for args in (("-f", "~/x.mk"), ("-f", "./~/x.mk"), ("-C", "~"), ("-C~", "-f", "././/~/x.mk")):
        planned = plan(args=args, caller=caller)
        where = home if args[0].startswith("-C") else tmp_path
        assert run(args) == run(policy.host_arguments(planned, planned.views[0])) == f"{where}\n"
