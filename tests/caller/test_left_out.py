"""A variable that a build had not is named by build-cli in one line, if it matters, and by the doctor in any case."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from buildcore.caller import left_out
from clients import makefile, told
from daemon import Service
from doctors import ctl, failure, findings
from fake_server import FakeServer
from harness import BIN, SYSTEM_PATH, other_pythons
from harness_world import inside

StartService = Callable[..., Service]

LINE = (
    "build-cli: the host kept these variables from the build: {}"
    " (build.environment there decides; build-ctl doctor shows it)\n"
)
NARROW = "PATH HOME USER LANG CC CXX CFLAGS CXXFLAGS LDFLAGS PKG_CONFIG_PATH MAKEFLAGS".split()
"""The list of the requirement."""


def running(start_service: StartService, allow: list[str] | None = None, **environment: Any) -> Service:
    table = {**({"allow": allow} if allow else {}), **environment}
    service = start_service("root" if inside() else "user", {"build": {"environment": table}})
    makefile(service, "all:\n\t@echo built\nfail:\n\t@exit 3\n")
    return service


# --- build-cli --------------------------------------------------------------------------------------------------------


def test_one_that_changes_what_is_built_is_named_after_the_build(start_service: StartService) -> None:
    service = running(start_service, NARROW)
    env = {"DESTDIR": "stage", "CROSS_COMPILE": "arm-", "CC": "gcc", "KBUILD_OUTPUT": "o"}
    line = LINE.format("CROSS_COMPILE, DESTDIR, KBUILD_OUTPUT")
    assert told(service.run("make", env=env)) == ("built\n", line, 0)
    failed = service.run("make", "-s", "fail", env=env)
    assert failed.returncode == 2 and failed.stderr.endswith(line) and failed.stderr.count(line) == 1


def test_what_is_asked_for_may_be_a_pattern(start_service: StartService) -> None:
    service = running(start_service, ["PATH", "HOME", "FOO_A"])
    makefile(service, "all:\n\t@echo $(FOO_A)$(FOO_B)$(BAR)\n")
    env = {"FOO_A": "a", "FOO_B": "b", "FOO": "c", "BAR": "d", "BUILD_SERVICE_ENV": "FOO_*,BAR"}
    assert told(service.run("make", env=env)) == ("a\n", LINE.format("BAR, FOO_B"), 0)


QUIET = {
    "LANG": "de_DE.UTF-8", "LANGUAGE": "de", "LC_ALL": "C", "LC_MESSAGES": "C", "TERM": "xterm", "NO_COLOR": "1",
    "CLICOLOR_FORCE": "1", "GCC_COLORS": "", "NINJA_STATUS": "%p", "COLORTERM": "truecolor", "PWD": "/elsewhere",
    "JAVA_HOME": "/opt/java", "MAKEFLAGS": "", "GNUMAKEFLAGS": "", "CMAKE_COLOR_DIAGNOSTICS": "ON",
}


def test_what_changes_nothing_that_is_built_is_named_only_if_it_was_asked_for(start_service: StartService) -> None:
    service = running(start_service, ["PATH", "HOME"])
    assert told(service.run("make", env=QUIET)) == ("built\n", "", 0)
    asked = service.run("--env", "TERM=vt100", "make", env={**QUIET, "BUILD_SERVICE_ENV": "LC_ALL,PWD ABSENT"})
    assert told(asked) == ("built\n", LINE.format("LC_ALL, PWD, TERM"), 0)


@pytest.mark.parametrize("way", ["option", "variable"])
def test_one_that_was_asked_for_is_named_by_default_too(way: str, start_service: StartService) -> None:
    service = running(start_service)
    options, env = {
        "option": (["--env", "BOARD=x", "--env=PATH=/x", "--env=HOME=" + str(service.caller.home)], {}),
        "variable": ([], {"BUILD_SERVICE_ENV": "BOARD PATH HOME", "BOARD": "x"}),
    }[way]
    done = service.run(*options, "make", env=env)
    assert (done.stdout, done.returncode) == ("built\n", 0)
    assert done.stderr in (LINE.format("BOARD, PATH"), LINE.format("BOARD")), "PATH may be the same"
    assert way == "variable" or "PATH" in done.stderr


def test_one_that_reaches_the_build_is_not_named(start_service: StartService) -> None:
    service = running(start_service, ["PATH", "BOARD", "OWN_*"], set={"MINE": "1"})
    options = ["--env", "BOARD=x", "--env", "OWN_X=1", "--env", "MINE=1"]
    assert told(service.run(*options, "make")) == ("built\n", "", 0)
    assert told(service.run("--env", "MINE=2", "make")) == ("built\n", LINE.format("MINE"), 0)


def test_one_that_nobody_sent_is_not_named(start_service: StartService) -> None:
    service = running(start_service, NARROW)
    assert told(service.run("make", env={"SECRET": "x", "BOARD": "x"})) == ("built\n", "", 0)


def answer(left_out: object) -> bytes:
    return json.dumps({"type": "exit", "code": 0, "timed_out": False, "env_left_out": left_out}).encode() + b"\n"


def started(fake: FakeServer, env: Mapping[str, str], *options: str) -> tuple[bytes, bytes, int]:
    process = fake.start(*options, "make", env=env)
    return fake.answer_to(process, answer([*env, "NEVER_SENT", "\x1b[2J"]))


def test_only_what_was_sent_is_named_whatever_the_service_says(fake: FakeServer) -> None:
    assert started(fake, {"DESTDIR": "x", "SECRET": "x"}) == (b"", LINE.format("DESTDIR").encode(), 0)


@pytest.mark.parametrize("said", [None, "DESTDIR", {"DESTDIR": 1}, [], [1, None, ["DESTDIR"]], 5, True])
def test_a_service_that_says_nothing_of_the_kind_is_no_reason_for_a_line(said: object, fake: FakeServer) -> None:
    process = fake.start("make", env={"DESTDIR": "x"})
    assert fake.answer_to(process, answer(said)) == (b"", b"", 0)


def test_an_older_service_is_no_reason_for_a_line(fake: FakeServer) -> None:
    process = fake.start("make", env={"DESTDIR": "x"})
    assert fake.answer_to(process, b'{"type":"exit","code":0,"timed_out":false}\n') == (b"", b"", 0)


def test_the_line_of_a_timeout_stays_the_last(fake: FakeServer) -> None:
    process = fake.start("make", env={"DESTDIR": "x"})
    end = b'{"type":"exit","code":124,"timed_out":true,"timeout_sec":7,"env_left_out":["DESTDIR"]}\n'
    lines = LINE.format("DESTDIR") + "build timed out after 7s\n"
    assert fake.answer_to(process, end) == (b"", lines.encode(), 124)


def test_names_are_shown_without_what_a_terminal_would_obey(fake: FakeServer) -> None:
    names = ["A\x1b[2J", "B\n", "C\u202e", os.fsdecode(b"D\xff")]
    process = fake.start(*(f"--env={name}=x" for name in names), "make")
    shown = "A\\x1b[2J, B\\n, C\\u202e, D\\udcff"
    assert fake.answer_to(process, answer([*names[:3], "D?"])) == (b"", LINE.format(shown).encode(), 0)


def test_it_is_one_line_of_bounded_length_however_many_there_are(fake: FakeServer) -> None:
    env = {f"CMAKE_{number:03}": "x" for number in range(500)}
    out, err, code = started(fake, env)
    assert (out, code, err.count(b"\n")) == (b"", 0, 1)
    assert len(err) < 600 and b"CMAKE_000, CMAKE_001, " in err and b" and 464 more (" in err, err


def test_names_of_any_length_are_counted() -> None:
    long = "X" * 1000
    assert left_out.listed([long, "A"]) == "2 with long names"
    assert left_out.listed(["A", long, "B"]) == "A and 2 more"
    assert left_out.listed(["A", "B"]) == "A, B"


# --- the doctor -------------------------------------------------------------------------------------------------------


def test_the_doctor_tells_what_is_allowed_where_nothing_is_left_out(start_service: StartService) -> None:
    line = findings(ctl(running(start_service), "doctor", env={"DESTDIR": "x"}))["ok environment"]
    assert line.startswith("builds have all variables that are sent; the host allows PATH HOME USER PWD MAKEFLAGS ")
    assert " KBUILD_* " in line


def test_the_doctor_shows_all_that_is_left_out_and_why(start_service: StartService) -> None:
    service = running(start_service, ["PATH", "CC", "LANG", "PWD"], set={"CC": "clang"})
    env = {"DESTDIR": "x", "TERM": "xterm", "CC": "gcc", "BUILD_SERVICE_ENV": "BOARD", "BOARD": "1"}
    done = ctl(service, "doctor", env=env)
    assert done.returncode == 0
    assert findings(done)["warning environment"] == (
        "builds have not all: not allowed there: BOARD, DESTDIR, TERM; the host has its own: CC;"
        " the host allows PATH CC LANG PWD; to mend it: list them in build.environment.allow on the host,"
        " or give them as arguments of make"
    )


def test_what_changes_nothing_that_is_built_is_no_warning_of_the_doctor(start_service: StartService) -> None:
    service = running(start_service, ["PATH", "PWD"])
    line = findings(ctl(service, "doctor", env={"TERM": "xterm"}))["ok environment"]
    assert line == "builds have not all: not allowed there: LANG, TERM; the host allows PATH PWD"


def test_the_doctor_of_an_older_service_says_nothing_of_it(fake: FakeServer, one: Service) -> None:
    answered = ctl(one, "doctor")
    assert "ok environment" in findings(answered)
    old = json.dumps({"type": "exit", "code": 0, "check": {"groups": [], "args": [], "program": "/usr/bin/make"}})
    process = fake.popen([BIN / "build-ctl", "doctor", "--socket", fake.path])
    out, _, _ = fake.answer_to(process, old.encode() + b"\n")
    assert b"environment" not in out and b"ok       command: " in out


def test_a_refusal_has_no_word_of_variables(one: Service) -> None:
    failure(ctl(one, "doctor", "nonsense", env={"TERM": "x"}), "command")


@pytest.mark.parametrize("python", other_pythons(6))
def test_the_line_comes_under_each_python(python: str, open_directory: Any, start_service: StartService) -> None:
    image = open_directory()
    (image / "python3").symlink_to(python)
    env = {"PATH": f"{image}:{SYSTEM_PATH}", "LC_ALL": "C", "DESTDIR": "x"}
    done = running(start_service, NARROW).run("make", env=env)
    assert told(done) == ("built\n", LINE.format("DESTDIR"), 0)
