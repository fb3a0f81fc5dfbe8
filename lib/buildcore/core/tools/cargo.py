"""The paths in the arguments of cargo 1.65 to 1.95 (`cargo help build` and the like).

Options are written as clap reads them, without abbreviations. `-C` changes the directory of all else. Commands that
cargo does not know, those of other programs, are taken to have its options, as they mostly do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from .options import Option, PathArgument, Role, Takes, last_directory, letter_words

_DEFINITION = re.compile(r"[^/=]+=")
"""`--config KEY=VALUE`, unless it is the name of a file."""

_SHORT = {
    "C": Option("-C", Takes.VALUE, Role.DIRECTORY),
    "s": Option("--sync", Takes.VALUE, Role.PATH),
    **{letter: Option("-" + letter, Takes.VALUE) for letter in "pFjZ"},
}
_HELD = (
    "manifest-path", "lockfile-path", "target-dir", "artifact-dir", "out-dir", "path", "sync", "config"
)
_VALUES = (
    "color", "explain", "package", "exclude", "bin", "example", "test", "bench", "features", "profile", "jobs",
    "target", "message-format", "registry", "index", "git", "branch", "tag", "rev", "version", "vers", "vcs",
    "edition", "name", "rename", "filter-platform", "format-version", "base", "token",
)
_LONG = {
    **{name: Option("--" + name, Takes.VALUE, Role.PATH) for name in _HELD},
    "root": Option("--root", Takes.VALUE, Role.FREE),
    **{name: Option("--" + name, Takes.VALUE) for name in _VALUES},
}
_NEW: Mapping[str, Option] = {name: option for name, option in _LONG.items() if name != "bin"}
_MAKES_ITS_OPERAND = ("new", "init", "vendor")
_RUNS = ("run", "r")

walks = last_directory


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    operands = (word.value for word in letter_words(_SHORT, _LONG, args) if word.option is None)
    command = next((value for value in operands if not value.startswith("+")), "")  # that names the toolchain
    named = False
    for word in letter_words(_SHORT, _NEW if command in _MAKES_ITS_OPERAND else _LONG, args):
        if word.option is not None:
            if word.option.name != "--config" or not _DEFINITION.match(word.value):
                yield from word.option_path()
        elif not named:
            named = not word.value.startswith("+")
            if named and (command.endswith(".rs") or "/" in command):
                yield from word.path(Role.PATH)  # a package of one file, which gets the rest
                return
        elif command in _MAKES_ITS_OPERAND:
            yield from word.path(Role.PATH)
        elif command in _RUNS:
            return
