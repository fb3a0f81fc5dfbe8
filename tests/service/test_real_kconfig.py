"""A project that kconfig configures gets the same .config through the service: by answers, by questions, by menus."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import both_ways
import harness
import real_trees
import tools
from both_ways import Shown, Way, same_both_ways
from daemon import Service
from terminal import BACKSPACE, DOWN, INTERRUPT, RIGHT, Terminal

pytestmark = tools.needed("kconfig-conf", "kconfig-mconf", *tools.TO_COMPILE)


@pytest.fixture
def flavour() -> str:
    return both_ways.FLAVOUR


@pytest.fixture
def tree() -> Iterator[Path]:
    directory = harness.write_tree(harness.open_directory(), real_trees.KCONFIG)
    yield directory
    shutil.rmtree(directory)


CONFIGURE = "yes '' | make oldconfig"
ASKS_MORE = r"""printf 'config NEW\n\tbool "New"\n' >> Kconfig && touch .config"""
"""A question that the .config does not answer: the next build asks it, where it can."""


def test_answers_that_are_piped_are_taken_the_same(service: Service, tree: Path) -> None:
    commands = rf"""
make
{CONFIGURE}
make
printf 'y\nn\n5\n2\n' | make config 2>&1
make && ./words
printf 'n\n7\n\n' > answers; make config < answers
make && ./words
"""
    done = same_both_ways(service, tree, lambda way: way.types(commands))
    assert [shown.code for shown in done.shown] == [2, 0, 0, 0, 0, 0, 0]
    assert done.shown[4].stdout.endswith("\n" + "VERBUM\n" * 5)
    assert done.shown[6].stdout.endswith("\n" + "verbum\n" * 7)


def test_a_question_that_nobody_can_answer_fails_the_same(service: Service, tree: Path) -> None:
    commands = f"""
{CONFIGURE}
{ASKS_MORE}
make
make 2>&1
make < .config
"""
    done = same_both_ways(service, tree, lambda way: way.types(commands))
    assert [shown.code for shown in done.shown] == [0, 0, 2, 2, 2]
    assert "Console input/output is redirected." in done.shown[2].stdout


def test_a_question_of_a_build_is_answered_at_the_terminal_the_same(service: Service, tree: Path) -> None:
    def typed(way: Way) -> Sequence[Shown]:
        shown = way.types(f"{CONFIGURE}\n{ASKS_MORE}")
        with way.at_terminal("make") as terminal:
            asked = terminal.await_text(r"New \(NEW\) \[N/y\] \(NEW\) ")
            terminal.press("y\n")
            more, code = terminal.end()
        return [*shown, Shown("make", asked + more, "", code)]

    done = same_both_ways(service, tree, typed)
    assert done.shown[-1].code == 0
    assert "CONFIG_NEW=y\n" in done.left[".config"].content and "words" in done.left


def test_a_question_that_is_interrupted_changes_nothing_the_same(service: Service, tree: Path) -> None:
    def typed(way: Way) -> Sequence[Shown]:
        with way.at_terminal("make config") as terminal:
            asked = terminal.await_text(r"Capital letters .*\] \(NEW\) ")
            terminal.press(INTERRUPT)
            asked += terminal.await_text(r"\^C")
            _, code = terminal.end()  # what make says of its end is left open: its child may be reaped before or after
        return [Shown("make config", asked, "", code)]

    done = same_both_ways(service, tree, typed)
    assert done.shown[0].code == -signal.SIGINT
    assert ".config" not in done.left


def menu_shown(terminal: Terminal) -> None:
    """Its last button is drawn last."""
    terminal.await_text("oad ")


def test_menus_are_gone_through_by_keys_the_same(service: Service, tree: Path) -> None:
    """At a terminal whose size and kind the menus follow: move, toggle, enter a number, save, exit."""

    def typed(way: Way) -> Sequence[Shown]:
        with way.at_terminal("make menuconfig") as terminal:
            menu_shown(terminal)
            terminal.press(" ")
            terminal.await_text("verything twice")
            menu_shown(terminal)
            terminal.press(DOWN * 2 + "\n")
            terminal.await_text("decimal")
            terminal.await_text("elp ")
            terminal.press(BACKSPACE + "7\n")
            menu_shown(terminal)
            terminal.press(RIGHT * 3 + "\n")
            terminal.await_text("filename")
            terminal.await_text(r"\.config")
            terminal.press("\n")
            terminal.await_text("configuration written")
            terminal.await_text("xit ")
            terminal.press("\n")
            menu_shown(terminal)
            terminal.press(RIGHT + "\n")
            shown, code = terminal.end()
        return [Shown("make menuconfig", shown[shown.rindex("\x1b") :], "", code), *way.types("make\n./words")]

    done = same_both_ways(service, tree, typed)
    assert [shown.code for shown in done.shown] == [0, 0, 0]
    assert "*** End of the configuration." in done.shown[0].stdout
    assert done.shown[-1].stdout == "WORD\n" * 7
