"""What `buildcore.arguments` finds in the argument lists of make, ninja and cmake, by examples, and of any tool.

`test_arguments_make.py` and `test_arguments_tools.py` compare the same answers with the real tools;
`test_arguments_builders.py` has the other tools.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core.arguments import (
    KNOWN_COMMANDS,
    PathArgument,
    Role,
    directory_walks,
    makeflags_arguments,
    path_arguments,
    refers_to_variables,
    rewrite,
)


def found(command: str, *args: str) -> list[tuple[str, str]]:
    """Option and value of each path, the role left out."""
    return [(argument.option, argument.value) for argument in path_arguments(command, args)]


def roles(command: str, *args: str) -> list[Role]:
    return [argument.role for argument in path_arguments(command, args)]


def walks(command: str, *args: str) -> list[list[str]]:
    """The values of each walk's steps."""
    return [[step.value for step in walk] for walk in directory_walks(command, path_arguments(command, args))]


def homes(command: str, *args: str) -> list[bool]:
    return [argument.expands_home for argument in path_arguments(command, args)]


# GNU make: every way to write an option


@pytest.mark.parametrize("command", ["make", "gmake"])
@pytest.mark.parametrize(
    "args",
    [
        ["-C", "d"], ["-Cd"], ["-kC", "d"], ["-kCd"], ["-skCd"], ["-ksC", "d"],
        ["--directory", "d"], ["--directory=d"], ["--dir", "d"], ["--dir=d"], ["--di=d"],
    ],
)
def test_make_takes_a_directory_in_each_of_these_forms(command: str, args: list[str]) -> None:
    assert found(command, *args) == [("-C", "d")]
    assert roles(command, *args) == [Role.DIRECTORY]


@pytest.mark.parametrize(
    "args",
    [
        ["-f", "m"], ["-fm"], ["-rRf", "m"], ["-rRfm"], ["--file", "m"], ["--file=m"], ["--f=m"],
        ["--makefile", "m"], ["--makefile=m"], ["--makef", "m"], ["--mak=m"],
    ],
)
def test_make_takes_a_makefile_in_each_of_these_forms(args: list[str]) -> None:
    assert found("make", *args) == [("-f", "m")]
    assert roles("make", *args) == [Role.PATH]


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["-I", "d"], "-I"), (["-Id"], "-I"), (["--include-dir=d"], "-I"), (["--inc", "d"], "-I"),
        (["-o", "d"], "-o"), (["--old-file=d"], "-o"), (["--assume-old", "d"], "-o"), (["--ol=d"], "-o"),
        (["-W", "d"], "-W"), (["--what-if=d"], "-W"), (["--new-file", "d"], "-W"), (["--wh=d"], "-W"),
    ],
)
def test_make_s_other_file_options_are_mapped_but_free(args: list[str], option: str) -> None:
    assert found("make", *args) == [(option, "d")]
    assert roles("make", *args) == [Role.FREE]


def test_make_reads_options_after_targets_and_variables() -> None:
    assert found("make", "all", "V=1", "-C", "d", "install", "-f", "m") == [("-C", "d"), ("-f", "m")]


def test_make_reads_no_option_after_two_dashes() -> None:
    assert found("make", "-C", "d", "--", "-C", "e", "-fm") == [("-C", "d")]


def test_two_dashes_as_a_value_end_nothing() -> None:
    assert found("make", "-C", "--", "-f", "m") == [("-C", "--"), ("-f", "m")]


def test_a_value_may_look_like_an_option() -> None:
    assert found("make", "-C", "-f", "-f", "-C") == [("-C", "-f"), ("-f", "-C")]


@pytest.mark.parametrize("taker", ["-I", "-o", "-W", "-E", "-kE", "--eval", "--ev", "--jobserver-auth"])
def test_an_option_with_an_argument_takes_whatever_comes_next(taker: str) -> None:
    assert ("-C", "d") not in found("make", taker, "-Cd")
    assert found("make", taker, "x", "-Cd")[-1] == ("-C", "d")


@pytest.mark.parametrize("maybe", ["-j", "-l", "-O", "--jobs", "--max-load", "--output-sync", "--debug"])
def test_an_option_with_an_optional_argument_takes_no_other_string(maybe: str) -> None:
    assert found("make", maybe, "-Cd") == [("-C", "d")]
    assert found("make", maybe, "4", "-Cd") == [("-C", "d")]


