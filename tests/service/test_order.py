"""Where stdout and stderr are one open file at the caller's, a build writes to one pipe: no line changes its place."""

from __future__ import annotations

import os

import pytest

from daemon import Service
from harness import run_as, write_tree
from wire import RawCaller, output_bytes

LINES = 2000
MIXED = f"all:\n\t@i=0; while [ $$i -lt {LINES} ]; do echo out $$i; echo err $$i >&2; i=$$((i+1)); done\n"

GROUPED = """all: a b c d
a b c d:
\t@i=0; while [ $$i -lt 50 ]; do echo out $@ $$i; echo err $@ $$i >&2; i=$$((i+1)); done
"""


def one_file(service: Service, *arguments: str) -> list[str]:
    """The lines of `make ARGUMENTS 2>&1`, by the caller's own shell."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as shown:
        with service.popen("make", *arguments, stdout=writer, stderr=writer) as client:
            os.close(writer)
            lines = shown.read().splitlines()
        assert client.returncode == 0
    return lines


def test_lines_come_in_the_order_in_which_they_were_written(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": MIXED}, service.caller)
    assert one_file(service) == [f"{stream} {number}" for number in range(LINES) for stream in ("out", "err")]


def test_groups_of_a_parallel_make_stay_whole(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": GROUPED}, service.caller)
    lines = one_file(service, "-O", "-j4")
    order = dict.fromkeys(line.split()[1] for line in lines)
    assert sorted(order) == ["a", "b", "c", "d"]
    assert lines == [f"{stream} {name} {at}" for name in order for at in range(50) for stream in ("out", "err")]


def test_one_file_is_written_as_by_a_local_make(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": MIXED}, service.caller)
    words = " ".join(str(word) for word in service.argv("make"))
    script = f"{words} > ours 2>&1; make > theirs 2>&1; cmp ours theirs"
    done = run_as(service.caller, ["sh", "-c", script], service.workspace)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_two_files_stay_two(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": MIXED}, service.caller)
    built = service.run("make")
    assert built.stdout.splitlines() == [f"out {number}" for number in range(LINES)]
    assert built.stderr.splitlines() == [f"err {number}" for number in range(LINES)]


def test_events_say_so_where_a_caller_asked_for_it(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo out; echo err >&2; printf '\\377'\n"}, service.caller)
    with RawCaller(service) as caller:
        assert caller.ask(merge_output=True).exit()["code"] == 0
        written = [event for event in caller.events if event["type"] != "exit"]
        assert {event["type"] for event in written} == {"output"}
        assert b"".join(output_bytes(event) for event in written) == b"out\nerr\n\xff"
    with RawCaller(service) as caller:
        assert caller.ask().exit()["code"] == 0
        assert (caller.output("stdout"), caller.output("stderr")) == (b"out\n\xff", b"err\n")


@pytest.mark.parametrize("passed", [["stdout"], ["stderr"]])
def test_what_was_handed_over_is_not_merged(passed: list[str], service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo out; echo err >&2\n"}, service.caller)
    reader, writer = os.pipe()
    with RawCaller(service) as caller, os.fdopen(reader) as shown:
        caller.hand_over([writer], merge_output=True, descriptors=passed)
        os.close(writer)
        assert caller.exit()["code"] == 0
        other = "stderr" if passed == ["stdout"] else "stdout"
        assert caller.output(other) == (b"err\n" if other == "stderr" else b"out\n")
        assert shown.read() == ("out\n" if passed == ["stdout"] else "err\n")
