"""What bounds the caller bounds its build: niceness and soft limits, where they are stricter than the service's."""

from __future__ import annotations

import os

import pytest

from daemon import Service
from harness import run_as, write_tree
from wire import RawCaller

SHOWS = "all:\n\t@nice; for kind in d f n s t v; do ulimit -S -$$kind; done\n"
KINDS = "dfnstv"


def seen(service: Service, preparation: str) -> list[str]:
    """What a build sees whose client runs in a shell with `preparation`: its niceness, and the limits of KINDS."""
    words = " ".join(str(word) for word in service.argv("make"))
    done = run_as(service.caller, ["sh", "-c", f"{preparation}\n{words}"], service.workspace)
    assert (done.stderr, done.returncode) == ("", 0)
    return str(done.stdout).split()


@pytest.fixture
def shows(service: Service) -> Service:
    write_tree(service.workspace, {"Makefile": SHOWS}, service.caller)
    return service


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("d", "400000"), ("f", "12345"), ("n", "77"), ("s", "4096"), ("t", "33"), ("v", "3000000")],
)
def test_a_lower_soft_limit_of_the_caller_is_the_build_s(kind: str, limit: str, shows: Service) -> None:
    before = seen(shows, "true")
    after = seen(shows, f"ulimit -S -{kind} {limit}")
    assert before[1 + KINDS.index(kind)] != limit
    before[1 + KINDS.index(kind)] = limit
    assert after == before


def test_a_higher_one_is_not(shows: Service) -> None:
    lowered = seen(shows, "ulimit -S -n 50")
    with RawCaller(shows) as caller:
        many = 2**40
        caller.ask(limits={"nofile": many, "as": many, "stack": many, "cpu": many})
        assert caller.exit()["code"] == 0
        raw = caller.text().split()
    assert raw[1 + KINDS.index("n")] == seen(shows, "true")[1 + KINDS.index("n")] != lowered[1 + KINDS.index("n")]


def test_a_hard_limit_is_not_touched(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@ulimit -S -n; ulimit -H -n\n"}, service.caller)
    soft, hard = seen(service, "ulimit -S -n 50")
    assert soft == "50" and int(hard) > 50


def test_a_build_is_as_nice_as_its_caller(shows: Service) -> None:
    assert seen(shows, "true")[0] == str(os.nice(0))
    words = " ".join(str(word) for word in shows.argv("make"))
    done = run_as(shows.caller, ["sh", "-c", f"nice -n 7 {words}"], shows.workspace)
    assert str(done.stdout).split()[0] == str(os.nice(0) + 7)


def test_a_file_that_grows_too_large_ends_as_locally(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@head -c 10000000 /dev/zero > big\n"}, service.caller)
    words = " ".join(str(word) for word in service.argv("make"))
    script = "ulimit -S -f 100\n{} 2>&1; echo $?"
    ours, theirs = (
        run_as(service.caller, ["sh", "-c", script.format(command)], service.workspace).stdout
        for command in (words, "make")
    )
    assert ours == theirs and "File size limit exceeded" in ours


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"niceness": -1}, "niceness must be an integer from 0 to 19"),
        ({"niceness": 20}, "niceness must be an integer from 0 to 19"),
        ({"limits": {"cpu": -1}}, "limits must be an object of integers of at least 0"),
        ({"limits": [1]}, "limits must be an object of integers"),
    ],
)
def test_what_is_no_bound_is_refused(fields: dict[str, object], line: str, service: Service) -> None:
    with RawCaller(service) as caller:
        assert caller.ask(**fields).exit()["code"] == 1
        assert caller.text() == f"invalid request: {line}\n"


def test_a_limit_below_what_a_program_needs_is_a_line(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n"}, service.caller)
    with RawCaller(service) as caller:
        assert caller.ask(limits={"as": 4096}).exit()["code"] != 0


def test_limits_that_nobody_knows_are_left_alone(shows: Service) -> None:
    with RawCaller(shows) as caller:
        assert caller.ask(limits={"later": 1}).exit()["code"] == 0