@pytest.mark.parametrize("cluster", ["-j4C", "-lC", "-OC", "-EC", "-IC", "-fC"])
def test_what_follows_a_letter_that_takes_an_argument_is_its_argument(cluster: str) -> None:
    assert ("-C", "d") not in found("make", cluster, "d")


def test_a_lone_dash_is_an_operand() -> None:
    assert found("make", "-", "-Cd") == [("-C", "d")]


@pytest.mark.parametrize("args", [["-f", "-"], ["-f-"], ["--file=-"], ["--mak", "-"], ["-I", "-"], ["-I-"]])
def test_a_dash_that_stands_for_standard_input_or_resets_a_list_is_no_path(args: list[str]) -> None:
    assert found("make", *args) == []


def test_a_directory_named_dash_is_a_path() -> None:
    assert found("make", "-C", "-") == [("-C", "-")]


@pytest.mark.parametrize("args", [["-C", ""], ["--dir="], ["-f", ""], ["--file="], ["-C"], ["-f"], ["--dir"]])
def test_a_missing_or_empty_value_is_no_path(args: list[str]) -> None:
    assert found("make", *args) == []


@pytest.mark.parametrize("wrong", ["--d=x", "--ma=x", "--assume=x", "--directoryx=x", "--=x", "-x"])
def test_the_walker_reads_on_after_what_make_would_refuse(wrong: str) -> None:
    assert found("make", wrong, "-C", "d") == [("-C", "d")]


def test_the_makefile_option_that_only_make_4_4_knows_is_held() -> None:
    assert roles("make", "--temp-stdin=m") == roles("make", "--te", "m") == [Role.PATH]


# GNU make: no abbreviation of one version slips through the table of all versions


MAKE_4_2 = {
    "always-make": "B", "assume-new": "W", "assume-old": "o", "check-symlink-times": "L", "debug": "debug",
    "directory": "C", "dry-run": "n", "environment-overrides": "e", "eval": "eval", "file": "f", "help": "h",
    "ignore-errors": "i", "include-dir": "I", "jobs": "j", "jobserver-auth": "auth", "jobserver-fds": "fds",
    "just-print": "n", "keep-going": "k", "load-average": "l", "makefile": "f", "max-load": "l",
    "new-file": "W", "no-builtin-rules": "r", "no-builtin-variables": "R", "no-keep-going": "S",
    "no-print-directory": "no-print", "old-file": "o", "output-sync": "O", "print-data-base": "p",
    "print-directory": "w", "question": "q", "quiet": "s", "recon": "n", "silent": "s", "stop": "S",
    "sync-mutex": "mutex", "touch": "t", "trace": "trace", "version": "v", "warn-undefined-variables": "warn",
    "what-if": "W",
}
MAKE_4_3 = {**MAKE_4_2, "no-silent": "no-silent"}
MAKE_4_4 = {**MAKE_4_3, "jobserver-style": "style", "shuffle": "shuffle", "temp-stdin": "temp-stdin"}
PATH_OPTIONS = {"C": "-C", "f": "-f", "I": "-I", "o": "-o", "W": "-W", "temp-stdin": "--temp-stdin"}


def resolved(version: dict[str, str], name: str) -> str | None:
    """getopt_long(3) for one version of make: an exact name, or a beginning that leads to one option only."""
    if name in version:
        return version[name]
    options = {option for full_name, option in version.items() if full_name.startswith(name)}
    return options.pop() if len(options) == 1 else None


@pytest.mark.parametrize("version", [MAKE_4_2, MAKE_4_3, MAKE_4_4], ids=["4.2.1", "4.3", "4.4.1"])
def test_a_beginning_of_a_name_means_what_this_make_takes_it_for(version: dict[str, str]) -> None:
    beginnings = {name[:length] for name in MAKE_4_4 for length in range(1, len(name) + 1)}
    accepted = {name: option for name in beginnings if (option := resolved(version, name)) is not None}
    assert len(accepted) > len(version)
    for name, option in accepted.items():
        expected = [(PATH_OPTIONS[option], "x")] if option in PATH_OPTIONS else []
        assert found("make", f"--{name}=x") == expected, name


