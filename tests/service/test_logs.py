"""The log as those who log see it: its lines, from one process and from many, and where they go."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from buildcore.core.settings import Logging
from buildcore.service import logs
from own_log import dropped, finish, forked, messages, opened, wait, without_reports


def test_a_line_has_the_requirements_form_and_the_senders_time(tmp_path: Path) -> None:
    log = opened(tmp_path)
    before = time.time()
    log.info("build started", user="dev1", cwd="/home/dev1/workspace/app", args=["-j4", "all"])
    after = time.time()
    finish(log)
    line = (tmp_path / "build-service.log").read_text()
    stamp, rest = line[:24], line[24:]
    assert rest == (
        '  INFO build_service: build started user=dev1 cwd=/home/dev1/workspace/app args=["-j4","all"]\n'
    )
    seconds, milliseconds = stamp[:-1].split(".")
    assert [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) for moment in (before, after)].count(
        seconds
    )
    assert len(milliseconds) == 3


def test_each_level_has_its_name_and_those_below_the_configured_one_are_not_sent(tmp_path: Path) -> None:
    known = {"trace": "ERROR  WARN  INFO DEBUG TRACE", "warn": "ERROR  WARN", "error": "ERROR"}
    for level, expected in known.items():
        directory = tmp_path / level
        log = opened(directory, level=level)
        for send in (log.error, log.warn, log.info, log.debug, log.trace):
            send("m")
        finish(log)
        lines = (directory / "build-service.log").read_text().splitlines()
        assert " ".join(line[25:30] for line in lines) == expected


def test_what_a_caller_sent_cannot_forge_a_line(tmp_path: Path) -> None:
    log = opened(tmp_path)
    forged = "2026-01-14T12:00:00.000Z  INFO build_service: forged"
    log.info("build started", args=[f"x\n{forged}", "\x1b[2J", "\udcff"])
    finish(log)
    assert len(messages(tmp_path)) == 1
    assert (tmp_path / "build-service.log").read_bytes().replace(b"\n", b"").decode().isprintable()


def test_file_and_directory_are_private_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        log = opened(tmp_path / "log")
    finally:
        os.umask(mask)
    log.info("m")
    finish(log)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "log" / "build-service.log").stat().st_mode) == 0o600


def test_a_relative_directory_is_the_one_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = logs.start(Logging(directory="log"))
    log.info("m")
    finish(log)
    assert messages(tmp_path / "log") == ["m"]


def test_a_new_start_goes_on_with_the_file(tmp_path: Path) -> None:
    for number in range(3):
        log = opened(tmp_path)
        log.info(f"run {number}")
        finish(log)
    assert messages(tmp_path) == ["run 0", "run 1", "run 2"]


def test_half_a_line_that_a_crash_left_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "build-service.log").write_text("2026-01-14T12:00:00.000Z  INFO build_ser")
    log = opened(tmp_path)
    log.info("next")
    finish(log)
    first, second = (tmp_path / "build-service.log").read_text().splitlines()
    assert first.endswith("build_ser")
    assert second.endswith(" next")


def test_after_close_logging_does_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    finish(log)
    log.info("m")
    log.close()
    log.wait_writer()
    assert messages(tmp_path) == []


def test_lines_of_several_processes_never_mix_and_each_keeps_its_order(tmp_path: Path) -> None:
    log = opened(tmp_path)

    def send(name: int) -> Callable[[], None]:
        def session() -> None:
            log.in_child()
            for number in range(500):
                log.info("m", name=name, number=number, args=["x" * (number * 7 % 3000)])

        return session

    assert [wait(pid) for pid in [forked(send(name)) for name in range(4)]] == [0] * 4
    assert finish(log) == 0
    lines = messages(tmp_path)
    for name in range(4):
        sent = re.compile(rf'm name={name} number=(\d+) args=\["x*"\]')
        numbers = [int(match[1]) for match in map(sent.fullmatch, lines) if match]
        assert numbers == sorted(numbers)
    assert len(without_reports(lines)) + dropped(lines) == 2000
    assert os.geteuid() != 0 or dropped(lines) == 0  # only root gets a queue that is sure to hold all of them
