"""At a terminal a build is at that terminal: it writes there itself, reads what is typed, stops and goes on with ^Z."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon import Service
from harness import await_exit, processes, write_tree
from terminal import INTERRUPT, QUIT, SUSPEND, Terminal
from wire import WAITING, Gate, assert_ended, at_rest, reap_adopted, waiting_make

StartService = Callable[..., Service]

KINDS = """
@for fd in 0 1 2; do if test -t $$fd; then echo $$fd is a terminal; else echo $$fd is none; fi; done
"""


def at_terminal(service: Service, *arguments: str, env: dict[str, str] | None = None) -> Terminal:
    return Terminal(service.caller, service.argv(*(arguments or ("make",))), env or {}, service.workspace)


@contextmanager
def in_shell(service: Service) -> Iterator[Terminal]:
    """A shell with job control, whose `$MAKE` is the client. It ends, and so do its jobs, before it is left."""
    words = " ".join(str(word) for word in service.argv("make"))
    env = {"MAKE": words, "PS1": "ready> ", "HISTFILE": "/dev/null"}
    with Terminal(service.caller, ["bash", "--noprofile", "--norc", "-i"], env, service.workspace) as shell:
        shell.await_text("ready> ")
        yield shell
        shell.press("exit\nexit\n")  # the second one, should it think that there are stopped jobs
        shell.end()
    reap_adopted()


def recipe(service: Service, *lines: str) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n" + "".join(f"\t{line}\n" for line in lines)}, service.caller)


# --- what is a terminal -----------------------------------------------------------------------------------------------


def test_each_standard_descriptor_is_a_terminal_where_the_client_s_is(service: Service) -> None:
    recipe(service, KINDS.strip())
    with in_shell(service) as shell:
        shell.press("$MAKE\n")
        shell.await_text("0 is a terminal\r\n1 is a terminal\r\n2 is a terminal\r\n")
        shell.press("$MAKE </dev/null\n")
        shell.await_text("0 is none\r\n1 is a terminal\r\n2 is a terminal\r\n")
        shell.press("$MAKE 2>/dev/null | cat\n")
        shell.await_text("0 is a terminal\r\n1 is none\r\n2 is none\r\n")


@pytest.mark.parametrize("how", ["--stdio=events", "BUILD_SERVICE_STDIO"])
def test_output_is_carried_as_events_where_that_is_asked_for(how: str, service: Service) -> None:
    recipe(service, KINDS.strip())
    option, env = ([how], {}) if how.startswith("-") else ([], {how: "events"})
    with at_terminal(service, *option, "make", env=env) as terminal:
        shown, code = terminal.end()
    assert (shown, code) == ("0 is a terminal\r\n1 is none\r\n2 is none\r\n", 0)


def test_output_goes_straight_to_a_file_where_that_is_asked_for(service: Service, tmp_path: Path) -> None:
    recipe(service, "@echo out; echo err >&2; ls -l /proc/$$$$/fd/1 | sed 's/.*-> //'")
    written = tmp_path / "written"
    with open(written, "wb") as file:
        done = service.run("--stdio=pass", "make", stdout=file, stderr=file)
    assert done.returncode == 0
    assert written.read_text() == f"out\nerr\n{written}\n"


@pytest.mark.parametrize("how", ["--stdio=both", "BUILD_SERVICE_STDIO"])
def test_another_way_is_a_line(how: str, service: Service) -> None:
    option, env = ([how], {}) if how.startswith("-") else ([], {how: "both"})
    done = service.run(*option, "make", env=env)
    assert (done.stderr, done.returncode) == (f"build-cli: {how.partition('=')[0]} takes events or pass\n", 1)


def test_a_build_may_ask_and_hear_the_answer(service: Service) -> None:
    recipe(service, "@printf 'Continue? '; read answer; echo you said $$answer")
    with at_terminal(service) as terminal:
        terminal.await_text(r"Continue\? ")
        terminal.press("yes\n")
        shown, code = terminal.end()
    assert (shown, code) == ("yes\r\nyou said yes\r\n", 0)


def test_a_build_in_the_background_takes_nothing_that_is_typed(service: Service) -> None:
    recipe(service, "@read line; echo make got: $$line")
    with in_shell(service) as shell:
        shell.press("$MAKE & wait; echo over\n")
        shell.await_text("make got:\r\n")
        shell.await_text("\nover\r\n")


def test_a_build_hears_that_the_terminal_has_another_size(service: Service) -> None:
    recipe(service, "@trap 'stty size' WINCH; echo ready; until read x < gate; do :; done")
    with Gate(service.workspace, service.caller) as gate, at_terminal(service) as terminal:
        terminal.resize(24, 80)
        terminal.await_text("ready\r\n")
        terminal.resize(33, 111)
        terminal.await_text("33 111\r\n")
        gate.open(2)
        assert terminal.end()[1] == 0


def test_a_terminal_that_hangs_up_ends_the_build(service: Service) -> None:
    recipe(service, WAITING.strip())
    with Gate(service.workspace, service.caller):
        with at_terminal(service) as terminal:
            make = waiting_make(terminal.await_text("waits\r\n"))
            terminal.hang_up()
            assert await_exit(terminal.process.pid)
        assert_ended(make)
        service.daemon.await_log("build cancelled")
    assert at_rest(service.daemon)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "signum"), [(INTERRUPT, signal.SIGINT), (QUIT, signal.SIGQUIT)])
def test_a_key_that_ends_a_build_is_heard_by_it_and_ends_the_client(
    key: str, signum: signal.Signals, service: Service
) -> None:
    name = signum.name.removeprefix("SIG")
    recipe(service, f"@trap 'echo heard {name}; exit 1' {name}; echo ready; until read x < gate; do :; done")
    with Gate(service.workspace, service.caller), at_terminal(service) as terminal:
        terminal.await_text("ready\r\n")
        terminal.press(key)
        terminal.await_text(f"heard {name}\r\n")
        _, code = terminal.end()
    assert code == -signum
    service.daemon.await_log("build cancelled")


@pytest.fixture
def counting(service: Service) -> Iterator[tuple[Service, Terminal]]:
    """A build that tells on each line that it is typed how often it was, in the foreground of a shell."""
    recipe(service, "@echo make $$PPID counts; while read line; do echo got $$line; done")
    with in_shell(service) as shell:
        shell.press("$MAKE\n")
        yield service, shell


def test_suspended_it_stands_still_and_goes_on_in_the_foreground(counting: tuple[Service, Terminal]) -> None:
    service, shell = counting
    shell.await_text(r"make \d+ counts\r\n")
    shell.press("one\n")
    shell.await_text("got one\r\n")
    shell.press(SUSPEND)
    shell.await_text("Stopped.*\r\n.*ready> ")
    stopped = [each for each in processes().values() if each.name in ("make", "sh") and each.state == "T"]
    assert {each.name for each in stopped} >= {"make", "sh"}
    shell.press("fg\n")
    shell.press("two\n")
    shell.await_text("got two\r\n")
    shell.press("\x04")
    shell.await_text("ready> ")


def test_a_suspended_build_can_be_killed(counting: tuple[Service, Terminal]) -> None:
    service, shell = counting
    shell.await_text(r"make \d+ counts\r\n")
    shell.press(SUSPEND)
    shell.await_text("Stopped.*\r\n.*ready> ")
    os.kill(int(re.findall(r"peer_pid=(\d+)", service.daemon.await_log("build started"))[0]), signal.SIGKILL)
    service.daemon.await_log("build cancelled")
    assert at_rest(service.daemon)