# GNU make: where it ends


def test_make_adds_up_its_directories() -> None:
    assert walks("make", "-C", "a", "-f", "m", "-Cb") == [["a", "b"]]


def test_without_a_directory_make_stays_where_it_is() -> None:
    assert walks("make", "-f", "m") == [[]]
    assert walks("make") == [[]]


def test_a_repeated_directory_gives_the_walk_of_make_4_4_too() -> None:
    assert walks("make", "-C", "a", "-C", "..", "-C", "a") == [["a", "..", "a"], ["a", ".."]]


def test_a_directory_counts_as_repeated_as_make_4_4_compares_it() -> None:
    assert walks("make", "-C", "./a", "-C", "a") == [["./a", "a"], ["./a"]]
    assert walks("make", "-C", "a", "-C", "./a") == [["a", "./a"]]
    assert walks("make", "-C", "./a", "-C", "./a") == [["./a", "./a"]]


# GNU make: home directories


@pytest.mark.parametrize("value", ["~", "~/x", "~dev1", "~dev1/x"])
def test_make_expands_a_tilde_in_front(value: str) -> None:
    assert homes("make", "-C", value, "-f", value, f"--file={value}") == [True, True, True]


def test_make_expands_a_makefile_s_tilde_behind_dot_slash() -> None:
    assert homes("make", "-f", "./~dev1/x", "-f", ".//./~", "-C", "./~") == [True, True, False]


@pytest.mark.parametrize("value", ["a~", "a/~", "../~", "/~", ".~"])
def test_make_expands_no_other_tilde(value: str) -> None:
    assert homes("make", "-C", value, "-f", value) == [False, False]


# GNU make: MAKEFLAGS


@pytest.mark.parametrize(
    ("makeflags", "args"),
    [
        ("", []), ("  ", []), ("kw", ["-kw"]), (" -j4", ["-j4"]), ("-k\t -j", ["-k", "-j"]),
        ("X=1 k", ["X=1", "k"]),
        ("k -- X=a\\ b", ["-k", "--", "X=a b"]), ("\\-C a\\\\", ["-C", "a\\"]), ("k X=$$y", ["-k", "X=$y"]),
        ("C ..", ["-C", ".."]), ("\nk\n", ["-k\n"]), ("k \\", ["-k", "\\"]),
    ],
)
def test_makeflags_is_split_into_arguments_as_make_does(makeflags: str, args: list[str]) -> None:
    assert list(makeflags_arguments(makeflags)) == args


def test_a_reference_in_makeflags_is_seen_and_an_escaped_dollar_is_none() -> None:
    assert refers_to_variables("-C $(X)") and refers_to_variables("$$$X") and refers_to_variables("k $")
    assert not refers_to_variables("k -- X=$$HOME Y=$$$$") and not refers_to_variables("")


# ninja


@pytest.mark.parametrize(
    "args", [["-C", "d"], ["-Cd"], ["-nvC", "d"], ["-nCd"], ["all", "-C", "d"], ["-j4", "-Cd"]]
)
def test_ninja_takes_a_directory_in_each_of_these_forms(args: list[str]) -> None:
    assert found("ninja", *args) == [("-C", "d")]
    assert walks("ninja", *args) == [["d"]]


def test_ninja_obeys_the_last_directory_only() -> None:
    assert found("ninja", "-C", "a", "-C", "b") == [("-C", "a"), ("-C", "b")]
    assert walks("ninja", "-C", "a", "-C", "b") == [["b"]]


def test_ninja_s_build_file_is_held() -> None:
    assert found("ninja", "-f", "x.ninja", "-C", "d") == [("-f", "x.ninja"), ("-C", "d")]
    assert roles("ninja", "-f", "x.ninja") == [Role.PATH]


def test_a_dash_is_a_file_for_ninja() -> None:
    assert found("ninja", "-f", "-") == [("-f", "-")]


@pytest.mark.parametrize("taker", ["-d", "-j", "-k", "-l", "-w"])
def test_ninja_s_options_take_the_next_argument(taker: str) -> None:
    assert found("ninja", taker, "-Cd") == []
    assert found("ninja", taker, "x", "-Cd") == [("-C", "d")]


