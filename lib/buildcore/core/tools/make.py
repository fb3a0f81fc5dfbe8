"""The paths in the arguments of GNU make 4.2.1 to 4.4.1, on its command line and in its environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .options import Getopt, Option, PathArgument, Role, Takes, directories, getopt_paths, with_abbreviations

MAKEFILES = "MAKEFILES"
"""The variable of make that names more makefiles, in its environment and among its arguments."""

_BLANK = " \t\n\v\f\r"
_MAKEFILES = re.compile(rf"[{_BLANK}]*{MAKEFILES}[{_BLANK}]*(\+|\?|!|:{{0,3}})=[{_BLANK}]*")
"""The definitions of make (its manual, "Setting Variables"); `:::=` is one since 4.4."""
_WORD = re.compile(rf"[^{_BLANK}]+")


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


def _make_options() -> Getopt:
    """The options of GNU make (its manual, "Summary of Options"), those of 4.2.1 to 4.4.1 together.

    One table serves them all: what one version takes for a path option is neither ambiguous nor another
    option in this union (a test compares the versions). `-j 4` and `-l 2`, where make itself takes
    the next argument, need no rule: it takes only what looks like a number, never an option or a "--".
    """
    directory = Option("-C", Takes.VALUE, Role.DIRECTORY)
    makefile = Option("-f", Takes.VALUE, Role.PATH, dash_is_no_path=True)
    include = Option("-I", Takes.VALUE, Role.FREE, dash_is_no_path=True)
    old = Option("-o", Takes.VALUE, Role.FREE)
    new = Option("-W", Takes.VALUE, Role.FREE)
    evaluate = Option("-E", Takes.VALUE)
    jobs = Option("-j", Takes.MAYBE)
    load = Option("-l", Takes.MAYBE)
    sync = Option("-O", Takes.MAYBE)
    flags = {letter: Option("-" + letter) for letter in "BLRSbdehikmnpqrstvw"}
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
        long[name] = Option("--" + name)
    for name in ("jobserver-auth", "jobserver-fds", "jobserver-style", "sync-mutex"):
        long[name] = Option("--" + name, Takes.VALUE)
    for name in ("debug", "shuffle"):
        long[name] = Option("--" + name, Takes.MAYBE)
    # Since 4.4, and meant for make itself only: a makefile that is deleted once it was read.
    long["temp-stdin"] = Option("--temp-stdin", Takes.VALUE, Role.PATH, dash_is_no_path=True)
    return Getopt(short, with_abbreviations(long), _make_expands_home, _makefiles)


MAKE = _make_options()


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    return getopt_paths(MAKE, args, 0)


def without_repeats(steps: Sequence[PathArgument]) -> tuple[PathArgument, ...]:
    """The -C options that make 4.4 obeys. It compares a value as given with the earlier ones as it kept them:
    `-C ./a -C a` is a repeat, `-C a -C ./a` is none."""
    kept: set[str] = set()
    obeyed: list[PathArgument] = []
    for step in steps:
        if step.value not in kept:
            kept.add(_without_dot_slash(step.value))
            obeyed.append(step)
    return tuple(obeyed)


def walks(found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    """make before 4.4 obeys every -C, make 4.4 drops one that repeats the value of an earlier one (so `-C a -C .. -C a`
    ends in `a` or in `.`)."""
    steps = directories(found)
    return (steps, without_repeats(steps))


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
