"""The paths in the arguments of meson 1.0 to 1.12 (`meson COMMAND --help`).

Each command has its own options, read as argparse of Python reads them, abbreviations included; without a command it is
`setup`. Of the directories in `-C` the last counts. `runpython` runs any program, as a build does, so nothing of it
is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .options import Option, PathArgument, Role, Takes, last_directory, letter_words, with_abbreviations


class _Command(NamedTuple):
    short: Mapping[str, Option]
    long: Mapping[str, Option]
    operands: bool = False
    """Whether they are paths."""
    ends_at_operand: bool = False


def _value(name: str, role: Role | None = None) -> Option:
    return Option(name, Takes.VALUE, role)


def _long(**roles: Role | None) -> dict[str, Option]:
    names = {name.replace("_", "-"): role for name, role in roles.items()}
    return with_abbreviations({name: _value("--" + name, role) for name, role in names.items()})


_CHANGE = {"C": _value("-C", Role.DIRECTORY)}
_JOBS = _value("-j")
_INSTALLED = (
    "prefix", "bindir", "datadir", "includedir", "infodir", "libdir", "licensedir", "libexecdir", "localedir",
    "localstatedir", "mandir", "sbindir", "sharedstatedir", "sysconfdir", "pkg-config-path", "build.pkg-config-path",
    "cmake-prefix-path", "build.cmake-prefix-path", "native-file", "cross-file",
)
_SETTINGS = (
    "auto-features", "backend", "genvslite", "buildtype", "default-library", "default-both-libraries", "install-umask",
    "layout", "namingscheme", "optimization", "unity", "unity-size", "warnlevel", "wrap-mode", "force-fallback-for",
    "python.bytecompile", "python.install-env", "python.platlibdir", "python.purelibdir", "python.build-config",
)
_SWITCHES = ("debug", "errorlogs", "prefer-static", "stdsplit", "strip", "werror", "vsenv", "reconfigure", "wipe")
_OF_SETUP = with_abbreviations(
    {
        **{name: _value("--" + name, Role.FREE) for name in _INSTALLED},
        **{name: _value("--" + name) for name in _SETTINGS},
        **{name: Option("--" + name) for name in _SWITCHES},
    }
)
_SETUP = _Command({"D": _value("-D"), "U": _value("-U")}, _OF_SETUP, operands=True)
_SOURCES = _Command({"s": _value("--sourcedir", Role.PATH)}, _long(sourcedir=Role.PATH))
_BY_NAME: Mapping[str, _Command] = {
    "setup": _SETUP,
    "configure": _SETUP,
    "introspect": _Command({"i": Option("-i")}, _long(backend=None), operands=True),
    "compile": _Command(
        {**_CHANGE, "j": _JOBS, "l": _value("-l")},
        _long(jobs=None, load_average=None, ninja_args=None, vs_args=None, xcode_args=None),
    ),
    "test": _Command(
        {**_CHANGE, "j": _JOBS, "t": _value("-t"), "k": _value("-k")},
        _long(gdb_path=Role.FREE, wrapper=None, setup=None, suite=None, no_suite=None, logbase=None, exclude=None),
    ),
    "install": _Command(_CHANGE, _long(destdir=Role.FREE, tags=None, skip_subprojects=None)),
    "dist": _Command({**_CHANGE, "j": _JOBS}, _long(formats=None, num_processes=None)),
    "init": _Command(
        {**_CHANGE, **{letter: _value("-" + letter) for letter in "nedl"}},
        {**_long(builddir=Role.PATH, name=None, executable=None, deps=None, language=None, type=None, version=None),
         "build": Option("--build")},
        operands=True,
    ),
    "devenv": _Command(
        {"C": _value("-C", Role.PATH), "w": _value("--workdir", Role.PATH)},
        {**_long(workdir=Role.PATH, dump_format=None), "dump": Option("--dump", Takes.MAYBE)},
        ends_at_operand=True,
    ),
    "rewrite": _SOURCES,
    "subprojects": _Command({}, _long(sourcedir=Role.PATH)),
    "wrap": _Command({}, _long(sourcedir=Role.PATH)),
    "env2mfile": _Command(
        {"o": _value("-o", Role.PATH)},
        _long(debarch=None, gccsuffix=None, system=None, subsystem=None, kernel=None, cpu=None, cpu_family=None),
    ),
    "format": _Command(
        {"c": _value("--configuration", Role.PATH), "o": _value("--output", Role.PATH)},
        _long(configuration=Role.PATH, output=Role.PATH, source_file_path=None),
        operands=True,
    ),
}
_ALIASES = {"fmt": "format", "rewriter": "rewrite"}
_OTHERS = ("help", "runpython", "unstable-coredata", "--internal", "--runpython", "reprotest", "--version", "-h",
"--help")

walks = last_directory


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    name = args[0] if args else ""
    if name in _OTHERS:
        return
    command = _BY_NAME.get(_ALIASES.get(name, name))
    short, long, operands, ends_at_operand = _SETUP if command is None else command
    for word in letter_words(short, long, args, 0 if command is None else 1):
        if word.option is not None:
            yield from word.option_path()
        elif ends_at_operand:
            return
        elif operands:
            yield from word.path(Role.PATH)
