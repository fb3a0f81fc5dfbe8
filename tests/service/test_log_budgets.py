"""No owner turns over the log: what its builds and its refusals may claim of it, and that all else is told.

Real writers with small logs, and the real daemon with callers who do what they can; a user's subordinate uids are
that user.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from buildcore.core import text
from buildcore.core.limiter import LEAST_BYTES, LINES, WINDOW_SEC
from buildcore.service import log_channel
from daemon import Service
from doctors import ctl, findings
from harness import await_exit, daemon_path, write_tree
from harness_world import DEV1, DEV2, User
from own_log import finish, messages, opened
from subordinate import in_user_namespace, subuid_file
from wire import RawCaller, at_rest, limit, session_ahead

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

SMALL_LOG = {"max_bytes": LEAST_BYTES, "max_files": 4}
"""Its owners have the least budget, and lines of MAX_LINE_BYTES go round in it with 32 of them."""

BUILDS = 60
LONG = "X=" + "x" * text.MAX_LINE_BYTES

LEFT_OUT = re.compile(r"further lines of a caller were left out uid=(\d+) bytes=(\d+) lines=(\d+)$")


def told(lines: list[str], uid: int) -> tuple[int, int]:
    """How many lines of this owner were left out, and how many bytes, as the log says."""
    found = [match for match in map(LEFT_OUT.search, lines) if match and int(match[1]) == uid]
    return sum(int(match[3]) for match in found), sum(int(match[2]) for match in found)


def assert_limited(lines: list[str], pattern: str, uid: int, count: int, since: float) -> None:
    """Of this owner's `count` lines, the first of them since then, no more are there than may be; the rest is told."""
    written = sum(bool(re.search(pattern, line)) for line in lines)
    assert written <= LINES * (1 + (time.monotonic() - since) // WINDOW_SEC)
    assert written + told(lines, uid)[0] == count


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


# --- the writer -------------------------------------------------------------------------------------------------------


def test_builds_of_one_owner_leave_the_lines_of_others_where_they_are(tmp_path: Path) -> None:
    log = opened(tmp_path, **SMALL_LOG)
    log.build(2, "info", "build started", user="other", request_id="before")
    for number in range(BUILDS):
        log.build(1, "info", "build started", user="one", args=[LONG], request_id=number)
        log.build(1, "error", "build completed", user="one", args=[LONG], exit_code=2, request_id=number)
    log.build(2, "info", "build completed", user="other", args=[LONG], exit_code=0, request_id="before")
    assert finish(log) == 0
    lines = messages(tmp_path)
    assert lines[0] == "build started user=other request_id=before"
    assert len(lines) == 2 + 2 * BUILDS  # none is left out
    one, other = [line for line in lines if "user=one" in line], [line for line in lines if "user=other" in line]
    assert len(other[1]) > text.MAX_LINE_BYTES - 128  # the budget is each owner's own
    whole = [line for line in one if len(line) > text.SHORT_LINE_BYTES]
    assert 0 < len(whole) <= LEAST_BYTES // (text.MAX_LINE_BYTES - 128) and one[: len(whole)] == whole
    for line in one[len(whole) :]:
        record = text.parse(f"2026-01-14T12:00:00.000Z  INFO build_service: {line}")
        assert record is not None and record.fields["user"] == "one" and int(record.fields["request_id"]) < BUILDS
        assert re.search(r"\.\.\. \[\d{4} characters left out\]", line)
    assert size(tmp_path) <= 2 * LEAST_BYTES + 2 * BUILDS * text.SHORT_LINE_BYTES


def test_refusals_that_are_long_are_left_out_by_their_bytes_and_told_at_the_end(tmp_path: Path) -> None:
    log = opened(tmp_path, **SMALL_LOG)
    for _ in range(LINES):
        log.refusal(1, "build refused", args=[LONG])
    log.by_caller(2, "error", "cannot serve a caller")
    log.error("of the service's own")
    assert finish(log) == 0
    lines = messages(tmp_path)
    refused = [line for line in lines if line.startswith("build refused")]
    assert len(refused) == LEAST_BYTES // text.MAX_LINE_BYTES
    count, bytes_ = told(lines, 1)
    assert count == LINES - len(refused)
    assert count * (text.MAX_LINE_BYTES - 64) < bytes_ <= count * text.MAX_LINE_BYTES
    assert lines[len(refused) : -1] == ["cannot serve a caller", "of the service's own"]


def test_a_level_that_is_not_logged_costs_no_budget(tmp_path: Path) -> None:
    log = opened(tmp_path, level="error")
    for _ in range(2 * LINES):
        log.refusal(1, "build refused")
        log.build(1, "info", "build started")
    log.by_caller(1, "error", "m")
    assert finish(log) == 0
    assert messages(tmp_path) == ["m"]


def test_lines_of_sessions_from_before_a_reload_are_understood() -> None:
    """A session keeps the program that it began with: packets of version 0.1.0 had a uid or nothing before a line."""
    assert log_channel.unpacked(b"20001\0line\n") == (20001, b"line\n", None)
    assert log_channel.unpacked(b"line\n") == (None, b"line\n", None)


# --- the service ------------------------------------------------------------------------------------------------------


def refuse(service: Service, count: int) -> None:
    for _ in range(count):
        with RawCaller(service) as caller:
            assert caller.ask(command="nonsense").exit()["code"] == 1


def test_a_user_who_builds_without_end_does_not_turn_over_the_log(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour, {"logging": SMALL_LOG})
    write_tree(service.workspace, {"Makefile": "all:\n\t@:\n"}, service.caller)
    service.daemon.await_log("build-service listens")
    for number in range(BUILDS):
        with RawCaller(service) as caller:
            assert caller.ask(LONG, request_id=f"flood-{number}").exit()["code"] == 0
    last = service.run("make", LONG)
    assert (last.stdout, last.returncode) == ("", 0)
    service.daemon.await_log("build completed .*request_id=(?!flood)")
    assert at_rest(service.daemon)
    doctor = ["doctor", "--config", str(service.daemon.config)]
    state = findings(ctl(service, *doctor, user=service.daemon.user, env={"PATH": daemon_path()}))
    assert state["ok last build"].endswith(f"build completed, user {service.caller.name}, exit code 0")
    service.daemon.stop()
    lines = messages(service.daemon.log_path.parent)
    assert any(line.startswith("build-service listens") for line in lines)  # it was there before, and is
    for what in ("started", "completed"):
        numbers = [re.findall(r"request_id=flood-(\d+)$", line) for line in lines if line.startswith(f"build {what}")]
        assert [int(found[0]) for found in numbers if found] == list(range(BUILDS))
    builds = [line for line in lines if line.startswith("build ")]
    assert len(builds[0]) > text.SHORT_LINE_BYTES >= len(builds[-1])


def test_refusals_do_not_take_the_budget_of_builds(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@:\n"}, service.caller)
    refuse(service, 3 * LINES)
    assert service.run("make", LONG).returncode == 0
    assert len(service.daemon.await_log("build completed")) > text.SHORT_LINE_BYTES


def test_debugging_has_no_line_of_a_caller_that_is_not_counted(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour, {"logging": {"level": "debug"}})
    request, begin = {"command": "make", "cwd": str(service.workspace)}, time.monotonic()
    for number in range(2 * LINES):
        with RawCaller(service) as caller:
            if number % 2:
                assert caller.ask(command=None, args=None, cwd=None, check=request).exit()["code"] == 0
            else:
                caller.socket.shutdown(socket.SHUT_WR)  # a hang-up might be seen before there is a session for it
                assert caller.next_event() is None
    assert at_rest(service.daemon)
    service.daemon.stop()
    assert_limited(service.daemon.log_lines(), "DEBUG build_service: ", service.caller.uid, 2 * LINES, begin)


def test_callers_for_whom_there_is_no_process_are_counted_too(start_service: StartService) -> None:
    service = start_service("user", {"service": {"prefork": 0}})
    service.daemon.await_log("build-service listens")
    before, begin = limit(service, "RLIMIT_NPROC", 0), time.monotonic()
    for _ in range(LINES + 3):
        with RawCaller(service) as caller:
            assert caller.exit()["code"] == 1
    limit(service, "RLIMIT_NPROC", before)
    service.daemon.stop()
    assert_limited(service.daemon.log_lines(), "cannot serve a caller", service.caller.uid, LINES + 3, begin)


def test_what_the_service_says_of_itself_is_limited_where_callers_can_repeat_it(
    flavour: str, start_service: StartService
) -> None:
    """Sessions end by a signal one after the other, as where memory is scarce; whose fault it is nobody can tell."""
    service = start_service(flavour)
    service.daemon.await_log("build-service listens")
    begin = time.monotonic()
    for _ in range(LINES + 3):
        idle = session_ahead(service)
        os.kill(idle, signal.SIGKILL)
        assert await_exit(idle)
    assert at_rest(service.daemon)
    service.daemon.stop()
    assert_limited(service.daemon.log_lines(), "a session was killed", service.daemon.user.uid, LINES + 3, begin)


@pytest.mark.needs_root
def test_the_uids_of_a_users_containers_are_one_owner(
    open_directory: OpenDirectory, start_service: StartService
) -> None:
    with subuid_file(open_directory() / "subuid", f"{DEV1.name}:400000:65536\n{DEV2.name}:500000:65536\n"):
        service = start_service("root")
        begin = time.monotonic()

        def all_of_them() -> None:
            """Each uid of the namespace once, and its uid 0, which is the user itself."""
            for uid in (0, *range(1, 2 * LINES), 65536):
                os.setresuid(uid, uid, 0)
                with RawCaller(service, User("", uid, 0, (), Path("/"))) as caller:
                    assert caller.ask(command="nonsense").exit()["code"] == 1
                os.setresuid(0, 0, 0)

        assert in_user_namespace(DEV1, 400000, 65536, all_of_them) == 0
        with RawCaller(service, User("", 500001, 500001, DEV2.groups, Path("/"))) as other:
            assert other.ask().exit()["code"] == 1
        assert at_rest(service.daemon)
        service.daemon.stop()
    lines = service.daemon.log_lines()
    assert_limited(lines, "build refused (?!uid=500001 )", DEV1.uid, 2 * LINES + 1, begin)
    assert sum("build refused uid=500001 " in line for line in lines) == 1
