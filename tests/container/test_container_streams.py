"""What a build in a rootless container reads, and where it writes: the container's pipes, files and terminals."""

from __future__ import annotations

from pathlib import Path

import pytest

import real_trees
import tools
from container.podman import ENVIRONMENT, Container, mounts, run, running
from container.world import PODMAN_USER
from harness import write_tree
from terminal import RIGHT, Terminal

pytestmark = pytest.mark.usefixtures("daemon")

KINDS = """
@for fd in 0 1 2; do if test -t $$fd; then echo $$fd is a terminal; else echo $$fd is none; fi; done
"""


def recipe(project: Path, *lines: str) -> None:
    write_tree(project, {"Makefile": "all:\n" + "".join(f"\t{line}\n" for line in lines)}, PODMAN_USER)


def at_terminal(container: Container, *command: str, options: str = "--tty") -> Terminal:
    return Terminal(PODMAN_USER, ["podman", "exec", *options.split(), container.name, *command], ENVIRONMENT)


def test_a_makefile_is_read_from_a_heredoc_of_the_container(project: Path) -> None:
    script = "make -f - <<'END'\nall:\n\t@echo $(words here and there) words in $(CURDIR)\nEND\n"
    built = run("sh", "-c", script, options=mounts(project))
    assert (built.stdout, built.stderr, built.returncode) == (f"3 words in {project}\n", "", 0)


def test_what_the_container_pipes_is_read_and_nothing_behind_it(project: Path) -> None:
    recipe(project, "@read line; echo got $$line")
    built = run("sh", "-c", "printf '1\\n2\\n3\\n' | { make; make; cat; }", options=mounts(project))
    assert (built.stdout, built.stderr, built.returncode) == ("got 1\ngot 2\n3\n", "", 0)


@tools.needed("kconfig-conf")
def test_endless_answers_of_the_container_configure_a_project(project: Path) -> None:
    """The questions are asked by kconfig on the host."""
    write_tree(project, real_trees.KCONFIG, PODMAN_USER)
    asked = run("sh", "-c", "yes '' | make oldconfig && cat .config", options=mounts(project))
    assert asked.returncode == 0, asked
    assert "Capital letters (SHOUT) [N/y/?] (NEW)" in asked.stdout
    assert asked.stdout.endswith("CONFIG_LIMIT=3\nCONFIG_ENGLISH=y\n# CONFIG_LATIN is not set\n")


def test_without_a_terminal_there_is_none(project: Path) -> None:
    recipe(project, KINDS.strip())
    assert run("make", options=mounts(project)).stdout == "0 is none\n1 is none\n2 is none\n"


def test_a_terminal_of_the_container_is_the_build_s(project: Path) -> None:
    recipe(project, KINDS.strip())
    with running("sleep", "infinity", options=mounts(project)) as container:
        with at_terminal(container, "make") as terminal:
            assert terminal.end() == ("0 is a terminal\r\n1 is a terminal\r\n2 is a terminal\r\n", 0)
        with at_terminal(container, "sh", "-c", "make 2>&1 | cat") as terminal:
            assert terminal.end() == ("0 is a terminal\r\n1 is none\r\n2 is none\r\n", 0)


def test_a_build_asks_at_the_container_s_terminal_and_hears_the_answer(project: Path) -> None:
    recipe(project, "@printf 'Continue? '; read answer; echo you said $$answer")
    with running("sleep", "infinity", options=mounts(project)) as container:
        with at_terminal(container, "make", options="--interactive --tty") as terminal:
            terminal.await_text(r"Continue\? ")
            terminal.press("yes\n")
            assert terminal.end() == ("yes\r\nyou said yes\r\n", 0)


@tools.needed("kconfig-mconf")
def test_menus_are_gone_through_at_the_container_s_terminal(project: Path) -> None:
    write_tree(project, real_trees.KCONFIG, PODMAN_USER)
    with running("sleep", "infinity", options=mounts(project)) as container:
        with at_terminal(container, "make", "menuconfig", options="--interactive --tty") as terminal:
            terminal.await_text("oad ")  # the last button; its first letter has another colour
            terminal.press(" ")
            terminal.await_text("verything twice")
            terminal.await_text("oad ")
            terminal.press(RIGHT + "\n")
            terminal.await_text("save your")
            terminal.await_text("es ")
            terminal.press("\n")
            shown, code = terminal.end()
    assert "*** End of the configuration." in shown and code == 0
    assert "CONFIG_SHOUT=y\n" in (project / ".config").read_text()
