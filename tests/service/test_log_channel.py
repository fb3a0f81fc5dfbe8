"""The way to the log writer: while it does not write no sender waits, and what does not fit is counted."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from buildcore.service import log_channel
from own_log import Console, dropped, finish, forked, messages, opened, stop, wait, without_reports


def test_a_stopped_writer_blocks_no_sender_and_reports_exactly_what_was_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_channel, "QUEUE_BYTES", 64 << 10)
    log = opened(tmp_path)
    stop(log.writer_pid)

    def session() -> None:
        log.in_child()
        for number in range(5000):
            log.info("from a session", number=number)

    pids = [forked(session) for _ in range(2)]
    for number in range(5000):
        log.info("from the arbiter", number=number)
    assert [wait(pid) for pid in pids] == [0, 0]
    os.kill(log.writer_pid, signal.SIGCONT)
    assert finish(log) == 0
    lines = messages(tmp_path)
    assert 0 < len(without_reports(lines)) < 15000
    assert len(without_reports(lines)) + dropped(lines) == 15000


def test_drops_are_reported_while_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_channel, "QUEUE_BYTES", 4096)
    console = Console(tmp_path)
    stop(console.log.writer_pid)
    for _ in range(100):
        console.log.info("m")
    os.kill(console.log.writer_pid, signal.SIGCONT)
    written = 0
    while (message := console.next_message()) == "m":
        written += 1
    assert message == f"{100 - written} log lines dropped"
    console.finish()


def test_more_drops_than_can_be_counted_are_reported_as_at_least_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_channel, "QUEUE_BYTES", 4096)
    monkeypatch.setattr(log_channel, "DROP_PIPE_BYTES", 4096)
    log = opened(tmp_path)
    stop(log.writer_pid)
    for _ in range(6000):
        log.info("m")
    os.kill(log.writer_pid, signal.SIGCONT)
    finish(log)
    assert [line for line in messages(tmp_path) if line != "m"] == ["at least 4096 log lines dropped"]


def test_without_arbiter_and_writer_a_session_goes_on_even_with_the_default_sigpipe(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wake_end, sleep_end = socket.socketpair()

    def session() -> None:
        log.in_child()
        wake_end.close()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        sleep_end.recv(1)
        log.info("nobody hears this")

    pid = forked(session)
    os.kill(log.writer_pid, signal.SIGKILL)
    finish(log)
    wake_end.close()
    sleep_end.close()
    assert wait(pid) == 0