@pytest.mark.parametrize("tool", [["-t", "clean"], ["-tclean"], ["-vt", "clean"]])
def test_what_follows_a_ninja_tool_is_the_tool_s_own(tool: list[str]) -> None:
    assert found("ninja", "-C", "d", *tool, "-C", "e", "-f", "x") == [("-C", "d")]


def test_ninja_expands_no_tilde() -> None:
    assert homes("ninja", "-C", "~", "-f", "~/x") == [False, False]


# cmake


@pytest.mark.parametrize("option", ["-S", "-B", "-C", "-P"])
def test_cmake_takes_a_path_apart_attached_or_after_an_equals_sign(option: str) -> None:
    for args in ([option, "p"], [option + "p"], [option + "=p"], [option + " p"]):
        assert found("cmake", *args) == [(option, "p")]
        assert roles("cmake", *args) == [Role.PATH]


def test_cmake_knows_no_abbreviation_and_no_cluster() -> None:
    assert found("cmake", "--install-pref=/x", "-NS", "-LAHSp") == []


def test_cmake_takes_no_value_that_begins_with_a_dash() -> None:
    assert found("cmake", "-S", "-B", "b") == [("-B", "b")]


def test_a_bare_argument_of_cmake_is_a_source_or_build_directory() -> None:
    assert found("cmake", "-GNinja", "..", "-D", "A=/b", "-DC=d") == [("PATH", "..")]
    assert roles("cmake", "..") == [Role.PATH]


@pytest.mark.parametrize("taker", ["-A", "-D", "-G", "-T", "-U", "-W", "--preset", "--log-level"])
def test_a_value_that_is_no_path_is_not_taken_for_one(taker: str) -> None:
    assert found("cmake", taker, "x") == []


@pytest.mark.parametrize("option", ["--toolchain", "--install-prefix"])
def test_cmake_s_toolchain_and_prefix_are_mapped_but_free(option: str) -> None:
    for args in ([option, "/p"], [option + "=/p"]):
        assert found("cmake", *args) == [(option, "/p")]
        assert roles("cmake", *args) == [Role.FREE]


@pytest.mark.parametrize("option", ["--graphviz", "--trace-redirect", "--profiling-output"])
def test_files_that_cmake_writes_are_held(option: str) -> None:
    assert roles("cmake", option + "=p", option, "q") == [Role.PATH, Role.PATH]


def test_after_a_script_two_dashes_end_cmake_s_options() -> None:
    assert found("cmake", "-P", "s", "-C", "c", "--", "-C", "d") == [("-P", "s"), ("-C", "c")]
    assert found("cmake", "--", "-P", "s", "-C", "d") == [("-P", "s"), ("-C", "d")]


def test_cmake_builds_in_a_directory() -> None:
    assert found("cmake", "--build", "b", "-j", "4", "--target", "x", "y") == [("--build", "b")]
    assert walks("cmake", "--build", "b") == [["b"]]


def test_what_cmake_passes_to_the_native_tool_is_relative_to_the_build_directory() -> None:
    args = ["--build", "b", "-v", "--", "-C", "d", "-f", "m"]
    assert found("cmake", *args) == [("--build", "b"), ("-C", "d"), ("-f", "m")]
    assert roles("cmake", *args) == [Role.DIRECTORY, Role.DIRECTORY, Role.PATH]
    assert walks("cmake", *args) == [["b", "d"]]


def test_several_native_directories_are_walked_as_make_and_as_ninja() -> None:
    assert walks("cmake", "--build", "b", "--", "-Cd", "-Ce") == [["b", "d", "e"], ["b", "e"]]


def test_a_build_directory_that_repeats_as_a_native_one_is_another_step() -> None:
    assert walks("cmake", "--build", "b", "--", "-Cb") == [["b", "b"]]


@pytest.mark.parametrize("option", ["--preset=p", "--preset", "--target", "-t", "-j4", "--parallel", "--"])
def test_an_option_of_build_is_not_its_directory(option: str) -> None:
    assert found("cmake", "--build", option) == []


def test_a_build_directory_may_look_like_an_unknown_option() -> None:
    assert found("cmake", "--build", "-x/../..") == [("--build", "-x/../..")]


