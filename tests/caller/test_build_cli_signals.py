"""Signals to build-cli: they cancel the build as they would end make, at any moment."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from clients import makefile
from daemon import Service
from fake_server import FakeServer
from harness import read_until
from harness_world import inside
from wire import WAITING, Gate, assert_ended, at_rest, await_handler, foreign_processes, waiting_make

StartService = Callable[..., Service]
SAYS_WHY_IT_ENDS = (
    "\t@trap 'echo heard; read x < gate; trap - INT TERM HUP; kill -$$caught $$$$' EXIT;"
    " for s in INT TERM HUP; do trap \"trap '' INT TERM HUP; caught=$$s; exit\" $$s; done;"
    " echo make $$PPID waits; while :; do read x < gate; done\n"
)
"""A recipe that, when it hears a signal, says so and waits at the gate before it dies by it: what make says then comes
long after the signal, when make has heard of it as well. What make passes on to it then is not to be heard again."""

CANCELS = [(signal.SIGINT, "Interrupt"), (signal.SIGTERM, "Terminated"), (signal.SIGHUP, "Hangup")]


@pytest.mark.parametrize(("signum", "word"), CANCELS, ids=[word for _, word in CANCELS])
def test_a_signal_cancels_the_build_and_what_make_says_of_it_is_relayed(
    signum: signal.Signals, word: str, service: Service
) -> None:
    makefile(service, "all:\n" + SAYS_WHY_IT_ENDS)
    with Gate(service.workspace, service.caller) as gate:
        process = service.popen("--request-id", "cancelled", "make", start_new_session=True)
        assert process.stdout
        make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
        os.killpg(process.pid, signum)
        read_until(process.stdout.fileno(), "heard\n")
        await_handler(make, signum)
        gate.open()
        out, err = process.communicate()
    assert err.decode() == f"make: *** [Makefile:2: all] {word}\n"
    assert process.returncode == -signum
    assert_ended(make)
    service.daemon.await_log("build cancelled .*request_id=cancelled")
    assert not foreign_processes(service.daemon)


def test_control_c_on_a_terminal_is_what_it_is_for_make(service: Service) -> None:
    makefile(service, "all:\n" + SAYS_WHY_IT_ENDS)
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with Gate(service.workspace, service.caller) as gate:
        process = service.popen("make", stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal)
        os.close(slave)
        make = waiting_make(read_until(master, "waits\r\n"))
        os.write(master, b"\x03")
        read_until(master, "heard\r\n")
        await_handler(make, signal.SIGINT)
        gate.open()
        read_until(master, r"make: \*\*\* \[Makefile:2: all\] Interrupt\r\n")
        assert process.wait() == -signal.SIGINT
        assert_ended(make)
    os.close(master)


def test_a_second_control_c_ends_the_client_at_once_and_the_build_after_its_grace(start_service: StartService) -> None:
    service = start_service("root" if inside() else "user", {"build": {"timeouts": {"grace_sec": 1}}})
    recipe = "@trap 'echo ignored' INT TERM; echo make $$PPID waits; while :; do read x < gate; done"
    makefile(service, f"all:\n\t{recipe}\n")
    with Gate(service.workspace, service.caller):
        process = service.popen("make", start_new_session=True)
        assert process.stdout and process.stderr
        make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
        process.send_signal(signal.SIGINT)
        read_until(process.stdout.fileno(), "ignored\n")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
        assert time.monotonic() - began < 1  # the grace would be over then
        process.stdout.close()
        process.stderr.close()
        assert_ended(make)
        service.daemon.await_log("build cancelled .*exit_code=137 ")


def test_a_client_that_is_killed_cancels_its_build(service: Service) -> None:
    makefile(service, f"all:\n{WAITING}")
    with Gate(service.workspace, service.caller):
        process = service.popen("make")
        assert process.stdout
        make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
        process.kill()
        process.communicate()
        assert_ended(make)
    service.daemon.await_log("build cancelled ")


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(name: str, one: Service) -> None:
    makefile(one, f"all:\n{WAITING}")
    command = " ".join(shlex.quote(os.fspath(word)) for word in one.argv("make"))
    argv = ["/bin/sh", "-c", f"trap '' {name}; exec {command}"]
    with Gate(one.workspace, one.caller) as gate:
        process = harness.popen_as(one.caller, argv, one.workspace, stdout=-1, stderr=-1)
        assert process.stdout
        read_until(process.stdout.fileno(), "waits\n")
        process.send_signal(signal.Signals[f"SIG{name}"])
        gate.open()
        assert process.communicate() == (b"done\n", b"")
        assert process.returncode == 0


def test_it_waits_where_a_signal_that_came_just_before_wakes_it(fake: FakeServer) -> None:
    """Python's handlers run between two steps: before a blocking recv(2) a signal would go unheard until it returns."""
    process = fake.start()
    connection, _ = fake.accept()
    with connection:
        connection.sendall(b'{"type":"stdout","data":"first\\n"}\n')
        assert process.stdout and process.stdout.readline() == b"first\n"
        deadline = time.monotonic() + harness.PATIENCE_SEC
        while "poll" not in Path(f"/proc/{process.pid}/wchan").read_text():
            assert time.monotonic() < deadline, "it waits somewhere else"
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert connection.recv(1000) == b'{"type":"cancel","signal":"INT"}\n'
    process.communicate()


BEFORE_THE_FIRST_LINE = re.compile(
    rb'Fatal Python error: (?:Py_I|i)nit|argv\[0\]|line 0, in <module>|File "<string>", line 1, in <module>'
    rb'|^Traceback .*\n(?:  File "<frozen .*\n)+KeyboardInterrupt\n\Z', re.MULTILINE
)
"""What Python itself says of a SIGINT in the third of a millisecond before a program's first line is run.

Up to Python 3.6 it names that line, which only imports what the next one needs to let SIGINT end the program. Later
ones may be in the midst of what they import themselves for the start of a program that is a zip file: no frame is ours.
"""


def test_a_signal_at_any_moment_of_the_start_is_no_traceback(one: Service) -> None:
    makefile(one, "all:\n\t@sleep 5\n")
    for step in range(24):
        process = one.popen("make", start_new_session=True)
        try:
            process.wait(step * 0.004)  # not to wait for anything: to hit it wherever it is by then
        except subprocess.TimeoutExpired:
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
        if BEFORE_THE_FIRST_LINE.search(err):
            continue
        assert process.returncode == -signal.SIGINT, err
        assert b"Traceback" not in err and b"KeyboardInterrupt" not in err
    assert at_rest(one.daemon)
