"""The paths in the arguments of ninja."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .options import Getopt, Option, PathArgument, Role, Takes, getopt_paths, last_directory, with_abbreviations


def _ninja_options() -> Getopt:
    """The options of ninja (its manual, "Running Ninja", and `ninja --help`); `-f -` is a file named "-"."""
    short = {letter: Option("-" + letter) for letter in "hnv"}
    short.update({letter: Option("-" + letter, Takes.VALUE) for letter in "djklw"})
    short["C"] = Option("-C", Takes.VALUE, Role.DIRECTORY)
    short["f"] = Option("-f", Takes.VALUE, Role.PATH)
    short["t"] = Option("-t", Takes.VALUE, ends_options=True)
    long = {"help": short["h"], "verbose": short["v"]}
    for name in ("version", "quiet"):
        long[name] = Option("--" + name)
    return Getopt(short, with_abbreviations(long), lambda role, value: False)


_NINJA = _ninja_options()

walks = last_directory


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    return getopt_paths(_NINJA, args, 0)