def test_cmake_installs_from_a_held_directory_to_a_free_prefix() -> None:
    args = ["--install", "b", "--prefix", "/opt/x", "--component", "c"]
    assert found("cmake", *args) == [("--install", "b"), ("--prefix", "/opt/x")]
    assert roles("cmake", *args) == [Role.PATH, Role.FREE]


def test_the_directory_that_cmake_opens_is_held() -> None:
    assert roles("cmake", "--open", "b") == [Role.PATH]


def test_cmake_s_modes_count_as_the_first_argument_only() -> None:
    assert found("cmake", "-N", "--build", "b") == [("PATH", "b")]


@pytest.mark.parametrize("args", [["-E", "copy", "-S", "/x"], ["--workflow", "--preset", "p"], []])
def test_these_cmake_modes_have_no_path_of_their_own(args: list[str]) -> None:
    assert found("cmake", *args) == []


def test_cmake_expands_a_tilde() -> None:
    assert homes("cmake", "-S", "~/s", "-B~", "./~") == [True, True, False]
    assert homes("cmake", "--build", "~/b") == homes("cmake", "--install", "~") == [True]


# every command


def test_an_unknown_command_has_no_path_options() -> None:
    assert path_arguments("scons", ["-C", "d"]) == ()
    assert directory_walks("scons", ()) == ((),)


def test_a_path_is_rewritten_in_place_whatever_its_form() -> None:
    args = ["-kC/ws/a", "all", "--file=/ws/m", "-I", "/usr/include", "-C", "b", "X=/ws/x"]

    def to_host(path: PathArgument) -> str:
        return "/home/dev1" + path.value if path.value.startswith("/ws") else path.value

    assert rewrite(args, path_arguments("make", args), to_host) == [
        "-kC/home/dev1/ws/a", "all", "--file=/home/dev1/ws/m", "-I", "/usr/include", "-C", "b", "X=/ws/x",
    ]


def test_rewriting_leaves_the_given_list_alone() -> None:
    args = ["-C", "d"]
    assert rewrite(args, path_arguments("make", args), lambda path: "/" + path.value) == ["-C", "/d"]
    assert args == ["-C", "d"]


_WORDS = st.one_of(
    st.sampled_from(["-", "--", "", "~", "-C", "-f", "--dir", "--file=", "-S", "-B=", "--build", "-P", "-t"]),
    st.sampled_from(
        "--build-and-test --build-options --test-command --test-dir s.cmake,x setup devenv compile --prefix new run "
        "vendor --bin --config a=b x.rs build test mod work -modfile -args -o x.go ./x --userconfig -w a,/b".split()
    ),
    st.text(alphabet="-CfSBPIkj=/.~ adx", max_size=8),
)
_LISTS = st.lists(_WORDS, max_size=8)


@given(st.sampled_from(KNOWN_COMMANDS), _LISTS)
def test_any_argument_list_gives_paths_that_are_where_they_say(command: str, args: list[str]) -> None:
    paths = path_arguments(command, args)
    assert all(path.value and args[path.index].startswith(path.value, path.start) for path in paths)
    places = [(path.index, path.start) for path in paths]
    assert places == sorted(set(places))


@given(st.sampled_from(KNOWN_COMMANDS), _LISTS)
def test_any_walk_is_made_of_directories_in_their_order(command: str, args: list[str]) -> None:
    paths = path_arguments(command, args)
    for walk in directory_walks(command, paths):
        assert all(step.role is Role.DIRECTORY for step in walk)
        assert list(walk) == sorted(walk, key=lambda step: step.index)


@given(st.sampled_from(KNOWN_COMMANDS), _LISTS)
def test_after_rewriting_absolute_paths_the_same_paths_are_found(command: str, args: list[str]) -> None:
    def to_host(path: PathArgument) -> str:
        return "/host" + path.value if path.value.startswith("/") else path.value

    def place(path: PathArgument) -> tuple[int, int, Role, str, bool]:
        return path.index, path.start, path.role, path.option, path.expands_home

    before = path_arguments(command, args)
    after = path_arguments(command, rewrite(args, before, to_host))
    assert [place(path) for path in after] == [place(path) for path in before]
    assert [path.value for path in after] == [to_host(path) for path in before]
