"""The paths in the arguments of bazel 6 to 8, and of bazelisk, which passes its arguments on (bazel.build,
"Command-Line Reference").

Options are known by their whole names, and their values follow after "=" or as the next argument. Those of the server
stand before the command. What is behind "--" names targets, or goes to the program that is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .options import Option, PathArgument, Role, Takes, Word, named_words


def _options(held: Sequence[str], free: Sequence[str], values: Sequence[str]) -> dict[str, Option]:
    roles: tuple[tuple[Sequence[str], Role | None], ...] = ((held, Role.PATH), (free, Role.FREE), (values, None))
    return {name: Option(name, Takes.VALUE, role) for names, role in roles for name in names}


_SERVER: Mapping[str, Option] = _options(
    held=("--output_base", "--output_user_root", "--bazelrc", "--failure_detail_out", "--server_jvm_out"),
    free=("--install_base", "--server_javabase"),
    values=(
        "--host_jvm_args", "--host_jvm_profile", "--invocation_policy", "--io_nice_level", "--max_idle_secs",
        "--connect_timeout_secs", "--local_startup_timeout_secs", "--macos_qos_class", "--digest_function",
        "--command_port", "--cgroup_parent", "--experimental_cgroup_parent", "--unix_digest_hash_attribute_name",
    ),
)
_COMMAND: Mapping[str, Option] = _options(
    held=(
        "--symlink_prefix", "--target_pattern_file", "--query_file", "--output_file", "--script_path", "--vendor_dir",
        "--profile", "--explain", "--memory_profile", "--build_event_text_file", "--build_event_json_file",
        "--build_event_binary_file", "--execution_log_json_file", "--execution_log_binary_file",
        "--execution_log_compact_file",
    ),
    free=("--disk_cache", "--repository_cache", "--distdir", "--sandbox_base", "--workspace_status_command"),
    values=(
        "-c", "--compilation_mode", "-j", "--jobs", "--config", "--copt", "--cxxopt", "--linkopt", "--define",
        "--action_env", "--test_env", "--test_arg", "--test_filter", "--platforms", "--cpu", "--override_repository",
        "--override_module",
    ),
)
_NO_FILE = "/dev/null"
"""As a --bazelrc: that no more of them are to be read."""


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    for word in named_words(_SERVER, args):
        if word.option is not None:
            yield from _paths_in(word)
        elif not word.value.startswith("-"):
            yield from _paths_of_command(args, word.index + 1)
            return


def _paths_of_command(args: Sequence[str], begin: int) -> Iterator[PathArgument]:
    for word in named_words(_COMMAND, args, begin):
        if word.option is not None:
            yield from _paths_in(word)
        elif word.value == "--":
            return


def _paths_in(word: Word) -> Iterator[PathArgument]:
    if word.value != _NO_FILE:
        yield from word.option_path(word.value.startswith("~/"))


def walks(found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    return ((),)
