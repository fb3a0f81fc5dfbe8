"""The same commands typed twice by a caller: with the real tools on PATH, and with the wrapper in their place.

The tests of real trees use it (tests/service/test_real_*.py). Each way starts from the same tree in the same directory,
so that all that it shows and leaves can be compared: output, exit codes, files with their modes and owners. What
differs at every run, a time say, is masked by a pattern, and nothing else is.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import harness
from daemon import Service
from harness import BIN
from harness_world import User, inside
from terminal import Terminal

FLAVOUR = "root" if inside() else "user"
"""The one of harness that is nearest to an installation: these tests take seconds, and other ones try both."""

STEP_SEC = 120.0
"""How long one command may take on a busy machine."""

MOST_LINES, MOST_CHARACTERS = 40, 300
"""So much is told of what differs in one file or stream."""

TYPED = "build started "
"""The log has a line with it for each build of the service."""


class Shown(NamedTuple):
    """What a command wrote, and how it ended."""

    command: str
    stdout: str
    stderr: str
    code: int


class Left(NamedTuple):
    """What is under a name: its type and mode, owner and group, and its bytes, or where it leads if it is a link."""

    mode: str
    uid: int
    gid: int
    content: str


class Done(NamedTuple):
    """All that one way showed, command by command, and left, by relative path."""

    shown: Sequence[Shown]
    left: Mapping[str, Left]


class Way(NamedTuple):
    """A caller who is to type in `directory`."""

    caller: User
    directory: Path
    env: Mapping[str, str]

    def types(self, commands: str) -> list[Shown]:
        """Runs command lines of sh one after the other, their standard input being /dev/null."""
        return [self._types(command) for command in commands.strip().splitlines()]

    def _types(self, command: str) -> Shown:
        argv = ["sh", "-c", command]
        done = harness.run_as(self.caller, argv, self.directory, self.env, timeout=STEP_SEC)
        return Shown(command, done.stdout, done.stderr, done.returncode)

    def types_at_terminal(self, command: str) -> Shown:
        """Runs the same at a terminal, where nobody types anything more."""
        with self.at_terminal(command) as terminal:
            shown, code = terminal.end()
        return Shown(command, shown, "", code)

    def at_terminal(self, command: str) -> Terminal:
        """Starts a command line of sh at a terminal of the xterm kind, with 30 rows and 90 columns."""
        argv = ["sh", "-c", f"stty rows 30 columns 90; {command}"]
        return Terminal(self.caller, argv, {**self.env, "TERM": "xterm"}, self.directory)


def same_both_ways(
    service: Service,
    tree: Path,
    type_all: Callable[[Way], Sequence[Shown]],
    masks: Mapping[str, str] | None = None,
    masked_output: str = "$.",
) -> Done:
    """Has `type_all` type where the tools are the real ones, and where they are the wrapper.

    Asserts that all of it is the same both ways, and returns it.

    Each time it starts from a fresh copy of `tree`, times of files included. `masks` are pairs of regular expressions:
    in files whose whole relative path matches the first, what matches the second is taken out; `masked_output` is the
    same for output.
    """
    wrappers = service.daemon.directory / "container-bin"
    wrappers.mkdir(mode=0o755)
    for name in ("make", "ninja", "cmake"):
        (wrappers / name).symlink_to(BIN / "make-wrapper.sh")
    (wrappers / "build-cli").symlink_to(BIN / "build-cli")
    path = harness.environment_of(service.caller)["PATH"]

    def typed(env: Mapping[str, str]) -> Done:
        directory = service.workspace / "tree"
        shutil.copytree(tree, directory, symlinks=True)
        for copied in (directory, *directory.rglob("*")):
            harness.give(copied, service.caller)
        shown = [
            each._replace(stdout=re.sub(masked_output, "", each.stdout), stderr=re.sub(masked_output, "", each.stderr))
            for each in type_all(Way(service.caller, directory, env))
        ]
        done = Done(shown, _left(directory, masks or {}))
        shutil.rmtree(directory)
        return done

    direct = typed({"PATH": path})
    assert not builds(service), "of the real tools one was a wrapper"
    served = typed({"PATH": f"{wrappers}:{path}", "BUILD_SERVICE_SOCKET": str(service.daemon.socket)})
    service.daemon.await_log(TYPED)
    found = "\n".join(differences(direct, served))
    assert not found, f"direct, and + through the service:\n{found}"
    return direct


def builds(service: Service) -> list[str]:
    """The log's line of each build so far."""
    return [line for line in service.daemon.log_lines() if TYPED in line]


def _left(directory: Path, masks: Mapping[str, str]) -> dict[str, Left]:
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes().decode("latin-1")
            for where, what in masks.items():
                if re.fullmatch(where, name):
                    content = re.sub(what, "", content)
        found[name] = Left(stat.filemode(status.st_mode), status.st_uid, status.st_gid, content)
    return found


def differences(direct: Done, served: Done) -> Iterator[str]:
    """A few lines for each command and each name that is not the same."""
    for ours, theirs in zip(direct.shown, served.shown):
        assert ours.command == theirs.command
        if ours != theirs:
            yield f"`{ours.command}` ended with {ours.code} and {theirs.code}"
            yield from _compared(ours.stdout, theirs.stdout)
            yield from _compared(ours.stderr, theirs.stderr)
    for name in sorted({*direct.left, *served.left}):
        here, there = direct.left.get(name), served.left.get(name)
        if here != there:
            yield f"{name}: {here and here[:3]} and {there and there[:3]}"
            yield from _compared(here.content if here else "", there.content if there else "")


def _compared(ours: str, theirs: str) -> Iterator[str]:
    found = difflib.unified_diff(ours.splitlines(), theirs.splitlines(), n=0, lineterm="")
    for line in itertools.islice(found, MOST_LINES):
        yield repr(line[:MOST_CHARACTERS])
