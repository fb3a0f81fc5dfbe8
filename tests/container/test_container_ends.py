"""The ends of a build that was typed in a container: ^C, the time limit, and the end of the container itself."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from container.podman import AS_USER, ENVIRONMENT, IMAGE, mounts, podman, run, running, succeeded
from container.world import PODMAN_USER
from daemon import Daemon
from harness import await_exit, await_file, write_tree
from terminal import INTERRUPT, Terminal

ENDLESS = "all:\n\t@echo $$$$ > running; exec sleep 600\n"
"""Tells the pid of its recipe on the host once that runs."""

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.fixture
def endless(project: Path) -> Path:
    """A project whose build does not end by itself."""
    return write_tree(project, {"Makefile": ENDLESS}, PODMAN_USER)


def await_build(project: Path) -> int:
    """Waits until the endless build runs; returns the pid of its recipe on the host."""
    return int(await_file(project / "running"))


def at_terminal(project: Path, *command: str) -> Terminal:
    """A container that is started at a terminal."""
    argv = ["podman", "run", "--rm", "-it", *AS_USER, *mounts(project), IMAGE, *command]
    return Terminal(PODMAN_USER, argv, ENVIRONMENT)


def test_an_interrupt_at_the_terminal_ends_the_build_on_the_host(endless: Path) -> None:
    with at_terminal(endless, "make") as terminal:
        recipe = await_build(endless)
        terminal.press(INTERRUPT)
        shown, code = terminal.end()
    assert await_exit(recipe)
    assert "make: ***" in shown
    assert code == 128 + signal.SIGINT


def test_a_shell_in_the_container_goes_on_after_an_interrupted_build(endless: Path) -> None:
    with at_terminal(endless, "bash", "--norc") as terminal:
        terminal.press("make\n")
        recipe = await_build(endless)
        terminal.press(INTERRUPT)
        terminal.await_text(r"make: \*\*\*")
        terminal.press('echo "ended with $?"\n')
        terminal.await_text(f"ended with {128 + signal.SIGINT}")
        terminal.press("exit 0\n")
        assert terminal.end()[1] == 0
    assert await_exit(recipe)


def test_the_time_limit_ends_the_build_on_the_host(endless: Path) -> None:
    late = run("make", options=[*mounts(endless), "--env=BUILD_SERVICE_TIMEOUT=1"])
    assert await_exit(await_build(endless))
    assert late.stderr.endswith("build timed out after 1s\n")
    assert late.returncode == 124


def test_podman_stop_ends_the_build_as_sigterm_ends_make(endless: Path) -> None:
    with running("make", options=mounts(endless)) as container:
        recipe = await_build(endless)
        succeeded(podman("stop", "--time=30", container.name))
        assert container.await_exit() == 128 + signal.SIGTERM
        assert await_exit(recipe)


def test_podman_kill_ends_the_build(endless: Path, daemon: Daemon) -> None:
    with running("make", options=mounts(endless)) as container:
        recipe = await_build(endless)
        succeeded(podman("kill", container.name))
        assert container.await_exit() == 128 + signal.SIGKILL
        assert await_exit(recipe)
        daemon.await_log("cancelled")


def test_the_end_of_the_container_ends_a_build_that_was_started_in_it_later(endless: Path) -> None:
    with running("sleep", "infinity", options=mounts(endless)) as container, container.start_exec("make") as typed:
        recipe = await_build(endless)
        succeeded(podman("rm", "--force", "--time=0", container.name))
        assert await_exit(recipe)
        typed.communicate()
