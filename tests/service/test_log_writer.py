"""The log writer: it ends with the last sender and by no signal to all, holds nothing of others, and is replaced."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

from own_log import Console, finish, forked, messages, opened, stop, wait


def test_the_writer_ends_with_the_last_sender_and_its_lines_are_there(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wake_end, sleep_end = socket.socketpair()

    def session() -> None:
        log.in_child()
        wake_end.close()
        sleep_end.recv(1)
        log.info("last")

    pid = forked(session)
    log.info("arbiter ends")
    log.close()
    wake_end.close()
    sleep_end.close()
    assert wait(pid) == 0
    assert wait(log.writer_pid) == 0
    assert messages(tmp_path) == ["arbiter ends", "last"]


def test_signals_to_the_process_group_do_not_end_the_writer(tmp_path: Path) -> None:
    console = Console(tmp_path)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGTTOU"):
        signum = signal.Signals[name]
        os.kill(console.log.writer_pid, signum)
        console.log.info(signum.name)
        assert console.next_message() == signum.name
    assert console.finish() == []


def test_a_signal_that_comes_before_the_writer_is_ready_does_not_end_it_either(tmp_path: Path) -> None:
    for _ in range(20):
        log = opened(tmp_path)
        os.kill(log.writer_pid, signal.SIGTERM)
        assert finish(log) == 0


def test_no_handler_of_the_arbiter_runs_in_the_writer(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    previous = signal.signal(signal.SIGUSR2, lambda *_: ran.touch())
    try:
        log = opened(tmp_path / "log")
    finally:
        signal.signal(signal.SIGUSR2, previous)
    os.kill(log.writer_pid, signal.SIGUSR2)
    assert finish(log) == -signal.SIGUSR2
    assert not ran.exists()


def test_the_writer_holds_nothing_of_the_arbiter(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, open(tmp_path / "held", "w"):
        console = Console(tmp_path / "log")
        console.log.info("m")
        console.next_message()
        directory = Path(f"/proc/{console.log.writer_pid}")
        held = sorted(os.readlink(path) for path in (directory / "fd").iterdir())
        assert held[:2] == ["/dev/null", "/dev/null"]
        assert held[2] == str(tmp_path / "log" / "build-service.log")
        assert [re.sub(r"\d+", "", name) for name in held[3:]] == ["pipe:[]"] * 5 + ["socket:[]"]
        assert f"socket:[{os.fstat(listener.fileno()).st_ino}]" not in held
        assert os.readlink(directory / "cwd") == "/"
        assert re.search(r"^Umask:\s*0077$", (directory / "status").read_text(), re.MULTILINE)
        console.finish()


def test_a_killed_writer_is_replaced_and_loses_nothing_that_was_queued(tmp_path: Path) -> None:
    log = opened(tmp_path)
    stop(log.writer_pid)
    log.info("to the first writer")
    os.kill(log.writer_pid, signal.SIGKILL)
    assert wait(log.writer_pid) == -signal.SIGKILL

    def session() -> None:
        log.in_child()
        log.info("from a session while there is no writer")

    assert wait(forked(session)) == 0
    first = log.writer_pid
    assert log.restart_writer() == log.writer_pid != first
    log.info("to the second writer")
    assert finish(log) == 0
    assert messages(tmp_path) == [
        "to the first writer",
        "from a session while there is no writer",
        "to the second writer",
    ]
