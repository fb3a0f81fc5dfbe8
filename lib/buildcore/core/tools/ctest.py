"""The paths in the arguments of ctest 3.20 to 4.4 (ctest(1)).

Options are known by their whole names and take the next argument, whatever it is; later versions take `--test-dir=DIR`,
too, where earlier ones skip it. What is not known is skipped. All but the report of `--output-junit`, which is
relative to the directory of the tests, is relative to where ctest was started.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from .options import Option, PathArgument, Role, Takes, Word, named_words

_SCRIPTS = ("-S", "--script", "-SP", "--script-new-process", "-SR", "--script-run")
_BUILD_AND_TEST = "--build-and-test"
_HELD = ("--test-dir", "--build-run-dir", "--build-exe-dir", "-O", "--output-log", *_SCRIPTS)
_FREE = ("--output-junit", "--resource-spec-file", "--build-makeprogram", "--build-config-sample", "-A", "--add-notes")
_VALUES = (
    "-C", "--build-config", "-L", "--label-regex", "-R", "--tests-regex", "-E", "--exclude-regex",
    "-LE", "--label-exclude", "-FA", "--fixture-exclude-any", "-FS", "--fixture-exclude-setup", "-FC",
    "--fixture-exclude-cleanup", "-D", "--dashboard", "-M", "--test-model", "-T", "--test-action", "--group", "--track",
    "-I", "--tests-information", "--repeat", "--repeat-until-fail", "--max-width", "--interactive-debug-mode",
    "--test-output-size-passed", "--test-output-size-failed", "--test-output-truncation", "--preset", "--timeout",
    "--stop-time", "--test-load", "--test-timeout", "--overwrite", "--extra-submit", "--submit-index",
    "--build-target", "--build-generator", "--build-generator-platform", "--build-generator-toolset", "--build-project",
)
_BUILD_OPTIONS = "--build-options"
_TEST_COMMAND = "--test-command"
_OPTIONS = {
    **{name: Option(name, Takes.VALUE, Role.PATH) for name in _HELD},
    **{name: Option(name, Takes.VALUE, Role.FREE) for name in _FREE},
    **{name: Option(name, Takes.VALUE) for name in _VALUES},
    **{name: Option(name) for name in (_BUILD_AND_TEST, _BUILD_OPTIONS, _TEST_COMMAND)},
}
_AFTER_BUILD_OPTIONS = ("--build-target", _TEST_COMMAND)


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    """`--build-and-test` is followed by the directories of source and build, whatever they look like,
    `--build-options` by what cmake is to define, `--test-command` by the test and all that it is to get."""
    begin: int | None = 0
    while begin is not None:
        begin = yield from _paths_of_a_part(args, begin)


def _paths_of_a_part(args: Sequence[str], begin: int) -> Generator[PathArgument, None, int | None]:
    """The paths from `begin` on as far as the options are read alike; where to go on, None for nowhere."""
    for word in named_words(_OPTIONS, args, begin):
        name = "" if word.option is None else word.option.name
        after = word.index + 1
        if name == _TEST_COMMAND:
            return None
        if name == _BUILD_AND_TEST:
            for index in range(after, min(after + 2, len(args))):
                yield from Word(index, 0, args[index]).path(Role.PATH, name, _is_home(args[index]))
            return after + 2
        if name == _BUILD_OPTIONS:
            ends = (index for index in range(after, len(args)) if args[index] in _AFTER_BUILD_OPTIONS)
            return next(ends, None)
        if name in _SCRIPTS:
            word = Word(word.index, word.start, word.value.partition(",")[0], word.option)  # then what the script gets
        yield from word.option_path(_is_home(word.value))
    return None


def _is_home(value: str) -> bool:
    return value.startswith("~")


def walks(found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    """Nothing else goes by the directory of the tests."""
    return ((),)
