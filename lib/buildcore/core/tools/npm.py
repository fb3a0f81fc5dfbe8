"""The paths in the arguments of npm 9 to 11 (`npm help config`), as its parser, nopt, reads them.

Options may have any number of dashes, stand anywhere before a "--", and be abbreviated. `--prefix`, or `-C`, is where
the project is; all paths are relative to where npm was started. Packages, which are named by what is no option, are
not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .options import Option, PathArgument, Role, Takes, Word, with_abbreviations

_HELD = ("prefix", "userconfig", "globalconfig", "pack-destination", "workspace")
_FREE = ("cache", "logs-dir", "cafile", "script-shell", "init-module", "provenance-file")
_RIVALS = (
    "prefer-dedupe", "prefer-offline", "prefer-online", "preid", "usage", "user-agent", "global", "global-style",
    "package", "package-lock", "package-lock-only", "packages", "packages-all", "workspaces", "workspaces-update",
    "cache-max", "cache-min", "call", "ca", "logs-max", "scripts", "scope", "scopes", "init-license", "init-version",
    "provenance", "init.module", "progress", "production", "proxy",
)
"""Options that have beginnings in common with those, and no path."""

_OPTIONS = with_abbreviations(
    {
        **{name: Option("--" + name, Takes.VALUE, Role.PATH) for name in _HELD},
        **{name: Option("--" + name, Takes.VALUE, Role.FREE) for name in _FREE},
        **{name: Option("--" + name) for name in _RIVALS},
    }
)
_LETTERS = {
    **{letter: Option("-" + letter) for letter in "dqsnacfgLlmpSBDEOP?Hhvy"},
    "C": _OPTIONS["prefix"],
    "w": _OPTIONS["workspace"],
}
_ENDS = re.compile(r"--+")
_IS_OPTION = re.compile(r"--?[^-]")
_TEXTS_ALONE = ("--pack-destination", "--script-shell")
"""As the next argument a value of these never begins with a dash; the others' may."""
_NOWHERE = "/dev/null"
_SETTINGS = ("--userconfig", "--globalconfig")


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    index = 0
    while index < len(args) and not _ENDS.fullmatch(args[index]):
        arg = args[index]
        name, equals, value = arg.partition("=")
        option = _option(name) if len(arg) > 1 and arg.startswith("-") else None
        if option is not None and option.takes is Takes.VALUE:
            word = Word(index, len(name) + 1, value, option)
            if not equals:
                following = args[index + 1] if index + 1 < len(args) else ""
                if _ENDS.fullmatch(following) or (option.name in _TEXTS_ALONE and _IS_OPTION.match(following)):
                    following = ""
                else:
                    index += 1
                word = Word(index, 0, following, option)
            if option.name not in _SETTINGS or word.value != _NOWHERE:
                yield from word.option_path(word.value.startswith("~/"))
        index += 1


def _option(name: str) -> Option | None:
    """The option of that name, its dashes included: in full, a letter or a bundle of letters, or abbreviated."""
    name = name.lstrip("-")
    if name in (*_HELD, *_FREE, *_RIVALS):
        return _OPTIONS[name]
    if name and all(letter in _LETTERS for letter in name):
        return _LETTERS[name[-1]]
    return _OPTIONS.get(name)


def walks(found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    return ((),)
