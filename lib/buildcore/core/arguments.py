"""Finds the paths in a command's argument list, the way the command itself will find them.

The policy calls this twice for a request: to rewrite the paths of the container into paths of the host, and
to hold the rewritten ones under the caller's workspace. Both use the same answer, so what was mapped, what
was checked and what the tool obeys cannot drift apart. Values in, values out: this module must never look
at the file system, and it judges nothing; an argument list that the tool would refuse is not an error here.

What is known: GNU make 4.2.1 to 4.4.1 (`make`, `gmake`), ninja (`ninja`) and CMake 3.20 to 3.31 (`cmake`).
Any other command has no path options as far as this module knows, and only its working directory is checked.

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

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MAKEFILES = "MAKEFILES"
"""The variable of make that names more makefiles, in its environment and among its arguments."""

_BLANK = " \t\n\v\f\r"
_MAKEFILES = re.compile(rf"[{_BLANK}]*{MAKEFILES}[{_BLANK}]*(\+|\?|!|:{{0,3}})=[{_BLANK}]*")
"""The definitions of make (its manual, "Setting Variables"); `:::=` is one since 4.4."""
_WORD = re.compile(rf"[^{_BLANK}]+")

MAKE_COMMANDS = ("make", "gmake")
KNOWN_COMMANDS = (*MAKE_COMMANDS, "ninja", "cmake")


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
    """The option by its usual name, for messages: "-C" for --directory, too; "PATH" for cmake's bare path, the name of
    the variable in a definition."""
    expands_home: bool = False
    """Whether the tool puts a home directory in place of a `~` at the front of the value. Which directory
    depends on its environment, for make even on a HOME=DIR among the arguments: only a refusal holds it."""
    computed: bool = False
    """Whether the tool makes the path from the value, by variables or a command: only a refusal holds it."""


class _Takes(enum.Enum):
    """The three kinds of option of getopt_long(3)."""

    NOTHING = "no argument"
    VALUE = "required argument"
    MAYBE = "optional argument: only one that is attached"


@dataclass(frozen=True)
class _Option:
    """One option. Spellings that lead to equal `_Option`s are never ambiguous, as in getopt_long(3)."""

    name: str
    takes: _Takes = _Takes.NOTHING
    role: Role | None = None
    dash_is_no_path: bool = False
    """A lone "-" as the value is standard input or a switch, not a file of that name."""
    ends_options: bool = False
    """The arguments after this option and its value belong to something else."""


@dataclass(frozen=True)
class _Getopt:
    """A tool that reads its arguments with getopt_long(3)."""

    short: Mapping[str, _Option]
    long: Mapping[str, _Option]
    """By each name and by each abbreviation that is not ambiguous: see `_with_abbreviations`."""
    expands_home: Callable[[Role, str], bool]
    operand: Callable[[int, str], Iterable[PathArgument]] = lambda index, arg: ()
    """The paths in an argument that is no option, at that index."""


def _with_abbreviations(options: Mapping[str, _Option]) -> dict[str, _Option]:
    """The options by their full names, and by each beginning of a name that leads to one option alone.

    It is made once: to look for the beginning among all names, for each of 100000 arguments, takes seconds.
    """
    found: dict[str, _Option | None] = {}
    for name, option in options.items():
        for end in range(len(name)):
            found[name[:end]] = option if found.get(name[:end], option) == option else None
    return {name: option for name, option in found.items() if option is not None} | dict(options)


def _without_dot_slash(name: str) -> str:
    """The name as make keeps it: without "./" at the front, however often and with however many slashes."""
    begin = 0
    while name.startswith("./", begin):
        begin += 2
        while name.startswith("/", begin):
            begin += 1
    return name[begin:] or "./"


def _make_expands_home(role: Role, value: str) -> bool:
    # make expands "~" first and drops "./" then. A makefile's name is expanded once more when it is opened,
    # so "-f ./~dev1/x" is a file of dev1's home, while "-C ./~dev1" is a directory of that odd name.
    return (value if role is Role.DIRECTORY else _without_dot_slash(value)).startswith("~")


def _makefiles(index: int, arg: str) -> Iterator[PathArgument]:
    """The makefiles in a definition of MAKEFILES: make reads each before all others, and minds none that is missing
    (GNU make manual, "The Variable MAKEFILES"). Where make computes the list, all of it is one path."""
    definition = _MAKEFILES.match(arg)
    if definition is None:
        return
    begin = definition.end()
    if definition[1] == "!" or "$" in arg[begin:]:
        if arg[begin:]:
            yield PathArgument(index, begin, arg[begin:], Role.PATH, MAKEFILES, computed=True)
        return
    for word in _WORD.finditer(arg, begin):
        yield PathArgument(index, word.start(), word[0], Role.PATH, MAKEFILES, word[0].startswith("~"))


def _make_options() -> _Getopt:
    """The options of GNU make (its manual, "Summary of Options"), those of 4.2.1 to 4.4.1 together.

    One table serves them all: what one version takes for a path option is neither ambiguous nor another
    option in this union (a test compares the versions). `-j 4` and `-l 2`, where make itself takes
    the next argument, need no rule: it takes only what looks like a number, never an option or a "--".
    """
    directory = _Option("-C", _Takes.VALUE, Role.DIRECTORY)
    makefile = _Option("-f", _Takes.VALUE, Role.PATH, dash_is_no_path=True)
    include = _Option("-I", _Takes.VALUE, Role.FREE, dash_is_no_path=True)
    old = _Option("-o", _Takes.VALUE, Role.FREE)
    new = _Option("-W", _Takes.VALUE, Role.FREE)
    evaluate = _Option("-E", _Takes.VALUE)
    jobs = _Option("-j", _Takes.MAYBE)
    load = _Option("-l", _Takes.MAYBE)
    sync = _Option("-O", _Takes.MAYBE)
    flags = {letter: _Option("-" + letter) for letter in "BLRSbdehikmnpqrstvw"}
    short = {
        **flags, "C": directory, "f": makefile, "I": include, "o": old, "W": new, "E": evaluate,
        "j": jobs, "l": load, "O": sync,
    }
    long = {
        "directory": directory, "file": makefile, "makefile": makefile, "include-dir": include,
        "old-file": old, "assume-old": old, "what-if": new, "new-file": new, "assume-new": new,
        "eval": evaluate, "jobs": jobs, "load-average": load, "max-load": load, "output-sync": sync,
        "always-make": flags["B"], "check-symlink-times": flags["L"], "dry-run": flags["n"],
        "environment-overrides": flags["e"], "help": flags["h"], "ignore-errors": flags["i"],
        "just-print": flags["n"], "keep-going": flags["k"], "no-builtin-rules": flags["r"],
        "no-builtin-variables": flags["R"], "no-keep-going": flags["S"], "print-data-base": flags["p"],
        "print-directory": flags["w"], "question": flags["q"], "quiet": flags["s"], "recon": flags["n"],
        "silent": flags["s"], "stop": flags["S"], "touch": flags["t"], "version": flags["v"],
    }
    for name in ("no-print-directory", "no-silent", "trace", "warn-undefined-variables"):
        long[name] = _Option("--" + name)
    for name in ("jobserver-auth", "jobserver-fds", "jobserver-style", "sync-mutex"):
        long[name] = _Option("--" + name, _Takes.VALUE)
    for name in ("debug", "shuffle"):
        long[name] = _Option("--" + name, _Takes.MAYBE)
    # Since 4.4, and meant for make itself only: a makefile that is deleted once it was read.
    long["temp-stdin"] = _Option("--temp-stdin", _Takes.VALUE, Role.PATH, dash_is_no_path=True)
    return _Getopt(short, _with_abbreviations(long), _make_expands_home, _makefiles)


def _ninja_options() -> _Getopt:
    """The options of ninja (its manual, "Running Ninja", and `ninja --help`); `-f -` is a file named "-"."""
    short = {letter: _Option("-" + letter) for letter in "hnv"}
    short.update({letter: _Option("-" + letter, _Takes.VALUE) for letter in "djklw"})
    short["C"] = _Option("-C", _Takes.VALUE, Role.DIRECTORY)
    short["f"] = _Option("-f", _Takes.VALUE, Role.PATH)
    short["t"] = _Option("-t", _Takes.VALUE, ends_options=True)
    long = {"help": short["h"], "verbose": short["v"]}
    for name in ("version", "quiet"):
        long[name] = _Option("--" + name)
    return _Getopt(short, _with_abbreviations(long), lambda role, value: False)


_MAKE = _make_options()
_NINJA = _ninja_options()

# cmake's options with a value. None stands for a value that is no path; such an option is listed so that its
# value is not taken for a bare path. -H is an old name of -S. A toolchain file comes with an SDK and is only
# read, so it is as free as a -D that names one.
_CMAKE_CONFIGURE: Mapping[str, Role | None] = {
    **dict.fromkeys(("-S", "-H", "-B", "-C", "-P"), Role.PATH),
    **dict.fromkeys(("--graphviz", "--trace-redirect", "--profiling-output"), Role.PATH),
    **dict.fromkeys(("--debugger-dap-log", "--debugger-pipe"), Role.PATH),
    **dict.fromkeys(("--toolchain", "--install-prefix"), Role.FREE),
    **dict.fromkeys(("-A", "-D", "-G", "-T", "-U", "-W", "--preset", "--list-presets"), None),
    **dict.fromkeys(("--log-level", "--loglevel", "--debug-find-pkg", "--debug-find-var"), None),
    **dict.fromkeys(("--trace-format", "--trace-source", "--profiling-format"), None),
}
_CMAKE_INSTALL: Mapping[str, Role | None] = {
    "--prefix": Role.FREE,
    **dict.fromkeys(("--config", "--component", "--default-directory-permissions"), None),
}
_CMAKE_BUILD = "--build"
_CMAKE_BUILD_FLAGS = ("--", "--clean-first", "--list-presets", "--use-stderr", "--verbose", "-v")
_CMAKE_BUILD_VALUES = ("--config", "--preset", "--resolve-package-references", "--target", "-t")


def path_arguments(command: str, args: Sequence[str]) -> tuple[PathArgument, ...]:
    """Every path in `args`, the arguments after the command's name, in the order the tool meets them.

    `command` is a key of the allowlist; one that is not among `KNOWN_COMMANDS` gives an empty tuple.
    Raises nothing, whatever the arguments are.
    """
    if command in MAKE_COMMANDS:
        return tuple(_getopt_paths(_MAKE, args, 0))
    if command == "ninja":
        return tuple(_getopt_paths(_NINJA, args, 0))
    if command == "cmake":
        return tuple(_cmake_paths(args))
    return ()


def directory_walks(command: str, found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    """The ways the tool may go from its working directory, given what `path_arguments` found; at least one.

    A walk is the directories that are changed to, one after the other, each relative to the one before. With
    no such option it is empty. There is more than one only where the arguments alone do not decide it:
    make before 4.4 obeys every -C, make 4.4 drops one that repeats the value of an earlier one (so
    `-C a -C .. -C a` ends in `a` or in `.`), and after `cmake --build DIR --` a ninja obeys only the last.
    """
    steps = tuple(argument for argument in found if argument.role is Role.DIRECTORY)
    if command == "ninja":
        return (steps[-1:],)
    build = tuple(step for step in steps if step.option == _CMAKE_BUILD)
    native = steps[len(build):]
    walks = [steps, build + _without_repeats(native)]
    if command == "cmake":
        walks.append(build + native[-1:])
    return tuple(dict.fromkeys(walks))


def makeflags_arguments(makeflags: str) -> tuple[str, ...]:
    """The arguments that make reads from the environment variable MAKEFLAGS, before those of its command line
    (GNU make manual, "Communicating Options to a Sub-make"); likewise from GNUMAKEFLAGS.

    `path_arguments("make", ...)` of the result tells what make 4.4 and later obeys of them; earlier ones skip
    -C, -f, -o and -W there, and make itself never puts these into MAKEFLAGS. `$$` is read as make reads it;
    any other reference stays as it is, for its value is not known here: see `refers_to_variables`.
    """
    text = makeflags.replace("$$", "$").lstrip(" \t\n\v\f\r")
    words = re.findall(r"(?:\\.|[^ \t])+", text, re.DOTALL)
    words = [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in words]
    if words and not words[0].startswith("-") and "=" not in words[0]:
        words[0] = "-" + words[0]
    return tuple(words)


def refers_to_variables(makeflags: str) -> bool:
    """Whether make would expand something in this value of MAKEFLAGS before it reads the arguments there."""
    return "$" in makeflags.replace("$$", "")


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


def _without_repeats(steps: Sequence[PathArgument]) -> tuple[PathArgument, ...]:
    """The -C options that make 4.4 obeys. It compares a value as given with the earlier ones as it kept them:
    `-C ./a -C a` is a repeat, `-C a -C ./a` is none."""
    kept: set[str] = set()
    obeyed: list[PathArgument] = []
    for step in steps:
        if step.value not in kept:
            kept.add(_without_dot_slash(step.value))
            obeyed.append(step)
    return tuple(obeyed)


def _getopt_paths(tool: _Getopt, args: Sequence[str], begin: int) -> Iterator[PathArgument]:
    """The paths in `args[begin:]` for a tool that reads options wherever they stand before a "--"."""
    index = begin
    while index < len(args) and args[index] != "--":
        option, start = _option_in(tool, args[index])
        if option is None:
            yield from tool.operand(index, args[index])
            index += 1
            continue
        if option.takes is _Takes.VALUE and start is None:
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


def _is_dash(option: _Option, value: str) -> bool:
    return option.dash_is_no_path and value == "-"


def _option_in(tool: _Getopt, arg: str) -> tuple[_Option | None, int | None]:
    """The one option in `arg` that may have a value, and the offset of the value if it is attached.

    (None, None) when there is none: an operand, or options without values, or a usage error. getopt_long(3)
    reads on after an error as if the option were not there, and so does the walker.
    """
    if arg.startswith("--"):
        name, equals, _ = arg[2:].partition("=")
        option = tool.long.get(name)
        if option is None or (equals and option.takes is _Takes.NOTHING):
            return None, None
        return option, len("--" + name + "=") if equals else None
    if arg.startswith("-"):
        for offset, letter in enumerate(arg[1:], start=1):
            option = tool.short.get(letter)
            if option is not None and option.takes is not _Takes.NOTHING:
                return option, offset + 1 if arg[offset + 1:] else None
    return None, None


def _cmake_paths(args: Sequence[str]) -> Iterator[PathArgument]:
    """The paths among the arguments of cmake (cmake(1)), whose first argument chooses what it is to do.

    `-E` runs any command, as a makefile does, so nothing of it is held; a workflow names a preset only.
    A `-D` that assigns a path is a variable like any other: neither mapped nor held.
    """
    mode = args[0] if args else ""
    if mode in ("-E", "--workflow"):
        return
    if mode not in (_CMAKE_BUILD, "--install", "--open"):
        yield from _cmake_options(_CMAKE_CONFIGURE, args, 0, bare_paths=True)
        return
    # The second argument is the directory even if it begins with a dash, except for an option of --build.
    if len(args) > 1 and args[1] and not (mode == _CMAKE_BUILD and _is_cmake_build_option(args[1])):
        role = Role.DIRECTORY if mode == _CMAKE_BUILD else Role.PATH
        yield PathArgument(1, 0, args[1], role, mode, args[1].startswith("~"))
    if mode == "--install":
        yield from _cmake_options(_CMAKE_INSTALL, args, 2, bare_paths=False)
    elif mode == _CMAKE_BUILD and "--" in args:
        # The rest goes to make or ninja, run in the build directory. Where ninja would read a -C or -f and
        # not stop with an error, make would read it, too, so the options of make find the paths for both.
        yield from _getopt_paths(_MAKE, args, args.index("--") + 1)


def _is_cmake_build_option(arg: str) -> bool:
    if arg in _CMAKE_BUILD_FLAGS or arg.startswith(("-j", "--parallel")):
        return True
    return any(arg == name or arg.startswith((name + "=", name + " ")) for name in _CMAKE_BUILD_VALUES)


def _cmake_options(
    options: Mapping[str, Role | None], args: Sequence[str], begin: int, bare_paths: bool
) -> Iterator[PathArgument]:
    """The paths in `args[begin:]` by cmake's own rules. An option matches at the front of an argument; its
    value follows at once, or after "=", or as the next argument, which then must not begin with a dash.

    `bare_paths`: whether an argument that belongs to no option is a source or build directory.
    """
    index = begin
    script = False
    while index < len(args) and not (script and args[index] == "--"):
        arg = args[index]
        role: Role | None = Role.PATH if bare_paths and not arg.startswith("-") else None
        start = 0
        name = next((name for name in options if arg.startswith(name)), None)
        if name is not None:
            role, start = options[name], len(name)
            script = script or name == "-P"  # only after a script's name, "--" ends what cmake reads
            if arg != name:
                start += arg.startswith("=", start)
                start += arg.startswith(" ", start)  # since 3.21: "-S dir" as one argument
            elif index + 1 < len(args) and not args[index + 1].startswith("-"):
                index, start = index + 1, 0
        value = args[index][start:]
        if role is not None and value:
            yield PathArgument(index, start, value, role, name or "PATH", value.startswith("~"))
        index += 1
