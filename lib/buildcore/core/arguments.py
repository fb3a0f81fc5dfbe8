"""Finds the paths in a command's argument list, the way the command itself will find them.

The policy calls this twice for a request: to rewrite the paths of the container into paths of the host, and
to hold the rewritten ones under the caller's workspace. Both use the same answer, so what was mapped, what
was checked and what the tool obeys cannot drift apart. Values in, values out: this module must never look
at the file system, and it judges nothing; an argument list that the tool would refuse is not an error here.

What is known: the tools of the table below, each in the versions that its module names. Any other command has no path
options as far as this module knows, and only its working directory is checked.

How the answer is checked, once the arguments were rewritten:

    found = path_arguments(command, args)
    for walk in directory_walks(command, found):
        here = cwd
        for step in walk:                                  # each one relative to the one before it
            here = resolve(here, step.value)               # and held under the workspace
        for argument in found:
            if argument.role is Role.PATH:
                resolve(here, argument.value)              # held under the workspace

make reads arguments from its environment, too, and 4.4 obeys a -C or -f there: see `makeflags_arguments`. Among its
arguments may be definitions of variables, and of these one names files that make reads: MAKEFILES. What is code, such
as `--eval` or a reference in the name of a variable, is not looked at.
Where versions of a tool differ, the answer is the one that shows the policy more. Where every version stops
with a usage error, before it reads any file, the answer does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from .tools import bazel, cargo, cmake, ctest, golang, make, meson, ninja, npm
from .tools.make import MAKEFILES, makeflags_arguments, refers_to_variables
from .tools.options import PathArgument, Role

__all__ = [
    "KNOWN_COMMANDS",
    "MAKEFILES",
    "MAKE_COMMANDS",
    "PathArgument",
    "Role",
    "directory_walks",
    "makeflags_arguments",
    "path_arguments",
    "refers_to_variables",
    "rewrite",
]

MAKE_COMMANDS = ("make", "gmake")


class _Tool(NamedTuple):
    paths: Callable[[Sequence[str]], Iterable[PathArgument]]
    walks: Callable[[Sequence[PathArgument]], Sequence[tuple[PathArgument, ...]]]


_TOOLS: Mapping[str, _Tool] = {
    **dict.fromkeys(MAKE_COMMANDS, _Tool(make.paths, make.walks)),
    "ninja": _Tool(ninja.paths, ninja.walks),
    "cmake": _Tool(cmake.paths, cmake.walks),
    "ctest": _Tool(ctest.paths, ctest.walks),
    "meson": _Tool(meson.paths, meson.walks),
    "cargo": _Tool(cargo.paths, cargo.walks),
    "go": _Tool(golang.paths, golang.walks),
    "npm": _Tool(npm.paths, npm.walks),
    **dict.fromkeys(("bazel", "bazelisk"), _Tool(bazel.paths, bazel.walks)),
}
KNOWN_COMMANDS = tuple(_TOOLS)


def path_arguments(command: str, args: Sequence[str]) -> tuple[PathArgument, ...]:
    """Every path in `args`, the arguments after the command's name, in the order the tool meets them.

    `command` is a key of the allowlist; one that is not among `KNOWN_COMMANDS` gives an empty tuple.
    Raises nothing, whatever the arguments are.
    """
    tool = _TOOLS.get(command)
    return () if tool is None else tuple(tool.paths(args))


def directory_walks(command: str, found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    """The ways the tool may go from its working directory, given what `path_arguments` found; at least one.

    A walk is the directories that are changed to, one after the other, each relative to the one before. With
    no such option it is empty. There is more than one only where the arguments alone do not decide it.
    """
    tool = _TOOLS.get(command)
    return ((),) if tool is None else tuple(dict.fromkeys(tool.walks(found)))


def rewrite(
    args: Sequence[str], found: Sequence[PathArgument], mapping: Callable[[PathArgument], str]
) -> list[str]:
    """A copy of `args` where each path of `found` has the value that `mapping` gives for it.

    The copy has its paths at the same places as `args`, as long as `mapping` gives a path that begins with
    a slash, or the value as it was; in a list of paths, one without blanks.
    """
    rewritten = list(args)
    in_one: dict[int, list[PathArgument]] = {}
    for argument in found:
        in_one.setdefault(argument.index, []).append(argument)
    for index, here in in_one.items():
        pieces, end = [], 0
        for argument in here:
            pieces += [args[index][end : argument.start], mapping(argument)]
            end = argument.start + len(argument.value)
        rewritten[index] = "".join(pieces) + args[index][end:]
    return rewritten
