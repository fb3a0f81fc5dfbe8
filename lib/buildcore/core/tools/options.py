"""How tools read their arguments: what an option is, where its value stands, and which paths that gives.

The tables of the tools, beside this module, are written in its words. Values in, values out; an argument list that the
tool would refuse is not an error here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

OPERAND = "PATH"
"""Stands for the option of a path that has none."""


class Role(enum.Enum):
    """What the tool does with a path, hence what the policy owes it. A path of any role is mapped."""

    DIRECTORY = "directory"
    """The tool changes to it. Held where it is a step of a walk (see `directory_walks`)."""
    PATH = "path"
    """A file or directory that the tool reads or writes, relative to where the walk ends. Held."""
    FREE = "free"
    """May rightly lie outside the workspace (make -I /usr/include, cmake --install-prefix). Not held."""


@dataclass(frozen=True)
class PathArgument:
    """One path in an argument list. Its value is never empty: that names no file for any of the tools."""

    index: int
    """Position, in the argument list, of the string that holds the value."""
    start: int
    """Offset in that string, in characters, where the value begins."""
    value: str
    role: Role
    option: str
    """The option by its usual name, for messages: "-C" for --directory, too; OPERAND for a bare path, the name of
    the variable in a definition."""
    expands_home: bool = False
    """Whether the tool puts a home directory in place of a `~` at the front of the value. Which directory
    depends on its environment, for make even on a HOME=DIR among the arguments: only a refusal holds it."""
    computed: bool = False
    """Whether the tool makes the path from the value, by variables or a command: only a refusal holds it."""


class Takes(enum.Enum):
    """The three kinds of option of getopt_long(3)."""

    NOTHING = "no argument"
    VALUE = "required argument"
    MAYBE = "optional argument: only one that is attached"


@dataclass(frozen=True)
class Option:
    """One option. Spellings that lead to equal `Option`s are never ambiguous, as in getopt_long(3)."""

    name: str
    takes: Takes = Takes.NOTHING
    role: Role | None = None
    dash_is_no_path: bool = False
    """A lone "-" as the value is standard input or a switch, not a file of that name."""
    ends_options: bool = False
    """The arguments after this option and its value belong to something else."""


@dataclass(frozen=True)
class Getopt:
    """A tool that reads its arguments with getopt_long(3)."""

    short: Mapping[str, Option]
    long: Mapping[str, Option]
    """By each name and by each abbreviation that is not ambiguous: see `with_abbreviations`."""
    expands_home: Callable[[Role, str], bool]
    operand: Callable[[int, str], Iterable[PathArgument]] = lambda index, arg: ()
    """The paths in an argument that is no option, at that index."""


def with_abbreviations(options: Mapping[str, Option]) -> dict[str, Option]:
    """The options by their full names, and by each beginning of a name that leads to one option alone.

    It is made once: to look for the beginning among all names, for each of 100000 arguments, takes seconds.
    """
    found: dict[str, Option | None] = {}
    for name, option in options.items():
        for end in range(len(name)):
            found[name[:end]] = option if found.get(name[:end], option) == option else None
    return {name: option for name, option in found.items() if option is not None} | dict(options)


def getopt_paths(tool: Getopt, args: Sequence[str], begin: int) -> Iterator[PathArgument]:
    """The paths in `args[begin:]` for a tool that reads options wherever they stand before a "--"."""
    index = begin
    while index < len(args) and args[index] != "--":
        option, start = _option_in(tool, args[index])
        if option is None:
            yield from tool.operand(index, args[index])
            index += 1
            continue
        if option.takes is Takes.VALUE and start is None:
            index, start = index + 1, 0
        value = args[index][start:] if start is not None and index < len(args) else ""
        if option.role is not None and start is not None and value and not _is_dash(option, value):
            home = tool.expands_home(option.role, value)
            yield PathArgument(index, start, value, option.role, option.name, home)
        if option.ends_options:
            return
        index += 1
    for rest in range(index + 1, len(args)):
        yield from tool.operand(rest, args[rest])


def _is_dash(option: Option, value: str) -> bool:
    return option.dash_is_no_path and value == "-"


def _option_in(tool: Getopt, arg: str) -> tuple[Option | None, int | None]:
    """The one option in `arg` that may have a value, and the offset of the value if it is attached.

    (None, None) when there is none: an operand, or options without values, or a usage error. getopt_long(3)
    reads on after an error as if the option were not there, and so does the walker.
    """
    if arg.startswith("--"):
        name, equals, _ = arg[2:].partition("=")
        option = tool.long.get(name)
        if option is None or (equals and option.takes is Takes.NOTHING):
            return None, None
        return option, len("--" + name + "=") if equals else None
    if arg.startswith("-"):
        for offset, letter in enumerate(arg[1:], start=1):
            option = tool.short.get(letter)
            if option is not None and option.takes is not Takes.NOTHING:
                return option, offset + 1 if arg[offset + 1:] else None
    return None, None


def directories(found: Sequence[PathArgument]) -> tuple[PathArgument, ...]:
    return tuple(argument for argument in found if argument.role is Role.DIRECTORY)


def last_directory(found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    """The walk of a tool that obeys the last of its directories only."""
    return (directories(found)[-1:],)


@dataclass(frozen=True)
class Word:
    """What a tool takes from its command line at once: an option with its value, or an operand (no option)."""

    index: int
    start: int
    value: str
    option: Option | None = None

    def path(self, role: Role | None, name: str = OPERAND, expands_home: bool = False) -> Iterator[PathArgument]:
        """The value as a path of `role`, if it is one."""
        if role is not None and self.value:
            yield PathArgument(self.index, self.start, self.value, role, name, expands_home)

    def option_path(self, expands_home: bool = False) -> Iterator[PathArgument]:
        """The value as the path that the option has, if it has one."""
        if self.option is not None and not _is_dash(self.option, self.value):
            yield from self.path(self.option.role, self.option.name, expands_home)


def named_words(options: Mapping[str, Option], args: Sequence[str], begin: int = 0) -> Iterator[Word]:
    """The words of a tool that knows its options by their whole names, dashes included: a value follows after "=", or
    is the next argument, whatever that is."""
    index = begin
    while index < len(args):
        name, equals, value = args[index].partition("=")
        option = options.get(name)
        if option is None or option.takes is Takes.NOTHING:
            yield Word(index, 0, args[index], option)
        elif equals or option.takes is Takes.MAYBE:
            yield Word(index, len(name + equals), value, option)
        else:
            index += 1
            yield Word(index, 0, args[index] if index < len(args) else "", option)
        index += 1


def letter_words(
    short: Mapping[str, Option], long: Mapping[str, Option], args: Sequence[str], begin: int = 0
) -> Iterator[Word]:
    """The words of a tool that reads its arguments as clap of Rust and argparse of Python do.

    Letters may be bundled; a value is attached to a letter, with or without "=", or follows a name after "=", or is the
    next argument, unless that begins with a dash. After a "--" there are operands alone. What is no known option, and
    no operand, is left out.
    """
    index = begin
    while index < len(args) and args[index] != "--":
        arg = args[index]
        option, start = _with_value(short, long, arg)
        if option is None:
            if _is_operand(arg):
                yield Word(index, 0, arg)
        elif start is not None:
            yield Word(index, start, arg[start:], option)
        elif option.takes is Takes.VALUE and index + 1 < len(args) and _is_operand(args[index + 1]):
            index += 1
            yield Word(index, 0, args[index], option)
        index += 1
    for rest in range(index + 1, len(args)):
        yield Word(rest, 0, args[rest])


def _is_operand(arg: str) -> bool:
    return arg == "-" or not arg.startswith("-")


def _with_value(
    short: Mapping[str, Option], long: Mapping[str, Option], arg: str
) -> tuple[Option | None, int | None]:
    """The option in `arg` that may have a value, and where the value begins if it is there."""
    if arg.startswith("--"):
        name, equals, _ = arg[2:].partition("=")
        option = long.get(name)
        return option, len("--" + name + "=") if equals and option is not None else None
    if arg.startswith("-"):
        for offset, letter in enumerate(arg[1:], start=2):
            option = short.get(letter)
            if option is not None and option.takes is not Takes.NOTHING:
                return option, offset + arg.startswith("=", offset) if arg[offset:] else None
    return None, None
