"""The paths in the arguments of go 1.19 to 1.27 (`go help build`, `go help testflag`, `go help packages`).

A flag has one dash or two, and its value after "=" or as the next argument. `-C` changes the directory of all else,
and is obeyed as the first argument after the command's words, or before one of them, alone. Where commands differ,
the flags are those of all of them. A package is held where it is named by its directory (`./x`, `/x`) or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .options import Option, PathArgument, Role, Takes, Word, last_directory, named_words

_CHANGE = dict.fromkeys(("-C", "--C"), Option("-C", Takes.VALUE, Role.DIRECTORY))
_OF_DIRECTORIES = ("mod", "work")
_COMMANDS_OF_TWO_WORDS = (*_OF_DIRECTORIES, "telemetry")
_WITHOUT_PATHS = ("tool", "env", "help", "version", "bug", "doc", "telemetry", "clean")
"""What runs another program, or names nothing that is built. `-C` counts for these as well."""

_HELD = (
    "modfile", "overlay", "o", "pkgdir", "debug-trace", "debug-actiongraph", "debug-runtime-trace", "outputdir",
    "blockprofile", "coverprofile", "cpuprofile", "memprofile", "mutexprofile", "trace",
)
_FREE = ("pgo", "vettool")
_VALUES = (
    "p", "asmflags", "buildmode", "compiler", "gccgoflags", "gcflags", "installsuffix", "ldflags", "mod", "tags",
    "toolexec", "covermode", "coverpkg", "exec", "bench", "benchtime", "blockprofilerate", "count", "cpu", "fuzz",
    "fuzztime", "fuzzminimizetime", "list", "memprofilerate", "mutexprofilefraction", "parallel", "run", "skip",
    "shuffle", "timeout", "vet", "f", "reuse", "compat", "go", "toolchain", "require", "droprequire", "replace",
    "dropreplace", "exclude", "dropexclude", "retract", "dropretract", "use", "dropuse", "godebug", "module",
)
_REST_OF_TEST = ("-args", "--args")
_VET_LINES = Option("-c", Takes.VALUE)


def _with_dashes(name: str, option: Option) -> dict[str, Option]:
    """The flag with one dash and two; those of tests by their longer names, too."""
    return {dashes + name: option for dashes in ("-", "--", "-test.", "--test.")}


def _flags() -> dict[str, Option]:
    flags: dict[str, Option] = {}
    for names, role in ((_HELD, Role.PATH), (_FREE, Role.FREE), (_VALUES, None)):
        for name in names:
            flags.update(_with_dashes(name, Option("-" + name, Takes.VALUE, role)))
    return flags


_FLAGS = _flags()
_FLAGS_OF_VET: Mapping[str, Option] = {**_FLAGS, **_with_dashes("c", _VET_LINES)}

walks = last_directory


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    words, begin = _command(args, 0, 0)
    word = next(named_words(_CHANGE, args, begin), None)
    if word is not None and word.option is not None:
        yield from word.option_path()
        rest, begin = _command(args, word.index + 1, len(words))
        words = (*words, *rest)
    if words and words[0] not in _WITHOUT_PATHS:
        yield from _paths_of(words[0], args, begin)


def _command(args: Sequence[str], begin: int, known: int) -> tuple[Sequence[str], int]:
    """The words at `begin` that name a command, of which `known` stand before a -C, and where its arguments begin."""
    words: list[str] = []
    while begin < len(args) and not args[begin].startswith("-"):
        if known + len(words) == 1 and (args[0] if known else words[0]) not in _COMMANDS_OF_TWO_WORDS:
            break
        if known + len(words) == 2:
            break
        words.append(args[begin])
        begin += 1
    return words, begin


def _paths_of(name: str, args: Sequence[str], begin: int) -> Iterator[PathArgument]:
    """Flags end at the first operand, for `go test` alone at -args."""
    end = len(args)
    for word in named_words(_FLAGS_OF_VET if name == "vet" else _FLAGS, args, begin):
        if word.option is not None:
            yield from word.option_path()
        elif name == "test":
            if word.value in _REST_OF_TEST:
                return
            yield from _package(word)
        elif word.value == "--" or not word.value.startswith("-"):
            end = word.index + (word.value == "--")
            break
    for index in range(end, len(args)):
        operand = Word(index, 0, args[index])
        is_file = operand.value.endswith(".go")
        if name == "run" and not is_file and index > end:
            return  # what is run gets the rest
        yield from operand.path(Role.PATH) if name in _OF_DIRECTORIES else _package(operand)
        if name == "run" and not is_file:
            return


def _package(word: Word) -> Iterator[PathArgument]:
    named = word.value
    if named in (".", "..") or named.startswith(("./", "../", "/")) or named.endswith(".go"):
        yield from word.path(Role.PATH)
